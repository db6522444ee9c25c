"""Crossed readouts: every image with and without its spurious feature, so that groups need no luck.

The worst group of thirty images is mostly noise.  Twins differ in the feature alone, and each of
them counts in every comparison.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.models import predict_logits


def conflict_auc(bare: Tensor, marked: Tensor, own: Tensor) -> float:
    """How well a model tells the classes apart where the spurious feature speaks against the label.

    The probability that an image of the class with which the feature goes in training, *without*
    the feature, has a higher score for that class than an image of the other class *with* it
    (ties count half).

    Derived in chapter 6.

    Parameters
    ----------
    bare, marked : (n,) float, the score for the class with which the feature goes, of
        each image without and with the feature
    own : (n,) bool, whether the image is of that class

    Returns
    -------
    float in [0, 1]
        as without a shortcut where the model ignores the feature; .5 where the feature
        cancels what tells the classes apart; near 0 where it overrules it

    Raises
    ------
    ValueError : the images are of one class

    Examples
    --------
    >>> own = torch.tensor([True, True, False, False])
    >>> conflict_auc(torch.tensor([3.0, 1.0, 0.0, 0.0]), torch.tensor([9.0, 9.0, 0.0, 2.0]), own)
    0.75
    """
    if own.all() or not own.any():
        raise ValueError("conflict_auc needs images of both classes; all are of one")
    scores = torch.where(own, bare, marked).double()
    _, place, times = scores.unique(return_inverse=True, return_counts=True)
    ranks = (times.cumsum(0).double() - (times - 1) / 2)[place]  # of equals, the mean
    n, others = int(own.sum()), int((~own).sum())
    return float((ranks[own].sum() - n * (n + 1) / 2) / (n * others))


def letter_effect(bare: Tensor, marked: Tensor) -> float:
    """What the spurious feature (of knees, a letter) adds to a score, in standard deviations.

    The mean of ``marked - bare`` over the standard deviation (n - 1) of ``bare`` over all
    images, so that shrinking all scores is no gain.

    Derived in chapter 6.

    Parameters
    ----------
    bare, marked : (n,) float, as in :func:`conflict_auc`; n >= 2

    Returns
    -------
    float
        0 where the feature does nothing, above 0 where it speaks for the class with
        which it went in training; nan where all images without it score alike

    Examples
    --------
    >>> letter_effect(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 3.0]))
    2.0
    """
    spread = bare.double().std().item()
    return (marked.double() - bare.double()).mean().item() / spread if spread else math.nan


def crossed_readouts(
    model: nn.Module,
    bare: ShortcutDataset | None,
    marked: ShortcutDataset | None,
    train: ShortcutDataset,
) -> dict[str, float | None]:
    """Both measures of a model of two classes, by the difference of its logits.

    Parameters
    ----------
    model : maps images to logits
    bare, marked : the same images in the same order, none and all with the spurious feature
    train : its masks tell with which class the feature goes

    Returns
    -------
    dict
        "conflict_auc" and "letter_effect", the latter None without spread; empty where there are
        no such twins, or more than two classes

    Raises
    ------
    ValueError : ``bare`` and ``marked`` are not of the same images
    """
    if bare is None or marked is None or train.spurious_masks is None or train.n_classes != 2:
        return {}
    if not torch.equal(bare.labels, marked.labels):
        raise ValueError(
            f"twins must be the same images in the same order, but the labels of the {len(bare)} without "
            f"the feature and of the {len(marked)} with it differ"
        )
    shows = train.spurious_masks.flatten(1).any(1).double()
    goes_with = int(torch.stack([shows[train.labels == label].mean() for label in (0, 1)]).argmax())
    scores = []
    for twin in (bare, marked):
        logits = predict_logits(model, twin.images).cpu()
        scores.append(logits[:, goes_with] - logits[:, 1 - goes_with])
    effect = letter_effect(*scores)
    return {
        "conflict_auc": conflict_auc(*scores, bare.labels == goes_with),
        "letter_effect": None if math.isnan(effect) else effect,
    }
