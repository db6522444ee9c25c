"""The functions that readers of chapter 10 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor, nn

from lvlmva_lite.contextual_decomposition import contextual_decomposition
from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.methods.rr_clarc import pattern_direction


def _lettered(g: Generator) -> tuple[Tensor, Tensor]:
    group = torch.multinomial(uniform(g, 4) ** 2 + 0.05, 80, replacement=True, generator=g)
    return group // 2, group % 2


def _alone(labels: Tensor, letters: Tensor, axis: int = 0) -> float:
    """Of the table class by letter, the largest of each letter (axis 0) or of each class (axis 1)."""
    table = torch.bincount(2 * labels + letters, minlength=4).view(2, 2).double()
    return table.amax(axis).sum().item() / len(labels)


def _groups(g: Generator) -> tuple[Tensor]:
    groups = torch.randint(40, (60,), generator=g).double().sqrt().floor().long().clamp_max(3)
    groups[:4] = torch.arange(4)
    return (groups,)


def _weights(groups: Tensor) -> Tensor:
    counts = torch.bincount(groups).double()
    return (len(groups) / (len(counts) * counts))[groups]


def _layer(g: Generator) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, float, float]:
    h = uniform(g, 12, 6).numpy() - 0.5
    s = 2.0 * (uniform(g, 12).numpy() < 0.5) - 1
    return 0.2 * (uniform(g, 6).numpy() - 0.5), float(uniform(g, 1)), h, s, 0.5, 0.1


def _step(
    w: np.ndarray, b: float, h: np.ndarray, s: np.ndarray, C: float, eta: float,
    shrink: Callable[[float, float], float] = lambda C, eta: eta,
    shrink_b: bool = False,
) -> tuple[np.ndarray, float]:  # fmt: skip
    pull = C * s / (1 + np.exp(s * (h @ w + b)))
    w, b = w + eta * pull @ h, b + eta * pull.sum()
    less = shrink(C, eta)
    w = np.sign(w) * np.maximum(np.abs(w) - less, 0)
    return w, np.sign(b) * max(abs(b) - less, 0) if shrink_b else b


def _first_answers(g: Generator) -> tuple[Tensor, Tensor, int]:
    labels, other = torch.randint(2, (2, 50), generator=g)
    return torch.where(torch.rand(50, generator=g) < 0.4, other, labels), labels, 5


def _shown(answers: Tensor, labels: Tensor, times: int) -> float:
    """The share of errors where each is shown so many times."""
    errors = int((answers != labels).sum())
    return times * errors / (len(labels) + (times - 1) * errors)


def _embedded(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    labels, shows = _lettered(g)
    features = uniform(g, 80, 4) + labels[:, None] * torch.tensor([1.0, 0, 0, 0])
    return features + shows[:, None] * torch.tensor([0, 0.5, 0.5, 0]), labels, shows.bool()


def _across(embedding: Tensor, labels: Tensor, shows: Tensor) -> Tensor:
    apart = embedding[shows].mean(0) - embedding[~shows].mean(0)
    return apart / apart.norm()


def _within(embedding: Tensor, labels: Tensor, shows: Tensor) -> Tensor:
    moved = shows.double()
    for label in labels.unique():
        moved[labels == label] -= moved[labels == label].mean()
    return moved @ embedding


def _parts(g: Generator) -> tuple[Tensor, ...]:
    return tuple(uniform(g, *shape) - 0.5 for shape in ((3, 5), (3, 5), (4, 5), (4,)))


def _decomposed(beta: Tensor, gamma: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    layer = nn.Linear(*weight.T.shape, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        network = nn.Sequential(nn.Flatten(), layer)
        whole, rest = (part[:, None, None] for part in (beta + gamma, gamma))
        return contextual_decomposition(
            network, whole, torch.ones(len(beta), 1, beta.shape[1], dtype=torch.bool), origin=rest
        )


def _with_bias(
    beta: Tensor, gamma: Tensor, weight: Tensor, bias: Tensor, of_beta: float, of_gamma: float
) -> tuple[Tensor, Tensor]:
    return beta @ weight.T + of_beta * bias, gamma @ weight.T + of_gamma * bias


EXERCISES: dict[str, Exercise] = {
    "by_letter_alone": Exercise(
        10, "labels and letters, (n,) each, 0 or 1", _lettered, _alone,
        (
            ("It reads the class and answers with the letter: for each letter, take the commoner class.",
             partial(_alone, axis=1)),
            (
                "It answers with one class throughout: take the commoner class of each letter.",
                lambda y, t: torch.bincount(y).max().item() / len(y),
            ),
            ("It is the share in which letter and class are equal: the letter may speak for either.",
             lambda y, t: (y == t).double().mean().item()),
        ),
    ),
    "group_weights": Exercise(
        10, "groups (n,) in 0 to 3", _groups, _weights,
        (
            (
                "It favours the large groups: divide by their sizes.",
                lambda g: 4 * torch.bincount(g).double()[g] / len(g),
            ),
            (
                "The weights add up to the number of groups: let them add up to n.",
                lambda g: 1 / torch.bincount(g).double()[g],
            ),
            ("It leaves out that there are four groups.", lambda g: 4 * _weights(g)),
        ),
    ),
    "proximal_step": Exercise(
        10, "w (D,), b, h (n, D), s (n,) of -1 and 1, C and eta", _layer, _step,
        (
            ("It lacks the soft threshold.", partial(_step, shrink=lambda C, eta: 0.0)),
            (
                "The threshold is eta: C weighs the other term.",
                partial(_step, shrink=lambda C, eta: C * eta),
            ),
            ("It shrinks b, on which there is no penalty.", partial(_step, shrink_b=True)),
        ),
    ),
    "jtt_share": Exercise(
        10, "a first network's answers (n,), labels (n,) and u, how often an error is shown", _first_answers, _shown,
        (
            (
                "The epoch grows by what is shown again: divide by all that is shown.",
                lambda a, y, u: u * (a != y).double().mean().item(),
            ),
            (
                "It adds u copies to the image that is there: u counts that one.",
                lambda a, y, u: _shown(a, y, u + 1),
            ),
            ("It is the share of errors before any is shown again.", lambda a, y, u: _shown(a, y, 1)),
        ),
    ),
    "pattern_direction": Exercise(
        10, "embedding (n, D), labels (n,) and shows (n,) bool", _embedded, pattern_direction,
        (
            (
                "It is what all images with the letter have over all without it: centre within each class.",
                _across,
            ),
            ("Its length is not 1.", _within),
            ("It points away from the letter.", lambda *given: -pattern_direction(*given)),
        ),
    ),
    "cdep_layer": Exercise(
        10, "beta and gamma (n, D), weight (K, D) and bias (K,)", _parts, _decomposed,
        (
            ("All of the bias goes to gamma: share it by sizes.", partial(_with_bias, of_beta=0.0, of_gamma=1.0)),
            ("Each part gets half of the bias: share it by sizes.", partial(_with_bias, of_beta=0.5, of_gamma=0.5)),
            ("Both parts get the whole bias: they must add up to the layer's output.",
             partial(_with_bias, of_beta=1.0, of_gamma=1.0)),
        ),
    ),
}  # fmt: skip
