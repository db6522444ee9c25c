"""The experiments that are run for seven seeds, by the names of their recorded tables."""

from __future__ import annotations

from collections.abc import Callable

from lvlmva_lite.experiments.tables import Rows

SWEEPS: dict[str, Callable[[int], Rows]] = {}
"""Name -> function that takes a seed and gives rows; ``tools/record_results.py`` runs them."""
