"""Twins, each knee without and with a letter; what a head says of them, and how sure that is over patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvlmva_lite.crossed import conflict_auc, letter_effect
from lvlmva_lite.datasets import ShortcutDataset, load_knee
from lvlmva_lite.datasets.knee import MARKER_RATES
from lvlmva_lite.streams import stream
from lvlmva_lite.tasks.phantoms import ALL, NONE
from lvlmva_lite.threads import late_import

N_FOLDS = 5
N_BOOTSTRAP = 400


@dataclass(frozen=True)
class Twins:
    """Every knee without and with a letter, and which of the two stands in the training data.

    Attributes
    ----------
    bare, marked : Tensor, (N, 1, H, W), float32
    masks : Tensor, (N, H, W), bool, the letter
    shows : Tensor, (N,), bool, whether the training data hold it with its letter
    labels : Tensor, (N,), int64, 0 healthy, 1 worn
    patients : ndarray, (N,), int64
    template : ShortcutDataset, names of classes and groups
    twinned : Tensor, (N,), bool, which have a twin, or None where all have
        Of another there is the image as it is alone, in ``bare`` and in ``marked``.
    """

    bare: Tensor
    marked: Tensor
    masks: Tensor
    shows: Tensor
    labels: Tensor
    patients: np.ndarray
    template: ShortcutDataset
    twinned: Tensor | None = None

    @property
    def strata(self) -> Tensor:
        """What is spread evenly over folds, (N,) int64: the class."""
        return self.labels

    def with_twin(self, where: Tensor) -> Tensor:
        """Those of the places ``where`` (n,) int64 whose image has a twin."""
        return where if self.twinned is None else where[self.twinned[where]]

    @property
    def groups(self) -> Tensor:
        """Of the training data, (N,) int64: 2 * label + whether it shows a letter."""
        return 2 * self.labels + self.shows.long()

    def dataset(self, where: Tensor) -> ShortcutDataset:
        """The training data's images at ``where`` (n,), int64."""
        shows = self.shows[where]
        return ShortcutDataset(
            images=torch.where(shows[:, None, None, None], self.marked[where], self.bare[where]),
            labels=self.labels[where],
            groups=self.groups[where],
            spurious_masks=self.masks[where] & shows[:, None, None],
            class_names=self.template.class_names, group_names=self.template.group_names,
            name=self.template.name,
        )  # fmt: skip


def twins(data_root: str, repeat: int, size: int) -> Twins:
    """All knees of a folder, whatever split they lie in; ``repeat`` draws letters, and who gets one."""

    def at(rate: tuple[float, float]) -> list[Any]:
        return [
            load_knee(data_root, split, size=size, marker_rate=rate, random_state=repeat)
            for split in ("train", "validation", "test")
        ]

    bare, seen, marked = at(NONE), at(MARKER_RATES["train"]), at(ALL)

    def whole(parts: list[Any], field: str) -> Tensor:
        return torch.cat([getattr(part, field) for part in parts])

    names = [name for part in bare for name in part.names]
    patients = [int("".join(c for c in name.rpartition("/")[2] if c.isdigit())) for name in names]
    return Twins(
        whole(bare, "images"), whole(marked, "images"), whole(marked, "spurious_masks"),
        whole(seen, "groups") % 2 == 1, whole(bare, "labels"), np.array(patients), bare[0],
    )  # fmt: skip


def folds(strata: Tensor, patients: np.ndarray, repeat: int) -> list[np.ndarray]:
    """Places of each of ``N_FOLDS`` folds; no patient is in two, and strata are spread evenly."""
    model_selection = late_import("sklearn.model_selection")
    split = model_selection.StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=repeat)
    return [held for _, held in split.split(strata, strata, patients)]


def balanced_threshold(healthy: np.ndarray, worn: np.ndarray) -> float:
    """Where the accuracies of both classes are closest, of scores for the class of the second."""
    at = np.sort(np.concatenate([healthy, worn]))
    middles = (at[1:] + at[:-1]) / 2
    below = np.searchsorted(np.sort(healthy), middles) / len(healthy)
    above = 1 - np.searchsorted(np.sort(worn), middles) / len(worn)
    return float(middles[np.abs(below - above).argmin()])


def readouts(bare: Tensor, marked: Tensor, labels: Tensor) -> dict[str, float]:
    """Of logits of the worn class, (n,) each, of the same images without and with a letter.

    Returns
    -------
    dict
        "conflict_auc" and "letter_effect" (see :mod:`crossed`; the letter goes with the healthy);
        "agreement_auc", the same where the letter speaks *for* the label: the lesser of the two where a head
        goes by the letter the other way round;
        "wga" and "aga" over the four groups, each image in two of them; "wga_balanced", at the threshold that
        balances both classes on these very scores
    """
    healthy = labels == 0
    groups = [scores[labels == label].numpy() for label in (0, 1) for scores in (bare, marked)]

    def accuracies(threshold: float) -> list[float]:
        return [float(((scores > threshold) == bool(i // 2)).mean()) for i, scores in enumerate(groups)]

    plain = accuracies(0.0)
    middle = balanced_threshold(np.concatenate(groups[:2]), np.concatenate(groups[2:]))
    return {
        "conflict_auc": conflict_auc(-bare, -marked, healthy),
        "agreement_auc": conflict_auc(-marked, -bare, healthy),
        "letter_effect": letter_effect(-bare, -marked),
        "wga": min(plain), "aga": sum(plain) / 4, "wga_balanced": min(accuracies(middle)),
    }  # fmt: skip


def letter_coverage(masks: Tensor, letters: Tensor) -> dict[str, float]:
    """How much of the letters masks lie on, over the images that have a letter.

    Parameters
    ----------
    masks, letters : (n, H, W) bool

    Returns
    -------
    dict
        "letters_covered", the mean share of a letter's pixels that are masked, and "letters_touched", the
        share of letters of which any is; nan where there is no letter
    """
    has = letters.flatten(1).any(1)
    letters, both = letters[has].flatten(1), (letters & masks)[has].flatten(1)
    shares = both.sum(1).double() / letters.sum(1)
    return {
        "letters_covered": shares.mean().item(),
        "letters_touched": both.any(1).double().mean().item(),
    }


def bootstrapped(bare: Tensor, marked: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Conflict AUC of so many draws of patients.

    Parameters
    ----------
    bare, marked, labels : as :func:`readouts`
    counts : (B, n) float64, how often each image is in a draw
    """
    healthy = labels == 0
    own, other = -bare[healthy], -marked[~healthy]
    wins = (own[:, None] > other).double() + 0.5 * (own[:, None] == other).double()
    of_own, of_other = counts[:, healthy], counts[:, ~healthy]
    pairs = of_own.sum(1) * of_other.sum(1)
    return torch.einsum("bi,ij,bj->b", of_own, wins, of_other) / pairs


def patient_counts(patients: np.ndarray, seed: int) -> Tensor:
    """How often each image is in ``N_BOOTSTRAP`` draws of patients with replacement, (B, n) float64."""
    _, of_image = np.unique(patients, return_inverse=True)
    n = int(of_image.max()) + 1
    drawn = torch.randint(n, (N_BOOTSTRAP, n), generator=stream(seed, "patients"))
    counts = torch.zeros(N_BOOTSTRAP, n, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones_like(drawn, dtype=torch.float64)
    )
    return counts[:, torch.from_numpy(of_image)]
