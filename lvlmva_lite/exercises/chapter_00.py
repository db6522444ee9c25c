"""The functions that readers of chapter 0 may write."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lvlmva_lite.attribution import runner_up
from lvlmva_lite.critic.types import KINDS, SPURIOUS
from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.metrics import segment_truth, verdict_scores


def _predicted(g: Generator) -> tuple[Tensor, Tensor]:
    return uniform(g, 8, 4).softmax(1), torch.randint(4, (8,), generator=g)


def _segmented(g: Generator) -> tuple[Tensor, int, Tensor, Tensor]:
    labels = torch.randint(-1, 6, (6, 8, 8), generator=g).clamp_max(2)  # the last one is large
    labels[:, :1] = torch.tensor([0, 1, 2, -1, 0, 1, 2, -1])  # each segment holds a pixel
    return labels, 3, uniform(g, 6, 8, 8) - 0.4, uniform(g, 6, 8, 8) < 0.5


def _on_squares(labels: Tensor, n_segments: int, attributions: Tensor, squares: Tensor) -> Tensor:
    return segment_truth(labels, n_segments, attributions, squares) == SPURIOUS


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
    "runner_up": Exercise(
        0, "probabilities (n, K) and labels (n,)", _predicted, runner_up,
        (
            (
                "It is the second most probable class: where the label is not the first, the first is its rival.",
                lambda p, y: p.topk(2).indices[:, 1],
            ),
            ("It may be the label itself: leave that out.", lambda p, y: p.argmax(1)),
        ),
    ),
    "truly_spurious": Exercise(
        0, "labels (n, H, W), -1 for no segment, J, attributions (n, H, W) and squares (n, H, W) bool", _segmented,
        _on_squares,
        (
            (
                "It counts pixels: go by the evidence that they hold.",
                lambda s, j, a, m: _on_squares(s, j, torch.ones_like(a), m),
            ),
            (
                "Negative attributions count as evidence: drop them.",
                lambda s, j, a, m: _on_squares(s, j, a.abs(), m),
            ),
            (
                "It asks for half of the evidence on the square: ask for half of the segment's.",
                lambda s, j, a, m: torch.stack([
                    (a.clamp_min(0) * m * (s == k)).sum((1, 2)) > 0.5 * (a.clamp_min(0) * m).sum((1, 2))
                    for k in range(j)
                ], 1),
            ),
        ),
    ),
    "sensitivity_and_specificity": Exercise(
        0, "called, a list of n kinds, and spurious (n,) bool, the truth", _called, _rates,
        (
            ("It is what a verdict is worth, given the verdict: go by the truth.", _predictive_values),
            ("An undecided segment counts as wrong: leave it out of both.", _rates_of_all),
            ("The two are the wrong way round.", lambda c, s: _rates(c, s)[::-1]),
        ),
    ),
}  # fmt: skip
