"""What a model leans on, by class and by thing, gathered from judged cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from lvlmva_lite.critic.types import KINDS, segment_names
from lvlmva_lite.report.things import (
    THINGS,
    named_thing,
    names_it,
    segment_texts,
    telling_words,
    without_mentions,
)

MUCH = 0.1
"""Share of a case's positive effect from which it counts as leaning on a thing."""

UNNAMED = "thing without a name"
"""What is spurious by its verdict, and called nothing in the prose."""

BARE = "bare ground"
"""What is background by its verdict, and called nothing in the prose."""

_BARE_WORDS = r"backgrounds?|surroundings?|bare|empty|(every|any|no)thing else"


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
    """A thing that does not belong, or that surrounds what does, as the critic named it.

    Attributes
    ----------
    name : of ``THINGS``, or the critic's own word
    share : mean share of the positive effect that lies on it, over all cases, in [0, 1]
    cases : class -> ids of the cases that lean on it by at least ``MUCH``, the strongest first
    in_words : whether the expert's words name it
    segments : case id -> indices of its segments
    kind : "spurious" or "background", the verdict on these segments
    by_class : class -> mean share over its cases
    relevant : ids of the cases in which a segment of this name is called relevant
    """

    name: str
    share: float
    cases: dict[str, tuple[str, ...]]
    in_words: bool
    segments: dict[str, tuple[int, ...]]
    kind: str = "spurious"
    by_class: dict[str, float] = field(default_factory=dict)
    relevant: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Verdict and name, by which it is told from every other."""
        return self.kind, self.name

    @property
    def n_cases(self) -> int:
        """Cases that lean on it, of all classes."""
        return sum(map(len, self.cases.values()))

    @property
    def odds(self) -> str:
        """In how many images it is called spurious, and in how many relevant."""
        return (
            f"{self.name}, spurious in {len(self.segments)} images, named in what is called relevant in "
            f"{len(self.relevant)}"
        )

    @property
    def sentence(self) -> str:
        """Words by which an expert would dismiss it."""
        if self.name == BARE:
            return "The background of the image is spurious: it says nothing about the class."
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
    surroundings : the same of background segments, those that a case leans on
    """

    n_cases: dict[str, int]
    by_class: pd.DataFrame
    total: pd.Series
    things: tuple[Thing, ...]
    surroundings: tuple[Thing, ...] = ()

    @property
    def candidates(self) -> tuple[Thing, ...]:
        """Things that the expert's words do not name, for the expert to accept or to refuse.

        What does not belong comes first; of two with one name there is that one.
        """
        named: dict[str, Thing] = {}
        for thing in (*self.things, *self.surroundings):
            if not thing.in_words and thing.n_cases and thing.name != UNNAMED:
                named.setdefault(thing.name, thing)
        return tuple(named.values())

    @property
    def at_odds(self) -> tuple[Thing, ...]:
        """Things called spurious in some cases and relevant in others."""
        return tuple(thing for thing in self.things if thing.relevant)


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
    named = _Named(cases, effects, words, n_cases)
    surroundings = tuple(thing for thing in named.things("background") if thing.n_cases)
    return Leaning(n_cases, by_class, total, named.things("spurious"), surroundings)


class _Named:
    """What the prose on each segment names."""

    def __init__(
        self,
        cases: Sequence[JudgedCase],
        effects: Mapping[str, list[float]],
        words: str,
        n_cases: Mapping[str, int],
    ) -> None:
        self.class_of = {case.case_id: case.class_name for case in cases}
        self.effects, self.words, self.n_cases = effects, words, n_cases
        told: list[tuple[str, int, str, str]] = []  # case id, segment, kind, text
        for case in cases:
            names = segment_names(len(case.kinds))
            said = segment_texts(case.text, names)
            told += [
                (case.case_id, j, kind, said.get(name, ""))
                for j, (kind, name) in enumerate(zip(case.kinds, names, strict=True))
            ]
        spurious = [text for _, _, kind, text in told if kind == "spurious"]
        other = [text for _, _, kind, text in told if kind in ("relevant", "background")]
        # Words of the critic's own go first only where it names nothing that is known.
        own = [word for word in telling_words(spurious, other) if named_thing(word) is None]
        nameless = {"spurious": UNNAMED, "background": BARE}
        # kind -> name -> case id -> segments
        self.segments: dict[str, dict[str, dict[str, list[int]]]] = {}
        for case_id, j, kind, text in told:
            text = text if kind == "spurious" else without_mentions(text)
            name = named_thing(text) or next((word for word in own if word in text.split()), None)
            if name := name or nameless.get(kind):
                of_kind = self.segments.setdefault(kind, {})
                of_kind.setdefault(name, {}).setdefault(case_id, []).append(j)

    def things(self, kind: str) -> tuple[Thing, ...]:
        """Those of one kind, the one with most effect first."""
        of_kind = self.segments.get(kind, {})
        things = [self._thing(kind, name, segments) for name, segments in of_kind.items()]
        return tuple(sorted(things, key=lambda thing: (-thing.share, thing.name)))

    def _thing(self, kind: str, name: str, segments: Mapping[str, list[int]]) -> Thing:
        share = {case_id: sum(self.effects[case_id][j] for j in of) for case_id, of in segments.items()}
        leaning_on: dict[str, list[str]] = {}
        by_class = dict.fromkeys(self.n_cases, 0.0)
        for case_id in sorted(share, key=lambda case_id: -share[case_id]):
            of_class = self.class_of[case_id]
            by_class[of_class] += share[case_id] / self.n_cases[of_class]
            if share[case_id] >= MUCH:
                leaning_on.setdefault(of_class, []).append(case_id)
        pattern = _BARE_WORDS if name == BARE else THINGS.get(name, name)
        return Thing(
            name,
            sum(share.values()) / len(self.class_of),
            {of: tuple(leaning_on[of]) for of in self.n_cases if of in leaning_on},
            names_it(pattern, self.words),
            {case_id: tuple(of) for case_id, of in segments.items()},
            kind,
            by_class,
            tuple(self.segments.get("relevant", {}).get(name, ())),
        )


def _proportions(shares: Sequence[float]) -> list[float]:
    total = sum(shares)
    return [share / total if total > 0 else 0.0 for share in shares]
