"""How well a model does, where it looks, and how well it was judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import stats
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from lvlmva_lite.critic.types import BACKGROUND, EMPTY, KINDS, RELEVANT, SPURIOUS, UNDECIDED
from lvlmva_lite.segmentation import positive_effect, segment_sums

NOT_SPURIOUS = 3
"""In the truth: not spurious, and nobody knows whether core."""

TRUTHS = ("core", "spurious", "neither", "not spurious")
"""What a segment can be in truth; the code is the place here, -1 for an empty segment."""


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of (n,) predictions that equal their (n,) labels, in [0, 1]."""
    return (predicted == labels).double().mean().item()


def group_accuracy(predicted: Tensor, labels: Tensor, groups: Tensor, n_groups: int) -> Tensor:
    """Accuracy in each group.

    Parameters
    ----------
    predicted, labels : (n,) int64
    groups : (n,) int64 in 0 .. n_groups - 1

    Returns
    -------
    Tensor, (n_groups,), float64, nan for a group without samples

    Raises
    ------
    ValueError : a group outside 0 .. n_groups - 1
    """
    if len(groups) and not 0 <= int(groups.min()) <= int(groups.max()) < n_groups:
        raise ValueError(f"groups must lie in 0 .. {n_groups - 1}, got {groups.unique().tolist()}")
    right = torch.zeros(n_groups, dtype=torch.float64)
    right.index_add_(0, groups, (predicted == labels).double())
    return right / torch.bincount(groups, minlength=n_groups)


def worst_group_accuracy(accuracies: Tensor) -> float:
    """WGA: the least of the (n_groups,) accuracies; empty groups (nan) are left out."""
    return accuracies[~accuracies.isnan()].min().item()


