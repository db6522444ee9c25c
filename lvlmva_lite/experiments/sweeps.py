"""The experiments that are run for several seeds, by the names of their recorded tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lvlmva_lite.experiments import (
    decoy_arms,
    decoy_sweeps,
    distilled_arms,
    group_arms,
    human_arms,
    overlap_arms,
    penalty_arms,
    recorded_arms,
    recorded_verdicts,
    rounding_arms,
)
from lvlmva_lite.experiments.tables import Rows

SWEEPS: dict[str, Callable[[int], Rows]] = {
    "decoy_lambda": decoy_sweeps.lambda_sweep,
    "decoy_scale": decoy_sweeps.scale_sweep,
    "decoy_budget": decoy_sweeps.budget_sweep,
    "decoy_mixing": decoy_sweeps.mixing_sweep,
    "decoy_loop": decoy_arms.loop_sweep,
    "knee_phantoms": partial(group_arms.phantom_sweep, "knee"),
    "skin_phantoms": partial(group_arms.phantom_sweep, "skin"),
    "knee_ablations": partial(group_arms.ablation_sweep, "knee"),
    "decoy_beyond": decoy_arms.beyond_sweep,
    "knee_overlap": partial(overlap_arms.overlap_sweep, "knee"),
    "knee_rounding": partial(rounding_arms.rounding_sweep, "knee"),
    "knee_penalties": partial(penalty_arms.penalty_sweep, "knee"),
    "recorded_masks": recorded_arms.recorded_sweep,
    "recorded_verdicts": recorded_verdicts.verdict_sweep,
    "decoy_human": partial(human_arms.human_sweep, "decoy-mnist"),
    "knee_human": partial(human_arms.human_sweep, "knee"),
    "distilled_spread": distilled_arms.spread_rows,
}
"""Name -> function that takes a seed and gives rows; ``tools/record_results.py`` runs them."""

REAL_SWEEPS: dict[str, Callable[[str, int], Rows]] = {
    "knee_real": partial(group_arms.real_sweep, "knee"),
    "skin_real": partial(group_arms.real_sweep, "skin"),
    "knee_penalties_real": partial(penalty_arms.real_penalty_sweep, "knee"),
    "knee_recorded": partial(recorded_arms.real_recorded_sweep, "knee"),
    "skin_recorded": partial(recorded_arms.real_recorded_sweep, "skin"),
    "knee_verdicts": partial(recorded_verdicts.real_verdict_sweep, "knee"),
    "skin_verdicts": partial(recorded_verdicts.real_verdict_sweep, "skin"),
    "skin_foreign_objects": recorded_verdicts.foreign_object_sweep,
}
"""As ``SWEEPS``, for functions that take the folder of the images before the seed."""
