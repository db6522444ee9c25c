"""No method at all: the model is looked at and left as it is."""

from __future__ import annotations

from torch import Tensor

from lvlmva_lite.methods.method import Fitted, Method, Supervision
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS


@METHODS.register("look")
class Look(Method):
    """Asks the critic what the model goes by, and changes nothing; see :mod:`report`."""

    label = "as it was"
    supervision = Supervision(words=True)
    trials = ({},)
    asks = True

    def fit(self, prepared: Prepared, kinds: Tensor | None = None, *, progress: bool = False) -> Fitted:
        """The model as it is."""
        return Fitted(prepared.model, (prepared.train,))
