"""SUBG: plain training on a group-balanced subset."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from lvlmva_lite.config import ConfigError
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods.method import Baseline, Fitted, Method, Supervision, balanced, check_groups
from lvlmva_lite.models import fit
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS
from lvlmva_lite.streams import stream


@METHODS.register("subg")
class SUBG(Method):
    """Every group is cut down to the size of the smallest."""

    label = "SUBG"
    supervision = Supervision(train_groups=True)
    trials = ({"rate": 1.0}, {"rate": 0.3})

    def fit(
        self, prepared: Prepared, kinds: Tensor | None = None, *, progress: bool = False, rate: float = 1.0
    ) -> Fitted:
        """``rate`` is a factor of the config's learning rate."""
        config, train = prepared.config, prepared.train
        # The subset is smaller and seen more often: for half as many steps as plain training takes.
        smallest = min(n for n in torch.bincount(train.groups).tolist() if n)
        longer = max(1, len(train) // (smallest * len(train.group_names)) // 2)
        try:
            made = subg(
                partial(prepared.task.network, config, train), train,
                epochs=config.train_epochs * longer, learning_rate=config.learning_rate * rate,
                batch_size=config.batch_size, decay=config.decay, random_state=config.seed, progress=progress,
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return Fitted(made.model, (train,))


def balanced_subset(dataset: ShortcutDataset, *, random_state: int) -> Tensor:
    """As many samples of every group as the smallest group holds, drawn at random.

    Derived in chapter 10.

    Parameters
    ----------
    dataset : its groups are read
    random_state : int, draws the samples

    Returns
    -------
    Tensor, (m,), int64, sorted

    Raises
    ------
    ValueError : a group is empty
    """
    check_groups(dataset, 1, "balanced_subset")
    return balanced(dataset.groups, stream(random_state, "SUBG's subset"))


def subg(
    new_model: Callable[[int], nn.Module],
    train: ShortcutDataset,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    weight_decay: float = 0.0,
    decay: bool = False,
    random_state: int = 0,
    progress: bool = False,
) -> Baseline:
    """SUBG: plain training on a group-balanced subset.

    Every group is cut down to the size of the smallest (Idrissi, Arjovsky,
    Pezeshki and Lopez-Paz, "Simple data balancing achieves competitive
    worst-group accuracy", CLeaR 2022).

    Parameters
    ----------
    new_model : makes an untrained model from a seed
    train : the training split; its groups are read
    epochs, learning_rate, batch_size, weight_decay, decay : see :func:`~lvlmva_lite.models.fit`;
        epochs are passes over the subset
    random_state : int, draws the subset, the initial weights and the batches
    progress : show a progress bar

    Returns
    -------
    Baseline

    Raises
    ------
    ValueError : a group is empty
    """
    check_groups(train, 1, "SUBG")
    indices = balanced_subset(train, random_state=random_state)
    model = new_model(random_state)
    fit(
        model,
        train.images,
        train.labels,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        weight_decay=weight_decay,
        decay=decay,
        indices=indices,
        random_state=random_state,
        progress=progress,
    )
    return Baseline(model, indices, [])
