"""Plain fine-tuning: the same steps on the same batches, and no penalty."""

from __future__ import annotations

from torch import Tensor

from lvlmva_lite.methods.method import Fitted, Method
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS


@METHODS.register("finetune")
class FineTuning(Method):
    """Shows what the mere further training on the alignment set does."""

    label = "plain fine-tuning"
    trials = ({"rate": 1.0}, {"rate": 3.0})

    def fit(
        self, prepared: Prepared, kinds: Tensor | None = None, *, progress: bool = False, rate: float = 1.0
    ) -> Fitted:
        """``rate`` is a factor of the config's learning rate of alignment."""
        model = prepared.aligned(
            self.masks(prepared, kinds), penalty_weight=0.0,
            learning_rate=prepared.config.align_learning_rate * rate, progress=progress,
        )  # fmt: skip
        return Fitted(model, (prepared.train,))
