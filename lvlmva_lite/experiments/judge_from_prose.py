"""How well the offline judge reads a real critic whose verdict lines are cut off, on data it did not learn from.

The judge's design (which steps are read, what stands in place of a case's own
words) was chosen while these very scores were in sight: they are optimistic.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from lvlmva_lite.critic import Critique, TextJudge, recordings
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT, Answer
from lvlmva_lite.critic.types import KINDS, segment_names

SEED = 0
"""Of the recordings; every data set has one of this seed."""


def prose(critique: str) -> str:
    """A critique without its last step, the verdicts line by line."""
    return critique.rsplit("\n6.", 1)[0]


def prose_scores(sources: list[str] | None = None) -> pd.DataFrame:
    """Learn from one set of recorded answers, read the prose of each other one.

    Parameters
    ----------
    sources : images of recordings of seed ``SEED``, as ``Task.source`` names
        them; None: all

    Returns
    -------
    DataFrame, one row for each ordered pair of sets
        "learnt_from", "read"; "n_segments" that were judged; "agreement", the
        share of them on which the judge says what the critic's own verdict
        line says ("undecided" where it is not sure, which agrees with hardly
        any); "commonest", the share that one and the same word throughout
        would reach; "n_undecided" by the critic's own line, and how many of
        these the judge calls something else: "undecided_as_relevant",
        "undecided_as_spurious", "undecided_as_background"
    """
    if sources is None:
        sources = [source for source, seed in recordings.recorded_sets() if seed == SEED]
    answers = {source: _answers(source) for source in sources}
    rows: list[dict[str, Any]] = []
    for learnt_from in sources:
        judge = TextJudge(recorded=answers[learnt_from])
        for read in sources:
            if read == learnt_from:
                continue
            pairs = [pair for answer in answers[read] for pair in _ruled(judge, answer)]
            said = Counter(meant for meant, _ in pairs)
            left_open = Counter(found for meant, found in pairs if meant == "undecided")
            rows.append({
                "learnt_from": learnt_from, "read": read, "n_segments": len(pairs),
                "agreement": sum(meant == found for meant, found in pairs) / len(pairs),
                "commonest": max(said.values()) / len(pairs),
                "n_undecided": said["undecided"],
                **{f"undecided_as_{kind}": left_open[kind] for kind in KINDS if kind != "undecided"},
            })  # fmt: skip
    return pd.DataFrame(rows)


def _answers(source: str) -> list[Answer]:
    return list(recordings.find(source, SEED).answers[DEFAULT_PROMPT].values())


def _ruled(judge: TextJudge, answer: Answer) -> list[tuple[str, str]]:
    """(what the critic meant, what the judge makes of its prose) for each segment with a verdict."""
    names = segment_names(max(map(_place, answer.verdicts)) + 1)
    found = judge.judge(Critique("", "", prose(answer.critique)), len(names)).kinds
    return [
        (answer.verdicts[name], kind)
        for name, kind in zip(names, found, strict=True)
        if name in answer.verdicts
    ]


def _place(name: str) -> int:
    return segment_names(50).index(name)
