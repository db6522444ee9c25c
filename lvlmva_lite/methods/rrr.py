"""RRR, "right for the right reasons", with the true masks."""

from __future__ import annotations

from torch import Tensor

from lvlmva_lite.methods.method import Fitted, Method, Supervision
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS


@METHODS.register("rrr-gt")
class RRR(Method):
    """What somebody reaches who marks the spurious feature on every alignment sample."""

    label = "RRR, true masks"
    supervision = Supervision(masks=True)
    trials = ({"strength": 1.0}, {"strength": 3.0})

    def masks(self, prepared: Prepared, kinds: Tensor | None) -> Tensor:
        """The data set's own."""
        return prepared.chosen.spurious_masks

    def fit(
        self,
        prepared: Prepared,
        kinds: Tensor | None = None,
        *,
        progress: bool = False,
        strength: float = 1.0,
    ) -> Fitted:
        """``strength`` is a factor of the config's lambda."""
        model = prepared.aligned(
            self.masks(prepared, kinds),
            penalty_weight=prepared.config.penalty_weight * strength, progress=progress,
        )  # fmt: skip
        return Fitted(model, (prepared.train,))
