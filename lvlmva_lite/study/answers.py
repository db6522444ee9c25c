"""Who answers: people, by the files that their forms give; the recorded model; simulated raters, named as such."""

from __future__ import annotations

import csv
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lvlmva_lite.critic import recordings
from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.study.trials import QUESTIONS, SEED, Trial, study_id

COLUMNS = ("participant", "study", "position", "trial", "question", "answer", "seconds")
"""Of the file that a form gives: one row an answer."""

PEOPLE, RECORDED, SIMULATED = "people", "recorded model", "simulated, no people"
"""Kinds of raters, which are never mixed."""


class StudyError(ValueError):
    """A file of answers that cannot be used; the message says where and how to mend it."""


def read_answers(files: Sequence[Path], trials: Sequence[Trial]) -> pd.DataFrame:
    """What people answered.

    Parameters
    ----------
    files : each from one or more forms, in any order
    trials : those that were asked about

    Returns
    -------
    DataFrame
        "kind", ``PEOPLE``; "rater", the participant's random code; "trial",
        "question" and "answer".  Unanswered questions have no row.

    Raises
    ------
    StudyError : a file that cannot be read, lacks a column, is of another study, names a trial, a question or
        an answer that there is not, or gives one answer twice
    """
    known, ours = {trial.trial_id for trial in trials}, study_id(trials)
    rows: dict[tuple[str, str, str], str] = {}
    for file in files:
        for line, row in _rows(Path(file)):
            where = f"{file}, line {line}"
            if row["study"] != ours:
                raise StudyError(
                    f"{where} is of study {row['study']!r}, not of {ours!r}, which this version asks; analyse it "
                    "with the version that made the form"
                )
            if row["trial"] not in known or row["question"] not in QUESTIONS:
                raise StudyError(
                    f"{where} answers {row['question']!r} on {row['trial']!r}, which nobody asked"
                )
            if row["answer"] not in QUESTIONS[row["question"]][1]:
                raise StudyError(
                    f"{where}: the answer {row['answer']!r} is none of: {', '.join(QUESTIONS[row['question']][1])}"
                )
            key = row["participant"], row["trial"], row["question"]
            if key in rows:
                raise StudyError(
                    f"{where}: participant {key[0]} answers {key[2]!r} on {key[1]!r} twice; leave one file out"
                )
            rows[key] = row["answer"]
    return _table(PEOPLE, [(*key, answer) for key, answer in rows.items()])


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise StudyError(
                    f"{file} lacks the column {missing[0]!r}; give the file that the form gave"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{file} cannot be read: {error}") from None
    if not rows:
        raise StudyError(f"{file} holds no answer; leave it out")
    for line, row in rows:
        if any(row[name] is None for name in COLUMNS):
            raise StudyError(f"{file}, line {line} is cut off; give the file that the form gave")
    return rows


def recorded_raters(trials: Sequence[Trial]) -> pd.DataFrame:
    """The verdicts that the recorded model gave under the prompt whose words are not shown, where it was asked.

    Returns
    -------
    DataFrame
        as :func:`read_answers`; the rater is called "claude, other prompt"
    """
    rows = []
    for trial in trials:
        source, _, index = trial.case.case_id.rpartition("-")
        for prompt, answers in recordings.find(source, SEED).answers.items():
            answer = answers.get(int(index))
            if prompt != trial.prompt and answer and trial.segment in answer.verdicts:
                said = answer.verdicts[trial.segment]
                rows.append((f"{answer.model}, other prompt", trial.trial_id, "verdict", said))
    return _table(RECORDED, rows)


def simulated_raters(
    trials: Sequence[Trial], n: int, *, accuracy: float = 0.87, random_state: int = 0
) -> pd.DataFrame:
    """Raters drawn from the truth, to try the analysis with; no people.

    Each knows whether a segment is spurious with probability ``accuracy``, on
    its own, and says so in the critic's word where the critic is right; finds
    the critic's words right if the critic's verdict is, and reads the critic's
    verdict from them, each with the same probability.

    Parameters
    ----------
    n : how many
    accuracy : q in [0, 1]

    Raises
    ------
    ValueError : accuracy outside [0, 1], or n below 0
    """
    if not 0 <= accuracy <= 1 or n < 0:
        raise ValueError(f"accuracy must lie between 0 and 1, and n be at least 0; got {accuracy} and {n}")
    rows = []
    for k in range(n):
        rater = f"simulated {k + 1} (accuracy {accuracy:g})"
        for trial in trials:
            right = (trial.critic == "spurious") == trial.spurious
            told = trial.critic if right else "spurious" if trial.spurious else "background"
            answers = {
                "verdict": (told, "background" if trial.spurious else "spurious"),
                "description": ("yes", "no") if right else ("no", "yes"),
                "reading": (trial.critic, next(kind for kind in KINDS if kind != trial.critic)),
            }
            for question, (usual, slip) in answers.items():
                # Not from ``hash``, which differs from process to process.
                name = f"{random_state}|{k}|{trial.trial_id}|{question}"
                draw = random.Random(hashlib.sha256(name.encode()).digest()).random()
                rows.append((rater, trial.trial_id, question, usual if draw < accuracy else slip))
    return _table(SIMULATED, rows)


def _table(kind: str, rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["rater", "trial", "question", "answer"], dtype=object)
    table.insert(0, "kind", kind)
    return table