def average_group_accuracy(accuracies: Tensor) -> float:
    """AGA: the unweighted mean of the (n_groups,) accuracies; empty groups (nan) are left out."""
    return accuracies[~accuracies.isnan()].mean().item()


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon signed-rank test of paired differences.

    Attributes
    ----------
    mean, std : of the differences; std with n - 1
    p : exact p-value
    smallest_p : the least p that so many pairs can give
    n : pairs, zeros and ties included
    """

    mean: float
    std: float
    p: float
    smallest_p: float
    n: int


def paired_test(
    after: Sequence[float], before: Sequence[float], *, alternative: str = "two-sided"
) -> PairedTest:
    """Is ``after`` different from ``before``, seed by seed?

    Parameters
    ----------
    after, before : n >= 2 numbers each, in the same order
    alternative : "two-sided", "greater" (after above before) or "less"

    Returns
    -------
    PairedTest
        The p-value comes from all 2^n assignments of signs (exact also with
        zeros and ties) up to n = 15, beyond from scipy's normal approximation.

    Raises
    ------
    ValueError : lengths differ, fewer than two pairs, or a value is not finite
    """
    differences = np.asarray(after, float) - np.asarray(before, float)
    if len(after) != len(before) or len(differences) < 2:
        raise ValueError(f"give two or more pairs; got {len(after)} and {len(before)} values")
    if not np.isfinite(differences).all():
        raise ValueError("a value is not finite; drop that pair from both lists")
    n = len(differences)
    if not differences.any():
        p = 1.0
    else:
        exact = n <= 15
        method = stats.PermutationMethod(n_resamples=np.inf) if exact else "asymptotic"
        p = float(
            stats.wilcoxon(differences, zero_method="zsplit", alternative=alternative, method=method).pvalue
        )
    smallest = 2.0**-n * (2 if alternative == "two-sided" else 1)
    return PairedTest(float(differences.mean()), float(differences.std(ddof=1)), p, smallest, n)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of n >= 2 values with its Student-t confidence interval: (mean, low, high).

    Raises
    ------
    ValueError : fewer than two values
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        raise ValueError(f"an interval needs two or more values, got {len(values)}")
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def mu_align(attributions: Tensor, spurious_masks: Tensor) -> float:
    """Share of attribution outside the ground-truth spurious region.

    ``1 - mean_n [sum_i A_ni |Phi_ni| / sum_i |Phi_ni|]`` (arXiv 2512.21985).

    Parameters
    ----------
    attributions : (n, H, W) float
    spurious_masks : (n, H, W) bool

    Returns
    -------
    float in [0, 1], 1 when nothing is attributed to the spurious region; maps
    that are zero everywhere are left out, nan if all are
    """
    magnitude = attributions.double().abs()
    total = magnitude.sum((1, 2))
    inside = (magnitude * spurious_masks).sum((1, 2))
    return (1 - inside[total > 0] / total[total > 0]).mean().item()


def neighbour_purity(embeddings: Tensor, labels: Tensor, n_neighbours: int = 10) -> float:
    """How often the nearest neighbours of a sample share its label.

    Parameters
    ----------
    embeddings : (n, D) float, compared by Euclidean distance
    labels : (n,) int64
    n_neighbours : k, less than n

    Returns
    -------
    float in [0, 1] : mean over samples; balanced labels without structure give
        1 over the number of classes
    """
    points = embeddings.detach().numpy()
    nearest = NearestNeighbors(n_neighbors=n_neighbours).fit(points).kneighbors(return_distance=False)
    return (labels[torch.from_numpy(nearest)] == labels[:, None]).double().mean().item()


def segment_truth(
    labels: Tensor,
    n_segments: int,
    attributions: Tensor,
    spurious_masks: Tensor,
    core_masks: Tensor | None = None,
) -> Tensor:
    """What each segment holds more than half of its positive effect on.

    The yardstick for verdicts.  Reads the ground truth: for evaluation only.

    Parameters
    ----------
    labels : (n, H, W) int64, segment of each pixel, -1 for none
    n_segments : J
    attributions : (n, H, W) float
    spurious_masks : (n, H, W) bool
    core_masks : (n, H, W) bool, or None where it is not known
        A pixel on both features is spurious.

    Returns
    -------
    Tensor, (n, J), int64
        0 core, 1 spurious, 2 neither (or less than half on each), 3 not
        spurious, where no core mask is known; -1 for empty segments.  The
        first three are the codes of the kinds that a right verdict gives.
    """
    mass = positive_effect(attributions)
    held = partial(segment_sums, labels, n_segments)
    half = 0.5 * held(mass)
    truth = torch.full(half.shape, NOT_SPURIOUS if core_masks is None else BACKGROUND)
    if core_masks is not None:
        truth[held(mass * (core_masks & ~spurious_masks)) > half] = RELEVANT
    truth[held(mass * spurious_masks) > half] = SPURIOUS
    truth[held(torch.ones_like(mass)) == 0] = EMPTY
    return truth


def right_verdicts(truth: Tensor) -> Tensor:
    """The verdicts that a critic without fault gives on a truth.

    Relevant on the core, and on what is known only not to be spurious;
    background on what is neither and on empty segments.

    Parameters
    ----------
    truth : (n, J) int64, from :func:`segment_truth`

    Returns
    -------
    Tensor, (n, J), int64, codes of ``critic.types.KINDS``
    """
    # By code: core, spurious, neither, not spurious; -1 is the last.
    return torch.tensor([RELEVANT, SPURIOUS, BACKGROUND, RELEVANT, BACKGROUND])[truth]


def verdict_scores(kinds: Tensor, truth: Tensor) -> dict[str, float | None]:
    """How well verdicts tell what is spurious, over all segments that hold a pixel.

    Parameters
    ----------
    kinds : (n, J) int64, codes of ``critic.types.KINDS``
    truth : (n, J) int64, from :func:`segment_truth`

    Returns
    -------
    dict of float in [0, 1]
        "sensitivity": share of the truly spurious segments called spurious,
        and "specificity": share of the others not called so, each among the
        segments that were decided, None if there are none such.
        "balanced_accuracy": their mean, None if one is.
        "accuracy": share called rightly spurious or not; undecided is wrong.
        "undecided": share.
        "base_rate": the accuracy of calling everything relevant.
    """
    present = truth != EMPTY
    kinds, spurious = kinds[present], truth[present] == SPURIOUS
    called, decided = kinds == SPURIOUS, kinds != UNDECIDED
    right = decided & (called == spurious)
    sensitivity, specificity = (_share(right[decided & part]) for part in (spurious, ~spurious))
    undefined = sensitivity is None or specificity is None
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": None if undefined else (sensitivity + specificity) / 2,
        "accuracy": _share(right),
        "undecided": _share(~decided),
        "base_rate": _share(~spurious),
    }


def kind_confusion(kinds: Tensor, truth: Tensor) -> dict[str, dict[str, int]]:
    """Truth against verdict, over all segments that hold a pixel.

    Parameters
    ----------
    kinds, truth : (n, J) int64, as for :func:`verdict_scores`

    Returns
    -------
    dict
        for each of ``TRUTHS`` that occurs: kind -> count
    """
    table = torch.zeros(len(TRUTHS), len(KINDS), dtype=torch.int64)
    present = truth != EMPTY
    table.index_put_((truth[present], kinds[present]), torch.tensor(1), accumulate=True)
    return {
        name: dict(zip(KINDS, row, strict=True))
        for name, row in zip(TRUTHS, table.tolist(), strict=True)
        if any(row)
    }


def _share(values: Tensor) -> float | None:
    return values.double().mean().item() if len(values) else None
