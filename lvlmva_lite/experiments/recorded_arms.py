"""What the verdicts of a real model are worth: masks by its recorded answers against others on the same cases.

All arms of a model share its recorded cases, and differ in the masks and in the draw of the
alignment's batches.  Nothing is chosen between: every arm has the settings' one strength of the
penalty.  Intervals over draws of the batches say nothing about another model or other patients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lvlmva_lite import metrics, tasks
from lvlmva_lite.config import Config
from lvlmva_lite.critic import recordings
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT
from lvlmva_lite.experiments.group_arms import PAPER_CRITICS
from lvlmva_lite.models import predict
from lvlmva_lite.pipeline import Prepared, prepare, taking_part, verdict_quality
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.tasks import Task
from lvlmva_lite.threads import as_configured

Row = dict[str, Any]

MODEL = "claude"
"""Who answered."""

WEAK_PROMPT = "critic-1"
"""The prompt of two words, under which the same model is a weak critic."""

ALIGNMENT_SEEDS = (0, 1, 2)
"""Of the alignment's batches."""

BY_RIGHT_VERDICTS = "right verdicts"
"""Name of the arm whose masks a critic without fault would give."""

SOURCES = {"decoy-mnist": "decoy-mnist", "knee-phantom": "knee", "skin-phantom": "skin"}
"""Images that need no files -> data set."""


@dataclass(frozen=True)
class Arm:
    """Masks to align with, and where they come from.

    Attributes
    ----------
    name : who judged, or "true masks", or "nothing" for plain fine-tuning
    masks : Tensor, (N, H, W), bool
    keep : Tensor, (N,), bool, the cases that take part
    mask, mask_near : fields of the config that made masks of the verdicts; None where there were none
    kinds : Tensor, (N, J), int64 verdicts, codes of ``KINDS``; None where nobody judged
    """

    name: str
    masks: Tensor
    keep: Tensor
    mask: str | None = None
    mask_near: float | None = None
    kinds: Tensor | None = None


def recorded_arms(prepared: Prepared) -> Iterator[Arm]:
    """Every arm on the recorded cases of ``prepared``.

    The weak and the strong prompt's answers (the weak where they cover every
    case), right verdicts, the lexicon and simulated critics of the paper's
    accuracies, with the masks of the config; true masks; nothing.  The strong
    prompt's answers also with whole segments for masks, and with background;
    right verdicts also with whole segments.

    Parameters
    ----------
    prepared : of a config with the critic "recorded"
    """
    config, alignment_set = prepared.config, prepared.alignment_set
    usual, whole = (config.mask, config.mask_near), (config.mask, 0.0)
    answers = prepared.task.recording(config).answers

    def said(prompt: str) -> Tensor:
        return prepared.verdicts("recorded", CriticSettings(model=MODEL, prompt=prompt))

    judged = [
        (DEFAULT_PROMPT, said(DEFAULT_PROMPT), [usual, whole, ("spurious+background", config.mask_near)])
    ]
    if set(alignment_set.indices.tolist()) <= set(answers.get(WEAK_PROMPT, ())):
        judged.append((WEAK_PROMPT, said(WEAK_PROMPT), [usual]))
    judged.append((BY_RIGHT_VERDICTS, metrics.right_verdicts(alignment_set.truth), [usual, whole]))
    judged.append(("lexicon", prepared.verdicts("lexicon"), [usual]))
    for accuracy in PAPER_CRITICS[:-1]:  # a simulated critic of accuracy 1 gives the right verdicts
        kinds = prepared.verdicts("simulated", CriticSettings(simulated_accuracy=accuracy))
        judged.append((f"simulated {accuracy:g}", kinds, [usual]))
    for name, kinds, ways in judged:
        for mask, near in dict.fromkeys(ways):
            masks = replace(prepared, config=replace(config, mask=mask, mask_near=near)).masks(kinds)
            yield Arm(name, masks, taking_part(kinds, masks, config.keep_unjudged), mask, near, kinds)
    true = prepared.chosen.spurious_masks
    everyone = torch.ones(len(true), dtype=torch.bool)
    yield Arm("true masks", true, everyone)
    yield Arm("nothing", torch.zeros_like(true), everyone)


