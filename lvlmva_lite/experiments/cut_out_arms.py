"""What CDEP's masked part is counted from: cut out and put on black, or from what surrounds it.

CDEP unlearns under masks in the wrong place, too.  A piece of an image on black has sharp edges and is
bright, as a letter is; counted from its surroundings it has neither.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from lvlmva_lite import tasks
from lvlmva_lite.contextual_decomposition import cdep_penalty
from lvlmva_lite.experiments.penalty_arms import masks_to_compare
from lvlmva_lite.fills import fill
from lvlmva_lite.pipeline import Prepared, prepare
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.threads import as_configured

Row = dict[str, Any]


class FromSurroundings:
    """:func:`contextual_decomposition.cdep_penalty`, counted from the images with their masks filled."""

    def prepare(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        return {"origin": fill(images, masks)}

    def __call__(
        self, model: nn.Module, images: Tensor, masks: Tensor, *, origin: Tensor, reduction: str = "sum"
    ) -> Tensor:
        """A scalar, as every penalty gives it; ``origin`` (n, C, H, W)."""
        return cdep_penalty(model, images, masks, origin=origin, reduction=reduction)


ORIGINS: dict[str, Callable[..., Tensor]] = {"black": cdep_penalty, "surroundings": FromSurroundings()}
"""What a masked part is counted from -> penalty."""


@as_configured
def cut_out_rows(prepared: Prepared) -> list[Row]:
    """CDEP by the lexicon's masks and a placebo of these, counted from either origin, at the config's lambda.

    Returns
    -------
    list of dict
        "masks" ("none" before alignment), "origin" and the fields of :meth:`Prepared.score`
    """
    rows: list[Row] = [{"masks": "none", "origin": None} | prepared.score(prepared.model)]
    for whose, masks, keep in masks_to_compare(prepared, placebo=True):
        if whose != "true":
            for origin, penalty in ORIGINS.items():
                model = prepared.aligned(masks, keep, penalty=penalty)
                rows.append({"masks": whose, "origin": origin} | prepared.score(model))
    return rows


def cut_out_sweep(dataset: str, seed: int) -> list[Row]:
    """Both origins on phantoms, test split."""
    task = tasks.get(dataset)()
    return cut_out_rows(prepare(task, task.config(seed=seed)))


EXPERIMENTS.register("knee_cut_outs", partial(cut_out_sweep, "knee"))
