"""The functions that readers of chapter 11 may write."""

from __future__ import annotations

import itertools

import numpy as np
import scipy
import torch
from torch import Generator, Tensor

from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.methods.placebo import placebo_masks
from lvlmva_lite.metrics import paired_test, share_of_gain


def _pairs(g: Generator) -> tuple[list[float], list[float]]:
    before = torch.randint(3000, 6000, (8,), generator=g).double()
    more = 100 * torch.randint(-3, 5, (8,), generator=g)  # ties, but for rounding
    more[:2] = 0
    return ((before + more) / 10_000).tolist(), (before / 10_000).tolist()


def _p(after: list[float], before: list[float], alternative: str = "two-sided") -> float:
    return paired_test(after, before, alternative=alternative).p


def _p_of_signs(differences: np.ndarray) -> float:
    """By all signs, of ranks as floats have them."""
    ranks = scipy.stats.rankdata(np.abs(differences)) * (differences != 0)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    return float((np.abs(signs @ ranks) >= abs((np.sign(differences) * ranks).sum()) - 1e-9).mean())


def _apart(after: list[float], before: list[float]) -> np.ndarray:
    return np.array(after) - np.array(before)


def _arms(g: Generator) -> tuple[list[float], list[float], list[float]]:
    untreated = uniform(g, 7) * 0.1 + 0.4
    method = untreated + 0.3 + 0.05 * uniform(g, 7)
    return (untreated + 0.1 * uniform(g, 7)).tolist(), method.tolist(), untreated.tolist()


def _overlap(mask: Tensor) -> int:
    moved = placebo_masks(mask[None], random_state=0)[0]
    return int((moved & mask).sum())


def _least_along(mask: Tensor, axis: int) -> int:
    return min(int((mask & mask.roll(by, axis)).sum()) for by in range(mask.shape[axis]))


def _found(q: Tensor, pi: Tensor) -> Tensor:
    return q * pi / (q * pi + (1 - q) * (1 - pi))


EXERCISES: dict[str, Exercise] = {
    "exact_p": Exercise(
        11, "after and before, n accuracies of 10,000 images each", _pairs, _p,
        (
            (
                "Rounding decides which differences are equal: compare counts of right answers.",
                lambda a, b: _p_of_signs(_apart(a, b)),
            ),
            ("It is one-sided: count what is as lopsided at either end.", lambda a, b: _p(a, b, "greater")),
            (
                "Zeros are dropped before the ranking: they keep their ranks and have no sign.",
                lambda a, b: _p_of_signs((d := np.rint(1e4 * _apart(a, b)))[d != 0]),
            ),
        ),
    ),
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
    "least_overlap": Exercise(
        11, "a mask (H, W) bool", lambda g: (uniform(g, 6, 6) < 0.6,), _overlap,
        (
            ("It moves along rows alone: try all shifts in both directions.", lambda m: _least_along(m, 1)),
            ("It moves along columns alone: try all shifts in both directions.", lambda m: _least_along(m, 0)),
            ("What leaves on one side must come in on the other: a placebo keeps all pixels.", lambda m: 0),
        ),
    ),
    "precision": Exercise(
        11, "q and pi, (n,) each", lambda g: (0.5 + 0.5 * uniform(g, 6), 0.3 * uniform(g, 6)), _found,
        (
            ("That is the chance to be right about any segment: of those called spurious, take the share.",
             lambda q, pi: q),
            ("That is the chance to call a segment spurious: what of it is so?",
             lambda q, pi: q * pi + (1 - q) * (1 - pi)),
            ("That is the share of called segments that are relevant.", lambda q, pi: 1 - _found(q, pi)),
        ),
    ),
}  # fmt: skip
