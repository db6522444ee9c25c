"""LVLM-VA: masks by the verdicts on the alignment set."""

from __future__ import annotations

from torch import Tensor

from lvlmva_lite.methods.method import Fitted, Method, Supervision
from lvlmva_lite.pipeline import Prepared, taking_part
from lvlmva_lite.registry import METHODS


@METHODS.register("lvlm-va")
class LVLMVA(Method):
    """The method of the book."""

    label = "LVLM-VA"
    supervision = Supervision(words=True)
    trials = ({"strength": 1.0}, {"strength": 3.0})
    asks = True

    def masks(self, prepared: Prepared, kinds: Tensor | None) -> Tensor:
        """What the verdicts amount to."""
        return prepared.masks(kinds)

    def fit(
        self,
        prepared: Prepared,
        kinds: Tensor | None = None,
        *,
        progress: bool = False,
        strength: float = 1.0,
    ) -> Fitted:
        """``strength`` is a factor of the config's lambda."""
        config = prepared.config
        keep = taking_part(kinds, prepared.masks(kinds), config.keep_unjudged)
        model = prepared.aligned(
            self.masks(prepared, kinds), keep,
            penalty_weight=config.penalty_weight * strength, progress=progress,
        )  # fmt: skip
        return Fitted(model, (prepared.train,))
