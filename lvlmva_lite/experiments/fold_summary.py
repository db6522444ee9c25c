"""A table of folds, arm by arm, with the spread over patients and that over draws kept apart."""

from __future__ import annotations

import numpy as np
import pandas as pd


def over_folds(rows: pd.DataFrame, n_folds: int = 5) -> pd.DataFrame:
    """Each arm over all folds, with the two kinds of spread kept apart: patients, and draws.

    Parameters
    ----------
    rows : of :func:`frozen_arms.frozen_rows` with their "seed", one a fold and arm
    n_folds : of a repeat; in each repeat every patient is tested once, in one fold

    Returns
    -------
    pd.DataFrame
        "masks", "penalty" and "n_repeats"; means over folds of the readouts; "gain", of the conflict AUC over
        "before" on the same folds, and "beyond_placebo", over the placebo of the same penalty (nan without
        one); "low", "high", "gain_low", ... ends of 95 % intervals over patients (normal, from the folds'
        standard errors within a repeat, averaged over repeats, for another draw makes no new patient);
        "gain_sd", of the repeats' gains: what other folds and letters change (nan for one repeat)

    Raises
    ------
    ValueError : a repeat lacks a fold of an arm
    """
    arms = ["masks", "penalty"]
    rows = rows.assign(repeat=rows["seed"] // n_folds)
    before = rows.loc[rows["penalty"] == "before"].set_index("seed")["conflict_auc"]
    placebo = rows.loc[rows["masks"] == "placebo"].set_index(["seed", "penalty"])["conflict_auc"]
    rows["gain"] = rows["conflict_auc"] - rows["seed"].map(before)
    pairs = pd.MultiIndex.from_frame(rows[["seed", "penalty"]])
    rows["beyond_placebo"] = rows["conflict_auc"] - placebo.reindex(pairs).to_numpy()
    intervals = {"": ("conflict_auc", "se"), "gain_": ("gain", "gain_se")}
    intervals["beyond_"] = ("beyond_placebo", "over_placebo_se")
    found = []
    for key, arm in rows.groupby(arms, sort=False):
        if (arm.groupby("repeat").size() != n_folds).any():
            raise ValueError(
                f"{' '.join(key)} lacks folds: seeds {sorted(arm['seed'])} of repeats of {n_folds}"
            )
        measures = ["conflict_auc", "letter_effect", "wga", "wga_balanced", "aga", "gain", "beyond_placebo"]
        row = dict(zip(arms, key, strict=True)) | arm[measures].mean().to_dict()
        row["n_repeats"] = arm["repeat"].nunique()
        for name, (measure, error) in intervals.items():
            of_repeat = arm.groupby("repeat")[error].agg(
                lambda errors: np.sqrt((errors**2).sum()) / n_folds
            )
            row[f"{name}low"] = row[measure] - 1.96 * of_repeat.mean()
            row[f"{name}high"] = row[measure] + 1.96 * of_repeat.mean()
        row["gain_sd"] = arm.groupby("repeat")["gain"].mean().std()
        found.append(row)
    return pd.DataFrame(found)
