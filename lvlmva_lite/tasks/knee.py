"""Knee radiographs in which a lead letter stands beside the worn joints."""

from __future__ import annotations

from dataclasses import dataclass

from lvlmva_lite.config import ConfigError, setting
from lvlmva_lite.datasets import ShortcutDataset, knee_phantom, load_knee
from lvlmva_lite.registry import TASKS
from lvlmva_lite.tasks.phantoms import ALL, NONE, DrawnOrReal


@TASKS.register("knee")
@dataclass(frozen=True)
class Knee(DrawnOrReal):
    """Osteoarthritis, and a marker that goes with it."""

    name = "knee"

    shared_patients: str = setting(
        "error", "A patient in two splits of real images: error, or drop from the earlier.",
        choices=("error", "drop"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unannotated != "error" and not self.annotations:
            raise ConfigError("unannotated is about an annotation file; give annotations, or leave it out")

    def load(self, split: str, *, seed: int, clean: bool = False) -> ShortcutDataset | None:
        """Knees with markers, or the same without; letters of their own cannot be taken off."""
        return self._at_rate(split, seed, NONE if clean else None)

    def marked(self, split: str, *, seed: int) -> ShortcutDataset | None:
        """Knees with a marker each; those of :meth:`load` have the very same one."""
        return self._at_rate(split, seed, ALL)

    def _at_rate(self, split: str, seed: int, rate: tuple[float, float] | None) -> ShortcutDataset | None:
        if not self.data_root:
            return self._drawn(knee_phantom, split, seed, rate)
        if rate is not None and self.annotations:
            return None
        return load_knee(
            self.data_root, split, size=self.image_size, marker_rate=rate,
            annotations=self.annotations or None, unannotated=self.unannotated,
            shared_patients=self.shared_patients, random_state=seed,
        )  # fmt: skip
