"""What knee and skin have in common: phantoms drawn from a seed, or a folder of real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lvlmva_lite.config import ConfigError, setting
from lvlmva_lite.datasets.phantoms.scene import SIZES
from lvlmva_lite.models import efficientnet_lite0, resnet50, small_resnet
from lvlmva_lite.tasks.task import Network, Task, options_of

_PHANTOMS = {
    "model": "small_resnet",
    "n_align": 300,
    "penalty_weight": 1.0,
    "penalty_scale": "initial",
    "fill": 3.0,
    "tolerance": 5e-4,
    "smoothing": 0.023,
    "train_epochs": 8,
    "learning_rate": 3e-3,
    "decay": True,
    "batch_size": 64,
    "align_epochs": 3,
    "align_learning_rate": 6e-4,
    "align_fraction": 0.25,
    # Two classes, and the spurious feature on one of them: without the images in which
    # nothing is judged, the alignment set would hold that class alone.
    "keep_unjudged": True,
    # What is judged by its bright pixels is masked by them: on validation seeds no worse
    # with right verdicts, and better with false alarms.
    "mask_near": 0.5,
    "n_baselines": 12,
    "n_explained": 60,
}
_PHOTOGRAPHS = _PHANTOMS | {
    "model": "efficientnet_lite0",
    "n_align": 200,
    "train_epochs": 6,
    "learning_rate": 1e-3,
    "batch_size": 32,
    "align_learning_rate": 1e-4,
    "n_baselines": 4,
    "n_explained": 20,
}


NONE, ALL = (0.0, 0.0), (1.0, 1.0)
"""Shares of the images of each class that show the spurious feature."""


@dataclass(frozen=True)
class DrawnOrReal(Task):
    """Phantoms, or with a ``data_root`` real images.

    Settings were chosen on validation splits, of seeds that are not reported for the phantoms.
    """

    networks: ClassVar = {
        "small_resnet": Network(small_resnet),
        "resnet50": Network(resnet50, pretrained=True, max_rows=64),
        "efficientnet_lite0": Network(efficientnet_lite0, pretrained=True, max_rows=64),
    }
    of_photographs: ClassVar[dict[str, Any]] = {}

    data_root: str = setting(
        "", "Folder of real images (`The data` in the book); default: phantoms.", metavar="DIR"
    )
    image_size: int = setting(64, "Side in pixels.", low=1, metavar="N")
    overlap: bool = setting(False, "Phantoms whose spurious feature lies on the core feature.")
    annotations: str = setting(
        "", "CSV of image, spurious and where: which real images show the spurious feature.", metavar="FILE"
    )
    unannotated: str = setting(
        "error", "Real images of which nobody says so: error, drop, or take as clean.",
        choices=("error", "drop", "clean"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        usual = {one.name: one.default for one in options_of(type(self))}
        of_files = usual.keys() - {"data_root", "image_size", "overlap"}
        idle = [name for name in usual if name in of_files and getattr(self, name) != usual[name]]
        if idle and not self.data_root:
            raise ConfigError(
                f"{idle[0]} is for real images; give their folder as data_root, or leave it out"
            )
        smallest, largest = (32, 1024) if self.data_root else SIZES
        if not smallest <= self.image_size <= largest:
            why = "" if self.data_root else ", the sizes in which phantoms are drawn"
            raise ConfigError(
                f"image_size must lie between {smallest} and {largest}{why}; got {self.image_size}"
            )
        if self.overlap and self.data_root:
            raise ConfigError("overlap is for phantoms; leave out data_root")
        if self.data_root and not Path(self.data_root).is_dir():
            raise ConfigError(
                f"there is no folder {self.data_root}; give the data set's folder as data_root"
            )

    @property
    def source(self) -> str:
        """The task's name, with "-phantom" where they are drawn."""
        return self.name if self.data_root else f"{self.name}-phantom"

    @property
    def defaults(self) -> dict[str, Any]:
        """Those of phantoms or of photographs."""
        return _PHOTOGRAPHS | self.of_photographs if self.data_root else _PHANTOMS

    @property
    def sorted(self) -> bool:
        """Files come sorted; phantoms are measured as they come."""
        return bool(self.data_root)

    def _drawn(self, draw: Any, split: str, seed: int, rate: tuple[float, float] | None) -> Any:
        return draw(split, size=self.image_size, marker_rate=rate, overlap=self.overlap, random_state=seed)
