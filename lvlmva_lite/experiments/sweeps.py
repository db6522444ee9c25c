"""The experiments that are run for seven seeds, by the names of their recorded tables."""

from __future__ import annotations

from collections.abc import Callable

from lvlmva_lite.experiments import decoy_arms, decoy_sweeps
from lvlmva_lite.experiments.tables import Rows

SWEEPS: dict[str, Callable[[int], Rows]] = {
    "decoy_lambda": decoy_sweeps.lambda_sweep,
    "decoy_scale": decoy_sweeps.scale_sweep,
    "decoy_budget": decoy_sweeps.budget_sweep,
    "decoy_mixing": decoy_sweeps.mixing_sweep,
    "decoy_loop": decoy_arms.loop_sweep,
    "decoy_beyond": decoy_arms.beyond_sweep,
}
"""Name -> function that takes a seed and gives rows; ``tools/record_results.py`` runs them."""
