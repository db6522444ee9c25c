"""Skin lesions of which the harmless ones have a coloured patch beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvlmva_lite.config import setting
from lvlmva_lite.datasets import ShortcutDataset, load_skin, skin_phantom
from lvlmva_lite.datasets.skin_layouts import READERS
from lvlmva_lite.registry import TASKS
from lvlmva_lite.tasks.phantoms import ALL, NONE, DrawnOrReal


@TASKS.register("skin")
@dataclass(frozen=True)
class Skin(DrawnOrReal):
    """Malignant or benign, and a patch that goes with one of them."""

    name = "skin"
    # Few sampled photographs show a patch, and they have to be heard.
    of_photographs: ClassVar = {"penalty_weight": 3.0}

    layout: str = setting(
        "auto", "Which files say what real images show: auto, isic-cli, isic-2019 or manifest.",
        choices=("auto", *READERS),
    )  # fmt: skip
    splits: str = setting("", "CSV of image and split, before those of the source.", metavar="FILE")
    shared_images: str = setting(
        "warn", "One real image in two splits: error, drop from the earlier, or warn.",
        choices=("error", "drop", "warn"),
    )  # fmt: skip

    def load(self, split: str, *, seed: int, clean: bool = False) -> ShortcutDataset | None:
        """Lesions with patches; clean ones are drawn alone: natural patches cannot be taken off."""
        if not self.data_root:
            return self._drawn(skin_phantom, split, seed, NONE if clean else None)
        if clean:
            return None
        return load_skin(
            self.data_root, split, size=self.image_size, layout=self.layout, splits=self.splits or None,
            annotations=self.annotations or None, unannotated=self.unannotated,
            shared_images=self.shared_images, random_state=seed,
        )  # fmt: skip

    def marked(self, split: str, *, seed: int) -> ShortcutDataset | None:
        """Drawn lesions with a patch each; into photographs none is put."""
        return None if self.data_root else self._drawn(skin_phantom, split, seed, ALL)
