"""The functions that readers of chapter 7 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy
import torch
from torch import Generator, Tensor

from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.metrics import mean_interval, neighbour_purity, paired_test


def _verdicts(g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randint(-1, 3, (4, 5, 5), generator=g), torch.rand(4, 3, generator=g) < 0.5


def _squares(g: Generator) -> tuple[Tensor, Tensor]:
    squares = torch.zeros(20, 6, 6, dtype=torch.bool)
    for square, (row, column) in zip(squares, torch.randint(2, (20, 2), generator=g).tolist(), strict=True):
        square[4 * row : 4 * row + 2, 4 * column : 4 * column + 2] = True
    return uniform(g, 20, 6, 6) - 0.4, squares


def _above_even(maps: Tensor, squares: Tensor) -> float:
    inside = (maps.abs() * squares).sum((1, 2)) / maps.abs().sum((1, 2))
    return (inside > squares.double().mean((1, 2))).double().mean().item()


def _points(g: Generator) -> tuple[Tensor, Tensor, int]:
    labels = torch.randint(3, (30,), generator=g)
    return uniform(g, 30, 3) + 0.2 * labels[:, None], labels, 4


def _purity_by(points: Tensor, labels: Tensor, k: int, near: Callable[[Tensor], Tensor]) -> float:
    nearest = near(points).topk(k).indices
    return (labels[nearest] == labels[:, None]).double().mean().item()


def _nearness(points: Tensor) -> Tensor:
    return -torch.cdist(points, points)


def _gains(g: Generator, least: float) -> tuple[np.ndarray]:
    return ((uniform(g, 7) + least).numpy(),)


def _interval(values: np.ndarray, quantile: float, ddof: int, n: int) -> tuple[float, float, float]:
    half = quantile * values.std(ddof=ddof) / np.sqrt(n)
    return values.mean(), values.mean() - half, values.mean() + half


def _student(values: np.ndarray) -> float:
    return scipy.stats.t.ppf(0.975, len(values) - 1)


def _p(differences: np.ndarray, alternative: str = "greater") -> float:
    return paired_test(differences, np.zeros(len(differences)), alternative=alternative).p


def _answers(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    labels, shades, other = torch.randint(4, (3, 80), generator=g)
    drawn = torch.rand(80, generator=g)
    return torch.where(drawn < 0.5, labels, torch.where(drawn < 0.7, shades, other)), labels, shades


def _follows(answers: Tensor, labels: Tensor, shades: Tensor, among: Callable[..., Tensor]) -> float:
    return (answers == shades)[among(answers, labels, shades)].double().mean().item()


EXERCISES: dict[str, Exercise] = {
    "correction_masks": Exercise(
        7, "labels (n, H, W), -1 for no segment, and spurious (n, J) bool", _verdicts, correction_masks,
        (
            ("It masks what is not spurious.", lambda s, r: correction_masks(s, ~r)),
            (
                "A pixel of label -1 lies in no segment; as an index, -1 is the last one.",
                lambda s, r: torch.stack([one[label] for one, label in zip(r, s, strict=True)]),
            ),
        ),
    ),
    "above_even_share": Exercise(
        7, "attributions (n, H, W) and squares (n, H, W) bool", _squares, _above_even,
        (
            (
                "Negative attributions count too: take absolute values.",
                lambda a, m: _above_even(a.clamp_min(0), m),
            ),
            (
                "It is the mean share on the square: count the images that lie above the even share.",
                lambda a, m: ((a.abs() * m).sum((1, 2)) / a.abs().sum((1, 2))).mean().item(),
            ),
            ("It counts the images that lie below.", lambda a, m: 1 - _above_even(a, m)),
        ),
    ),
    "neighbour_purity": Exercise(
        7, "points (n, D), labels (n,) and k, how many neighbours", _points, neighbour_purity,
        (
            ("A point counts as its own neighbour: leave it out.", partial(_purity_by, near=_nearness)),
            (
                "It takes the farthest: sort by distance, the least first.",
                partial(_purity_by, near=lambda points: -_nearness(points)),
            ),
            (
                "It compares by the scalar product: take the distance.",
                partial(_purity_by, near=lambda points: (points @ points.T).fill_diagonal_(-torch.inf)),
            ),
        ),
    ),
    "mean_interval": Exercise(
        7, "values (n,)", partial(_gains, least=0.0), mean_interval,
        (
            (
                "It takes 1.96, the normal's quantile: of so few values take Student's, of n - 1.",
                lambda v: _interval(v, 1.96, 1, len(v)),
            ),
            (
                "Its standard deviation divides by n: divide by n - 1.",
                lambda v: _interval(v, _student(v), 0, len(v)),
            ),
            (
                "It is the spread of single values: divide by the root of n for the mean's.",
                lambda v: _interval(v, _student(v), 1, 1),
            ),
        ),
    ),
    "signed_rank_p": Exercise(
        7, "differences (n,), none of them 0 and no two alike", partial(_gains, least=-0.3), _p,
        (
            ("It is two-sided: count the outcomes at one end.", lambda d: _p(d, "two-sided")),
            (
                "It leaves out outcomes as large as the one that was seen: these count, too.",
                lambda d: 1 - _p(-d),
            ),
            (
                "It counts signs: add up the ranks of the differences above 0.",
                lambda d: float(scipy.stats.binom.sf((d > 0).sum() - 1, len(d), 0.5)),
            ),
        ),
    ),
    "follows_the_square": Exercise(
        7, "answers, labels and shades, the class of each square, (n,) each", _answers,
        partial(_follows, among=lambda a, y, s: (a != y) & (s != y)),
        (
            (
                "Right answers are among them: of those that are wrong, take the share.",
                partial(_follows, among=lambda a, y, s: s != y),
            ),
            (
                "Squares that stand for their own digit cannot mislead: leave those images out.",
                partial(_follows, among=lambda a, y, s: a != y),
            ),
        ),
    ),
}  # fmt: skip
