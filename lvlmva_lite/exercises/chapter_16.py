"""The functions that readers of chapter 16 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.stats import t
from torch import Generator, Tensor

from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.exercises.exercise import Exercise, uniform
from lvlmva_lite.experiments.fold_summary import corrected_interval
from lvlmva_lite.experiments.twin_readouts import letter_coverage, readouts


def _twins(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    labels = torch.cat([torch.arange(2), torch.randint(2, (28,), generator=g)])
    bare = uniform(g, 30) + 0.5 * labels
    return bare, bare - 0.4 * uniform(g, 30), labels


def _aucs(bare: Tensor, marked: Tensor, labels: Tensor) -> tuple[float, float]:
    found = readouts(bare, marked, labels)
    return found["conflict_auc"], found["agreement_auc"]


def _of_folds(g: Generator) -> tuple[np.ndarray, int]:
    return uniform(g, 10).numpy(), 5


def _interval(
    values: np.ndarray, share: Callable[[int], float], quantile: float | None = None, ddof: int = 1
) -> tuple[float, float]:
    wide = t.ppf(0.975, len(values) - 1) if quantile is None else quantile
    half = wide * values.std(ddof=ddof) * np.sqrt(1 / len(values) + share(5))
    return values.mean() - half, values.mean() + half


def _letters(g: Generator) -> tuple[Tensor, Tensor]:
    masks = (uniform(g, 8, 6, 6) < 0.15) & (uniform(g, 8) < 0.7)[:, None, None]
    letters = uniform(g, 8, 6, 6) < torch.linspace(0.05, 0.4, 8)[:, None, None]
    letters[:, 2, 2] = True
    letters[torch.randperm(8, generator=g)[:3]] = False  # images without a letter
    return masks, letters


def _coverage(masks: Tensor, letters: Tensor) -> tuple[float, float]:
    found = letter_coverage(masks, letters)
    return found["letters_covered"], found["letters_touched"]


def _judged(g: Generator) -> tuple[list[str], Tensor, Tensor]:
    kinds = [KINDS[k] for k in torch.randint(len(KINDS), (60,), generator=g).tolist()]
    on_patch, on_object = (uniform(g, 60) * (uniform(g, 60) < 0.7) for _ in range(2))  # some on neither
    return kinds, on_patch, on_patch + (1 - on_patch) * on_object


def _alarms(
    kinds: list[str], *shares: Tensor, said: tuple[str, ...] = ("spurious",), most: float = 0.5
) -> tuple[int, int]:
    called = torch.tensor([kind in said for kind in kinds])
    return tuple(int((called & (share <= most)).sum()) for share in shares)


def _patched(g: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    labels = torch.cat([torch.arange(2), torch.randint(2, (28,), generator=g)])
    filled = uniform(g, 12) + 0.4
    return filled + 0.5 * uniform(g, 12), filled, uniform(g, 30) - 0.5 * labels, labels


def _parts(own: Tensor, filled: Tensor, bare: Tensor, labels: Tensor) -> tuple[float, float]:
    patch, rest = own.mean() - filled.mean(), filled.mean() - bare[labels == 0].mean()
    return (patch / bare.std()).item(), (rest / bare.std()).item()


EXERCISES: dict[str, Exercise] = {
    "twin_aucs": Exercise(
        16, "scores for ill without a letter (n,), with one (n,) and labels (n,), 0 or 1", _twins, _aucs,
        (
            (
                "The two are the wrong way round: an ill knee with a letter is in conflict.",
                lambda bare, marked, y: _aucs(bare, marked, y)[::-1],
            ),
            (
                "It takes both classes without letters: one of each pair carries one.",
                lambda bare, marked, y: _aucs(bare, bare, y),
            ),
            (
                "It is the chance that the healthy one looks more ill.",
                lambda bare, marked, y: tuple(1 - auc for auc in _aucs(bare, marked, y)),
            ),
        ),
    ),
    "corrected_interval": Exercise(
        16, "values (J,), of all folds of all repeats, and how many folds a repeat has", _of_folds,
        lambda values, n_folds: corrected_interval(pd.Series(values), n_folds),
        (
            (
                "It takes the folds for independent: they share training data.",
                lambda values, k: _interval(values, lambda k: 0.0),
            ),
            (
                "It takes the test's share of all data: take test over training data, 1 to n_folds - 1.",
                lambda values, k: _interval(values, lambda k: 1 / k),
            ),
            (
                "It takes 1.96: of so few values take Student's quantile.",
                lambda values, k: _interval(values, lambda k: 1 / (k - 1), 1.96),
            ),
            (
                "Its standard deviation divides by J: divide by J - 1.",
                lambda values, k: _interval(values, lambda k: 1 / (k - 1), ddof=0),
            ),
        ),
    ),
    "letter_coverage": Exercise(
        16, "masks and letters (n, H, W) bool", _letters, _coverage,
        (
            (
                "Images without a letter count: leave them out.",
                lambda m, a: tuple(np.array(_coverage(m, a)) * a.flatten(1).any(1).double().mean().item()),
            ),
            (
                "The first is one share of all letters together: take each letter's, then the mean.",
                lambda m, a: (((m & a).sum() / a.sum()).item(), _coverage(m, a)[1]),
            ),
            (
                "The second counts images with a mask: does it lie on the letter?",
                lambda m, a: (_coverage(m, a)[0], m[a.flatten(1).any(1)].flatten(1).any(1).double().mean().item()),
            ),
        ),
    ),
    "patch_and_rest": Exercise(
        16, "scores with a patch and with it filled (n,), of images without (m,), and their labels (m,), 0 or 1",
        _patched, _parts,
        (
            (
                "The first holds the rest of the picture, too: hold the image against itself filled.",
                lambda own, filled, bare, y: (sum(_parts(own, filled, bare, y)), _parts(own, filled, bare, y)[1]),
            ),
            (
                "The rest is held against both classes: patches lie on benign images alone.",
                lambda own, filled, bare, y: (
                    _parts(own, filled, bare, y)[0], ((filled.mean() - bare.mean()) / bare.std()).item(),
                ),
            ),
            (
                "The standard deviation is that of all images without a patch, of both classes.",
                lambda own, filled, bare, y: _parts(own, filled, bare[y == 0], y[y == 0]),
            ),
        ),
    ),
    "false_alarms": Exercise(
        16, "kinds, a list of m words such as 'spurious', and shares of evidence on patches (m,), on patches or objects (m,)", _judged, _alarms,
        (
            ("It finds none: compare the kinds, which are words, with \"spurious\".", lambda *given: (0, 0)),
            ("What is undecided is no alarm.", partial(_alarms, said=("spurious", "undecided"))),
            (
                "A segment with any evidence on the truth passes: more than half must lie there.",
                partial(_alarms, most=0.0),
            ),
            (
                "It counts what is rightly called spurious.",
                lambda k, *shares: tuple(k.count("spurious") - n for n in _alarms(k, *shares)),
            ),
        ),
    ),
}  # fmt: skip
