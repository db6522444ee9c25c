"""Knee and skin, one seed at a time: every method on one model, and the ablations of chapter 10."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from torch import Tensor, nn

from lvlmva_lite import methods, metrics, tasks
from lvlmva_lite.config import ConfigError
from lvlmva_lite.critic import class_description
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.types import SPURIOUS
from lvlmva_lite.files import to_json
from lvlmva_lite.models import predict_proba
from lvlmva_lite.pipeline import Prepared, groups_of, prepare, verdict_quality
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.sampling import STRATEGIES, sample_alignment_set
from lvlmva_lite.threads import as_configured

Row = dict[str, Any]

LABELS = {
    name: methods.get(name).label
    for name in ("lvlm-va", "rrr-gt", "placebo", "finetune", "subg", "dfr", "jtt")
}
"""Methods as people read them, in the order of figures."""

ARMS = ("lvlm-va", "rrr-gt", "subg", "dfr", "jtt", "placebo", "finetune")
"""Methods in the order of the recorded tables."""

OTHER_WORDS = {"knee": "knee-joint", "skin": "skin-bandages"}
"""The other way to describe: the joint alone where the marker is named, the bandage where the lesion is."""

PAPER_CRITICS = (0.42, 0.87, 1.0)
"""Verdict accuracies of the paper's Table 1: GPT-4o-mini, GPT-4o, GPT-5."""

ABLATIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "segmentation": {
        "PPEPS-WGM": {},
        "no filling": {"fill": 0.0},
        "twice the filling": {"fill": 6.0},
        "no smoothing": {"smoothing": 0.0},
        "neither": {"fill": 0.0, "smoothing": 0.0},
        "Felzenszwalb": {"segmenter": "felzenszwalb"},
        "SLIC": {"segmenter": "slic"},
    },
    "sampling": {
        "low": {},
        "random": {"sampling": "random"},
        "high": {"sampling": "high"},
        "low, classes not balanced": {"balanced": False},
    },
    "J": {"3": {"n_segments": 3}, "6": {}, "10": {"n_segments": 10}},
    "N": {"100": {"n_align": 100}, "300": {}, "600": {"n_align": 600}},
    "share of a batch": {"0.1": {"align_fraction": 0.1}, "0.25": {}, "0.5": {"align_fraction": 0.5}},
    "lambda": {
        "0": {"penalty_weight": 0.0},
        "0.1": {"penalty_weight": 0.1},
        "0.3": {"penalty_weight": 0.3},
        "1": {},
        "3": {"penalty_weight": 3.0},
        "10": {"penalty_weight": 10.0},
    },
}
"""Ablation -> arm -> fields of the config that differ from its defaults."""

_OF_THE_ALIGNMENT = {"penalty_weight", "align_fraction"}


def _measured(prepared: Prepared, model: nn.Module) -> Row:
    accuracies = groups_of(model, prepared.test).tolist()
    return prepared.score(model) | {f"group_{i}": value for i, value in enumerate(accuracies)}


def sampling_shares(prepared: Prepared) -> Row:
    """Share of images with the spurious feature in plain and balanced samples by entropy (paper E6).

    Returns
    -------
    dict
        "spurious_low", "spurious_low_balanced", ... of ``config.n_align``
        training images; "spurious_all" of all
    """
    train, config = prepared.train, prepared.config
    shows = train.spurious_masks.flatten(1).any(1).double()
    probabilities = predict_proba(prepared.model, train.images)
    row = {"spurious_all": shows.mean().item()}
    for strategy in STRATEGIES:
        for balanced in (False, True):
            sample = sample_alignment_set(
                probabilities, train.labels, config.n_align,
                strategy=strategy, balanced=balanced, random_state=config.seed,
            )  # fmt: skip
            row[f"spurious_{strategy}" + "_balanced" * balanced] = shows[sample].mean().item()
    return row


@as_configured
def arm_rows(prepared: Prepared, arms: Sequence[str] = ARMS, *, n_trials: int | None = None) -> list[Row]:
    """Every method on one model, each with its own trials.

    Parameters
    ----------
    prepared : from :func:`pipeline.prepare`
    arms : of ``methods.names()``
    n_trials : only the first so many of each method; None: all

    Returns
    -------
    list of dict
        "arm": "before", the methods, and "other words", LVLM-VA with the other
        description of ``OTHER_WORDS``; the fields of :meth:`Prepared.score`;
        "group_0" ... accuracies; "trials", JSON; for LVLM-VA the fields of
        :func:`pipeline.verdict_quality`; the first row also has
        :func:`sampling_shares`.  A method that these data do not allow has
        "arm" and "failed", why, alone.
    """
    config = prepared.config
    rows = [{"arm": "before", **_measured(prepared, prepared.model), **sampling_shares(prepared)}]

    def judged(prepared: Prepared) -> tuple[Tensor, Row]:
        kinds = prepared.verdicts()
        return kinds, {
            **verdict_quality(kinds, prepared.alignment_set.truth),
            "n_taking_part": int((kinds == SPURIOUS).any(1).sum()),
        }

    def row(arm: str, method: str, prepared: Prepared, kinds: Tensor, ruled: Row) -> Row:
        chosen = methods.get(method)()
        fit = partial(chosen.fit, prepared, kinds)
        try:
            fitted, trials = methods.best_trial(fit, chosen.trials[:n_trials], prepared.validation)
            fitted.check_held_out(prepared.test)
        except ConfigError as error:  # a group that the method needs is empty, or it saw what is measured
            return {"arm": arm, "failed": str(error)}
        return {"arm": arm, **_measured(prepared, fitted.model), "trials": to_json(trials), **ruled}

    kinds, ruled = judged(prepared)
    for method in arms:
        rows.append(row(method, method, prepared, kinds, ruled if method == "lvlm-va" else {}))
    other = dataclasses.replace(config, description=class_description(OTHER_WORDS[prepared.task.name]))
    alignment_set = prepared.alignment_set
    cases = [dataclasses.replace(case, description=other.description) for case in alignment_set.cases]
    again = dataclasses.replace(
        prepared, config=other, alignment_set=dataclasses.replace(alignment_set, cases=cases)
    )
    kinds, ruled = judged(again)
    return [*rows, row("other words", "lvlm-va", again, kinds, ruled)]


