"""A linear head on frozen features: its optimum, with a penalty on what it must do without, or with other weights.

The loss is convex but for RRR's, whose slope counts by how unsure the head is: of that the head found is a
local optimum, reached from the head before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from lvlmva_lite.methods.method import balanced
from lvlmva_lite.models import Classifier
from lvlmva_lite.threads import threads

STEP = 2**-7
"""Of the differences that stand for derivatives, as a share of the range of pixels."""

MAX_STEPS = 100
"""Of Newton's method for one head."""

TOLERANCE = 1e-9
"""A head has converged where the next step promises no more than this, in nats."""

MAX_ROUNDS, GAP = 200, 1e-3
"""Of GroupDRO: rounds, and how far above the optimum, in nats, the worst group's loss may be at the end."""


@dataclass(frozen=True)
class Head:
    """A logistic regression on standardised features: z = weight . (features - mean) / std + bias.

    Attributes
    ----------
    weight : Tensor, (D,), float64
    bias : Tensor, (), float64
    converged : whether it, and every head it was made from, is an optimum; else the search ended before
    """

    weight: Tensor
    bias: Tensor
    converged: bool = True

    def scores(self, features: Tensor) -> Tensor:
        """Logit of the second class, (n,)."""
        return features @ self.weight + self.bias

    def lifted(self, basis: Tensor) -> Head:
        """The same of features (n, D), where it is one of ``features @ basis``; basis (D, r)."""
        return replace(self, weight=basis @ self.weight)


@dataclass(frozen=True)
class Penalty:
    """What a head is to do without, on the features of images with a mask.

    Attributes
    ----------
    changes : Tensor, (n, M, D): finite differences (M = 1), or slopes under the masks
    features : Tensor, (n, D), for RRR alone: of the images, whose slope counts by how unsure the head is
    """

    changes: Tensor
    features: Tensor | None = None

    def __call__(self, head: Head) -> float:
        """Mean square of the residuals; 0 where there is no image."""
        residuals = self.residuals(head)
        return residuals.square().sum().item() / max(1, residuals.numel())

    def residuals(self, head: Head) -> Tensor:
        """What the penalty is the mean square of, (n, M)."""
        slopes = self.changes @ head.weight
        return slopes if self.features is None else self._unsure(head)[:, None] * slopes

    def jacobian(self, head: Head) -> Tensor:
        """Derivatives of the residuals by weight and bias, (n, M, D + 1)."""
        changes = pad(self.changes, (0, 1))
        if self.features is None:
            return changes
        unsure = self._unsure(head)
        by_logit = -(1 - unsure.square())[:, None] / 2 * (self.changes @ head.weight)
        return (
            unsure[:, None, None] * changes
            + by_logit[..., None] * pad(self.features, (0, 1), value=1.0)[:, None]
        )

    def _unsure(self, head: Head) -> Tensor:
        """Of two classes, d/dx sum_k log p_k is (1 - 2 p) dz/dx, and 1 - 2 p is -tanh(z / 2)."""
        return -torch.tanh(head.scores(self.features) / 2)

    def of(self, where: Tensor) -> Penalty:
        """The same of some of the images."""
        return Penalty(self.changes[where], None if self.features is None else self.features[where])

    def onto(self, basis: Tensor) -> Penalty:
        """The same of ``features @ basis``, basis (D, r)."""
        return Penalty(self.changes @ basis, None if self.features is None else self.features @ basis)


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
    """The head of least loss: cross-entropy + l2 / 2 ``|w|^2`` + penalty_weight * penalty.

    By Newton's method with steps halved until they lead down.  A penalty's curvature is that of its residuals
    as if they were linear (Gauss-Newton): exact but for RRR.  By L-BFGS, RRR of a great weight was not done
    after 500 steps.

    Parameters
    ----------
    features : (n, D) float64, standardised
    labels : (n,) int64, 0 or 1
    l2 : > 0
    sample_weight : (n,) float, of the samples' cross-entropies; None: equal
    penalty, penalty_weight : the latter >= 0
    start : where the search begins; None: at 0

    Returns
    -------
    Head
        not ``converged`` where ``MAX_STEPS`` were too few, or none led down; nothing is raised, for a
        recording of hours should tell of such a head, not end with it
    """
    settings = {"sample_weight": sample_weight, "penalty_weight": penalty_weight}
    penalty = penalty if penalty_weight else None
    if (basis := _span(features, penalty)) is not None:
        inside = None if penalty is None else penalty.onto(basis)
        begin = None if start is None else start.lifted(basis.T)
        return fit_head(
            features @ basis, labels, l2, penalty=inside, start=begin, **settings
        ).lifted(basis)  # fmt: skip
    data, worn = pad(features, (0, 1), value=1.0), labels.double()
    share = torch.ones_like(worn) if sample_weight is None else sample_weight.double()
    share = share / share.sum()
    shrunk = pad(torch.full(features.shape[1:], l2, dtype=torch.float64), (0, 1))

    def loss(at: Tensor) -> float:
        total = share @ softplus((1 - 2 * worn) * (data @ at)) + shrunk @ at.square() / 2
        return total.item() + (penalty_weight * penalty(_head(at)) if penalty else 0.0)

    at = torch.zeros_like(shrunk) if start is None else torch.cat([start.weight, start.bias[None]])
    for _ in range(MAX_STEPS):
        p = torch.sigmoid(data @ at)
        gradient = data.T @ (share * (p - worn)) + shrunk * at
        curvature = data.T @ (data * (share * p * (1 - p))[:, None])
        curvature.diagonal().add_(shrunk)
        if penalty:
            along, residuals = (
                penalty.jacobian(_head(at)).flatten(0, 1),
                penalty.residuals(_head(at)).flatten(),
            )
            factor = 2 * penalty_weight / max(1, len(residuals))
            gradient += factor * (along.T @ residuals)
            curvature += factor * (along.T @ along)
        factors, failed = torch.linalg.cholesky_ex(curvature)
        if failed:
            break
        step = -torch.cholesky_solve(gradient[:, None], factors)[:, 0]
        promised = -(gradient @ step).item() / 2
        if promised < TOLERANCE:
            return _head(at)
        before = loss(at)
        sizes = (0.5**i for i in range(30))
        size = next((s for s in sizes if loss(at + s * step) < before - 0.2 * s * promised), None)
        if size is None:
            break
        at = at + size * step
    return replace(_head(at), converged=False)


