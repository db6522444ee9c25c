"""What goes into the mask: the spurious segments near their evidence, whole, or with the background.

Chapters 05 and 06 say why broad masks help digits and ruin knees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lvlmva_lite import tasks
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.experiments.group_arms import PAPER_CRITICS, Row
from lvlmva_lite.pipeline import Prepared, prepare, taking_part, verdict_quality
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.threads import as_configured

NEAR = 0.5
"""``mask_near`` of the phantoms."""

WAYS: dict[str, dict[str, Any]] = {
    "near the evidence": {"mask": "spurious", "mask_near": NEAR},
    "whole segments": {"mask": "spurious", "mask_near": 0.0},
    "with background": {"mask": "spurious+background", "mask_near": NEAR},
    "whole, with background": {"mask": "spurious+background", "mask_near": 0.0},
}
"""Way to make a mask of verdicts -> fields of the config."""


def judged_offline(prepared: Prepared, accuracies: Sequence[float]) -> dict[str, Tensor]:
    """Verdicts (n, J) of the lexicon and of simulated critics of these accuracies, by the critic's name."""
    judged = {"lexicon": prepared.verdicts("lexicon")}
    for accuracy in accuracies:
        settings = CriticSettings(simulated_accuracy=accuracy)
        judged[f"simulated {accuracy:g}"] = prepared.verdicts("simulated", settings)
    return judged


@as_configured
def mask_rows(prepared: Prepared) -> list[Row]:
    """Every way of ``WAYS`` with the lexicon's verdicts, simulated ones of the paper's accuracies, and true masks.

    Returns
    -------
    list of dict
        "critic" and "way" ("before" and "true masks" have no way); the fields of
        :func:`pipeline.verdict_quality`; "mask_area", the masked share of all pixels; "n_taking_part"
        cases; the fields of :meth:`Prepared.score`
    """
    config, truth = prepared.config, prepared.alignment_set.truth
    nobody = dict.fromkeys(verdict_quality(truth, truth))

    def row(critic: str, way: str | None, ruled: Row, masks: Tensor, keep: Tensor) -> Row:
        area = {"mask_area": masks.double().mean().item(), "n_taking_part": int(keep.sum())}
        measured = prepared.score(prepared.aligned(masks, keep))
        return {"critic": critic, "way": way} | ruled | area | measured

    rows = [{"critic": "before", "way": None} | prepared.score(prepared.model)]
    for critic, kinds in judged_offline(prepared, PAPER_CRITICS).items():
        for way, fields in WAYS.items():
            masks = dataclasses.replace(prepared, config=dataclasses.replace(config, **fields)).masks(kinds)
            keep = taking_part(kinds, masks, config.keep_unjudged)
            rows.append(row(critic, way, verdict_quality(kinds, truth), masks, keep))
    true = prepared.chosen.spurious_masks
    return [*rows, row("true masks", None, nobody, true, torch.ones(len(true), dtype=torch.bool))]


def mask_sweep(dataset: str, seed: int) -> list[Row]:
    """Every way at the task's default settings, test split."""
    task = tasks.get(dataset)()
    return mask_rows(prepare(task, task.config(seed=seed)))


for _name, _dataset in (("decoy", "decoy-mnist"), ("knee", "knee"), ("skin", "skin")):
    EXPERIMENTS.register(f"{_name}_masks", partial(mask_sweep, _dataset))
