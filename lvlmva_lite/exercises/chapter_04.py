"""The functions that readers of chapter 4 may write."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.special import logsumexp, softmax
from torch import Generator

from lvlmva_lite.em_by_hand import em_step
from lvlmva_lite.exercises.exercise import Exercise, maps, uniform
from lvlmva_lite.segmentation import positive_effect


def _mixture(g: Generator) -> tuple[np.ndarray, ...]:
    z, p = uniform(g, 30, 2).numpy(), uniform(g, 30).numpy()
    shares = uniform(g, 3).numpy() + 0.2
    means = uniform(g, 3, 2).numpy()
    return z, p / p.sum(), shares / shares.sum(), means, np.stack([np.eye(2) / 20] * 3), np.eye(2) / 1200


def _joint(g: Generator) -> tuple[np.ndarray]:
    joint = 4 * uniform(g, 12, 3).numpy()
    joint[::2] -= 1000  # pixels far from every segment
    return (joint,)


def _naive(joint: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.exp(joint) / np.exp(joint).sum(1, keepdims=True)


def _weighted_joint(g: Generator) -> tuple[np.ndarray, np.ndarray]:
    p = uniform(g, 12).numpy()
    return p / p.sum(), 4 * uniform(g, 12, 3).numpy()


def _fitted(g: Generator) -> tuple[np.ndarray, float, int]:
    p = uniform(g, 50).numpy() ** 3
    return p / p.sum(), 1 + uniform(g, 1).item(), 4


def _bic(p: np.ndarray, likelihood: float, j: int, *, n: float | None = None, of_segment: int = 6) -> float:
    n = 1 / (p**2).sum() if n is None else n
    return -2 * n * likelihood + (of_segment * j - 1) * np.log(n)


EXERCISES: dict[str, Exercise] = {
    "positive_effect": Exercise(
        4, "attributions (n, H, W)", lambda g: maps(g)[:1], positive_effect,
        (
            ("It counts negative attributions: drop them.", lambda a: positive_effect(a.abs())),
            (
                "It divides by the sum of all attributions: drop the negative ones first.",
                lambda a: a.clamp_min(0) / a.sum((1, 2), keepdim=True),
            ),
            (
                "It divides by the sum over all maps: each map sums to 1.",
                lambda a: a.clamp_min(0) / a.clamp_min(0).sum(),
            ),
        ),
    ),
    "responsibilities": Exercise(
        4, "joint (P, J), the logarithms of pi_j N_ij", _joint, partial(softmax, axis=1),
        (
            ("It underflows far from every segment: subtract each pixel's largest before exp.", _naive),
            ("It divides by the sum over pixels: over segments.", partial(softmax, axis=0)),
            (
                "It gives each pixel to one segment: responsibilities are shares.",
                lambda joint: np.eye(joint.shape[1])[joint.argmax(1)],
            ),
        ),
    ),
    "em_step": Exercise(
        4, "z (P, 2), p (P,), shares (J,), means (J, 2), covariances (J, 2, 2) and floor (2, 2)", _mixture, em_step,
        (
            ("It leaves the floor out of the covariances.", partial(em_step, floored=False)),
            ("Each pixel counts alike: weigh it by its mass p.", partial(em_step, weighted=False)),
            ("The covariances are taken around the old means.", partial(em_step, fresh=False)),
        ),
    ),
    "em_objective": Exercise(
        4, "p (P,), masses, and joint (P, J), the logarithms of pi_j N_ij", _weighted_joint,
        lambda p, joint: float(p @ logsumexp(joint, axis=1)),
        (
            ("Each pixel counts alike: weigh it by its mass p.", lambda p, joint: logsumexp(joint, axis=1).mean()),
            (
                "It is the logarithm of the mean: take the mean of the logarithms.",
                lambda p, joint: np.log(p @ np.exp(joint).sum(1)),
            ),
            ("It counts each pixel's largest segment only: add them up.", lambda p, joint: p @ joint.max(1)),
        ),
    ),
    "bic": Exercise(
        4, "p (P,), masses of sum 1, a log-likelihood in nats per unit of effect, and J", _fitted, _bic,
        (
            (
                "It takes the pixels for the sample: take Kish's effective size.",
                lambda p, fit, j: _bic(p, fit, j, n=len(p)),
            ),
            (
                "The likelihood is per unit of effect: times the effective size.",
                lambda p, fit, j: _bic(p, 0.0, j) - 2 * fit,
            ),
            (
                "It counts 5 J parameters: the weights are J - 1 more.",
                lambda p, fit, j: _bic(p, fit, j, of_segment=5) - np.log((p**2).sum()),
            ),
        ),
    ),
}  # fmt: skip