def changes(table: pd.DataFrame, arms: Mapping[str, str]) -> pd.DataFrame:
    """Each arm minus "before", seed by seed, in WGA and AGA; over the seeds that have both.

    Parameters
    ----------
    table : rows of :func:`arm_rows` with their "seed"
    arms : arm -> name to show

    Returns
    -------
    pd.DataFrame
        one row for each measure and arm that has a seed: "arm", "method",
        "measure" ("WGA" or "AGA"); "mean" and "sd" over "n" seeds; "low" and
        "high" of the 95 % interval; "p" and "smallest p" of
        :func:`metrics.paired_test`; of a single seed there is "mean" alone
    """
    rows = []
    for measure in ("wga", "aga"):
        wide = table.pivot(index="seed", columns="arm", values=measure)
        for arm, name in arms.items():
            pairs = wide.reindex(columns=[arm, "before"]).dropna()
            if pairs.empty:
                continue
            difference = pairs[arm] - pairs["before"]
            row = {
                "arm": arm, "method": name, "measure": measure.upper(), "n": len(pairs),
                "mean": difference.mean(), **dict.fromkeys(("sd", "low", "high", "p", "smallest p"), math.nan),
            }  # fmt: skip
            if len(pairs) > 1:
                test = metrics.paired_test(pairs[arm], pairs["before"])
                _, low, high = metrics.mean_interval(difference)
                row |= {"mean": test.mean, "sd": test.std, "low": low, "high": high}
                row |= {"p": test.p, "smallest p": test.smallest_p}
            rows.append(row)
    return pd.DataFrame(rows)


def _one_trial(prepared: Prepared, ablation: str, arm: str, kinds: Tensor) -> Row:
    return {
        "ablation": ablation,
        "arm": arm,
        **verdict_quality(kinds, prepared.alignment_set.truth),
        "n_taking_part": int((kinds == SPURIOUS).any(1).sum()),
        **_measured(prepared, prepared.aligned_by_verdicts(kinds)),
    }


@as_configured
def ablation_rows(
    prepared: Prepared,
    ablations: Mapping[str, Mapping[str, Mapping[str, Any]]] = ABLATIONS,
    critics: Sequence[float] = PAPER_CRITICS,
) -> list[Row]:
    """LVLM-VA with one setting changed, everything else at its default and without trials.

    Besides ``ablations``, "critic": the lexicon, and simulated critics of the verdict accuracies ``critics``.  The default is measured once and stands in
    every ablation that has an arm without changes.
    """
    config = prepared.config
    rows = [{"ablation": "before", "arm": "before", **_measured(prepared, prepared.model)}]
    kinds = prepared.verdicts()
    default = _one_trial(prepared, "critic", "lexicon", kinds)
    rows.append(default)
    for accuracy in critics:
        simulated = prepared.verdicts("simulated", CriticSettings(simulated_accuracy=accuracy))
        rows.append(_one_trial(prepared, "critic", f"simulated {accuracy:g}", simulated))
    for ablation, arms in ablations.items():
        for arm, settings in arms.items():
            if not settings:
                rows.append(default | {"ablation": ablation, "arm": arm})
                continue
            other = dataclasses.replace(config, **settings)
            if set(settings) <= _OF_THE_ALIGNMENT:
                changed = dataclasses.replace(prepared, config=other)
                rows.append(_one_trial(changed, ablation, arm, kinds))
            else:
                changed = prepared.changed(**settings)
                rows.append(_one_trial(changed, ablation, arm, changed.verdicts()))
    return rows


def prepare_default(dataset: str, seed: int, **options: Any) -> Prepared:
    """Knee or skin with a task's options, at the default settings."""
    task = tasks.get(dataset)(**options)
    return prepare(task, task.config(seed=seed))


def phantom_sweep(dataset: str, seed: int) -> list[Row]:
    """All methods on phantoms, test split."""
    return arm_rows(prepare_default(dataset, seed))


def ablation_sweep(dataset: str, seed: int) -> list[Row]:
    """All ablations on phantoms, test split."""
    return ablation_rows(prepare_default(dataset, seed))


def real_sweep(dataset: str, seed: int, *, data_root: str) -> list[Row]:
    """All methods on real images, test split, one setting each.

    The small sets' validation groups hold some fifteen images; to choose
    between settings by them would be to toss a coin.
    """
    return arm_rows(prepare_default(dataset, seed, data_root=data_root), n_trials=1)


EXPERIMENTS.register("knee_phantoms", partial(phantom_sweep, "knee"))
EXPERIMENTS.register("skin_phantoms", partial(phantom_sweep, "skin"))
EXPERIMENTS.register("knee_ablations", partial(ablation_sweep, "knee"))
EXPERIMENTS.register("knee_real", partial(real_sweep, "knee"))
EXPERIMENTS.register("skin_real", partial(real_sweep, "skin"))
