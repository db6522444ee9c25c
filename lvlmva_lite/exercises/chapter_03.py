"""The functions that readers of chapter 3 may write."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from lvlmva_lite.attribution import deeplift_shap
from lvlmva_lite.exercises.exercise import Exercise, network, uniform


def _explained(g: Generator) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    model, images = network(g)
    return model, images, torch.tensor([0, 1, 2]), uniform(g, 5, 1, 4, 4)


def _gradient_times(model: nn.Module, images: Tensor, targets: Tensor, change: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)
    return (slope * change).sum(1).detach()


EXERCISES: dict[str, Exercise] = {
    "deeplift_shap": Exercise(
        3, "a model, images (n, C, H, W), targets (n,) and baselines (b, C, H, W)", _explained, deeplift_shap,
        (
            (
                "It is gradient times input: take secants, and the change from each baseline.",
                lambda m, x, t, b: _gradient_times(m, x, t, x),
            ),
            (
                "It is the gradient times the change from the mean baseline: take secants.",
                lambda m, x, t, b: _gradient_times(m, x, t, x - b.mean(0)),
            ),
            (
                "It compares with the mean baseline: explain against each, then average.",
                lambda m, x, t, b: deeplift_shap(m, x, t, b.mean(0).repeat(2, 1, 1, 1)),
            ),
            (
                "It is the sum over baselines: take the mean.",
                lambda m, x, t, b: len(b) * deeplift_shap(m, x, t, b),
            ),
        ),
    ),
}  # fmt: skip