def _head(at: Tensor) -> Head:
    return Head(at[:-1], at[-1])


def _span(features: Tensor, penalty: Penalty | None = None) -> Tensor | None:
    """An orthonormal basis (D, r) of what the loss looks at, in which the optimum lies; None where r is D."""
    rows = [features]
    if penalty is not None:
        rows += [penalty.changes.flatten(0, 1), *([] if penalty.features is None else [penalty.features])]
    if sum(map(len, rows)) >= features.shape[1]:
        return None
    return torch.linalg.qr(torch.cat(rows).T).Q


def balanced_weights(groups: Tensor) -> Tensor:
    """Weights by which all groups (n,) int64 count alike."""
    return 1.0 / torch.bincount(groups)[groups].double()


def jtt_weights(head: Head, features: Tensor, labels: Tensor, factor: float) -> Tensor:
    """Those that a first head got wrong count ``factor`` times (Liu et al., ICML 2021)."""
    wrong = (head.scores(features) > 0).long() != labels
    return 1.0 + (factor - 1) * wrong.double()


def subset_head(
    features: Tensor, labels: Tensor, groups: Tensor, l2: float, generator: torch.Generator, n_subsets: int
) -> Head:
    """The mean of heads, each fitted on as many images of every group, drawn anew.

    One subset of the training images is SUBG (Idrissi et al., CLeaR 2022).  Many, of images held out, are DFR
    (Kirichenko et al., ICLR 2023), with an L2 penalty in place of its L1.

    Parameters
    ----------
    features, labels, l2 : as for :func:`fit_head`
    groups : (n,) int64
    generator : draws the subsets
    n_subsets : >= 1
    """
    heads = []
    for _ in range(n_subsets):
        drawn = balanced(groups, generator)
        heads.append(fit_head(features[drawn], labels[drawn], l2))
    return _mean(heads)


