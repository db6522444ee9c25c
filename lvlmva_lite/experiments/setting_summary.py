"""The paper's setting beside ours, from a table of :func:`setting_arms.setting_rows`: what each departure buys."""

from __future__ import annotations

import pandas as pd

from lvlmva_lite.experiments.setting_arms import OURS, THEIRS
from lvlmva_lite.metrics import mean_interval

IN_WORDS = {
    "explain": ("the class's logit explained", "the contrast explained"),
    "balanced": ("plain ranking, whatever the class", "as many images of each class"),
    "keep_unjudged": ("every sample kept", "unmasked samples left out"),
    "smoothing": ("no smoothing", "smoothing"),
    "fill": ("no filling", "filling"),
}
"""Field of the config -> what the paper does there, and what we do."""


def settings_in_words(table: pd.DataFrame, measure: str = "wga") -> pd.DataFrame:
    """Each setting over the seeds, and what it is worth against ours or the paper's.

    Parameters
    ----------
    table : rows with "ablation", "arm", "seed" and ``measure``, two seeds or more

    Returns
    -------
    pd.DataFrame
        rows "before", "ours", "the paper's", then "ours, but ..." with one thing done as the paper does it,
        and "the paper's, but ..." with one done as we do it; "mean" of the measure; "change",
        "low" and "high": against ours, or in the last kind against the paper's, paired by seed, with the 95 %
        interval (nan where there is nothing to compare with)
    """
    by_arm = {
        key: rows.set_index("seed")[measure] for key, rows in table.groupby(["ablation", "arm"], sort=False)
    }
    ours, theirs = by_arm["setting", OURS], by_arm["setting", THEIRS]
    rows = [
        _row("before", by_arm["before", "before"], ours),
        _row(OURS, ours, None),
        _row(THEIRS, theirs, ours),
    ]
    for ablation, said, whose, whole in (
        ("one of the paper's", "ours, but {}", 0, ours),
        ("one of ours", "the paper's, but {}", 1, theirs),
    ):
        rows += [
            _row(said.format(words[whose]), by_arm[ablation, name], whole)
            for name, words in IN_WORDS.items()
            if (ablation, name) in by_arm
        ]
    return pd.DataFrame(rows).set_index("setting")


def _row(setting: str, values: pd.Series, whole: pd.Series | None) -> dict[str, object]:
    row: dict[str, object] = {"setting": setting, "mean": values.mean()}
    if whole is not None:
        row |= dict(zip(("change", "low", "high"), mean_interval(values - whole), strict=True))
    return row
