"""How well a model does, where it looks, and how well it was judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy
import torch
from torch import Tensor

from lvlmva_lite.critic.types import BACKGROUND, EMPTY, KINDS, RELEVANT, SPURIOUS, UNDECIDED
from lvlmva_lite.segmentation import positive_effect, segment_sums
from lvlmva_lite.threads import late_import, threads

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

    Examples
    --------
    >>> answers, labels, groups = torch.tensor([[0, 1, 1], [0, 1, 0], [0, 0, 1]])
    >>> group_accuracy(answers, labels, groups, 3)
    tensor([1., 0., nan], dtype=torch.float64)
    """
    if len(groups) and not 0 <= int(groups.min()) <= int(groups.max()) < n_groups:
        raise ValueError(f"groups must lie in 0 .. {n_groups - 1}, got {groups.unique().tolist()}")
    right = torch.zeros(n_groups, dtype=torch.float64)
    right.index_add_(0, groups, (predicted == labels).double())
    return right / torch.bincount(groups, minlength=n_groups)


def worst_group_accuracy(accuracies: Tensor) -> float:
    """WGA: the least of the (n_groups,) accuracies; empty groups (nan) are left out. Derived in chapter 1."""
    return accuracies[~accuracies.isnan()].min().item()


def average_group_accuracy(accuracies: Tensor) -> float:
    """AGA: the unweighted mean of the (n_groups,) accuracies; empty groups (nan) are left out."""
    return accuracies[~accuracies.isnan()].mean().item()


SAME = 1e-12
"""Two differences are equal if they lie no further apart than this share of the
greatest number compared: shares of counts, such as accuracies, agree in their
first twelve digits if they agree at all."""

