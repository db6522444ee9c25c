"""RR-ClArC: the answer is made blind to one direction in the last hidden layer, the artefact's."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lvlmva_lite.config import ConfigError
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods.method import Fitted, Method, Supervision
from lvlmva_lite.models import Classifier
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS
from lvlmva_lite.threads import threads

RATE = 30.0
"""Learning rate, as a multiple of the config's of alignment, at which a whole network is tuned; with that one
a head alone gets nowhere in so few steps.  Chosen on validation splits of phantoms, of seeds that are not reported."""


@METHODS.register("rr-clarc")
class RRClArC(Method):
    """Reads which training images show the artefact, and not where: no masks.

    Dreyer, Pahde, Anders, Samek and Lapuschkin, "From hope to safety:
    unlearning biases of deep models via gradient penalization in latent
    space", AAAI 2024.  As in their code convolutions stay as they are, and here
    the head alone is tuned: a whole network finds the artefact another
    direction.  Together with the class, whether an image shows the
    artefact is its group, so that this counts as the groups of the training
    images.
    """

    label = "RR-ClArC"
    supervision = Supervision(train_groups=True)
    trials = ({"strength": 1.0}, {"strength": 10.0})

    def fit(
        self,
        prepared: Prepared,
        kinds: Tensor | None = None,
        *,
        progress: bool = False,
        strength: float = 1.0,
    ) -> Fitted:
        """``strength`` is lambda in nats: what the penalty of the model as it was is worth."""
        train, model = prepared.train, copy.deepcopy(prepared.model)
        if not isinstance(model, Classifier):
            raise ConfigError(
                f"rr-clarc needs a network with a last layer of its own (embed and head), which "
                f"{prepared.config.model} has not; choose a network of the package, or another method"
            )
        try:
            shows = _shows(train)
            with torch.no_grad():
                embedding = torch.cat([model.embed(batch) for batch in train.images.split(256)])
            direction = pattern_direction(embedding, train.labels, shows)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        model.requires_grad_(False).head.requires_grad_()
        everywhere = torch.ones_like(prepared.alignment_set.attributions, dtype=torch.bool)
        tuned = replace(prepared, model=model).aligned(
            everywhere, penalty=partial(direction_penalty, direction=direction), penalty_scale="initial",
            penalty_weight=strength, learning_rate=prepared.config.align_learning_rate * RATE, progress=progress,
        )  # fmt: skip
        return Fitted(tuned.requires_grad_(), (train,))


def _shows(train: ShortcutDataset) -> Tensor:
    """Which images show the artefact, (n,) bool: those with a mask, or by their groups where there are no masks."""
    if train.spurious_masks is not None:
        return train.spurious_masks.flatten(1).any(1)
    if len(train.group_names) != 2 * train.n_classes:
        raise ValueError(
            f"rr-clarc unlearns one artefact, so that groups must be class x {{without, with}}; got "
            f"{', '.join(train.group_names)}"
        )
    return train.groups % 2 == 1


def pattern_direction(embedding: Tensor, labels: Tensor, shows: Tensor) -> Tensor:
    """The direction h in which the embedding moves when the artefact comes, of length 1.

    The pattern of Pahde et al., "Navigating neural space: revisiting concept
    activation vectors to overcome directional divergence", ICLR 2025: the
    slope of the embedding in t, whether the artefact shows, and not the
    weights of a classifier of t, which also turn towards what only disturbs
    it.  Both are centred within their class, so that what distinguishes the
    classes is no part of it:

        h ~ sum_i (a_i - mean_y a) (t_i - mean_y t)

    Parameters
    ----------
    embedding : (n, D) float
    labels : (n,) int64
    shows : (n,) bool

    Returns
    -------
    Tensor, (D,)

    Raises
    ------
    ValueError : no class has images with and without the artefact, or the embedding does not tell them apart
    """
    moved = shows.to(embedding)
    for label in labels.unique():
        of_class = labels == label
        moved[of_class] -= moved[of_class].mean()
    if not moved.any():
        raise ValueError(
            "rr-clarc needs a class with images that show the artefact and images that do not; no class of "
            "these data has both; give it such images"
        )
    pattern = moved @ embedding  # centring one of the two is enough
    if not pattern.any():
        raise ValueError(
            "the last hidden layer does not change with the artefact; there is nothing to unlearn"
        )
    return pattern / pattern.norm()


@threads()
def direction_penalty(
    model: Classifier, images: Tensor, masks: Tensor, *, direction: Tensor, reduction: str = "sum"
) -> Tensor:
    """sum_n sum_k (d logit_k / d h)^2, the slopes of the logits along a direction of the embedding.

    The mean over random signs m of the paper's (m . d logits / d h)^2.  The
    head is linear, so that a slope is its weights times the direction, the
    same for each image.

    Parameters
    ----------
    model : its head counts
    images, masks : (n, ...) and (n, H, W), which say how many they are
    direction : (D,) h
    reduction : "sum", or "mean" over the masks' entries (n H W), as every penalty has it
    """
    weight = model.head.weight
    total = len(images) * (weight @ direction.to(weight)).square().sum()
    return total if reduction == "sum" else total / masks.numel()
