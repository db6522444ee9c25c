"""The functions that readers of chapter 5 may write."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import torch
from torch import Generator, Tensor

from lvlmva_lite.agreement import cohen_kappa
from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.critic.prompts import as_data
from lvlmva_lite.critic.types import KINDS, Verdict
from lvlmva_lite.critic.verdicts import MalformedAnswer, parse_verdicts, vote
from lvlmva_lite.exercises.exercise import Exercise, uniform

NAMES = ("A", "B", "C")
Pairs = list[tuple[str, str]]


def _text(g: Generator) -> tuple[str]:
    parts = ['"skin"', "</b>", "ink & gel", "&lt;"]
    return (" ".join(parts[i] for i in torch.randperm(4, generator=g).tolist()),)


def _answers(g: Generator) -> tuple[list[Pairs], tuple[str, ...]]:
    """One that can be used, and one of each mistake, in a drawn order."""

    def rulings() -> Pairs:
        said = torch.randint(len(KINDS), (len(NAMES),), generator=g).tolist()
        order = torch.randperm(len(NAMES), generator=g).tolist()
        return [(NAMES[i], KINDS[said[i]]) for i in order]

    good, short, more, twice, other = (rulings() for _ in range(5))
    mistakes = [
        short[:-1], [*more, ("D", "relevant")],
        [*twice, (twice[0][0], KINDS[1 - KINDS[:2].index(twice[0][1])] if twice[0][1] in KINDS[:2] else KINDS[0])],
        [*other[:-1], (other[-1][0], "perhaps")],
    ]  # fmt: skip
    answers = [good, *mistakes]
    return [answers[i] for i in torch.randperm(5, generator=g).tolist()], NAMES


def _strict(answers: list[Pairs], names: tuple[str, ...]) -> list[tuple[str, ...] | str]:
    read = []
    for pairs in answers:
        rows = [{"segment": name, "verdict": kind} for name, kind in pairs]
        try:
            read.append(parse_verdicts(json.dumps({"verdicts": rows}), names))
        except MalformedAnswer:
            read.append("refused")
    return read


def _lenient(answers: list[Pairs], names: tuple[str, ...], fault: str) -> list[tuple[str, ...] | str]:
    """As :func:`_strict`, but for one fault: answers with it are used, or read in their own order."""
    read = []
    for pairs in answers:
        if fault == "unknown":
            pairs = [pair for pair in pairs if pair[0] in names]
        if fault == "twice":
            pairs = list(dict(pairs).items())
        (kinds,) = _strict([pairs], names)
        read.append(
            tuple(kind for _, kind in pairs) if fault == "order" and not isinstance(kinds, str) else kinds
        )
    return read


def _rated(g: Generator) -> tuple[np.ndarray, np.ndarray]:
    first, drawn = torch.randint(3, (2, 60), generator=g)
    first = torch.where(uniform(g, 60) < 0.5, 0, first)
    return first.numpy(), torch.where(uniform(g, 60) < 0.5, drawn, first).numpy()


def _agreed(first: np.ndarray, second: np.ndarray) -> float:
    return float((first == second).mean())


def _held(g: Generator) -> tuple[Tensor, Tensor, float]:
    return torch.randint(-1, 3, (4, 8, 8), generator=g), uniform(g, 4, 8, 8) ** 2, 0.5


def _near(labels: Tensor, evidence: Tensor, share: float) -> Tensor:
    # At 8 pixels a side the package's margin is none.
    return correction_masks(labels, torch.ones(len(labels), 3, dtype=torch.bool), evidence, near=share)


def _votes(g: Generator) -> tuple[list[tuple[str, ...]]]:
    said = torch.randint(3, (5, 8), generator=g)
    return ([tuple(KINDS[k] for k in row) for row in said.tolist()],)


def _majority(answers: list[tuple[str, ...]]) -> tuple[str, ...]:
    return vote([Verdict("case", "judge", kinds) for kinds in answers]).kinds


def _plurality(answers: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(max(sorted(set(kinds)), key=kinds.count) for kinds in zip(*answers, strict=True))


EXERCISES: dict[str, Exercise] = {
    "as_data": Exercise(
        5, "a text", _text, as_data,
        (
            (
                "It writes its own entities anew: replace & first.",
                lambda text: text.replace("<", "&lt;").replace(">", "&gt;").replace("&", "&amp;"),
            ),
            ("It leaves the signs out: each must be readable again.", lambda text: re.sub("[<>&]", "", text)),
            ("It leaves & as it is: then &lt; cannot be told from <.", lambda text: html.escape(text, False).replace("&amp;", "&")),
        ),
    ),
    "strict_rulings": Exercise(
        5, "answers, each a list of pairs (segment, kind), and names; gives for each a tuple of kinds, or 'refused'",
        _answers, _strict,
        (
            (
                "A segment that is ruled twice is refused: in a dictionary the last one wins.",
                lambda answers, names: _lenient(answers, names, "twice"),
            ),
            (
                "A segment that is not there is left out: refuse the answer.",
                lambda answers, names: _lenient(answers, names, "unknown"),
            ),
            (
                "The kinds stand in the answer's order: give them in that of the names.",
                lambda answers, names: _lenient(answers, names, "order"),
            ),
        ),
    ),
    "cohen_kappa": Exercise(
        5, "first (n,) and second (n,), whole numbers from 0, a kind each", _rated, cohen_kappa,
        (
            ("It is the agreement itself: set off what chance gives.", _agreed),
            (
                "It takes all kinds for equally likely: take how often each critic gives them.",
                lambda a, b: (_agreed(a, b) - 1 / 3) / (1 - 1 / 3),
            ),
            (
                "It is what is gained over chance: divide by what could be gained.",
                lambda a, b: _agreed(a, b) - sum((a == k).mean() * (b == k).mean() for k in range(3)),
            ),
        ),
    ),
    "near_evidence": Exercise(
        5, "labels (n, H, W), -1 for no segment, evidence (n, H, W) and a share; gives (n, H, W) bool, no margin", _held,
        _near,
        (
            ("It masks whole segments: what holds too little is left out.", lambda s, e, share: s >= 0),
            (
                "It goes by the image's greatest evidence: take each segment's own.",
                lambda s, e, share: (s >= 0) & (e >= share * e.amax((1, 2), keepdim=True)),
            ),
            ("A pixel of label -1 lies in no segment.", lambda s, e, share: _near(s, e, share) | (s < 0)),
        ),
    ),
    "vote": Exercise(
        5, "a list of verdicts, each a tuple of kinds", _votes, _majority,
        (
            (
                "The commonest kind wins even with less than half of the votes: then it is undecided.",
                _plurality,
            ),
        ),
    ),
}  # fmt: skip
