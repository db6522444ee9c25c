"""How far raters agree: percent, Cohen's and Fleiss' kappa, and intervals by resampling what they rated.

Ratings are integer codes >= 0; -1 stands for one that was not given.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

MISSING = -1
"""Code of a rating that was not given."""


def percent_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of items on which two raters say the same, of those that both rated; nan if there are none.

    Parameters
    ----------
    first, second : (n,) int codes
    """
    both = (first != MISSING) & (second != MISSING)
    return float((first[both] == second[both]).mean()) if both.any() else math.nan


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Agreement of two raters beyond chance (Cohen 1960), over the items that both rated.

    1: they always agree, 0: no more than by chance; nan where both gave one and
    the same rating throughout, for which chance leaves no room, or rated nothing alike.

    Parameters
    ----------
    first, second : (n,) int codes
    """
    both = (first != MISSING) & (second != MISSING)
    first, second = first[both], second[both]
    if not len(first):
        return math.nan
    n_codes = int(max(first.max(), second.max())) + 1
    shares = [np.bincount(codes, minlength=n_codes) / len(codes) for codes in (first, second)]
    return _beyond_chance(float((first == second).mean()), float(shares[0] @ shares[1]))


def mean_pairwise_agreement(ratings: np.ndarray) -> float:
    """Chance that two raters, drawn from those who rated an item, say the same; mean over items; nan if none has two.

    Parameters
    ----------
    ratings : (raters, items) int codes
    """
    agreed, _ = _pairs(ratings)
    return float(agreed.mean()) if len(agreed) else math.nan


def fleiss_kappa(ratings: np.ndarray) -> float:
    """Agreement of several raters beyond chance (Fleiss 1971).

    Items may have been rated by different numbers of raters; those with one
    rating or none are left out.  nan where all ratings are one and the same,
    or no item has two.

    Parameters
    ----------
    ratings : (raters, items) int codes
    """
    agreed, counts = _pairs(ratings)
    if not len(agreed):
        return math.nan
    shares = counts.sum(0) / counts.sum()
    return _beyond_chance(float(agreed.mean()), float(shares @ shares))


def _pairs(ratings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of agreeing pairs (m,) and counts (m, codes) of the items that two or more rated."""
    n_codes = int(ratings.max(initial=0)) + 1
    counts = np.stack([(ratings == code).sum(0) for code in range(n_codes)], 1)
    raters = counts.sum(1)
    counts, raters = counts[raters >= 2], raters[raters >= 2]
    return (counts * (counts - 1)).sum(1) / np.maximum(raters * (raters - 1), 1), counts


def _beyond_chance(agreed: float, by_chance: float) -> float:
    return math.nan if math.isclose(by_chance, 1.0) else (agreed - by_chance) / (1 - by_chance)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    ratings: np.ndarray,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> tuple[float, float]:
    """Percentile interval over items drawn anew with replacement (Efron 1979), the raters staying who they are.

    Resamples in which the statistic is not defined are left out; (nan, nan) if it is in none.

    Parameters
    ----------
    statistic : of ratings (raters, items)
    ratings : (raters, items) int codes
    level : in (0, 1)
    """
    rng = np.random.default_rng(random_state)
    n = ratings.shape[1]
    values = np.array([statistic(ratings[:, rng.integers(n, size=n)]) for _ in range(n_resamples)])
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
