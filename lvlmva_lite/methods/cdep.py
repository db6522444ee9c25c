"""CDEP: what the masked pixels contribute to the logits is penalised, not a slope."""

from __future__ import annotations

from torch import Tensor

from lvlmva_lite.contextual_decomposition import cdep_penalty
from lvlmva_lite.methods.method import Fitted
from lvlmva_lite.methods.rrr import RRR
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS


@METHODS.register("cdep")
class CDEP(RRR):
    """RRR's masks and steps, another penalty: see :func:`contextual_decomposition.cdep_penalty`."""

    label = "CDEP, true masks"

    def fit(
        self,
        prepared: Prepared,
        kinds: Tensor | None = None,
        *,
        progress: bool = False,
        strength: float = 1.0,
    ) -> Fitted:
        """``strength`` is lambda in nats: what the penalty of the model as it was is worth."""
        model = prepared.aligned(
            self.masks(prepared, kinds), penalty=cdep_penalty, penalty_scale="initial",
            penalty_weight=strength, progress=progress,
        )  # fmt: skip
        return Fitted(model, (prepared.train,))
