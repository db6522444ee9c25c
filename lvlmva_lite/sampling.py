"""Step 1: choose the alignment set D_align by the entropy of the predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from lvlmva_lite.streams import stream
from lvlmva_lite.threads import threads

STRATEGIES = ("low", "random", "high")


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy in nats of each row of ``probabilities`` (n, K); 0 log 0 = 0.

    Derived in chapter 2.
    """
    return torch.special.entr(probabilities).sum(-1)


def enrichment_curve(scores: Tensor, amounts: Tensor) -> Tensor:
    """How much of something the samples of lowest score hold, for every number of samples.

    Above the diagonal the lowest scores (entropies, say) hold more than their
    share; 500 of 10 000 samples with ``curve[500] == 0.1`` hold twice theirs.
    For yes-or-no amounts with a share p of yes and distinct scores, the area
    under the curve is ``(1 - p) * AUC + p / 2``, with AUC the area under the
    ROC curve of "yes, because the score is low".

    Derived in chapter 2.

    Parameters
    ----------
    scores : (n,) float; equal scores keep their order
    amounts : (n,) bool or non-negative float, what is counted: an image with
        the spurious feature, the evidence on it, ...

    Returns
    -------
    Tensor, (n + 1,), float64
        Element k is the share of the total amount that the k samples of
        lowest score hold; from 0 to 1, never falling.

    Raises
    ------
    ValueError : lengths differ, an amount is negative or not finite, or all are zero
    """
    amounts = amounts.double()
    if len(scores) != len(amounts):
        raise ValueError(f"give one amount per score; got {len(scores)} scores, {len(amounts)} amounts")
    total = amounts.sum()
    if not (amounts >= 0).all() or not 0 < total < float("inf"):
        raise ValueError(
            f"amounts must be finite, not negative and not all zero; their sum is {total:g}, "
            f"their least {min(amounts.tolist(), default=0):g}"
        )
    curve = amounts[scores.argsort(stable=True)].cumsum(0) / total
    return torch.cat([curve.new_zeros(1), curve])


@threads()
def sample_alignment_set(
    probabilities: Tensor,
    labels: Tensor,
    n_samples: int,
    *,
    strategy: str = "low",
    balanced: bool = True,
    random_state: int = 0,
) -> Tensor:
    """Indices of the samples to be explained, criticised and learnt from.

    The method's hypothesis (arXiv 2512.21985): a shortcut is easier than the
    core features, so the samples on which the model leans on it are those of
    lowest softmax entropy.

    Derived in chapter 2.

    Parameters
    ----------
    probabilities : (n, K) float, softmax outputs
    labels : (n,) int64, the true classes
    n_samples : size of D_align
    strategy : "low" (the method), "high" or "random"
    balanced : draw equally many samples from each class.  The plain ranking
        can leave whole classes out; labels are known, so this uses no group
        information.  When a class has too few samples the others fill up.
    random_state : int, for "random"

    Returns
    -------
    Tensor, (n_samples,), int64, best-ranked first

    Raises
    ------
    ValueError : unknown strategy, or ``n_samples`` not in 1 .. n
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {STRATEGIES}, got {strategy!r}")
    n = len(probabilities)
    if not 1 <= n_samples <= n:
        raise ValueError(f"n_samples must be between 1 and {n} (the samples given), got {n_samples}")
    if strategy == "random":
        generator = stream(random_state, "random samples")
        score = torch.rand(n, generator=generator, dtype=torch.float64)
    else:
        score = entropy(probabilities.double())
        score = score if strategy == "low" else -score
    order = score.argsort(stable=True)
    if balanced:
        # Rank within the class first, then the score: taking the front of this
        # order takes classes in turn.
        rank = torch.empty(n, dtype=torch.int64)
        ordered_labels = labels[order]
        for label in labels.unique():
            of_class = order[ordered_labels == label]
            rank[of_class] = torch.arange(len(of_class))
        order = order[rank[order].argsort(stable=True)]
    return order[:n_samples]
