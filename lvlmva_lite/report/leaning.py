"""What a model leans on, by class and by thing, gathered from judged cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lvlmva_lite.critic.types import KINDS, segment_names
from lvlmva_lite.report.things import THINGS, named_thing, names_it, segment_texts, telling_words

MUCH = 0.1
"""Share of a case's positive effect from which it counts as leaning on a thing."""

UNNAMED = "thing without a name"
"""What is spurious by its verdict, and called nothing in the prose."""


@dataclass(frozen=True)
class JudgedCase:
    """One image, what the model goes by in it, and what the critic made of that.

    Attributes
    ----------
    case_id, class_name : str
    kinds : tuple of str, of ``KINDS``, one a segment
    shares : tuple of float >= 0, effect in each segment; only their proportions count
    text : str, the critique; empty where there is none
    """

    case_id: str
    class_name: str
    kinds: tuple[str, ...]
    shares: tuple[float, ...]
    text: str


@dataclass(frozen=True)
class Thing:
    """A thing that does not belong, as the critic named it.

    Attributes
    ----------
    name : of ``THINGS``, or the critic's own word
    share : mean share of the positive effect that lies on it, over all cases, in [0, 1]
    cases : class -> ids of the cases that lean on it by at least ``MUCH``, the strongest first
    in_words : whether the expert's words name it
    segments : case id -> indices of its segments
    """

    name: str
    share: float
    cases: dict[str, tuple[str, ...]]
    in_words: bool
    segments: dict[str, tuple[int, ...]]

    @property
    def n_cases(self) -> int:
        """Cases that lean on it, of all classes."""
        return sum(map(len, self.cases.values()))

    @property
    def sentence(self) -> str:
        """Words by which an expert would dismiss it."""
        return f"Any {self.name} in the image does not belong to it: it is spurious and says nothing about the class."


@dataclass(frozen=True)
class Leaning:
    """What a model leans on.

    Attributes
    ----------
    n_cases : class -> number of cases
    by_class : DataFrame, a row a class: mean share of the positive effect on segments of each
        kind of ``KINDS``, which add up to 1, and "leans on spurious", the share of its cases that do by
        at least ``MUCH``
    total : Series, the same over all cases
    things : those named in spurious segments, by the effect that lies on them, largest first
    """

    n_cases: dict[str, int]
    by_class: pd.DataFrame
    total: pd.Series
    things: tuple[Thing, ...]

    @property
    def candidates(self) -> tuple[Thing, ...]:
        """Things that the expert's words do not name, for the expert to accept or to refuse."""
        return tuple(
            thing for thing in self.things if not thing.in_words and thing.n_cases and thing.name != UNNAMED
        )


def judged_cases(
    case_ids: Sequence[str],
    class_names: Sequence[str],
    kinds: Sequence[Sequence[str]],
    shares: Sequence[Sequence[float]],
    critiques: Iterable[tuple[str, str]],
) -> list[JudgedCase]:
    """One for each case, with all that was said about it.

    Parameters
    ----------
    case_ids, class_names, kinds, shares : one entry a case, see :class:`JudgedCase`
    critiques : (case id, text), in any order; several on one case are joined
    """
    texts: dict[str, list[str]] = {}
    for case_id, text in critiques:
        texts.setdefault(case_id, []).append(text)
    return [
        JudgedCase(case_id, name, tuple(of), tuple(row), "\n".join(texts.get(case_id, ())))
        for case_id, name, of, row in zip(case_ids, class_names, kinds, shares, strict=True)
    ]


def leaning(cases: Sequence[JudgedCase], words: str, class_names: Sequence[str]) -> Leaning:
    """Gather judged cases.

    Parameters
    ----------
    cases : at least one
    words : the expert's
    class_names : in order; classes without a case are left out

    Raises
    ------
    ValueError : no case, or one whose kinds and shares differ in number
    """
    if not cases:
        raise ValueError("there is no judged case to gather from; ask a critic about at least one")
    for case in cases:
        if len(case.kinds) != len(case.shares):
            raise ValueError(
                f"case {case.case_id} has {len(case.kinds)} kinds and {len(case.shares)} shares"
            )
    rows = []
    effects = {case.case_id: _proportions(case.shares) for case in cases}
    for case in cases:
        row = dict.fromkeys(KINDS, 0.0)
        for kind, share in zip(case.kinds, effects[case.case_id], strict=True):
            row[kind] += share
        rows.append({"class": case.class_name, **row, "leans on spurious": row["spurious"] >= MUCH})
    table = pd.DataFrame(rows).astype({"leans on spurious": float})
    by_class = table.groupby("class").mean()
    order = [name for name in class_names if name in by_class.index]
    by_class = by_class.loc[order]
    n_cases = {name: int((table["class"] == name).sum()) for name in order}
    total = table.drop(columns="class").mean()
    return Leaning(n_cases, by_class, total, _things(cases, effects, words))


def _things(
    cases: Sequence[JudgedCase], effects: Mapping[str, list[float]], words: str
) -> tuple[Thing, ...]:
    texts = {case.case_id: segment_texts(case.text, segment_names(len(case.kinds))) for case in cases}

    def told(case: JudgedCase) -> list[tuple[int, str, str]]:
        said = texts[case.case_id]
        names = segment_names(len(case.kinds))
        return [
            (j, kind, said.get(name, ""))
            for j, (kind, name) in enumerate(zip(case.kinds, names, strict=True))
        ]

    spurious = [text for case in cases for _, kind, text in told(case) if kind == "spurious"]
    other = [text for case in cases for _, kind, text in told(case) if kind in ("relevant", "background")]
    # Words of the critic's own go first only where it names nothing that is known.
    own = [word for word in telling_words(spurious, other) if named_thing(word) is None]
    shares: dict[str, dict[str, float]] = {}
    segments: dict[str, dict[str, list[int]]] = {}
    for case in cases:
        for j, kind, text in told(case):
            if kind != "spurious":
                continue
            name = named_thing(text) or next((word for word in own if word in text.split()), UNNAMED)
            of_case = shares.setdefault(name, {})
            of_case[case.case_id] = of_case.get(case.case_id, 0.0) + effects[case.case_id][j]
            segments.setdefault(name, {}).setdefault(case.case_id, []).append(j)
    class_of = {case.case_id: case.class_name for case in cases}
    things = []
    for name, of_case in shares.items():
        leaning_on: dict[str, list[str]] = {}
        for case_id in sorted((c for c in of_case if of_case[c] >= MUCH), key=lambda c: -of_case[c]):
            leaning_on.setdefault(class_of[case_id], []).append(case_id)
        things.append(
            Thing(
                name,
                sum(of_case.values()) / len(cases),
                {of: tuple(ids) for of, ids in leaning_on.items()},
                names_it(THINGS.get(name, name), words),
                {case_id: tuple(of) for case_id, of in segments[name].items()},
            )
        )
    return tuple(sorted(things, key=lambda thing: (-thing.share, thing.name)))


def _proportions(shares: Sequence[float]) -> list[float]:
    total = sum(shares)
    return [share / total if total > 0 else 0.0 for share in shares]
