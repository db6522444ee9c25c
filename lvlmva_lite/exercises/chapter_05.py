"""The functions that readers of chapter 5 may write."""

from __future__ import annotations

import torch
from torch import Generator

from lvlmva_lite.critic.types import KINDS, Verdict
from lvlmva_lite.critic.verdicts import vote
from lvlmva_lite.exercises.exercise import Exercise


def _votes(g: Generator) -> tuple[list[tuple[str, ...]]]:
    said = torch.randint(3, (5, 8), generator=g)
    return ([tuple(KINDS[k] for k in row) for row in said.tolist()],)


def _majority(answers: list[tuple[str, ...]]) -> tuple[str, ...]:
    return vote([Verdict("case", "judge", kinds) for kinds in answers]).kinds


def _plurality(answers: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(max(sorted(set(kinds)), key=kinds.count) for kinds in zip(*answers, strict=True))


EXERCISES: dict[str, Exercise] = {
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
