"""DecoyMNIST: digits whose corner gives them away, and two bounds that only a drawn shortcut has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lvlmva_lite.datasets import ShortcutDataset, load_decoy_mnist
from lvlmva_lite.models import mlp
from lvlmva_lite.registry import TASKS
from lvlmva_lite.tasks.task import Network, Task


@TASKS.register("decoy-mnist")
@dataclass(frozen=True)
class DecoyMNIST(Task):
    """Handwritten digits; :class:`Config`'s defaults are its."""

    name = "decoy-mnist"
    networks: ClassVar = {"mlp": Network(mlp, max_rows=12_800, gpu=False)}  # faster without a GPU
    n_trials = 1  # its settings were chosen once and for all
    sorted = False

    def load(self, split: str, *, seed: int, clean: bool = False) -> ShortcutDataset:
        """Digits with a square, or without."""
        return load_decoy_mnist(split, shade="none" if clean else None, random_state=seed)

    def bounds(self, prepared: Any) -> Iterator[tuple[str, nn.Module]]:
        """The same samples and budget with the square's own pixels for masks; and clean training digits."""
        yield "ground_truth_masks", prepared.aligned(prepared.chosen.spurious_masks)
        clean = self.load("train", seed=prepared.config.seed, clean=True)
        yield "never_saw_decoys", prepared.trained(clean)
