"""How well a model does, where it looks, and how well it was judged."""

from __future__ import annotations

import torch
from torch import Tensor

from lvlmva_lite.segmentation import positive_effect


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of (n,) predictions that equal their (n,) labels, in [0, 1]."""
    return (predicted == labels).double().mean().item()


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


def segment_truth(labels: Tensor, n_segments: int, attributions: Tensor, spurious_masks: Tensor) -> Tensor:
    """Which segments hold most of their positive effect on the spurious feature.

    The yardstick for verdicts.  Reads the ground truth: for evaluation only.

    Parameters
    ----------
    labels : (n, H, W) int64, segment of each pixel, -1 for none
    n_segments : J
    attributions : (n, H, W) float
    spurious_masks : (n, H, W) bool

    Returns
    -------
    Tensor, (n, J), bool; False for empty segments
    """
    mass = positive_effect(attributions)
    one_hot = labels.flatten(1)[:, None] == torch.arange(n_segments)[:, None]
    on_spurious = (one_hot * (mass * spurious_masks).flatten(1)[:, None]).sum(2)
    return on_spurious > 0.5 * (one_hot * mass.flatten(1)[:, None]).sum(2)


def verdict_accuracy(spurious: Tensor, truth: Tensor, labels: Tensor) -> dict[str, float]:
    """How often verdicts meet the ground truth, over all segments that hold a pixel.

    Parameters
    ----------
    spurious : (n, J) float, 1 spurious, 0 not, nan undecided
    truth : (n, J) bool, from :func:`segment_truth`
    labels : (n, H, W) int64, segment of each pixel

    Returns
    -------
    dict
        "accuracy" (an undecided segment counts as wrong), "balanced_accuracy"
        (mean of the accuracies on truly spurious and truly relevant
        segments; most segments are relevant), "undecided" (share), all in
        [0, 1]
    """
    present = (labels.flatten(1)[:, None] == torch.arange(truth.shape[1])[:, None]).any(2)
    spurious, truth = spurious[present], truth[present]
    right = (spurious == truth).double()
    return {
        "accuracy": right.mean().item(),
        "balanced_accuracy": (right[truth].mean().item() + right[~truth].mean().item()) / 2,
        "undecided": spurious.isnan().double().mean().item(),
    }
