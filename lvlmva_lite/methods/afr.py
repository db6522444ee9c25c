"""AFR: a new last layer for images that the model is unsure of, without any groups."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite.config import ConfigError
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods.method import Fitted, Method
from lvlmva_lite.models import Classifier
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS
from lvlmva_lite.streams import stream
from lvlmva_lite.threads import threads

HELD_OUT = 0.2
"""Share of the training images on which the last layer is fitted, which the model has not seen."""


@METHODS.register("afr")
class AFR(Method):
    """Reads no groups; trains one model on most of the training images, a last layer on the rest."""

    label = "AFR"
    trials = ({"gamma": 4.0}, {"gamma": 12.0})

    def __init__(self) -> None:
        self._first: tuple[nn.Module, ShortcutDataset] | None = None

    def fit(
        self,
        prepared: Prepared,
        kinds: Tensor | None = None,
        *,
        progress: bool = False,
        gamma: float = 4.0,
    ) -> Fitted:
        """As :func:`afr`; the model of both trials is the same."""
        if not isinstance(prepared.model, Classifier):
            raise ConfigError(
                f"afr needs a network with a last layer of its own (embed and head), which {prepared.config.model} "
                "has not; choose a network of the package, or another method"
            )
        train = prepared.train
        if self._first is None:
            order = torch.randperm(
                len(train), generator=stream(prepared.config.seed, "AFR's held-out images")
            )
            held_out = int(HELD_OUT * len(train))
            model = prepared.trained(train.subset(order[held_out:]), progress=progress)
            self._first = model, train.subset(order[:held_out])
        return Fitted(afr(*self._first, gamma=gamma), (train,))


def sample_weights(chances: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """mu_i proportional to exp(-gamma p_i) / n_y, p_i the probability of the label, n_y images of its class.

    Parameters
    ----------
    chances : (n, K), of the model
    labels : (n,) int64

    Returns
    -------
    Tensor, (n,), which adds up to 1
    """
    right = chances.gather(1, labels[:, None])[:, 0]
    weights = (-gamma * right).exp() / torch.bincount(labels, minlength=chances.shape[1])[labels]
    return weights / weights.sum()


@threads()
def afr(
    model: Classifier,
    held_out: ShortcutDataset,
    *,
    gamma: float,
    pull: float = 0.0,
    steps: int = 500,
    learning_rate: float = 1e-2,
    batch_size: int = 256,
) -> Classifier:
    """A copy of ``model`` whose last layer minimises sum_i mu_i l_i + pull |w - w_0|^2 on held-out images.

    Automatic feature reweighting (Qiu, Potapczynski, Izmailov and Wilson,
    "Simple and fast group robustness by automatic feature reweighting", ICML
    2023): plain gradient descent on all of them at once, from the old layer;
    it ends after ``steps``.

    Parameters
    ----------
    model : has ``embed`` and ``head``; not changed
    held_out : images that it was not trained on; groups are not read
    gamma : >= 0, of :func:`sample_weights`; at 0 each class weighs alike
    pull : >= 0, towards the old layer
    steps, learning_rate : of gradient descent, the authors' defaults
    batch_size : images embedded at once
    """
    model = copy.deepcopy(model).eval()
    labels = held_out.labels
    with torch.no_grad():
        images = held_out.in_memory().images
        embedding = torch.cat([model.embed(batch) for batch in images.split(batch_size)])
        head = copy.deepcopy(model.head).to(embedding.device)
        start = [value.clone() for value in head.parameters()]
        weights = sample_weights(head(embedding).softmax(1), labels, gamma)
    optimizer = torch.optim.SGD(head.parameters(), lr=learning_rate)
    for _ in range(steps):
        losses: Any = nn.functional.cross_entropy(head(embedding), labels, reduction="none")
        distance = sum(
            (new - old).square().sum() for new, old in zip(head.parameters(), start, strict=True)
        )
        optimizer.zero_grad()
        ((weights * losses).sum() + pull * distance).backward()
        optimizer.step()
    model.head.load_state_dict(head.state_dict())
    return model
