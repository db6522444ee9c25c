"""How far people, critic and truth agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lvlmva_lite.agreement import (
    MISSING,
    bootstrap_interval,
    cohen_kappa,
    fleiss_kappa,
    mean_pairwise_agreement,
    percent_agreement,
)
from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.study.answers import RECORDED
from lvlmva_lite.study.trials import CANNOT_TELL, Trial

_YES = ("yes", "no", CANNOT_TELL)
_TWO = ("spurious", "other", "undecided")

MEASURES: dict[str, tuple[str, tuple[str, ...], Callable[[str], str]]] = {
    "verdict, four words": ("verdict", KINDS, str),
    "verdict, spurious or not": ("verdict", _TWO, lambda kind: kind if kind in _TWO else "other"),
    "description is right": ("description", _YES, str),
    "reading": ("reading", KINDS, str),
}
"""Name -> the question, the words that count as different, and what each answer counts as."""


def agreement_table(
    answers: pd.DataFrame, trials: Sequence[Trial], *, n_resamples: int = 1000, random_state: int = 0
) -> pd.DataFrame:
    """Agreement of each kind of raters with the critic, with the truth and among themselves.

    Parameters
    ----------
    answers : "kind", "rater", "trial", "question", "answer", as in :mod:`study.answers`
    trials : those that were asked about
    n_resamples : of the trials, for the 95 % intervals

    Returns
    -------
    DataFrame
        "measure", of ``MEASURES``; "raters", the kind, a recorded model's
        name, or "critic"; "with": "critic", "truth" or "one another"; "n_raters" and
        "n_trials"; "agreement", the share of equal answers, with "low" and
        "high"; "kappa", Cohen's, mean over raters, or among raters Fleiss',
        with "kappa_low" and "kappa_high"; nan where it is not defined
    """
    rows = [_critic_with_truth(trials, n_resamples, random_state)]
    # Recorded models answered under prompts of their own: each stands alone.
    who = answers["rater"].where(answers["kind"] == RECORDED, answers["kind"])
    for name, of in answers.groupby(who, sort=False):
        for measure, (question, words, counts_as) in MEASURES.items():
            given = of[of["question"] == question]
            if given.empty:
                continue
            ratings = _codes(given, trials, words, counts_as)
            references = {}
            if question != "description":
                references["critic"] = [words.index(counts_as(trial.critic)) for trial in trials]
            else:
                references["critic"] = [words.index("yes")] * len(trials)
            if words is _TWO:
                references["truth"] = _truth(trials)
            for other, codes in references.items():
                rows.append(
                    {"measure": measure, "raters": name, "with": other}
                    | _with_reference(ratings, np.array(codes), n_resamples, random_state)
                )
            if len(ratings) > 1:
                rows.append(
                    {"measure": measure, "raters": name, "with": "one another"}
                    | _measured(
                        ratings, mean_pairwise_agreement, fleiss_kappa, (ratings != MISSING).sum(0) >= 2,
                        n_resamples, random_state,
                    )
                )  # fmt: skip
    columns = [
        "measure", "raters", "with", "n_raters", "n_trials", "agreement", "low", "high", "kappa", "kappa_low",
        "kappa_high",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _truth(trials: Sequence[Trial]) -> list[int]:
    return [_TWO.index("spurious" if trial.spurious else "other") for trial in trials]


def _critic_with_truth(trials: Sequence[Trial], n_resamples: int, random_state: int) -> dict[str, Any]:
    name = "verdict, spurious or not"
    *_, counts_as = MEASURES[name]
    said = np.array([[_TWO.index(counts_as(trial.critic)) for trial in trials]])
    return {"measure": name, "raters": "critic", "with": "truth"} | _with_reference(
        said, np.array(_truth(trials)), n_resamples, random_state
    )


def _codes(
    given: pd.DataFrame, trials: Sequence[Trial], words: tuple[str, ...], counts_as: Callable[[str], str]
) -> np.ndarray:
    """Ratings (raters, trials), ``MISSING`` where there is none."""
    place = {trial.trial_id: i for i, trial in enumerate(trials)}
    raters = list(dict.fromkeys(given["rater"]))
    codes = np.full((len(raters), len(trials)), MISSING)
    for rater, trial, answer in given[["rater", "trial", "answer"]].itertuples(index=False):
        codes[raters.index(rater), place[trial]] = words.index(counts_as(answer))
    return codes


def _with_reference(
    ratings: np.ndarray, reference: np.ndarray, n_resamples: int, random_state: int
) -> dict[str, Any]:
    def mean_of(measure: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray], float]:
        def mean(rows: np.ndarray) -> float:
            values = [measure(row, rows[-1]) for row in rows[:-1]]
            values = [value for value in values if not math.isnan(value)]
            return float(np.mean(values)) if values else math.nan

        return mean

    both = np.vstack([ratings, reference])
    found = _measured(
        both, mean_of(percent_agreement), mean_of(cohen_kappa), (ratings != MISSING).any(0), n_resamples,
        random_state,
    )  # fmt: skip
    if len(set(reference.tolist())) == 1:  # one answer throughout: nothing is left beyond chance
        found |= dict.fromkeys(("kappa", "kappa_low", "kappa_high"), math.nan)
    return found | {"n_raters": len(ratings)}


def _measured(
    ratings: np.ndarray, share: Callable[[np.ndarray], float], kappa: Callable[[np.ndarray], float],
    rated: np.ndarray, n_resamples: int, random_state: int,
) -> dict[str, Any]:  # fmt: skip
    shown = ratings[:, rated]
    row: dict[str, Any] = {"n_raters": len(ratings), "n_trials": int(rated.sum())}
    names = (("agreement", "low", "high", share), ("kappa", "kappa_low", "kappa_high", kappa))
    for value, low, high, statistic in names:
        row[value] = statistic(shown) if shown.size else math.nan
        row[low], row[high] = (
            (math.nan, math.nan)
            if math.isnan(row[value])
            else bootstrap_interval(statistic, shown, n_resamples=n_resamples, random_state=random_state)
        )
    return row


def as_markdown(table: pd.DataFrame) -> str:
    """The table of :func:`agreement_table` as Markdown, with what its numbers are."""
    lines = [
        "# Agreement",
        "",
        "| measure | raters | with | raters | segments | agreement | kappa |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for row in table.rename(columns={"with": "other"}).itertuples(index=False):
        lines.append(
            f"| {row.measure} | {row.raters} | {row.other} | {row.n_raters} | {row.n_trials} | "
            f"{_interval(100 * row.agreement, 100 * row.low, 100 * row.high, '.0f', ' %')} | "
            f"{_interval(row.kappa, row.kappa_low, row.kappa_high, '.2f', '')} |"
        )
    return (
        "\n".join(lines)
        + "\n\nIn brackets: 95 % intervals over segments drawn anew (bootstrap), with the same raters. Kappa is Cohen's, "
        "the mean over raters, and Fleiss' among one another. The segments were chosen so that the critic's verdicts "
        "take turns, and that it is wrong on three: the shares are no shares of all segments. Simulated raters are drawn from the truth and are no "
        "people.\n"
    )


def _interval(value: float, low: float, high: float, form: str, unit: str) -> str:
    return "–" if math.isnan(value) else f"{value:{form}}{unit} ({low:{form}} to {high:{form}})"
