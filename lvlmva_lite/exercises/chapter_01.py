"""The functions that readers of chapter 1 may write."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor, nn

from lvlmva_lite.exercises.exercise import Exercise, maps, uniform
from lvlmva_lite.metrics import average_group_accuracy, group_accuracy, mu_align, worst_group_accuracy


def _digits(g: Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, corners = (torch.randint(n, (8,), generator=g).numpy() for n in (10, 4))
    return torch.randint(256, (8, 28, 28), generator=g).byte().numpy(), labels, corners


def _decoys(
    digits: np.ndarray, labels: np.ndarray, corners: np.ndarray, *, side: int = 4, dark: bool = False
) -> np.ndarray:
    rows, columns = np.ogrid[: digits.shape[1], : digits.shape[2]]
    low, right = (corners // 2 == 1)[:, None, None], (corners % 2 == 1)[:, None, None]
    inside = np.where(low, rows >= digits.shape[1] - side, rows < side)
    inside = inside & np.where(right, columns >= digits.shape[2] - side, columns < side)
    greys = 25 * labels if dark else 255 - 25 * labels
    return np.where(inside, greys[:, None, None].astype(np.uint8), digits)


def _classified(g: Generator) -> tuple[Tensor, Tensor, int]:
    return uniform(g, 12, 5), torch.randint(3, (12,), generator=g), 3


def _first_step(x: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    weights = x.new_zeros(n_classes, x.shape[1], requires_grad=True)
    (step,) = torch.autograd.grad(-nn.functional.cross_entropy(x @ weights.T, labels), weights)
    return step


def _two_classes(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    signs = 2.0 * (uniform(g, 20) < 0.5).double() - 1
    return uniform(g, 20, 3) + signs[:, None], signs, uniform(g, 3)


def _motion(features: Tensor, signs: Tensor, weights: Tensor, wrong: float = -1.0) -> Tensor:
    margins = signs * (features @ weights)
    return (torch.sigmoid(wrong * margins)[:, None] * signs[:, None] * features).mean(0)


def _grouped(g: Generator) -> tuple[Tensor, Tensor, Tensor, int]:
    predicted, labels = torch.randint(2, (2, 40), generator=g)
    groups = torch.randint(5, (40,), generator=g)
    groups = torch.where(uniform(g, 40) < 0.5, 0, groups + (groups >= 3))  # 0 is the largest, 3 empty
    predicted = torch.where(groups > 3, labels, predicted)
    return predicted, labels, groups, 6


def _worst_and_average(
    predicted: Tensor, labels: Tensor, groups: Tensor, n_groups: int
) -> tuple[float, float]:
    accuracies = group_accuracy(predicted, labels, groups, n_groups)
    return worst_group_accuracy(accuracies), average_group_accuracy(accuracies)


EXERCISES: dict[str, Exercise] = {
    "decoys": Exercise(
        1, "digits (n, 28, 28) bytes, labels (n,) and corners (n,): 0 and 1 above, 0 and 2 on the left", _digits, _decoys,
        (
            (
                "Bright and dark are the wrong way round: the square of a 0 is white.",
                lambda d, y, c: _decoys(d, y, c, dark=True),
            ),
            ("The square has five pixels a side: four.", lambda d, y, c: _decoys(d, y, c, side=5)),
            (
                "Top right and bottom left have changed places.",
                lambda d, y, c: _decoys(d, y, np.array([0, 2, 1, 3])[c]),
            ),
        ),
    ),
    "first_step": Exercise(
        1, "x (n, P), labels (n,) and K; a step for each class and pixel", _classified, _first_step,
        (
            ("It is the gradient: a step goes the other way.", lambda x, y, k: -_first_step(x, y, k)),
            ("It is the sum over images: take the mean.", lambda x, y, k: len(x) * _first_step(x, y, k)),
            (
                "It lacks the 1/K that each class is given at the start.",
                lambda x, y, k: nn.functional.one_hot(y, k).double().T @ x / len(x),
            ),
        ),
    ),
    "motion": Exercise(
        1, "features (n, d), labels (n,) of 1 and -1, and weights (d,)", _two_classes, _motion,
        (
            (
                "It weighs an image by what the right class has: take what is left to the wrong one, of minus the margin.",
                lambda f, y, w: _motion(f, y, w, wrong=1.0),
            ),
            (
                "It stays at the first step's one half: the factor shrinks as the margin grows.",
                lambda f, y, w: _motion(f, y, 0 * w),
            ),
            (
                "The label is missing from the margin: it is negative where the answer is wrong.",
                lambda f, y, w: (torch.sigmoid(-f @ w)[:, None] * y[:, None] * f).mean(0),
            ),
        ),
    ),
    "worst_and_average_group": Exercise(
        1, "predicted (n,), labels (n,), groups (n,) and the number of groups; gives WGA and AGA", _grouped,
        _worst_and_average,
        (
            (
                "An empty group has no accuracy: leave it out.",
                lambda p, y, g, n: (lambda a: (a.min(), a.mean()))(group_accuracy(p, y, g, n)),
            ),
            (
                "An empty group counts as 0: leave it out.",
                lambda p, y, g, n: (lambda a: (a.min(), a.mean()))(group_accuracy(p, y, g, n).nan_to_num()),
            ),
            (
                "The second is the accuracy over images: take the mean over groups.",
                lambda p, y, g, n: (_worst_and_average(p, y, g, n)[0], (p == y).double().mean()),
            ),
            ("The two are the wrong way round.", lambda p, y, g, n: _worst_and_average(p, y, g, n)[::-1]),
        ),
    ),
    "mu_align": Exercise(
        1, "attributions (n, H, W) and masks (n, H, W) bool", maps, mu_align,
        (
            ("It is the share inside the mask: take 1 minus it.", lambda a, m: 1 - mu_align(a, m)),
            ("Negative attributions count too: take absolute values.", lambda a, m: mu_align(a.clamp_min(0), m)),
            (
                "It is one share of all maps together: take each map's share, then the mean.",
                lambda a, m: float(1 - (a.abs() * m).sum() / a.abs().sum()),
            ),
        ),
    ),
}  # fmt: skip
