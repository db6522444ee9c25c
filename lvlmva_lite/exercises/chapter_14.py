"""The functions that readers of chapter 14 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor

from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.metrics import accuracy, group_accuracy
from lvlmva_lite.report.leaning import judged_cases, leaning


def _judged(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    shares = uniform(g, 12, 4)
    labels = torch.cat([torch.arange(3), torch.randint(3, (9,), generator=g)])
    return torch.randint(len(KINDS), (12, 4), generator=g), shares / shares.sum(1, keepdim=True), labels


def _leaning(kinds: Tensor, shares: Tensor, labels: Tensor) -> np.ndarray:
    names = [str(label) for label in labels.tolist()]
    cases = judged_cases(
        [str(i) for i in range(len(names))], names,
        [[KINDS[k] for k in row] for row in kinds.tolist()], shares.tolist(), (),
    )  # fmt: skip
    return leaning(cases, "", sorted(set(names))).by_class[list(KINDS)].to_numpy()


def _leaning_by(kinds: Tensor, shares: Tensor, labels: Tensor, *, counted: bool, among: Callable) -> Tensor:
    weights = torch.ones_like(shares) / shares.shape[1] if counted else shares
    rows = [
        [(weights * (kinds == k))[labels == c].sum() / among(labels == c) for k in range(len(KINDS))]
        for c in range(int(labels.max()) + 1)
    ]
    return torch.tensor(rows, dtype=torch.float64)


THINGS = ("letter", "ruler", "ink")
"""Of which the critic's prose names one a segment; "" where it names none."""


def _named(g: Generator) -> tuple[list[list[str]], Tensor]:
    places = torch.randint(4, (6, 4), generator=g)
    shares = uniform(g, 6, 4) * uniform(g, 4)[places] ** 2  # some things are large, some are many
    return [[("", *THINGS)[k] for k in row] for row in places.tolist()], shares / shares.sum(
        1, keepdim=True
    )


def _first(names: list[list[str]], shares: Tensor, size: Callable[[Tensor], Tensor] = torch.sum) -> str:
    said = np.array(names)
    return max(THINGS, key=lambda thing: float(size(shares[torch.from_numpy(said == thing)])))


def _filled(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    answers = torch.randint(3, (40,), generator=g)
    changed = [torch.rand(40, generator=g) < chance for chance in (0.5, 0.2)]
    return answers, *(torch.where(to, (answers + 1) % 3, answers) for to in changed)


def _hang(answers: Tensor, thing: Tensor, elsewhere: Tensor) -> float:
    return (thing != answers).double().mean().item() - (elsewhere != answers).double().mean().item()


def _twice(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    labels = torch.cat([torch.arange(3), (3 * uniform(g, 57) ** 2).long()])
    right = [
        torch.rand(60, generator=g) < shares[labels]
        for shares in torch.tensor([[0.9, 0.8, 0.6], [0.8, 0.2, 0.9]])
    ]
    return *(torch.where(one, labels, (labels + 1) % 3) for one in right), labels


def _lost(before: Tensor, after: Tensor, labels: Tensor) -> Tensor:
    of = [group_accuracy(answers, labels, labels, 3) for answers in (before, after)]
    return of[0] - of[1]


def _losses(before: Tensor, after: Tensor, labels: Tensor) -> tuple[float, float]:
    lost = _lost(before, after, labels)
    return lost.mean().item(), lost.max().item()


EXERCISES: dict[str, Exercise] = {
    "leaning": Exercise(
        14, f"kinds (n, J), places in {KINDS}, shares (n, J) and labels (n,)", _judged, _leaning,
        (
            (
                "It counts segments: add up their shares.",
                partial(_leaning_by, counted=True, among=torch.sum),
            ),
            (
                "It divides by the number of all images: take those of the class.",
                partial(_leaning_by, counted=False, among=len),
            ),
        ),
    ),
    "first_thing": Exercise(
        14, "names (n, J) of things, \"\" where none is named, and shares (n, J)", _named, _first,
        (
            (
                "It is named most often: take the one on which most evidence lies.",
                partial(_first, size=len),
            ),
            (
                "It has the strongest segments on average: add up all that lies on it.",
                partial(_first, size=torch.mean),
            ),
        ),
    ),
    "answers_that_hang": Exercise(
        14, "answers (n,), with the thing filled (n,) and with as much filled elsewhere (n,)", _filled, _hang,
        (
            (
                "It forgets the placebo: subtract what filling anything changes.",
                lambda a, t, e: (t != a).double().mean().item(),
            ),
            (
                "It counts where both fills give other answers: hold each against the answers as they were.",
                lambda a, t, e: (t != e).double().mean().item(),
            ),
            ("It is placebo minus thing.", lambda a, t, e: -_hang(a, t, e)),
        ),
    ),
    "class_losses": Exercise(
        14, "answers before, answers after and labels, (n,) each", _twice, _losses,
        (
            (
                "The first is over images: average over classes, so that a small one counts as much.",
                lambda b, a, y: (accuracy(b, y) - accuracy(a, y), _losses(b, a, y)[1]),
            ),
            (
                "Gains count as losses: keep the sign.",
                lambda b, a, y: (_lost(b, a, y).abs().mean().item(), _lost(b, a, y).abs().max().item()),
            ),
            ("It is after minus before: a loss is positive.", lambda b, a, y: _losses(a, b, y)),
        ),
    ),
}  # fmt: skip
