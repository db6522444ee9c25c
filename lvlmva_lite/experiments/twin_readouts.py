"""What a head says of twins, each image without and with a letter, and how sure that is over patients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lvlmva_lite.crossed import conflict_auc, letter_effect
from lvlmva_lite.streams import stream

N_BOOTSTRAP = 400


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
        "letter_effect": letter_effect(-bare, -marked),
        "wga": min(plain), "aga": sum(plain) / 4, "wga_balanced": min(accuracies(middle)),
    }  # fmt: skip


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