def _mean(heads: Sequence[Head]) -> Head:
    weight, bias = (
        torch.stack(parts).mean(0) for parts in zip(*((h.weight, h.bias) for h in heads), strict=True)
    )
    return Head(weight, bias, all(head.converged for head in heads))


def dro_head(features: Tensor, labels: Tensor, groups: Tensor, l2: float, *, step: float = 1.0) -> Head:
    """The head of least loss in its worst group, + l2 / 2 ``|w|^2`` (Sagawa et al., ICLR 2020).

    By exponentiated ascent on the groups' shares q, the head refitted each time.  With the best head for q at
    hand, the worst group's loss minus the groups' by q is the duality gap: where it is below ``GAP``, no
    other head is better by more.

    Parameters
    ----------
    features, labels, l2 : as for :func:`fit_head`
    groups : (n,) int64; of those that have an image
    step : > 0, of the ascent
    """
    basis = _span(features)
    inside = features if basis is None else features @ basis
    groups = groups.unique(return_inverse=True)[1]
    of_group = torch.bincount(groups).double()
    share = torch.full_like(of_group, 1 / len(of_group))
    head, done = None, False
    for _ in range(MAX_ROUNDS):
        head = fit_head(inside, labels, l2, sample_weight=(share / of_group)[groups], start=head)
        losses = softplus((1 - 2.0 * labels.double()) * head.scores(inside))
        mean = torch.zeros_like(share).scatter_add_(0, groups, losses) / of_group
        if done := (mean.max() - share @ mean).item() < GAP:
            break
        share = share * (step * mean).exp()
        share /= share.sum()
    head = replace(head, converged=head.converged and done)
    return head if basis is None else head.lifted(basis)


@threads()
@torch.no_grad()
def embedded(network: Classifier, images: Tensor) -> Tensor:
    """What the head of a network sees, (n, D) float64."""
    return torch.cat([network.embed(part) for part in images.split(64)]).double()


@threads()
def directional(
    network: Classifier, images: Tensor, masks: Tensor, n_directions: int, generator: torch.Generator
) -> Tensor:
    """Derivatives of the features along random directions under the masks, (n, ``n_directions``, D) float64.

    For signs v, drawn evenly, the mean of (w J (A v))^2 is the sum over masked pixels of the squared
    gradient of w z (Hutchinson, 1990): with these, RRR is a function of the head.  By central differences of
    ``STEP``, which take a fifth of the time of a forward-mode derivative.

    Parameters
    ----------
    images, masks : (n, C, H, W) float32 and (n, H, W) bool
    generator : draws the signs
    """
    found = []
    for part, mask in zip(images.split(32), masks.split(32), strict=True):
        along = []
        for _ in range(n_directions):
            signs = torch.randint(2, part.shape, generator=generator) * 2.0 - 1
            ahead, behind = (
                embedded(network, part + step * signs * mask[:, None]) for step in (STEP, -STEP)
            )
            along.append((ahead - behind) / (2 * STEP))
        found.append(torch.stack(along, 1))
    return torch.cat(found)


def to_classifier(network: Classifier, head: Head, mean: Tensor, std: Tensor) -> Classifier:
    """The network with a head for its last layer, logits -z/2 and z/2."""
    weight = (head.weight / std).float()
    bias = (head.bias - head.weight @ (mean / std)).float()
    last = torch.nn.Linear(len(weight), 2)
    with torch.no_grad():
        last.weight.copy_(torch.stack([-weight, weight]) / 2)
        last.bias.copy_(torch.stack([-bias, bias]) / 2)
    return Classifier(*list(network)[:-1], last).eval()
