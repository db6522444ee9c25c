"""The functions that readers of chapter 2 may write."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from lvlmva_lite.exercises.exercise import Exercise, maps, uniform
from lvlmva_lite.metrics import mu_align
from lvlmva_lite.sampling import enrichment_curve, entropy, sample_alignment_set


def _probabilities(g: Generator) -> tuple[Tensor]:
    p = uniform(g, 6, 4)
    p[0] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    return (p / p.sum(1, keepdim=True),)


def _labelled(g: Generator) -> tuple[Tensor, Tensor, int]:
    labels = torch.arange(24) % 4
    return (4 * uniform(g, 24, 4)).softmax(1), labels[torch.randperm(24, generator=g)], 2


def _taken(p: Tensor, labels: Tensor, each: int, strategy: str = "low", balanced: bool = True) -> Tensor:
    n = each * p.shape[1]
    picked = sample_alignment_set(p, labels, n, strategy=strategy, balanced=balanced)
    return torch.zeros(len(p), dtype=torch.bool).index_fill(0, picked, True)


def _pushed(g: Generator) -> tuple[Tensor, Tensor]:
    v = uniform(g, 30) + 0.5
    return v, 0.5 * v + 2 * uniform(g, 30) + 0.5


def _slope_and_share(v: Tensor, m: Tensor) -> tuple[float, float]:
    return (torch.cov(torch.stack([v, m]))[0, 1] / m.var()).item(), (v.mean() / m.mean()).item()


EXERCISES: dict[str, Exercise] = {
    "entropy": Exercise(
        2, "probabilities (n, K)", _probabilities, entropy,
        (
            ("It is in bits: take the natural logarithm.", lambda p: entropy(p) / np.log(2)),
            ("It has the wrong sign.", lambda p: -entropy(p)),
        ),
    ),
    "surest_of_each_class": Exercise(
        2, "probabilities (n, K), labels (n,) and how many of each class; gives (n,) bool, who is taken", _labelled,
        _taken,
        (
            (
                "It takes the surest of all: rank within each class.",
                lambda p, y, m: _taken(p, y, m, balanced=False),
            ),
            ("It takes the least sure.", lambda p, y, m: _taken(p, y, m, "high")),
            ("It goes by the predicted class: go by the label.", lambda p, y, m: _taken(p, p.argmax(1), m)),
        ),
    ),
    "slope_and_share": Exercise(
        2, "v (n,), the square's contributions, and m (n,), the margins; gives beta and the mean's share", _pushed,
        _slope_and_share,
        (
            (
                "The slope lacks the means: subtract them first.",
                lambda v, m: ((v * m).sum() / m.square().sum(), v.mean() / m.mean()),
            ),
            (
                "The slope is that of the margin on the square: divide by the margin's variance.",
                lambda v, m: (_slope_and_share(v, m)[0] * m.var() / v.var(), v.mean() / m.mean()),
            ),
            (
                "The second is the mean of the ratios: take the ratio of the means.",
                lambda v, m: (_slope_and_share(v, m)[0], (v / m).mean()),
            ),
        ),
    ),
    "evidence_share": Exercise(
        2, "attributions (n, H, W) and masks (n, H, W) bool", maps, lambda a, m: 1 - mu_align(a.clamp_min(0), m),
        (
            (
                "It counts negative attributions: evidence for the class is the positive part.",
                lambda a, m: 1 - mu_align(a, m),
            ),
            ("It is the share outside the mask.", lambda a, m: mu_align(a.clamp_min(0), m)),
            (
                "It is one share of all maps together: take each map's share, then the mean.",
                lambda a, m: float((a.clamp_min(0) * m).sum() / a.clamp_min(0).sum()),
            ),
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
