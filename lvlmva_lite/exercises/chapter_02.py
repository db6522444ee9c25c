"""The functions that readers of chapter 2 may write."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.sampling import enrichment_curve, entropy


def _probabilities(g: Generator) -> tuple[Tensor]:
    p = uniform(g, 6, 4)
    p[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    return (p / p.sum(1, keepdim=True),)


EXERCISES: dict[str, Exercise] = {
    "entropy": Exercise(
        2, "probabilities (n, K)", _probabilities, entropy,
        (
            ("It is in bits: take the natural logarithm.", lambda p: entropy(p) / np.log(2)),
            ("It has the wrong sign.", lambda p: -entropy(p)),
        ),
    ),
    "enrichment_curve": Exercise(
        2, "scores (n,) and amounts (n,)", lambda g: (uniform(g, 9), uniform(g, 9)), enrichment_curve,
        (
            ("It begins with the highest scores: sort ascending.", lambda s, a: enrichment_curve(-s, a)),
            ("It lacks the 0 for no samples at its head.", lambda s, a: enrichment_curve(s, a)[1:]),
        ),
    ),
}  # fmt: skip
