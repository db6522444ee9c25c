"""What is penalised under a mask, and what the mask is filled with: RRR, finite difference, CDEP.

All arms of a seed share the model, its alignment set and the masks; they differ in the penalty
and its weight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite import metrics, tasks
from lvlmva_lite.critic import recordings
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.crossed import crossed_readouts
from lvlmva_lite.fills import FILLS
from lvlmva_lite.methods.placebo import placebo_masks
from lvlmva_lite.models import predict
from lvlmva_lite.pipeline import Prepared, groups_of, prepare, taking_part
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.threads import as_configured

Row = dict[str, Any]

PENALTIES: Mapping[str, Mapping[str, str]] = {
    "rrr": {"penalty": "rrr"},
    FILLS[0]: {"penalty": "finite-difference", "penalty_fill": FILLS[0]},
    "cdep": {"penalty": "cdep"},
}
"""Arm -> fields of the config: RRR, finite difference with its default fill by the name of that, and CDEP."""

OTHER_FILLS: Mapping[str, Mapping[str, str]] = {
    name: {"penalty": "finite-difference", "penalty_fill": name} for name in FILLS[1:]
}

WEIGHTS = (1.0, 3.0)
"""Of the penalty, in nats, to choose from by the validation split."""


def masks_to_compare(prepared: Prepared, placebo: bool = False) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Whose masks, the masks (N, H, W) and who takes part (N,).

    The true ones; the lexicon's; where the config has another critic, by its words; with
    ``placebo`` the last of these in the wrong place.
    """
    config, true = prepared.config, prepared.chosen.spurious_masks
    yield "true", true, torch.ones(len(true), dtype=torch.bool)
    for critic in dict.fromkeys(("lexicon", config.critic)):
        settings = config.critic_settings if critic == config.critic else CriticSettings()
        kinds = prepared.verdicts(critic, settings)
        masks = prepared.masks(kinds)
        keep = taking_part(kinds, masks, config.keep_unjudged)
        yield critic, masks, keep
    if placebo:
        yield "placebo", placebo_masks(masks, random_state=config.seed), keep


@as_configured
def penalty_rows(
    prepared: Prepared,
    penalties: Mapping[str, Mapping[str, str]] = PENALTIES,
    weights: Sequence[float] = WEIGHTS,
    *,
    placebo: bool = False,
    fills_under: str | None = None,
) -> list[Row]:
    """Every penalty with every weight, under each of :func:`masks_to_compare`.

    Parameters
    ----------
    prepared : of two classes, with the twins of its test images
    penalties : as ``PENALTIES``
    weights : lambdas >= 0
    placebo : masks in the wrong place, too
    fills_under : of whose masks ``OTHER_FILLS`` are tried, too

    Returns
    -------
    list of dict
        "masks", "penalty" and "penalty_weight"; first "before" and "never saw it", trained on
        images without the spurious feature, where there are such; "accuracy", "wga", "aga",
        "conflict_auc" and "letter_effect" on the split of ``config.evaluate_on``;
        "wga_validation"; "chosen": whether the weight is the first of the best by this
    """
    config, task = prepared.config, prepared.task
    rows = [{"masks": "none", "penalty": "before", "chosen": True, **_measured(prepared, prepared.model)}]
    clean = task.load("train", seed=config.seed, clean=True)
    if clean is not None:
        model = prepared.trained(clean)
        never = {"masks": "none", "penalty": "never saw it", "chosen": True}
        rows.append(never | _measured(prepared, model))
    for name, masks, keep in masks_to_compare(prepared, placebo):
        others = OTHER_FILLS if name == fills_under else {}
        for penalty, settings in {**penalties, **others}.items():
            changed = dataclasses.replace(prepared, config=dataclasses.replace(config, **settings))
            trials = []
            for weight in weights:
                model = changed.aligned(masks, keep, penalty_weight=weight)
                trial = {"masks": name, "penalty": penalty, "penalty_weight": weight}
                trials.append(trial | _measured(prepared, model))
            best = max(trials, key=lambda trial: trial["wga_validation"])
            rows += [{**trial, "chosen": trial is best} for trial in trials]
    return rows


def _measured(prepared: Prepared, model: nn.Module) -> Row:
    test = prepared.test
    in_groups, of_validation = (groups_of(model, of) for of in (prepared.test, prepared.validation))
    return {
        "accuracy": metrics.accuracy(predict(model, test.images), test.labels),
        "wga": metrics.worst_group_accuracy(in_groups),
        "aga": metrics.average_group_accuracy(in_groups),
        "wga_validation": metrics.worst_group_accuracy(of_validation),
        **crossed_readouts(model, prepared.clean_test, prepared.marked_test, prepared.train),
    }


def penalty_sweep(dataset: str, seed: int) -> list[Row]:
    """All penalties on phantoms, test split; all fills by the lexicon's words."""
    task = tasks.get(dataset)()
    return penalty_rows(prepare(task, task.config(seed=seed)), placebo=True, fills_under="lexicon")


def real_penalty_sweep(dataset: str, seed: int, *, data_root: str) -> list[Row]:
    """Every penalty with its default fill on real images, test split; by a real model's recorded words, too, where there are.

    A single weight of each penalty, the setting's: validation groups of fifteen images choose nothing.
    """
    task = tasks.get(dataset)(data_root=data_root)
    recorded = {"critic": "recorded", "critic_settings": CriticSettings(model="claude")}
    has_words = (task.source, seed) in recordings.recorded_sets()
    prepared = prepare(task, task.config(seed=seed, **(recorded if has_words else {})))
    return penalty_rows(prepared, weights=(prepared.config.penalty_weight,), placebo=True)


EXPERIMENTS.register("knee_penalties", partial(penalty_sweep, "knee"))
EXPERIMENTS.register("knee_penalties_real", partial(real_penalty_sweep, "knee"))
