"""The functions that readers of chapter 15 may write."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator

from lvlmva_lite.agreement import fleiss_kappa, mean_pairwise_agreement
from lvlmva_lite.exercises.exercise import Exercise


def _ratings(g: Generator) -> tuple[np.ndarray]:
    own, common = (torch.randint(3, shape, generator=g) for shape in ((5, 30), (30,)))
    return (torch.where(torch.rand(5, 30, generator=g) < 0.5, common, own).numpy(),)


def _kappa(ratings: np.ndarray, by_chance: float) -> float:
    return (mean_pairwise_agreement(ratings) - by_chance) / (1 - by_chance)


EXERCISES: dict[str, Exercise] = {
    "fleiss_kappa": Exercise(
        15, "ratings (raters, items), whole numbers from 0", _ratings, fleiss_kappa,
        (
            ("It is the agreement itself: set off what chance gives.", mean_pairwise_agreement),
            (
                "It takes all kinds for equally likely: take the shares in which they were given.",
                lambda r: _kappa(r, 1 / (r.max() + 1)),
            ),
        ),
    ),
}  # fmt: skip
