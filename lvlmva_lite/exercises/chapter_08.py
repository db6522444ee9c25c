"""The functions that readers of chapter 8 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor

from lvlmva_lite.alignment import rrr_penalty
from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.metrics import mean_interval
from lvlmva_lite.segmentation import Segments, filled

SIDE = 8
"""Of the grid on which an ellipse is asked for."""


def _history(g: Generator) -> tuple[np.ndarray, np.ndarray]:
    epochs = np.arange(8) / 2
    first = 4 * float(uniform(g, 1))
    later = (first + 2) % 4  # the opposite habit, with a wider gap
    bumps = np.exp(-((epochs - first) ** 2)) - 1.5 * np.exp(-((epochs - later) ** 2))
    habit = bumps[:, None] * [-0.25, 0.2, 0.2, -0.25]
    class_and_letter = uniform(g, 8, 1).numpy() * [0.2, 0.0, -0.4, -0.2]
    return epochs, 0.5 + habit + class_and_letter + 0.1 * uniform(g, 8, 4).numpy()


def _widest(
    epochs: np.ndarray,
    accuracies: np.ndarray,
    agree: tuple[int, int] = (1, 2),
    against: tuple[int, int] = (0, 3),
    size: Callable[[np.ndarray], np.ndarray] = np.positive,
) -> tuple[float, float, float]:
    lines = [accuracies[:, list(groups)].mean(1) for groups in (agree, against)]
    at = size(lines[0] - lines[1]).argmax()
    return epochs[at], lines[0][at], lines[1][at]


def _at_the_end(epochs: np.ndarray, accuracies: np.ndarray) -> tuple[float, float, float]:
    return _widest(epochs[-1:], accuracies[-1:])


def _ellipse(g: Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    at = (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE
    root = 0.3 * (uniform(g, 2, 2) - 0.5) + 0.15 * torch.eye(2)
    floor = 0.002 * torch.eye(2)
    distance = 1.5 + float(uniform(g, 1))
    return torch.cartesian_prod(at, at), 0.3 + 0.4 * uniform(g, 2), root @ root.T + floor, distance


def _inside(z: Tensor, mean: Tensor, covariance: Tensor, distance: float) -> Tensor:
    nothing = torch.zeros(1, dtype=torch.float64)
    one = Segments(
        torch.zeros(1, SIDE, SIDE, dtype=torch.int64), torch.ones(1, 1, dtype=torch.float64),
        mean[None, None], covariance[None, None], nothing, nothing,
    )  # fmt: skip
    return filled(one, distance).labels.flatten() == 0


def _sloped(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    return 0.05 + 0.9 * uniform(g, 4), uniform(g, 4, 5, 5) - 0.5, uniform(g, 4, 5, 5) < 0.4


def _penalty(p: Tensor, slopes: Tensor, masks: Tensor) -> Tensor:
    def network(images: Tensor) -> Tensor:  # with these probabilities and slopes at 0
        z = p.logit() + (slopes * images[:, 0]).sum((1, 2))
        return torch.stack([torch.zeros_like(z), z], 1)

    return rrr_penalty(network, torch.zeros_like(slopes)[:, None], masks).detach()


def _penalty_with(p: Tensor, slopes: Tensor, masks: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
    return (factor(p) * (masks * slopes).square().sum((1, 2))).sum()


def _paired(g: Generator) -> tuple[np.ndarray, ...]:
    before = uniform(g, 7)
    after = before + 0.1 + 0.1 * uniform(g, 7)
    one, other = (torch.randperm(7, generator=g) for _ in range(2))
    return one.numpy(), after[one].numpy(), other.numpy(), before[other].numpy()


def _by_seed(
    seeds_after: np.ndarray, after: np.ndarray, seeds_before: np.ndarray, before: np.ndarray
) -> tuple[float, float, float]:
    return mean_interval(after[seeds_after.argsort()] - before[seeds_before.argsort()])


def _of_two_intervals(
    seeds_after: np.ndarray, after: np.ndarray, seeds_before: np.ndarray, before: np.ndarray
) -> tuple[float, float, float]:
    (mean, low, high), (other, other_low, other_high) = mean_interval(after), mean_interval(before)
    return mean - other, low - other_high, high - other_low


EXERCISES: dict[str, Exercise] = {
    "widest_gap": Exercise(
        8, "epochs (T,) and accuracies (T, 4) of healthy, healthy with letter, ill, ill with letter; gives the epoch, and "
        "the accuracies with the habit and against it", _history, _widest,
        (
            (
                "It compares the healthy with the ill: with the habit go healthy with letter and ill without.",
                partial(_widest, agree=(0, 1), against=(2, 3)),
            ),
            (
                "It compares with and without letter: with the habit go healthy with letter and ill without.",
                partial(_widest, agree=(1, 3), against=(0, 2)),
            ),
            ("It is the gap at the end: take the widest.", _at_the_end),
            (
                "It takes the widest gap on either side: with the habit minus against it, keep the sign.",
                partial(_widest, size=np.abs),
            ),
            (
                "The two accuracies are the wrong way round: with the habit comes first.",
                lambda *given: np.take(_widest(*given), [0, 2, 1]),
            ),
        ),
    ),
    "inside_ellipse": Exercise(
        8, "positions z (P, 2), mean (2,), covariance (2, 2) and d, a squared distance", _ellipse, _inside,
        (
            (
                "It holds the distance against d: square it.",
                lambda z, mean, covariance, d: _inside(z, mean, covariance, d**2),
            ),
            (
                "It takes the covariance itself: take its inverse.",
                lambda z, mean, covariance, d: _inside(z, mean, torch.linalg.inv(covariance), d),
            ),
            (
                "It leaves out the covariance between rows and columns: an ellipse may lie aslant.",
                lambda z, mean, covariance, d: _inside(z, mean, covariance.diag().diag(), d),
            ),
        ),
    ),
    "two_class_penalty": Exercise(
        8, "p (n,), slopes (n, H, W) of z and masks (n, H, W) bool", _sloped, _penalty,
        (
            (
                "Its factor is that of one class's log-probability: add up the slopes of both.",
                partial(_penalty_with, factor=lambda p: (1 - p) ** 2),
            ),
            (
                "The factor must be squared like the slope.",
                partial(_penalty_with, factor=lambda p: (1 - 2 * p).abs()),
            ),
            (
                "It is the penalty of the logits, which has no factor: take the log-probabilities.",
                partial(_penalty_with, factor=torch.ones_like),
            ),
        ),
    ),
    "paired_interval": Exercise(
        8, "seeds and measures after, seeds and measures before, (n,) each, in any order", _paired, _by_seed,
        (
            (
                "It pairs by place: the rows come in orders of their own, pair them by their seeds.",
                lambda s, after, t, before: mean_interval(after - before),
            ),
            (
                "It subtracts the ends of two intervals: what seeds share must cancel first.",
                _of_two_intervals,
            ),
            (
                "It is before minus after.",
                lambda *given: -np.take(_by_seed(*given), [0, 2, 1]),
            ),
        ),
    ),
}  # fmt: skip
