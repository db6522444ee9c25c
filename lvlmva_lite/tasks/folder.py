"""A reader's own images, and their own network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import scipy
import torch
from torch import nn

from lvlmva_lite.config import Config, ConfigError, setting
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.datasets.decoding import ImageDataError
from lvlmva_lite.datasets.image_files import SPLITS, ImageFileDataset
from lvlmva_lite.datasets.image_folder import ImageFolder
from lvlmva_lite.models import (
    check_network,
    efficientnet_lite0,
    load_model,
    predict,
    resnet50,
    small_resnet,
)
from lvlmva_lite.models.own import check_trainable
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
        "resnet50": Network(resnet50, pretrained=True, max_rows=20),
        "efficientnet_lite0": Network(efficientnet_lite0, pretrained=True, max_rows=20),
    }
    defaults: ClassVar = {
        "model": "small_resnet",
        "explainer": "auto",
        "n_align": 100,
        "penalty_weight": 1.0,
        "penalty_scale": "initial",
        "fill": 3.0,
        "tolerance": 5e-4,
        "smoothing": 0.023,
        "train_epochs": 12,
        "learning_rate": 3e-3,
        "decay": True,
        "batch_size": 32,
        "align_epochs": 12,
        "align_learning_rate": 3e-4,
        "align_fraction": 0.25,
        "keep_unjudged": True,
        "mask_near": 0.5,
        "n_baselines": 4,
        "n_explained": 60,
    }
    n_trials = 1  # nothing to choose by, where no groups are known

    data: str = setting(
        "", "Your images: a folder DIR/{train,val,test}/CLASS, or a CSV of path, class, split.",
        metavar="DIR|CSV",
    )  # fmt: skip
    image_size: int = setting(
        0, "Side in pixels, to which images are brought; 0: that of the files where all are squares of one "
        "size up to 256, else 64.", low=0, high=1024, metavar="N",
    )  # fmt: skip
    channels: str = setting(
        "auto", "Channels of the images: 1, 3, or auto: 1 where all files are grey, else 3.",
        choices=("auto", "1", "3"),
    )  # fmt: skip
    classes: str = setting(
        "", "Classes in the order of your network's outputs; default: sorted by name.", metavar="A,B,..."
    )
    splits: str = setting("", "CSV of image and split, in place of folders.", metavar="FILE")
    annotations: str = setting(
        "", "CSV of image, spurious (1, 0) and, where known, a box x0, y0, x1, y1 or a mask file: the shortcut, "
        "to measure by.", metavar="FILE",
    )  # fmt: skip
    unannotated: str = setting(
        "error", "Images that it does not decide: error, drop, or take as clean.",
        choices=("error", "drop", "clean"),
    )  # fmt: skip
    groups: str = setting(
        "", "CSV of image and group (what is spurious, in a word), to measure by.", metavar="FILE"
    )
    shared_images: str = setting(
        "error", "One image in two splits: error, or drop it from the earlier.", choices=("error", "drop")
    )
    image_store: str = setting(
        "", "Folder that keeps the images as bytes, where they are too many for memory.", metavar="DIR"
    )
    mean: str = setting(
        "", "Your network sees (image - mean) / std: numbers in 0-1, one a channel.", metavar="X,..."
    )
    std: str = setting("", "See --mean.", metavar="X,...")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unannotated != "error" and not self.annotations:
            raise ConfigError("unannotated is about an annotation file; give annotations, or leave it out")
        for name in ("mean", "std"):
            if len(self._numbers(name) or [0.0]) not in (1, 3):
                raise ConfigError(
                    f"{name} must be one number, or one a channel; got {getattr(self, name)!r}"
                )

    @property
    def words(self) -> str | None:
        """None ship: they are the reader's."""
        return None

    def config(self, **settings: Any) -> Config:
        """Settings; ``description``, the expert's words, has to be given."""
        if not self.data:
            raise ConfigError("name your images: --data DIR, with a folder for each class, or a CSV file")
        if not (settings.get("description") or "").strip():
            raise ConfigError(
                "say in words what counts and what does not, such as 'A sticker means nothing.': "
                "--words TEXT or --description TEXT"
            )
        usual = self.defaults["n_align"]
        if settings.get("n_align") is None and (n := self.n_train(settings.get("seed") or 0)) < usual:
            settings["n_align"] = n
        config = super().config(**settings)
        if self._is_own(config.model):
            return config
        if self.mean or self.std:
            raise ConfigError(
                f"mean and std are for a network of your own; {config.model} learns its own scale"
            )
        return config

    def network_named(self, name: str) -> Network:
        """The package's, or by "SOURCE:NAME" the reader's own."""
        if not self._is_own(name):
            if ":" not in name and name not in self.networks:
                raise ConfigError(
                    f"unknown model {name!r}; give your own as FILE.py:NAME, torchvision:NAME or timm:NAME, or one of "
                    f"{', '.join(self.networks)}, which are trained first"
                )
            return super().network_named(name)
        return Network(partial(load_model, name), pretrained=True, max_rows=20)

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
                    self.data,
                    image_size=self.image_size or None,
                    channels=None if self.channels == "auto" else int(self.channels),
                    classes=[name.strip() for name in self.classes.split(",")] if self.classes else None,
                    splits=self.splits or None,
                    annotations=self.annotations or None,
                    unannotated=self.unannotated,
                    groups=self.groups or None,
                    shared_images=self.shared_images,
                    random_state=seed,
                )
            except (ValueError, ImageDataError) as error:
                raise ConfigError(str(error)) from error
        return self._loaded[seed]

    def n_train(self, seed: int) -> int:
        """Training images there are."""
        if self.shared_images == "drop":
            return len(self.load("train", seed=seed))
        return len(self.images(seed).names["train"])

    def load(self, split: str, *, seed: int, clean: bool = False) -> ShortcutDataset | None:
        """A split of the folder; nobody can take the shortcut off it.

        Raises
        ------
        ConfigError : the files are not as described, or one image is in two splits
        """
        if clean:
            return None
        try:
            if ("splits", seed) not in self._loaded:
                self._loaded["splits", seed] = self._apart(self.read(seed))
        except (ValueError, ImageDataError) as error:
            raise ConfigError(str(error)) from error
        return self._loaded["splits", seed][split]

    def read(self, seed: int) -> dict[str, ShortcutDataset]:
        """Every split, as it is."""
        folder = self.images(seed)
        return {split: folder.load(split, store=self.image_store or None) for split in SPLITS}

    def _apart(self, splits: Mapping[str, ShortcutDataset]) -> dict[str, ShortcutDataset]:
        """No image in two splits: files that differ may be one image at this size."""
        kept = dict(splits)
        for i, earlier in enumerate(SPLITS):
            for later in SPLITS[i + 1 :]:
                shared = kept[earlier].also_in(kept[later])
                if not shared.any():
                    continue
                if self.shared_images == "error":
                    first = int(shared.nonzero()[0])
                    twin = int(
                        kept[later].also_in(kept[earlier].subset(torch.tensor([first]))).nonzero()[0]
                    )
                    raise ConfigError(
                        f"{int(shared.sum())} image(s) of {earlier} are in {later} too, pixel for pixel, such as "
                        f"{_name(kept[earlier], first)} and {_name(kept[later], twin)}; remove one of the two, or "
                        "set shared_images to 'drop'"
                    )
                if shared.all():
                    raise ConfigError(f"all images of {earlier} are in {later} too; give it others")
                kept[earlier] = kept[earlier].subset(~shared)
        return kept

    def network(self, config: Config, dataset: ShortcutDataset, random_state: int) -> nn.Module:
        """The package's network, or the reader's own, held against some of the images."""
        if not self._is_own(config.model):
            return super().network(config, dataset, random_state)
        try:
            model = self._own(config, dataset, random_state)
            check_network(model, dataset.images[:4], dataset.n_classes)
            check_trainable(model)
        except ValueError as error:
            side = dataset.images.shape[-1]
            hint = f"; images are read at {side} x {side} (--image-size)" if "fails" in str(error) else ""
            raise ConfigError(f"{error}{hint}") from error
        return model.to(self._device(config))

    def _own(self, config: Config, dataset: ShortcutDataset, random_state: int) -> nn.Module:
        return load_model(
            config.model,
            n_classes=dataset.n_classes,
            in_channels=dataset.images.shape[1],
            weights=config.weights if self._is_ready(config) else None,
            mean=self._numbers("mean"),
            std=self._numbers("std"),
            random_state=random_state,
        )

    def ready(self, config: Config, dataset: ShortcutDataset) -> nn.Module | None:
        """The reader's own network, where a file of its weights is named.

        Raises
        ------
        ConfigError : it knows no more about its training images than chance does, or
            would with its classes in another order
        """
        if not self._is_ready(config):
            return None
        model = self.network(config, dataset, config.seed)
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
        self._check_answers(model, config.model, dataset.subset(order[:_ASKED].sort().values))
        return model

    def _check_answers(self, model: nn.Module, name: str, some: ShortcutDataset) -> None:
        k = some.n_classes
        counts = torch.bincount(predict(model, some.images) * k + some.labels, minlength=k * k).view(k, k)
        there = counts.sum(0) > 0
        right = (counts.diag() / counts.sum(0).clamp_min(1))[there].mean().item()
        best = scipy.optimize.linear_sum_assignment(counts.numpy(), maximize=True)[1]
        would = counts[torch.arange(k), torch.from_numpy(best)].sum() / counts.sum()
        if would > counts.diag().sum() / counts.sum() + 0.25:
            classes = ",".join(some.class_names[i] for i in best)
            raise ConfigError(
                f"{name} is right about {counts.diag().sum() / counts.sum():.0%} of {len(some)} training images, and with its "
                f"classes in another order about {would:.0%}; give its classes in the order {classes}, if that is the order of its outputs"
            )
        if right < 1.1 / int(there.sum()):
            side = some.images.shape[-1]
            raise ConfigError(
                f"{name} is right about {right:.0%} of each class's training images ({len(some)} were asked), no more than by "
                f"chance; are these its weights, and its images of another scale or size (--mean, --std; "
                f"--image-size, {side} here)?"
            )

    def _is_own(self, name: str) -> bool:
        return ":" in name

    def _is_ready(self, config: Config) -> bool:
        return self._is_own(config.model) and config.weights not in _NO_FILE

    def _numbers(self, name: str) -> list[float] | None:
        text = getattr(self, name)
        try:
            return [float(number) for number in text.split(",")] if text else None
        except ValueError:
            raise ConfigError(f"{name} must be numbers with commas between, got {text!r}") from None


def _name(dataset: ShortcutDataset, index: int) -> str:
    return dataset.names[index] if isinstance(dataset, ImageFileDataset) else f"number {index}"
