"""The functions that readers of chapter 1 may write."""

from __future__ import annotations

from lvlmva_lite.exercises.exercise import Exercise, maps
from lvlmva_lite.metrics import mu_align

EXERCISES: dict[str, Exercise] = {
    "mu_align": Exercise(
        1, "attributions (n, H, W) and masks (n, H, W) bool", maps, mu_align,
        (
            ("It is the share inside the mask: take 1 minus it.", lambda a, m: 1 - mu_align(a, m)),
            ("Negative attributions count too: take absolute values.", lambda a, m: mu_align(a.clamp_min(0), m)),
            (
                "It is one share of all maps together: take each map's share, then the mean.",
                lambda a, m: float(1 - (a.abs() * m).sum() / a.abs().sum()),
            ),
        ),
    ),
}  # fmt: skip
