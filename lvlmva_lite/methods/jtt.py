"""JTT, "just train twice": what a first model gets wrong is repeated for a second."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods.method import Baseline, Fitted, Method
from lvlmva_lite.models import fit
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS


@METHODS.register("jtt")
class JTT(Method):
    """Reads no groups."""

    label = "JTT"
    trials = ({"first_epochs": 1, "upweight": 5}, {"first_epochs": 1, "upweight": 20})

    def fit(
        self,
        prepared: Prepared,
        kinds: Tensor | None = None,
        *,
        progress: bool = False,
        first_epochs: int = 1,
        upweight: int = 5,
    ) -> Fitted:
        """As :func:`jtt`."""
        config, train = prepared.config, prepared.train
        made = jtt(
            partial(prepared.task.network, config, train), train,
            first_epochs=first_epochs, upweight=upweight, epochs=config.train_epochs,
            learning_rate=config.learning_rate, batch_size=config.batch_size, decay=config.decay,
            random_state=config.seed, progress=progress,
        )  # fmt: skip
        return Fitted(made.model, (train,))


def jtt(
    new_model: Callable[[int], nn.Module],
    train: ShortcutDataset,
    *,
    first_epochs: int,
    upweight: int,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    weight_decay: float = 0.0,
    decay: bool = False,
    random_state: int = 0,
    progress: bool = False,
) -> Baseline:
    """JTT, "just train twice": what a first model gets wrong is repeated for a second.

    Liu et al., "Just train twice: improving group robustness without training
    group information", ICML 2021.  The errors are, as in the authors' code,
    those of the predictions made during the last of the first epochs, each
    before the step that learns from it.

    Derived in chapter 10.

    Parameters
    ----------
    new_model : makes an untrained model from a seed
    train : the training split; its groups are not read
    first_epochs : epochs of the first model
    upweight : how often the second model sees an error in an epoch, 1 for
        plain training; the authors' code adds this number to the one time that
        every sample is seen
    epochs : epochs of the second model, which starts afresh; repeats make
        each of them longer
    learning_rate, batch_size, weight_decay, decay : see :func:`~lvlmva_lite.models.fit`, for both models
    random_state : int, draws the initial weights and the batches
    progress : show a progress bar

    Returns
    -------
    Baseline

    Raises
    ------
    ValueError : ``first_epochs`` or ``upweight`` below 1
    """
    for name, value in (("first_epochs", first_epochs), ("upweight", upweight)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    options = {
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "weight_decay": weight_decay,
        "decay": decay,
        "random_state": random_state,
        "progress": progress,
    }
    running = torch.empty_like(train.labels)

    def remember(batch: Tensor, logits: Tensor) -> None:
        running[batch] = logits.argmax(1)

    fit(
        new_model(random_state),
        train.images,
        train.labels,
        epochs=first_epochs,
        on_batch=remember,
        **options,
    )
    errors = (running != train.labels).nonzero()[:, 0]
    indices = torch.cat([torch.arange(len(train)), errors.repeat(upweight - 1)])
    model = new_model(random_state)
    fit(model, train.images, train.labels, epochs=epochs, indices=indices, **options)
    return Baseline(model, indices, [])
