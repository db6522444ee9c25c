"""A linear head on frozen features: its optimum, with a penalty on what it must do without, or with other weights.

The loss is convex but for RRR's, whose slope counts by how unsure the head is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from lvlmva_lite.threads import threads


@dataclass(frozen=True)
class Penalty:
    """What a head is to do without, on the features of an alignment set.

    Attributes
    ----------
    changes : Tensor, (n, M, D): finite differences (M = 1), or slopes under the masks
    features : Tensor, (n, D), for RRR alone: of the images, whose slope counts by how unsure the head is
    """

    changes: Tensor
    features: Tensor | None = None

    def __call__(self, weight: Tensor, bias: Tensor) -> Tensor:
        squares = (self.changes @ weight).square().mean(1)
        if self.features is not None:
            # Of two classes, d/dx sum_k log p_k is (1 - 2 p) dz/dx.
            squares = squares * (1 - 2 * torch.sigmoid(self.features @ weight + bias)).square()
        return squares.mean()

    def of(self, where: Tensor) -> Penalty:
        """The same of some of the images."""
        return Penalty(self.changes[where], None if self.features is None else self.features[where])


@dataclass(frozen=True)
class Head:
    """A logistic regression on standardised features: z = weight . (features - mean) / std + bias."""

    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Logit of the second class, (n,)."""
        return features @ self.weight + self.bias


@threads(1)
def fit_head(
    features: Tensor,
    labels: Tensor,
    l2: float,
    *,
    sample_weight: Tensor | None = None,
    penalty: Penalty | None = None,
    penalty_weight: float = 0.0,
    start: Head | None = None,
) -> Head:
    """The head of least loss: cross-entropy + l2 / 2 ``|w|^2`` + penalty_weight * penalty, by L-BFGS.

    Parameters
    ----------
    features : (n, D) float64, standardised
    labels : (n,) int64, 0 or 1
    l2 : > 0
    sample_weight : (n,) float, of the samples' cross-entropies; None: equal
    penalty, penalty_weight : the latter >= 0
    start : where the search begins; None: at 0
    """
    signs = 2.0 * labels.double() - 1
    share = torch.full_like(signs, 1 / len(signs))
    if sample_weight is not None:
        share = sample_weight.double() / sample_weight.sum()

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(values.copy()).requires_grad_()
        weight, bias = at[:-1], at[-1]
        total = (share * torch.nn.functional.softplus(-signs * (features @ weight + bias))).sum()
        total = total + l2 / 2 * weight.square().sum()
        if penalty is not None and penalty_weight:
            total = total + penalty_weight * penalty(weight, bias)
        total.backward()
        return total.item(), at.grad.numpy()

    begin = np.zeros(features.shape[1] + 1)
    if start is not None:
        begin = torch.cat([start.weight, start.bias[None]]).numpy()
    found = scipy.optimize.minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    at = torch.from_numpy(found.x)
    return Head(at[:-1], at[-1])


def balanced_weights(labels: Tensor, shows: Tensor) -> Tensor:
    """Weights by which the four groups count alike: a relative of SUBG, which draws as many of each, and of DFR."""
    groups = 2 * labels + shows.long()
    return 1.0 / torch.bincount(groups, minlength=4)[groups].double()


def jtt_weights(head: Head, features: Tensor, labels: Tensor, factor: float) -> Tensor:
    """Those that a first head got wrong count ``factor`` times (Liu et al., ICML 2021)."""
    wrong = (head.scores(features) > 0).long() != labels
    return 1.0 + (factor - 1) * wrong.double()


def dro_weights(
    features: Tensor, labels: Tensor, shows: Tensor, l2: float, *, step: float = 1.0, rounds: int = 15
) -> Tensor:
    """Weights of the groups by exponentiated ascent on their losses (Sagawa et al., ICLR 2020), heads refitted."""
    groups = 2 * labels + shows.long()
    share = torch.full((4,), 0.25, dtype=torch.float64)
    of_group = torch.bincount(groups, minlength=4).double()
    head: Head | None = None
    for _ in range(rounds):
        head = fit_head(features, labels, l2, sample_weight=(share / of_group)[groups], start=head)
        losses = torch.nn.functional.softplus(-(2.0 * labels.double() - 1) * head.scores(features))
        mean = torch.zeros(4, dtype=torch.float64).scatter_add_(0, groups, losses) / of_group
        share = share * (step * mean).exp()
        share /= share.sum()
    return (share / of_group)[groups]
