import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from lvlmva_lite.agreement import (
    MISSING,
    bootstrap_interval,
    cohen_kappa,
    fleiss_kappa,
    mean_pairwise_agreement,
    percent_agreement,
)

codes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30).map(np.array)


def ratings_of(counts):
    """Ratings (raters, items) with these counts (items, codes)."""
    return np.array([np.repeat(np.arange(len(row)), row) for row in counts]).T


# Fleiss (1971), as on the page "Fleiss' kappa" of Wikipedia: 14 raters, 10 items, 5 words.
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def test_fleiss_kappa_of_a_published_table():
    assert fleiss_kappa(ratings_of(FLEISS)) == pytest.approx(0.210, abs=5e-4)
    assert mean_pairwise_agreement(ratings_of(FLEISS)) == pytest.approx(0.378, abs=5e-4)


def test_cohen_kappa_of_a_published_table():
    # 20 both yes, 5 and 10 apart, 15 both no: 0.4 (Cohen's kappa, Wikipedia).
    first = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])
    second = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert percent_agreement(first, second) == pytest.approx(0.7)
    assert cohen_kappa(first, second) == pytest.approx(0.4)


@given(codes)
@settings(max_examples=60, deadline=None)
def test_of_two_raters(pairs):
    first, second = pairs.T
    kappa = cohen_kappa(first, second)
    if len(np.unique(pairs)) > 1:
        assert kappa == pytest.approx(cohen_kappa_score(first, second))
        # Fleiss' kappa of two raters is Scott's pi: chance from both together.
        shares = np.bincount(pairs.ravel()) / pairs.size
        agreed, chance = (first == second).mean(), (shares**2).sum()
        assert fleiss_kappa(pairs.T) == pytest.approx((agreed - chance) / (1 - chance))
    else:
        assert math.isnan(kappa)
        assert math.isnan(fleiss_kappa(pairs.T))
    assert percent_agreement(first, second) == mean_pairwise_agreement(pairs.T)


@given(codes)
@settings(max_examples=30, deadline=None)
def test_what_was_not_rated_changes_nothing(pairs):
    holes = np.vstack([pairs, [[MISSING, 1], [2, MISSING], [MISSING, MISSING]]]).T
    for measure in (percent_agreement, cohen_kappa):
        assert measure(*holes) == pytest.approx(measure(*pairs.T), nan_ok=True)
    for measure in (mean_pairwise_agreement, fleiss_kappa):
        assert measure(holes) == pytest.approx(measure(pairs.T), nan_ok=True)


def test_nothing_rated_is_nothing_measured():
    nothing = np.full((3, 4), MISSING)
    assert math.isnan(percent_agreement(*nothing[:2]))
    assert math.isnan(cohen_kappa(*nothing[:2]))
    assert math.isnan(fleiss_kappa(nothing))
    assert all(map(math.isnan, bootstrap_interval(fleiss_kappa, nothing, n_resamples=3)))


def test_the_interval_is_that_of_a_binomial_share():
    # Of n independent items a share p has a standard error of sqrt(p (1 - p) / n).
    n, share = 400, 0.8
    ratings = np.zeros((2, n), int)
    ratings[1, : round((1 - share) * n)] = 1
    low, high = bootstrap_interval(lambda rows: percent_agreement(*rows), ratings, n_resamples=4000)
    half = 1.96 * math.sqrt(share * (1 - share) / n)
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.006)
