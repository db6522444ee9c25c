"""GroupDRO: train for the group that is worst at the moment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lvlmva_lite.methods.method import Fitted, Method, Supervision
from lvlmva_lite.models import fit
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS


@METHODS.register("group-dro")
class GroupDRO(Method):
    """Reads the group of every training image."""

    label = "GroupDRO"
    supervision = Supervision(train_groups=True)
    trials = ({"step_size": 0.01}, {"step_size": 0.1})

    def fit(
        self,
        prepared: Prepared,
        kinds: Tensor | None = None,
        *,
        progress: bool = False,
        step_size: float = 0.01,
    ) -> Fitted:
        """A fresh model, trained as long as the one before alignment, on :class:`GroupLoss`."""
        config, train = prepared.config, prepared.train
        model = prepared.task.network(config, train, config.seed)
        fit(
            model, train.images, train.labels, loss=GroupLoss(train.groups, len(train.group_names), step_size),
            epochs=config.train_epochs, learning_rate=config.learning_rate, batch_size=config.batch_size,
            decay=config.decay, random_state=config.seed, progress=progress,
        )  # fmt: skip
        return Fitted(model, (train,))


class GroupLoss:
    """sum_g q_g l_g, l_g the mean cross-entropy of group g in the batch, q_g proportional to q_g exp(step_size l_g).

    The online algorithm of Sagawa, Koh, Hashimoto and Liang,
    "Distributionally robust neural networks for group shifts", ICLR 2020,
    without its adjustment for the size of groups.  A group that is not in a
    batch has l_g = 0 there.

    Parameters
    ----------
    groups : (N,) int64, of every training sample
    n_groups : int
    step_size : > 0; at 0 each group weighs alike

    Attributes
    ----------
    weights : Tensor, (n_groups,), q, which adds up to 1
    """

    def __init__(self, groups: Tensor, n_groups: int, step_size: float) -> None:
        self.weights = torch.full((n_groups,), 1 / n_groups)
        self._groups, self._step_size = groups, step_size

    def __call__(self, logits: Tensor, labels: Tensor, batch: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        groups = self._groups[batch].to(losses.device)
        weights = self.weights.to(losses)
        counts = torch.bincount(groups, minlength=len(weights)).clamp_min(1)
        means = torch.zeros_like(weights).index_add(0, groups, losses) / counts
        weights = weights * (self._step_size * means.detach()).exp()
        self.weights = weights / weights.sum()
        return (self.weights * means).sum()
