"""The functions that readers of chapter 13 may write."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from lvlmva_lite.exercises.exercise import Exercise


def _answers(g: Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(3, (60,), generator=g)
    turned = torch.randperm(3, generator=g)
    wrong = torch.rand(60, generator=g) < 0.2
    return torch.where(wrong, torch.randint(3, (60,), generator=g), turned[labels]), labels


def class_order(predicted: Tensor, labels: Tensor) -> Tensor:
    """The class of each output under which most answers are right, one output to a class.

    Parameters
    ----------
    predicted : (n,) int64, the output that is largest
    labels : (n,) int64, in 0 .. the largest label; as many outputs as classes

    Returns
    -------
    (K,) int64
    """
    k = int(labels.max()) + 1
    counts = torch.bincount(predicted * k + labels, minlength=k * k).view(k, k)
    return torch.from_numpy(linear_sum_assignment(counts.numpy(), maximize=True)[1])


EXERCISES: dict[str, Exercise] = {
    "class_order": Exercise(
        13, "predicted (n,), the largest output of each image, and labels (n,)", _answers, class_order,
        (
            (
                "It is the order the other way round: say of each output which class it is.",
                lambda p, y: class_order(p, y).argsort(),
            ),
            ("It trusts the order that there is.", lambda p, y: torch.arange(int(y.max()) + 1)),
        ),
    ),
}  # fmt: skip
