"""A reader's own images, and their own network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import nn

from lvlmva_lite.config import Config, ConfigError, setting
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.datasets.image_folder import ImageFolder
from lvlmva_lite.metrics import accuracy
from lvlmva_lite.models import (
    check_network,
    efficientnet_lite0,
    load_model,
    predict,
    resnet50,
    small_resnet,
)
from lvlmva_lite.registry import TASKS
from lvlmva_lite.tasks.task import Network, Task

_NO_FILE = ("imagenet", "none")
"""What ``weights`` says where it names no file."""

_ASKED = 200
"""Training images about which a ready network is asked."""


@TASKS.register("folder")
@dataclass(frozen=True)
class Folder(Task):
    """Labelled images in a folder (:class:`datasets.ImageFolder`); groups and masks where there are any.

    ``model`` may be one of the package's networks, or the reader's own:
    "FILE.py:NAME", "torchvision:NAME" or "timm:NAME" (:func:`models.load_model`),
    which with a file of weights is taken as it is, and without one trained first.
    """

    name = "folder"
    networks: ClassVar = {
        "small_resnet": Network(small_resnet),
        "resnet50": Network(resnet50, pretrained=True),
        "efficientnet_lite0": Network(efficientnet_lite0, pretrained=True),
    }
    defaults: ClassVar = {
        "model": "small_resnet",
        "explainer": "auto",
        "n_align": 200,
        "penalty_weight": 1.0,
        "penalty_scale": "initial",
        "fill": 3.0,
        "tolerance": 5e-4,
        "smoothing": 0.023,
        "train_epochs": 12,
        "learning_rate": 3e-3,
        "decay": True,
        "batch_size": 32,
        "align_epochs": 6,
        "align_learning_rate": 6e-4,
        "align_fraction": 0.25,
        "keep_unjudged": True,
        "mask_near": 0.5,
        "n_baselines": 8,
        "n_explained": 60,
    }
    n_trials = 1  # nothing to choose by, where no groups are known

    data: str = setting(
        "", "Your images: a folder DIR/{train,val,test}/CLASS, or a CSV of path, class, split.",
        metavar="DIR|CSV",
    )  # fmt: skip
    image_size: int = setting(
        64, "Side in pixels, to which images are brought.", low=16, high=1024, metavar="N"
    )
    classes: str = setting(
        "", "Classes in the order of your network's outputs; default: sorted by name.", metavar="A,B,..."
    )
    splits: str = setting("", "CSV of image and split, in place of folders.", metavar="FILE")
    shared_images: str = setting(
        "error", "One image in two splits: error, drop it from the earlier, or warn.",
        choices=("error", "drop", "warn"),
    )  # fmt: skip
    mean: str = setting(
        "", "Your network sees (image - mean) / std: numbers in 0-1, one a channel.", metavar="X,..."
    )
    std: str = setting("", "See --mean.", metavar="X,...")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._numbers("mean")
        self._numbers("std")

    @property
    def words(self) -> str | None:
        """None ship: they are the reader's."""
        return None

    def config(self, **settings: Any) -> Config:
        """Settings; ``description``, the expert's words, has to be given."""
        if not self.data:
            raise ConfigError("name your images: --data DIR, with a folder for each class, or a CSV file")
        if not settings.get("description"):
            raise ConfigError(
                "say in words what counts and what does not, such as 'A sticker means nothing.': "
                "--words TEXT or --description TEXT"
            )
        return super().config(**settings)

    def network_named(self, name: str) -> Network:
        """The package's, or by "SOURCE:NAME" the reader's own."""
        if ":" not in name:
            return super().network_named(name)
        return Network(partial(load_model, name), max_rows=64)

    @cached_property
    def _loaded(self) -> dict[Any, Any]:
        """What was read before: a run asks for a split more than once."""
        return {}

    def images(self, seed: int) -> ImageFolder:
        """The files, listed and checked; missing splits are drawn from the seed.

        Raises
        ------
        ConfigError : they are not as the reader of folders wants them
        """
        if seed not in self._loaded:
            try:
                self._loaded[seed] = ImageFolder(
                    self.data, image_size=self.image_size,
                    classes=[name.strip() for name in self.classes.split(",")] if self.classes else None, splits=self.splits or None,
                    shared_images=self.shared_images, random_state=seed,
                )  # fmt: skip
            except ValueError as error:
                raise ConfigError(str(error)) from error
        return self._loaded[seed]

    def load(self, split: str, *, seed: int, clean: bool = False) -> ShortcutDataset | None:
        """A split of the folder; nobody can take the shortcut off it."""
        if clean:
            return None
        if (seed, split) not in self._loaded:
            try:
                self._loaded[seed, split] = self.images(seed).load(split)
            except ValueError as error:
                raise ConfigError(str(error)) from error
        return self._loaded[seed, split]

    def network(self, config: Config, dataset: ShortcutDataset, random_state: int) -> nn.Module:
        """The package's network, or the reader's own, held against some of the images."""
        if ":" not in config.model:
            return super().network(config, dataset, random_state)
        try:
            model = load_model(
                config.model,
                n_classes=dataset.n_classes,
                in_channels=dataset.images.shape[1],
                weights=None if config.weights in _NO_FILE else config.weights,
                mean=self._numbers("mean"),
                std=self._numbers("std"),
                random_state=random_state,
            )
            check_network(model, dataset.images[:4], dataset.n_classes)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return model.to(self._device(config))

    def ready(self, config: Config, dataset: ShortcutDataset) -> nn.Module | None:
        """The reader's own network, where a file of its weights is named.

        Raises
        ------
        ConfigError : it knows less about its training images than chance does
        """
        if ":" not in config.model or config.weights in _NO_FILE:
            return None
        model = self.network(config, dataset, config.seed)
        step = max(1, len(dataset) // _ASKED)
        some = dataset.subset(torch.arange(len(dataset))[::step])
        right = accuracy(predict(model, some.images), some.labels)
        if right < 1 / dataset.n_classes:
            raise ConfigError(
                f"{config.model} is right about {right:.0%} of {len(some)} training images, less than by chance; are its "
                f"classes in another order than {','.join(dataset.class_names)} (--classes), or its images at another "
                "scale (--mean, --std, --image-size)?"
            )
        return model

    def _numbers(self, name: str) -> list[float] | None:
        text = getattr(self, name)
        try:
            return [float(number) for number in text.split(",")] if text else None
        except ValueError:
            raise ConfigError(f"{name} must be numbers with commas between, got {text!r}") from None
