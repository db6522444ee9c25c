"""The functions that readers of chapter 15 may write."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Generator, Tensor

from lvlmva_lite.agreement import fleiss_kappa, mean_pairwise_agreement
from lvlmva_lite.critic.adjudication import certainty, queue
from lvlmva_lite.critic.types import KINDS, SPURIOUS, UNDECIDED
from lvlmva_lite.exercises.exercise import Exercise, uniform


def _ratings(g: Generator) -> tuple[np.ndarray]:
    own, common = (torch.randint(3, shape, generator=g) for shape in ((5, 30), (30,)))
    return (torch.where(torch.rand(5, 30, generator=g) < 0.5, common, own).numpy(),)


def _kappa(ratings: np.ndarray, by_chance: float) -> float:
    return (mean_pairwise_agreement(ratings) - by_chance) / (1 - by_chance)


def _with_replacement(ratings: np.ndarray) -> float:
    shares = np.stack([(ratings == kind).mean(0) for kind in range(ratings.max() + 1)])
    by_chance = (shares.mean(1) ** 2).sum()
    return ((shares**2).sum(0).mean() - by_chance) / (1 - by_chance)


def _ruled(g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randint(len(KINDS), (5, 6), generator=g), uniform(g, 5, 6)


def _borne_out(kinds: Tensor, chances: Tensor) -> Tensor:
    said = [[{KINDS[SPURIOUS]: p} for p in row] for row in chances.tolist()]
    return certainty(kinds, range(len(said)), SimpleNamespace(chances=lambda case, _: said[case]))


def _unsure(g: Generator) -> tuple[Tensor, Tensor]:
    return uniform(g, 4, 5), uniform(g, 4, 5) < 0.7


def _row_by_row(sure: Tensor, present: Tensor) -> Tensor:
    places = [
        queue(a[None], b[None]) + torch.tensor([i, 0])
        for i, (a, b) in enumerate(zip(sure, present, strict=True))
    ]
    return torch.cat(places)


def _head(g: Generator) -> tuple[np.ndarray, float]:
    chances = uniform(g, 12, 3).numpy() ** 4
    return chances / chances.sum(1, keepdims=True), 0.6


def _spoken(chances: np.ndarray, sure: float) -> list[str]:
    return [KINDS[row.argmax()] if row.max() >= sure else KINDS[UNDECIDED] for row in chances]


def _by_lead(chances: np.ndarray, sure: float) -> list[str]:
    led = [np.diff(np.sort(row)[-2:])[0] >= sure for row in chances]
    return [
        KINDS[row.argmax()] if leads else KINDS[UNDECIDED] for row, leads in zip(chances, led, strict=True)
    ]


EXERCISES: dict[str, Exercise] = {
    "fleiss_kappa": Exercise(
        15, "ratings (raters, items), whole numbers from 0", _ratings, fleiss_kappa,
        (
            ("It is the agreement itself: set off what chance gives.", mean_pairwise_agreement),
            (
                "It takes all kinds for equally likely: take the shares in which they were given.",
                lambda r: _kappa(r, 1 / (r.max() + 1)),
            ),
            (
                "It pairs raters with themselves, who always agree: of n raters there are n (n - 1) pairs.",
                _with_replacement,
            ),
        ),
    ),
    "certainty": Exercise(
        15, f"kinds (n, J), places in {KINDS}, and chances of spurious by the prose (n, J)", _ruled, _borne_out,
        (
            (
                "It is the chance of spurious whatever was ruled: of other verdicts, take 1 minus it.",
                lambda k, p: torch.where(k == UNDECIDED, 0.0, p),
            ),
            ("What is undecided has certainty 0.", lambda k, p: torch.where(k == SPURIOUS, p, 1 - p)),
            (
                "It is the doubt: take 1 minus it.",
                lambda k, p: 1 - _borne_out(k, p),
            ),
        ),
    ),
    "queue": Exercise(
        15, "certainty (n, J) and present (n, J) bool; gives (m, 2), case and segment", _unsure, queue,
        (
            ("It begins with the most certain.", lambda c, p: queue(-c, p)),
            (
                "It asks about segments without a pixel: leave them out.",
                lambda c, p: queue(c, torch.ones_like(p)),
            ),
            ("It goes case by case: order the segments of all cases together.", _row_by_row),
        ),
    ),
    "silent_where_unsure": Exercise(
        15, "chances (m, 3) of relevant, spurious and background, and the chance from which one is said", _head, _spoken,
        (
            (
                "It never is silent: say undecided below the chance asked for.",
                lambda p, sure: _spoken(p, 0.0),
            ),
            ("It asks how far the likeliest leads the next: ask for its chance.", _by_lead),
            (
                "It is silent where it is sure.",
                lambda p, sure: [KINDS[UNDECIDED] if one.max() >= sure else KINDS[one.argmax()] for one in p],
            ),
        ),
    ),
}  # fmt: skip
