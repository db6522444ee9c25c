"""The functions that readers of chapter 12 may write."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from scipy.stats import chi2, norm
from torch import Generator, Tensor

from lvlmva_lite.critic.types import SPURIOUS
from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.experiments.overlap_arms import mask_quality


def _gaussians(g: Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    roots = uniform(g, n, 3, 3).numpy() - 0.3
    return uniform(g, n, 3).numpy(), roots @ roots.transpose(0, 2, 1) + 0.01 * np.eye(3)


def _one(g: Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    (mean,), (covariance,) = _gaussians(g, 1)
    return mean, covariance, uniform(g, 5, 2).numpy()


def _there(mean: np.ndarray, covariance: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slope = np.linalg.solve(covariance[:2, :2], covariance[:2, 2])
    return mean[2] + (s - mean[:2]) @ slope, covariance[2, 2] - covariance[:2, 2] @ slope


def _unsolved(mean: np.ndarray, covariance: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slope = covariance[:2, 2]
    return mean[2] + (s - mean[:2]) @ slope, covariance[2, 2] - slope @ slope


def _weighed(g: Generator) -> tuple[np.ndarray, np.ndarray, float]:
    return *_gaussians(g, 3), 2 + float(uniform(g, 1))


def _rescaled(
    means: np.ndarray, covariances: np.ndarray, ratio: float, place: float = 1.0, rows: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    scale = np.array([place, place, ratio])
    return means * scale, covariances * scale * (scale[:, None] if rows else 1)


def _solid(d: float) -> float:
    return float(chi2.ppf(-np.expm1(-d / 2), 3))


def _masked(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    masks, letters, joints = (uniform(g, 4, 6, 6) < share for share in (0.4, 0.3, 0.6))
    masks[:, 0, 0] = letters[:, 0, 0] = joints[:, 0, 1] = True
    letters[:, 0, 1] = False  # something of each in each image, and some joint in sight
    return masks, letters, joints


def _quality(masks: Tensor, letters: Tensor, joints: Tensor) -> tuple[float, float, float]:
    labels = torch.where(masks, 0, -1)  # one segment, called spurious; all effect is on the letter
    found = mask_quality(
        SimpleNamespace(
            chosen=SimpleNamespace(spurious_masks=letters, core_masks=joints),
            alignment_set=SimpleNamespace(
                segments=SimpleNamespace(labels=labels, n_segments=1), attributions=letters.double()
            ),
        ),
        torch.full((len(masks), 1), SPURIOUS),
    )
    return found["off"], found["on_core"], found["core_masked"]


def _pooled(masks: Tensor, letters: Tensor, joints: Tensor) -> tuple[float, ...]:
    visible = joints & ~letters
    parts = (masks & ~letters, masks), (masks & visible, masks), (masks & visible, visible)
    return tuple((part.sum() / of.sum()).item() for part, of in parts)


def _with_hidden(masks: Tensor, letters: Tensor, joints: Tensor) -> tuple[float, ...]:
    both = (masks & joints).sum((1, 2))
    shares = [(both / of.sum((1, 2))).mean().item() for of in (masks, joints)]
    return _quality(masks, letters, joints)[0], *shares


EXERCISES: dict[str, Exercise] = {
    "brightness_there": Exercise(
        12, "mean (3,), covariance (3, 3) and positions s (P, 2)", _one, _there,
        (
            (
                "It has no slope: a segment's brightness changes from place to place.",
                lambda m, c, s: (np.full(len(s), m[2]), c[2, 2]),
            ),
            ("It takes c for the slope: multiply by the inverse of A.", _unsolved),
            (
                "The second value is its root: give the variance.",
                lambda m, c, s: (_there(m, c, s)[0], np.sqrt(_there(m, c, s)[1])),
            ),
        ),
    ),
    "rescaled": Exercise(
        12, "means (J, 3), covariances (J, 3, 3) and the ratio of the new weight to the old", _weighed, _rescaled,
        (
            (
                "Covariances are stretched on one side: B stands on either.",
                partial(_rescaled, rows=False),
            ),
            ("Positions are stretched, too: the weight is that of brightness alone.",
             lambda m, c, r: _rescaled(m, c, r, place=r)),
            (
                "Means stay where they were: they move along with the points.",
                lambda m, c, r: (m, _rescaled(m, c, r)[1]),
            ),
        ),
    ),
    "fill_distance": Exercise(
        12, "d, a squared distance in the plane", lambda g: (1 + 5 * float(uniform(g, 1)),), _solid,
        (
            ("That d holds less of a Gaussian in three dimensions.", lambda d: d),
            (
                "It grows as the dimensions do: ask which d holds as much.",
                lambda d: 1.5 * d,
            ),
            ("It is the distance: give its square.", lambda d: _solid(d) ** 0.5),
        ),
    ),
    "letter_masks": Exercise(
        12, "masks, letters and joints, (n, H, W) bool", _masked, _quality,
        (
            (
                "The joint under the letter counts: leave out what the letter hides.",
                _with_hidden,
            ),
            (
                "It is one share of all images together: take each image's, then the mean.",
                _pooled,
            ),
            (
                "The last two are the wrong way round: first the share of the mask, then that of the joint.",
                lambda *given: tuple(np.array(_quality(*given))[[0, 2, 1]]),
            ),
        ),
    ),
    "wrong_side": Exercise(
        12, "delta, how far the means lie apart, and tau, (n,) each",
        lambda g: (uniform(g, 5).numpy(), 0.1 + uniform(g, 5).numpy()), lambda d, t: norm.cdf(-d / (2 * t)),
        (
            ("The threshold lies halfway between the means.", lambda d, t: norm.cdf(-d / t)),
            ("That is the share on the right side.", lambda d, t: norm.cdf(d / (2 * t))),
            ("It counts both sorts of pixels: of either, take the share.", lambda d, t: 2 * norm.cdf(-d / (2 * t))),
        ),
    ),
}  # fmt: skip
