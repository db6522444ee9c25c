"""The functions that readers of chapter 14 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor

from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.report.leaning import judged_cases, leaning


def _judged(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    shares = uniform(g, 12, 4)
    labels = torch.cat([torch.arange(3), torch.randint(3, (9,), generator=g)])
    return torch.randint(len(KINDS), (12, 4), generator=g), shares / shares.sum(1, keepdim=True), labels


def _leaning(kinds: Tensor, shares: Tensor, labels: Tensor) -> np.ndarray:
    names = [str(label) for label in labels.tolist()]
    cases = judged_cases(
        [str(i) for i in range(len(names))], names,
        [[KINDS[k] for k in row] for row in kinds.tolist()], shares.tolist(), (),
    )  # fmt: skip
    return leaning(cases, "", sorted(set(names))).by_class[list(KINDS)].to_numpy()


def _leaning_by(kinds: Tensor, shares: Tensor, labels: Tensor, *, counted: bool, among: Callable) -> Tensor:
    weights = torch.ones_like(shares) / shares.shape[1] if counted else shares
    rows = [
        [(weights * (kinds == k))[labels == c].sum() / among(labels == c) for k in range(len(KINDS))]
        for c in range(int(labels.max()) + 1)
    ]
    return torch.tensor(rows, dtype=torch.float64)


EXERCISES: dict[str, Exercise] = {
    "leaning": Exercise(
        14, "kinds (n, J), places in KINDS, shares (n, J) and labels (n,)", _judged, _leaning,
        (
            (
                "It counts segments: add up their shares.",
                partial(_leaning_by, counted=True, among=torch.sum),
            ),
            (
                "It divides by the number of all images: take those of the class.",
                partial(_leaning_by, counted=False, among=len),
            ),
        ),
    ),
}  # fmt: skip
