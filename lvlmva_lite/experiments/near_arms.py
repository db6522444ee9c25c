"""How near the evidence a mask should keep: ``mask_near``, on validation splits of seeds that are reported nowhere else.

Chapter 5 shows the table.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from lvlmva_lite import tasks
from lvlmva_lite.experiments.group_arms import Row
from lvlmva_lite.experiments.mask_arms import judged_offline
from lvlmva_lite.pipeline import Prepared, prepare, taking_part
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.threads import as_configured

NEARS = (0.0, 0.25, 0.5, 0.75)
"""Values of ``mask_near`` that are compared."""

ACCURACIES = (0.87, 1.0)
"""Of simulated critics: the paper's GPT-4o, whose errors are drawn at random, and one without errors."""


@as_configured
def near_rows(prepared: Prepared) -> list[Row]:
    """Every value of ``NEARS`` with the lexicon's verdicts and those of simulated critics of ``ACCURACIES``.

    Returns
    -------
    list of dict
        "critic" ("before" has no share) and "mask_near"; "mask_area", the masked share of all pixels; the
        fields of :meth:`Prepared.score`
    """
    rows = [{"critic": "before", "mask_near": None} | prepared.score(prepared.model)]
    for critic, kinds in judged_offline(prepared, ACCURACIES).items():
        for near in NEARS:
            config = dataclasses.replace(prepared.config, mask_near=near)
            masks = dataclasses.replace(prepared, config=config).masks(kinds)
            keep = taking_part(kinds, masks, config.keep_unjudged)
            measured = prepared.score(prepared.aligned(masks, keep))
            rows.append(
                {"critic": critic, "mask_near": near, "mask_area": masks.double().mean().item()} | measured
            )
    return rows


def near_sweep(dataset: str, seed: int) -> list[Row]:
    """Every value at the task's other default settings, on its validation split."""
    task = tasks.get(dataset)()
    return near_rows(prepare(task, task.config(seed=seed, evaluate_on="validation")))


for _name in ("knee", "skin"):
    EXPERIMENTS.register(f"{_name}_near", partial(near_sweep, _name))
