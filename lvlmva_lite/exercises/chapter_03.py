"""The functions that readers of chapter 3 may write."""

from __future__ import annotations

import itertools

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


def _slope_times(
    model: nn.Module, images: Tensor, targets: Tensor, output: nn.Module
) -> tuple[Tensor, Tensor]:
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(output(model(images)).gather(1, targets[:, None]).sum(), images)
    return slope, slope * images.detach()


def _sums(g: Generator) -> tuple[Tensor, Tensor]:
    z, z_r = 2 * uniform(g, 2, 10) - 1
    z[:2] = torch.tensor([0.5, -0.5])
    z_r[:2] = z[:2]  # nothing changes
    return z, z_r


def _secant(z: Tensor, z_r: Tensor) -> Tensor:
    return torch.where(z == z_r, (z > 0).double(), (z.relu() - z_r.relu()) / (z - z_r))


def _shapley(worth: Tensor) -> Tensor:
    gains = torch.zeros(3, dtype=torch.float64)
    for order in itertools.permutations(range(3)):
        present = [0, 0, 0]
        for i in order:
            before = worth[tuple(present)]
            present[i] = 1
            gains[i] += worth[tuple(present)] - before
    return gains / 6


def _of_each(worth: Tensor, others: slice | int) -> Tensor:
    """What each adds to the company of all others (1), of nobody (0), or on average to each company."""
    gains = [worth.movedim(i, 0).diff(dim=0)[0] for i in range(3)]
    return torch.stack([gain[others, others].mean() for gain in gains])


def _accounts(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    return uniform(g, 4, 5, 5) - 0.4, 3 * uniform(g, 4), uniform(g, 6)


def _rivalled(g: Generator) -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    model, images, targets, baselines = _explained(g)
    return model, images, targets, torch.tensor([1, 2, 0]), baselines


EXERCISES: dict[str, Exercise] = {
    "gradient_times_input": Exercise(
        3, "a model, images (n, C, H, W) and targets (n,); gives (n, C, H, W)", lambda g: _explained(g)[:3],
        lambda m, x, t: _slope_times(m, x, t, nn.Identity())[1],
        (
            ("It is the gradient: times the input.", lambda m, x, t: _slope_times(m, x, t, nn.Identity())[0]),
            (
                "It asks the softmax, which falls silent where the network is sure: take the logit.",
                lambda m, x, t: _slope_times(m, x, t, nn.Softmax(1))[1],
            ),
            (
                "It has lost its sign: pixels may speak against the class.",
                lambda m, x, t: _slope_times(m, x, t, nn.Identity())[1].abs(),
            ),
        ),
    ),
    "secant": Exercise(
        3, "z (n,) and z_r (n,), what goes into ReLUs for the image and for the baseline", _sums, _secant,
        (
            ("It is the tangent at the image: take the secant.", lambda z, z_r: (z > 0).double()),
            (
                "Where nothing changes it is 0: take the tangent there.",
                lambda z, z_r: torch.where(z == z_r, 0, _secant(z, z_r)),
            ),
            ("It is the change of the output: divide by that of the input.", lambda z, z_r: z.relu() - z_r.relu()),
        ),
    ),
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
    "shapley": Exercise(
        3, "worth (2, 2, 2), an axis for each of three players: 0 is out, 1 is in", lambda g: (uniform(g, 2, 2, 2),),
        _shapley,
        (
            (
                "Every company counts alike: weigh it by the orders of arrival that lead to it.",
                lambda worth: _of_each(worth, slice(None)),
            ),
            (
                "It is what each adds when it comes last: take the mean over all orders.",
                lambda worth: _of_each(worth, 1),
            ),
            (
                "It is what each achieves alone: take the mean over all orders.",
                lambda worth: _of_each(worth, 0),
            ),
        ),
    ),
    "completeness_error": Exercise(
        3, "maps (n, H, W), outputs (n,) of the images and outputs_r (b,) of the baselines; gives (n,)", _accounts,
        lambda a, f, r: (a.sum((1, 2)) - (f - r.mean())).abs(),
        (
            (
                "It compares with the output: compare with its change from the baselines.",
                lambda a, f, r: (a.sum((1, 2)) - f).abs(),
            ),
            (
                "It adds up absolute values: what speaks against the class counts against it.",
                lambda a, f, r: (a.abs().sum((1, 2)) - (f - r.mean())).abs(),
            ),
            ("It has a sign: take the absolute value.", lambda a, f, r: a.sum((1, 2)) - (f - r.mean())),
        ),
    ),
    "contrast": Exercise(
        3, "a model, images (n, C, H, W), targets (n,), rivals (n,) and baselines (b, C, H, W)", _rivalled,
        lambda m, x, t, r, b: deeplift_shap(m, x, t, b, rivals=r),
        (
            ("It is the map of the class alone.", lambda m, x, t, r, b: deeplift_shap(m, x, t, b)),
            ("It speaks for the rival.", lambda m, x, t, r, b: deeplift_shap(m, x, r, b, rivals=t)),
            (
                "It subtracts positive parts: subtract the maps, and take a positive part of that, if any.",
                lambda m, x, t, r, b: deeplift_shap(m, x, t, b).clamp_min(0) - deeplift_shap(m, x, r, b).clamp_min(0),
            ),
        ),
    ),
}  # fmt: skip
