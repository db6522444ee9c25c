"""The method as the paper states it, beside ours: which departures buy what.

The paper explains the class's logit, takes the most certain images whatever their class, keeps every image of
the alignment set, and neither smooths its maps nor fills its masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from lvlmva_lite import tasks
from lvlmva_lite.experiments.group_arms import Row, ablation_rows
from lvlmva_lite.pipeline import Prepared, prepare
from lvlmva_lite.registry import EXPERIMENTS

PAPER: Mapping[str, Any] = {
    "explain": "logit", "balanced": False, "keep_unjudged": True, "smoothing": 0.0, "fill": 0.0,
}  # fmt: skip
"""Fields of the config in which the paper's method differs from our defaults, and its values."""

OURS, THEIRS = "ours", "the paper's"


def setting_rows(prepared: Prepared) -> list[Row]:
    """Rows of :func:`group_arms.ablation_rows`: "before", ours, the paper's, and one departure at a time.

    In the ablation "one of ours" a single setting is ours and all others are the paper's; in "one of the
    paper's" it is the other way round.  A setting in which the task's default is the paper's is left out.
    """
    ours = {name: getattr(prepared.config, name) for name in PAPER}
    differ = [name for name in PAPER if ours[name] != PAPER[name]]
    theirs = {name: PAPER[name] for name in differ}
    arms = {
        "setting": {OURS: {}, THEIRS: theirs},
        "one of ours": {name: {one: theirs[one] for one in differ if one != name} for name in differ},
        "one of the paper's": {name: {name: theirs[name]} for name in differ},
    }
    return ablation_rows(prepared, arms, critics=())


def setting_sweep(dataset: str, seed: int) -> list[Row]:
    """All settings, test split, lambda at its default."""
    task = tasks.get(dataset)()
    return setting_rows(prepare(task, task.config(seed=seed)))


for _name, _dataset in (("decoy", "decoy-mnist"), ("knee", "knee"), ("skin", "skin")):
    EXPERIMENTS.register(f"{_name}_paper_setting", partial(setting_sweep, _dataset))
