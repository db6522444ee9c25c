"""The functions that readers of chapter 4 may write."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Generator

from lvlmva_lite.em_by_hand import em_step
from lvlmva_lite.exercises.exercise import Exercise, maps, uniform
from lvlmva_lite.segmentation import positive_effect


def _mixture(g: Generator) -> tuple[np.ndarray, ...]:
    z, p = uniform(g, 30, 2).numpy(), uniform(g, 30).numpy()
    shares = uniform(g, 3).numpy() + 0.2
    means = uniform(g, 3, 2).numpy()
    return z, p / p.sum(), shares / shares.sum(), means, np.stack([np.eye(2) / 20] * 3), np.eye(2) / 1200


EXERCISES: dict[str, Exercise] = {
    "positive_effect": Exercise(
        4, "attributions (n, H, W)", lambda g: maps(g)[:1], positive_effect,
        (
            ("It counts negative attributions: drop them.", lambda a: positive_effect(a.abs())),
            (
                "It divides by the sum of all attributions: drop the negative ones first.",
                lambda a: a.clamp_min(0) / a.sum((1, 2), keepdim=True),
            ),
            (
                "It divides by the sum over all maps: each map sums to 1.",
                lambda a: a.clamp_min(0) / a.clamp_min(0).sum(),
            ),
        ),
    ),
    "em_step": Exercise(
        4, "z (P, 2), p (P,), shares (J,), means (J, 2), covariances (J, 2, 2) and floor (2, 2)", _mixture, em_step,
        (
            ("It leaves the floor out of the covariances.", partial(em_step, floored=False)),
            ("Each pixel counts alike: weigh it by its mass p.", partial(em_step, weighted=False)),
            ("The covariances are taken around the old means.", partial(em_step, fresh=False)),
        ),
    ),
}  # fmt: skip