_MOST_PAIRS = 500


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

    The p-value is the share, among all assignments of signs to the
    differences, of those whose signed ranks add up to at least what was seen.
    Rounding decides no tie: differences whose sizes, put in order, lie within
    ``SAME`` times the greatest absolute value of ``after`` and ``before`` of
    one another share their mean rank, and those that close to 0 are 0
    (.57 - .56 and .31 - .30 tie, although their floats differ).  A zero takes
    part in the ranking and then has no sign, so that its rank counts for
    neither side (Pratt 1959). Derived in chapter 11.

    Parameters
    ----------
    after, before : 2 to 500 numbers each, in the same order
    alternative : "two-sided", "greater" (after above before) or "less"

    Returns
    -------
    PairedTest

    Raises
    ------
    ValueError : lengths differ, fewer than two pairs or more than 500, a
        value that is not finite, or an unknown ``alternative``
    """
    if len(after) != len(before) or len(after) < 2:
        raise ValueError(f"give two or more pairs; got {len(after)} and {len(before)} values")
    if len(after) > _MOST_PAIRS:
        raise ValueError(
            f"the exact test takes up to {_MOST_PAIRS} pairs, got {len(after)}; use scipy.stats.wilcoxon"
        )
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f"alternative must be two-sided, greater or less, got {alternative!r}")
    after, before = np.asarray(after, float), np.asarray(before, float)
    differences = after - before
    if not np.isfinite(differences).all():
        raise ValueError("a value is not finite; drop that pair from both lists")
    ranks = _doubled_ranks(differences, SAME * max(np.abs(after).max(), np.abs(before).max()))
    n, sum_of_ranks = len(differences), int(ranks.sum())
    seen = int(ranks @ np.sign(differences).astype(int))
    seen = {"two-sided": abs(seen), "greater": seen, "less": -seen}[alternative]
    if seen > 0 or alternative != "two-sided":
        # Signed ranks add up to twice those with a plus, less all.
        at_least = _sums_with_a_plus(ranks)[(seen + sum_of_ranks) // 2 :].sum()
        p = float(2 * at_least if alternative == "two-sided" else at_least)
    else:
        p = 1.0
    smallest = 2.0**-n * (2 if alternative == "two-sided" else 1)
    return PairedTest(float(differences.mean()), float(differences.std(ddof=1)), p, smallest, n)


def _doubled_ranks(differences: np.ndarray, tolerance: float) -> np.ndarray:
    """Twice the mean ranks of |differences| (n,), whole numbers; 0 for a difference of 0."""
    sizes = np.abs(differences)
    sizes[sizes <= tolerance] = 0
    order = np.argsort(sizes, kind="stable")
    tie = np.concatenate([[0], np.cumsum(np.diff(sizes[order]) > tolerance)])
    first = np.searchsorted(tie, tie, side="left")
    last = np.searchsorted(tie, tie, side="right")
    ranks = np.empty(len(sizes), int)
    ranks[order] = first + 1 + last  # ranks first + 1 .. last share their mean
    ranks[sizes == 0] = 0
    return ranks


def _sums_with_a_plus(ranks: np.ndarray) -> np.ndarray:
    """Probability of each sum of those of the whole numbers ``ranks`` to which a fair coin gives a plus.

    Counts all assignments of signs, one rank at a time.  There is no rounding
    up to 53 ranks: all probabilities are multiples of 2^-n.
    """
    share = np.ones(1)
    for rank in ranks[ranks > 0]:
        share = np.concatenate([share, np.zeros(rank)]) + np.concatenate([np.zeros(rank), share])
        share /= 2
    return share


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of n >= 2 values with its Student-t confidence interval: (mean, low, high).

    Raises
    ------
    ValueError : fewer than two values
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        raise ValueError(f"an interval needs two or more values, got {len(values)}")
    half = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def share_of_gain(
    arm: Sequence[float], method: Sequence[float], untreated: Sequence[float], level: float = 0.95
) -> tuple[float, float, float]:
    """How much of a method's gain another arm has, both against no treatment: (share, low, high).

    The share is ``mean(arm - untreated) / mean(method - untreated)``: 0 for an
    arm that does nothing, 1 for one that does as much as the method, negative
    for one that harms.  The interval is Fieller's (1954) for paired means: it
    holds those shares r at which the mean over seeds of
    ``(arm - untreated) - r * (method - untreated)`` cannot be told from 0 by
    Student's t-test. Derived in chapter 11.

    Parameters
    ----------
    arm, method, untreated : n >= 2 numbers each, seed by seed in one order
    level : of confidence

    Raises
    ------
    ValueError : fewer than two seeds, lengths differ, or the method's own gain
        cannot be told from 0 at this level, so that no interval has two ends
    """
    if not len(arm) == len(method) == len(untreated) >= 2:
        raise ValueError(
            f"give two or more seeds of each arm; got {len(arm)}, {len(method)} and {len(untreated)} values"
        )
    untreated = np.asarray(untreated, float)
    gains = np.stack([np.asarray(arm, float) - untreated, np.asarray(method, float) - untreated])
    (gain, whole), n = gains.mean(1), gains.shape[1]
    ((vv, vw), (_, ww)) = np.cov(gains) * scipy.stats.t.ppf((1 + level) / 2, n - 1) ** 2 / n
    # (gain - r * whole)^2 <= vv - 2 r vw + r^2 ww, a parabola in r.
    square, middle, rest = whole**2 - ww, gain * whole - vw, gain**2 - vv
    if square <= 0:
        raise ValueError(
            f"the method's own gain, {whole:.3g} on average, cannot be told from 0 at {level:.0%}; "
            "a share of it has no interval"
        )
    half = math.sqrt(max(middle**2 - square * rest, 0.0))
    return float(gain / whole), float((middle - half) / square), float((middle + half) / square)


@threads()
def mu_align(attributions: Tensor, spurious_masks: Tensor) -> float:
    """Share of attribution outside the ground-truth spurious region.

    ``1 - mean_n [sum_i A_ni |Phi_ni| / sum_i |Phi_ni|]`` (arXiv 2512.21985). Derived in chapter 1.

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


@threads()
def neighbour_purity(embeddings: Tensor, labels: Tensor, n_neighbours: int = 10) -> float:
    """How often the nearest neighbours of a sample share its label. Derived in chapter 7.

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
    nearest = (
        late_import("sklearn.neighbors")
        .NearestNeighbors(n_neighbors=n_neighbours)
        .fit(points)
        .kneighbors(return_distance=False)
    )
    return (labels[torch.from_numpy(nearest)] == labels[:, None]).double().mean().item()


@threads()
def segment_truth(
    labels: Tensor,
    n_segments: int,
    attributions: Tensor,
    spurious_masks: Tensor,
    core_masks: Tensor | None = None,
) -> Tensor:
    """What each segment holds more than half of its positive effect on.

    The yardstick for verdicts.  Reads the ground truth: for evaluation only. Derived in chapter 0.

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
    truth[segment_sums(labels, n_segments) == 0] = EMPTY
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
    """How well verdicts tell what is spurious, over all segments that hold a pixel. Derived in chapter 0.

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
