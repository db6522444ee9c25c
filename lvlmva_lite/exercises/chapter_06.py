"""The functions that readers of chapter 6 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor, nn

from lvlmva_lite.alignment import finite_difference_penalty, jacobian_penalty, rrr_penalty
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


def _slopes(g: Generator) -> tuple[Tensor, Tensor]:
    return uniform(g, 5, 4, 6) - 0.5, 3 * uniform(g, 5, 4)


def _summed(slopes: Tensor, logits: Tensor, times: float | None = None) -> Tensor:
    times = logits.shape[1] if times is None else times
    return slopes.sum(1) - times * (logits.softmax(1)[:, :, None] * slopes).sum(1)


def _filled(g: Generator) -> tuple[nn.Module, Tensor, Tensor]:
    model, images = network(g)
    return model, images, uniform(g, *images.shape)


def _change(model: nn.Module, images: Tensor, filled: Tensor) -> Tensor:
    nowhere = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    return finite_difference_penalty(model, images, nowhere, filled=filled)


def _two_features(g: Generator) -> tuple[np.ndarray, np.ndarray]:
    return 3 * uniform(g, 20, 2).numpy() - 1, uniform(g, 2).numpy() + 0.5


def _two_weights(x: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
    inputs, weights = torch.from_numpy(x), torch.from_numpy(w).requires_grad_()

    def logits(inputs: Tensor) -> Tensor:
        return torch.stack([0 * inputs[:, 0], inputs @ weights], 1)

    on_shortcut = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(len(x), 2)
    penalty = rrr_penalty(logits, inputs, on_shortcut) / len(x)
    return penalty.item(), torch.autograd.grad(penalty, weights)[0].numpy()


def _held_still(x: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
    """The penalty, and its gradient with the probabilities taken for constants."""
    squared = np.mean(np.tanh(x @ w / 2) ** 2)
    return squared * w[1] ** 2, np.array([0, 2 * squared * w[1]])


def _unit(g: Generator) -> tuple[float, float, int]:
    return 1 + uniform(g, 1).item(), 2 + 4 * uniform(g, 1).item(), int(torch.randint(3, 9, (), generator=g))


def _parts(g: Generator) -> tuple[float, float, Tensor, Tensor]:
    return uniform(g, 1).item(), 1 + uniform(g, 1).item(), uniform(g, 4), 2 * uniform(g, 7)


EXERCISES: dict[str, Exercise] = {
    "summed_gradient": Exercise(
        6, "slopes (n, K, P), of each logit in each pixel, and logits (n, K)", _slopes, _summed,
        (
            ("It lacks the factor K of the second term.", lambda s, z: _summed(s, z, 1)),
            ("It is the sum of the logits' slopes: those of their normaliser are missing.", lambda s, z: s.sum(1)),
            (
                "It is the gradient of one class: sum over all of them.",
                lambda s, z: s[range(len(s)), z.argmax(1)] - (z.softmax(1)[:, :, None] * s).sum(1),
            ),
        ),
    ),
    "jacobian_penalty": Exercise(
        6, "a model, images (n, C, H, W) and masks (n, H, W) bool", _penalised, jacobian_penalty,
        (
            (
                "It takes the logits as they are: subtract their mean over classes first.",
                lambda m, x, a: sum(_penalty_of(m, x, a, lambda z, k=k: z[:, k], torch.square) for k in range(3)),
            ),
            (
                "It takes the log-probabilities, which fall silent: take the logits less their mean.",
                lambda m, x, a: sum(
                    _penalty_of(m, x, a, lambda z, k=k: z.log_softmax(1)[:, k], torch.square) for k in range(3)
                ),
            ),
            ("It squares the sum over classes: sum the squares.", rrr_penalty),
            ("It penalises what is not masked.", lambda m, x, a: jacobian_penalty(m, x, ~a)),
        ),
        differentiable=True,
    ),
    "finite_difference": Exercise(
        6, "a model, images (n, C, H, W) and filled (n, C, H, W)", _filled, _change,
        (
            (
                "It takes the logits as they are: subtract their mean over classes first.",
                lambda m, x, f: (m(x) - m(f)).square().sum(),
            ),
            (
                "It takes the log-probabilities, which may cancel or fall silent: take the logits less their mean.",
                lambda m, x, f: (_log_softmax(m(x)) - _log_softmax(m(f))).square().sum(),
            ),
            ("It is the mean: take the sum.", lambda m, x, f: _change(m, x, f) / m(x).numel()),
        ),
    ),
    "two_weights": Exercise(
        6, "x (n, 2), core and shortcut, and w (2,); gives the penalty and its gradient (2,)", _two_features,
        _two_weights,
        (
            ("The gradient takes t for a constant: it depends on both weights.", _held_still),
            (
                "It has tanh(z) for t: tanh(z / 2).",
                lambda x, w: (lambda p, s: (p / 4, s / 2))(*_two_weights(x, 2 * w)),
            ),
            ("It is the sum over samples: take the mean.", lambda x, w: tuple(len(x) * part for part in _two_weights(x, w))),
        ),
    ),
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
    "lambda_in_other_units": Exercise(
        6, "lam, for inputs in 0 to 1 and the mean over pixels, scale and side; gives it for inputs times scale, summed", _unit,
        lambda lam, scale, side: lam * scale**2 / side**2,
        (
            ("A slope is squared in the penalty: so is the scale.", lambda lam, scale, side: lam * scale / side**2),
            (
                "The scale is the wrong way round: larger inputs have smaller slopes.",
                lambda lam, scale, side: lam / scale**2 / side**2,
            ),
            (
                "Sum and mean are the wrong way round: a sum is the larger, so it wants the smaller weight.",
                lambda lam, scale, side: lam * scale**2 * side**2,
            ),
        ),
    ),
    "loss_in_nats": Exercise(
        6, "a cross-entropy, lam, penalties (m,) of a batch and at_start (n,), those of all images at the start", _parts,
        lambda c, lam, p, p_0: float(c + lam * p.mean() / p_0.mean()),
        (
            ("It is the plain penalty: divide by the one at the start.", lambda c, lam, p, p_0: c + lam * p.mean()),
            (
                "It divides sums, of more images and of fewer: divide means.",
                lambda c, lam, p, p_0: c + lam * p.sum() / p_0.sum(),
            ),
            (
                "The cross-entropy is multiplied, too: only the penalty is.",
                lambda c, lam, p, p_0: lam * (c + p.mean() / p_0.mean()),
            ),
        ),
    ),
}  # fmt: skip
