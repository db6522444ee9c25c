"""The functions that readers of chapter 6 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn

from lvlmva_lite.alignment import rrr_penalty
from lvlmva_lite.exercises.exercise import Exercise, network, uniform


def _penalised(g: Generator) -> tuple[nn.Module, Tensor, Tensor]:
    model, images = network(g)
    return model, images, uniform(g, 3, 4, 4) < 0.5


def _penalty_of(
    model: nn.Module, images: Tensor, masks: Tensor, output: Callable, size: Callable
) -> Tensor:
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(output(model(images)).sum(), images, create_graph=True)
    return size(masks[:, None] * slope).sum()


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(1)


EXERCISES: dict[str, Exercise] = {
    "rrr_penalty": Exercise(
        6, "a model, images (n, C, H, W) and masks (n, H, W) bool", _penalised, rrr_penalty,
        (
            ("It penalises what is not masked.", lambda m, x, a: rrr_penalty(m, x, ~a)),
            (
                "It takes the slopes of the logits: take those of the log-probabilities.",
                lambda m, x, a: _penalty_of(m, x, a, nn.Identity(), torch.square),
            ),
            (
                "It adds absolute slopes: square them.",
                lambda m, x, a: _penalty_of(m, x, a, _log_softmax, torch.abs),
            ),
            ("It is the mean: take the sum.", partial(rrr_penalty, reduction="mean")),
        ),
        differentiable=True,
    ),
}  # fmt: skip
