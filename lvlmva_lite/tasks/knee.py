"""Knee radiographs in which a lead letter stands beside the worn joints."""

from __future__ import annotations

from dataclasses import dataclass

from lvlmva_lite.datasets import ShortcutDataset, knee_phantom, load_knee
from lvlmva_lite.registry import TASKS
from lvlmva_lite.tasks.phantoms import ALL, NONE, DrawnOrReal


@TASKS.register("knee")
@dataclass(frozen=True)
class Knee(DrawnOrReal):
    """Osteoarthritis, and a marker that goes with it."""

    name = "knee"

    def load(self, split: str, *, seed: int, clean: bool = False) -> ShortcutDataset:
        """Knees with markers, or the same without."""
        return self._at_rate(split, seed, NONE if clean else None)

    def marked(self, split: str, *, seed: int) -> ShortcutDataset:
        """Knees with a marker each; those of :meth:`load` have the very same one."""
        return self._at_rate(split, seed, ALL)

    def _at_rate(self, split: str, seed: int, rate: tuple[float, float] | None) -> ShortcutDataset:
        if not self.data_root:
            return self._drawn(knee_phantom, split, seed, rate)
        return load_knee(self.data_root, split, size=self.image_size, marker_rate=rate, random_state=seed)
