"""Counter-examples: the images again, with something else where the shortcut was."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lvlmva_lite.fills import fill
from lvlmva_lite.methods.method import Fitted
from lvlmva_lite.methods.rrr import RRR
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS
from lvlmva_lite.streams import stream


@METHODS.register("counterexamples")
class Counterexamples(RRR):
    """What data can say in place of a penalty, with the same true masks.

    Teso and Kersting, "Explanatory interactive machine learning", AIES 2019:
    of an image that was right for the wrong reason, copies with what is
    irrelevant drawn anew are learnt from.  Here each alignment sample is
    replaced by such a copy, so that the steps and batches are those of the
    other methods.
    """

    label = "counter-examples, true masks"
    trials = ({"variant": "noise"}, {"variant": "another-image"})

    def fit(
        self,
        prepared: Prepared,
        kinds: Tensor | None = None,
        *,
        progress: bool = False,
        variant: str = "noise",
    ) -> Fitted:
        """``variant`` of :func:`fills.fill`."""
        masks = self.masks(prepared, kinds)
        train = prepared.train.in_memory()
        indices = prepared.alignment_set.indices
        others = train.images if variant == "another-image" else None
        images = train.images.clone()
        images[indices] = fill(
            train.images[indices], masks, variant, others=others,
            generator=stream(prepared.config.seed, "counter-examples"),
        )  # fmt: skip
        filled = replace(train, images=images)
        model = replace(prepared, train=filled).aligned(
            torch.zeros_like(masks), penalty_weight=0.0, progress=progress
        )
        return Fitted(model, (prepared.train, filled))
