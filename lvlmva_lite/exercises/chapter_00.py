"""The functions that readers of chapter 0 may write."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.exercises.exercise import Exercise
from lvlmva_lite.metrics import verdict_scores


def _called(g: Generator) -> tuple[list[str], Tensor]:
    said = torch.randint(len(KINDS), (40,), generator=g)
    spurious = torch.rand(40, generator=g) < 0.3
    spurious[:2] = torch.tensor([True, False])  # some of either, and decided
    said[:2] = 0
    return [KINDS[k] for k in said.tolist()], spurious


def _rates(called: list[str], spurious: Tensor) -> tuple[float, float]:
    found = verdict_scores(torch.tensor([KINDS.index(kind) for kind in called]), spurious.long())
    return found["sensitivity"], found["specificity"]


def _rates_of_all(called: list[str], spurious: Tensor) -> tuple[float, float]:
    said, cleared = (
        torch.tensor([kind in kinds for kind in called]) for kinds in (KINDS[1:2], KINDS[:1] + KINDS[2:3])
    )
    return said[spurious].double().mean().item(), cleared[~spurious].double().mean().item()


def _predictive_values(called: list[str], spurious: Tensor) -> tuple[float, float]:
    decided = torch.tensor([kind != "undecided" for kind in called])
    said = torch.tensor([kind == "spurious" for kind in called])
    return (
        spurious[said].double().mean().item(),
        (~spurious)[decided & ~said].double().mean().item(),
    )


EXERCISES: dict[str, Exercise] = {
    "sensitivity_and_specificity": Exercise(
        0, "called, a list of n kinds, and spurious (n,) bool, the truth", _called, _rates,
        (
            ("It is what a verdict is worth, given the verdict: go by the truth.", _predictive_values),
            ("An undecided segment counts as wrong: leave it out of both.", _rates_of_all),
            ("The two are the wrong way round.", lambda c, s: _rates(c, s)[::-1]),
        ),
    ),
}  # fmt: skip
