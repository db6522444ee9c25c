"""The functions that readers of chapter 11 may write."""

from __future__ import annotations

import numpy as np
from torch import Generator

from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.metrics import share_of_gain


def _arms(g: Generator) -> tuple[list[float], list[float], list[float]]:
    untreated = uniform(g, 7) * 0.1 + 0.4
    method = untreated + 0.3 + 0.05 * uniform(g, 7)
    return (untreated + 0.1 * uniform(g, 7)).tolist(), method.tolist(), untreated.tolist()


EXERCISES: dict[str, Exercise] = {
    "share_of_gain": Exercise(
        11, "arm, method and untreated, n numbers each", _arms, lambda a, m, u: share_of_gain(a, m, u)[0],
        (
            (
                "It compares the scores themselves: subtract the untreated ones first.",
                lambda a, m, u: float(np.mean(a) / np.mean(m)),
            ),
            (
                "It is the mean of the ratios: take the ratio of the means.",
                lambda a, m, u: float(np.mean((np.array(a) - u) / (np.array(m) - u))),
            ),
        ),
    ),
}  # fmt: skip
