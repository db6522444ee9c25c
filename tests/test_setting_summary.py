import pandas as pd
import pytest
from scipy import stats

from lvlmva_lite.experiments.setting_arms import PAPER
from lvlmva_lite.experiments.setting_summary import IN_WORDS, settings_in_words


def table(values):
    """Rows of two departures; ``values`` by (ablation, arm), one a seed."""
    return pd.DataFrame(
        [
            {"ablation": ablation, "arm": arm, "seed": seed, "wga": value}
            for (ablation, arm), ofs in values.items()
            for seed, value in ofs
        ]
    )


def test_changes_are_paired_by_seed_whatever_the_order_of_the_rows():
    seeds = range(3)
    values = {
        ("before", "before"): [*zip(seeds, (0.2, 0.3, 0.1), strict=True)],
        ("setting", "ours"): [*zip(seeds, (0.6, 0.8, 0.7), strict=True)],
        ("setting", "the paper's"): [*zip(reversed(seeds), (0.4, 0.3, 0.5), strict=True)],
        ("one of the paper's", "fill"): [*zip(seeds, (0.6, 0.7, 0.6), strict=True)],
        ("one of ours", "fill"): [*zip(seeds, (0.55, 0.35, 0.45), strict=True)],
    }
    found = settings_in_words(table(values))
    assert [*found.index] == [
        "before", "ours", "the paper's", "ours, but no filling", "the paper's, but filling",
    ]  # fmt: skip
    assert found["mean"].tolist() == pytest.approx([0.2, 0.7, 0.4, 19 / 30, 0.45])
    differences = {
        "the paper's": (-0.1, -0.5, -0.3), "ours, but no filling": (0.0, -0.1, -0.1),
        "the paper's, but filling": (0.05, 0.05, 0.05),
    }  # fmt: skip
    for row, of in differences.items():
        assert found["change"][row] == pytest.approx(sum(of) / 3)
        low, high = stats.t.interval(0.95, 2, sum(of) / 3, stats.sem(of))
        if of[0] != of[1]:
            assert [found["low"][row], found["high"][row]] == pytest.approx([low, high])
    assert pd.isna(found["change"]["ours"])


def test_each_departure_has_its_words():
    assert {*IN_WORDS} == {*PAPER}