@as_configured
def recorded_rows(prepared: Prepared, alignment_seeds: Sequence[int] = ALIGNMENT_SEEDS) -> list[Row]:
    """Every arm with every draw of the alignment's batches.

    Parameters
    ----------
    prepared : of a config with the critic "recorded"
    alignment_seeds : draw the batches; the first of ``Config.seed`` is what ``lvlmva run`` draws

    Returns
    -------
    list of dict
        "source", as in ``Task.source``; "n_cases"; "arm"; "mask" and
        "mask_near", None where no verdicts became masks; "default", whether
        they are the config's; "alignment_seed"; the fields of
        :func:`pipeline.verdict_quality`, None where nobody judged;
        "mask_area", the masked share of all pixels, and "n_taking_part" cases;
        "accuracy_before", "wga_before", "aga_before", "accuracy_after", ... on
        the split of ``config.evaluate_on``
    """
    config = prepared.config
    before = _measured(prepared, prepared.model, "before")
    nobody = dict.fromkeys(verdict_quality(prepared.alignment_set.truth, prepared.alignment_set.truth))
    rows = []
    for arm in recorded_arms(prepared):
        about = {
            "source": prepared.task.source,
            "n_cases": len(prepared.alignment_set.indices),
            "arm": arm.name,
            "mask": arm.mask,
            "mask_near": arm.mask_near,
            "default": arm.mask is None or (arm.mask, arm.mask_near) == (config.mask, config.mask_near),
            **(nobody if arm.kinds is None else verdict_quality(arm.kinds, prepared.alignment_set.truth)),
            "mask_area": arm.masks.double().mean().item(),
            "n_taking_part": int(arm.keep.sum()),
            **before,
        }
        for seed in alignment_seeds:
            model = prepared.aligned(arm.masks, arm.keep, random_state=seed)
            rows.append(about | {"alignment_seed": seed} | _measured(prepared, model, "after"))
    return rows


def _measured(prepared: Prepared, model: nn.Module, when: str) -> Row:
    test = prepared.test
    predicted = predict(model, test.images)
    in_groups = metrics.group_accuracy(predicted, test.labels, test.groups, len(test.group_names))
    return {
        f"accuracy_{when}": metrics.accuracy(predicted, test.labels),
        f"wga_{when}": metrics.worst_group_accuracy(in_groups),
        f"aga_{when}": metrics.average_group_accuracy(in_groups),
    }


def gains(table: pd.DataFrame, measure: str = "wga") -> pd.DataFrame:
    """What each arm gained over its model before alignment, mean over the alignment's seeds.

    Parameters
    ----------
    table : rows of :func:`recorded_rows` with their "seed"
    measure : "accuracy", "wga" or "aga"

    Returns
    -------
    pd.DataFrame
        one row for each set of cases, arm and mask, in the table's order:
        "source", "seed", "n_cases", "arm", "mask", "mask_near", "default"; "n"
        alignment seeds; "gain", with "low" and "high" of its 95 % interval
        (nan for a single seed); and "share" of the gain that right verdicts
        give the same cases with the config's masks (nan where that is none)
    """
    keys = ["source", "seed", "n_cases", "arm", "mask", "mask_near", "default"]
    change = table[f"{measure}_after"] - table[f"{measure}_before"]
    rows = []
    for key, values in change.groupby([table[key] for key in keys], sort=False, dropna=False):
        mean, low, high = (
            metrics.mean_interval(values) if len(values) > 1 else (values.mean(), *[math.nan] * 2)
        )
        rows.append(
            dict(zip(keys, key, strict=True)) | {"n": len(values), "gain": mean, "low": low, "high": high}
        )
    found = pd.DataFrame(rows)
    right = found[(found["arm"] == BY_RIGHT_VERDICTS) & found["default"]]
    whole = right.set_index(["source", "seed", "n_cases"])["gain"]
    of = pd.MultiIndex.from_frame(found[["source", "seed", "n_cases"]])
    found["share"] = found["gain"].to_numpy() / whole.reindex(of).replace(0.0, np.nan).to_numpy()
    return found


@EXPERIMENTS.register("recorded_masks")
def recorded_sweep(seed: int) -> list[Row]:
    """Every recorded set of this seed whose images need no files, test split.

    Where some cases were answered under the weak prompt, these stand as a set
    of their own beside all cases of the strong one.
    """
    rows = []
    for source, of in recordings.recorded_sets():
        if source in SOURCES and of == seed:
            task = tasks.get(SOURCES[source])()
            rows += set_rows(task, _recorded(task, seed))
    return rows


def real_recorded_sweep(dataset: str, seed: int, *, data_root: str) -> list[Row]:
    """As :func:`recorded_sweep`, of the real images in ``data_root``, where the seed has a recording."""
    if (dataset, seed) not in recordings.recorded_sets():
        return []
    task = tasks.get(dataset)(data_root=data_root)
    return set_rows(task, _recorded(task, seed))


def _recorded(task: Task, seed: int) -> Config:
    settings = CriticSettings(model=MODEL, prompt=DEFAULT_PROMPT)
    return task.config(seed=seed, critic="recorded", critic_settings=settings)


def set_rows(task: Task, config: Config, alignment_seeds: Sequence[int] = ALIGNMENT_SEEDS) -> list[Row]:
    """:func:`recorded_rows` of all cases under the config's prompt, and of those of the weak one alone."""
    prepared = prepare(task, config)
    rows = recorded_rows(prepared, alignment_seeds)
    if WEAK_PROMPT in task.recording(config).answers:
        settings = replace(config.critic_settings, prompt=WEAK_PROMPT)
        weak = prepared.changed(critic_settings=settings, n_align=None)
        rows += recorded_rows(weak, alignment_seeds)
    return rows


EXPERIMENTS.register("knee_recorded", partial(real_recorded_sweep, "knee"))
EXPERIMENTS.register("skin_recorded", partial(real_recorded_sweep, "skin"))
