"""A table of folds, arm by arm, with the spread over patients and that over draws kept apart."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import scipy

INTERVALS = {
    "": ("conflict_auc", "se"),
    "gain_": ("gain", "gain_se"),
    "beyond_": ("beyond_placebo", "over_placebo_se"),
}
"""Beginning of the names of an interval's ends -> what it is of, and its standard error over patients."""

MEANS = (
    "agreement_auc", "letter_effect", "wga", "wga_balanced", "aga", "letters_covered", "letters_touched", "penalty_ratio",
    "fresh_penalty_ratio", "converged",
    "natural_filled_effect", "inserted_filled_effect", "camera_effect", "edge_effect", "bare_auc", "wga_natural",
    "conflict_auc_objects", "conflict_auc_no_objects", "aga_objects", "aga_no_objects",
)  # fmt: skip
"""What else is averaged over folds; the latter two lines of moles alone, see :mod:`frozen_skin`."""


def over_folds(rows: pd.DataFrame, n_folds: int = 5) -> pd.DataFrame:
    """Each arm over all folds, with two kinds of spread kept apart: patients in the test, and draws.

    Parameters
    ----------
    rows : of :func:`frozen_arms.frozen_rows` with their "seed", one a fold and arm
    n_folds : >= 2, of a repeat; in each repeat every patient is tested once, in one fold

    Returns
    -------
    pd.DataFrame
        "masks", "penalty" and "n_repeats"; means over folds of the readouts, nan where a table lacks one
        ("converged" is then the share of folds whose heads are optima); "gain", of the conflict AUC over
        "before" on the same folds, and "beyond_placebo", over the placebo of the same penalty on the same cases
        (nan without one; of a table that does not name it, over "placebo");
        "low", "high", "gain_low", ... ends of 95 % intervals over patients (normal, from the folds'
        standard errors within a repeat, averaged over repeats, for another draw makes no new patient);
        "folds_low", "folds_high", "gain_folds_low", ... over folds and repeats, as :func:`corrected_interval`;
        "gain_sd", of the repeats' gains: what other folds and letters change (nan for one repeat)

    Raises
    ------
    ValueError : a repeat lacks a fold of an arm
    """
    rows = rows.assign(repeat=rows["seed"] // n_folds)
    of_arm = rows.set_index(["seed", "penalty", "masks"])["conflict_auc"]
    before = rows.loc[rows["penalty"] == "before"].set_index("seed")["conflict_auc"]
    rows["gain"] = rows["conflict_auc"] - rows["seed"].map(before)
    beside = rows.get("placebo", pd.Series("placebo", rows.index))
    triples = pd.MultiIndex.from_arrays([rows["seed"], rows["penalty"], beside])
    rows["beyond_placebo"] = rows["conflict_auc"] - of_arm.reindex(triples).to_numpy()
    found = []
    for key, arm in rows.groupby(["masks", "penalty"], sort=False):
        if (arm.groupby("repeat").size() != n_folds).any():
            raise ValueError(
                f"{' '.join(key)} lacks folds: seeds {sorted(arm['seed'])} of repeats of {n_folds}"
            )
        row = {"masks": key[0], "penalty": key[1], "n_repeats": arm["repeat"].nunique()}
        row |= {name: arm[name].astype(float).mean() if name in arm else math.nan for name in MEANS}
        for name, (measure, error) in INTERVALS.items():
            row[measure] = arm[measure].mean()
            of_repeat = arm.groupby("repeat")[error].agg(
                lambda errors: np.sqrt((errors**2).sum()) / n_folds
            )
            half = 1.96 * of_repeat.mean()
            row[f"{name}low"], row[f"{name}high"] = row[measure] - half, row[measure] + half
            row[f"{name}folds_low"], row[f"{name}folds_high"] = corrected_interval(arm[measure], n_folds)
        row["gain_sd"] = arm.groupby("repeat")["gain"].mean().std()
        found.append(row)
    return pd.DataFrame(found)


def corrected_interval(values: pd.Series, n_folds: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a mean over folds, which share training data: Student's t with the variance made larger.

    The variance of the mean is s^2 (1 / J + 1 / (n_folds - 1)), for the J values with standard deviation s; the
    second term, test over training data, stands for what the folds have in common (Nadeau and Bengio,
    Machine Learning 2003; over repeats, Bouckaert and Frank, PAKDD 2004).

    Parameters
    ----------
    values : (J,), J >= 2, of all folds of all repeats
    n_folds : of a repeat, >= 2
    """
    quantile = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1)
    half = quantile * values.std() * math.sqrt(1 / len(values) + 1 / (n_folds - 1))
    return values.mean() - half, values.mean() + half
