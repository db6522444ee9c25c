"""A network, and perhaps images, that Python holds already."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.datasets.image_files import SPLITS, draw_splits
from lvlmva_lite.models import OwnNetwork, as_classifier
from lvlmva_lite.models.own import is_half
from lvlmva_lite.tasks.folder import Folder
from lvlmva_lite.tasks.task import options_of


@dataclass(frozen=True)
class Given(Folder):
    """As :class:`Folder`, with the trained network itself in place of its file, and perhaps the images.

    The network is left as it is; what is aligned is a copy.

    Attributes
    ----------
    trained : nn.Module
    splits_given : "train" and perhaps "validation" and "test" -> ShortcutDataset; empty: read from ``data``
        What is missing is drawn out of train.
    """

    trained: nn.Module | None = field(default=None, repr=False, compare=False)
    splits_given: Mapping[str, ShortcutDataset] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.splits_given:
            idle = [
                one.name
                for one in options_of(Folder)
                if one.name not in ("data", "mean", "std", "shared_images")
                and getattr(self, one.name) != one.default
            ]
            if idle:
                raise ConfigError(f"{idle[0]} is for images in a folder; leave it out")

    def config(self, **settings: Any) -> Config:
        """As of :class:`Folder`; ``model`` and ``weights`` are what was given."""
        return super().config(**settings | {"model": f"python:{type(self.trained).__name__}"})

    def n_train(self, seed: int) -> int:
        """Training images there are."""
        return len(self.load("train", seed=seed)) if self.splits_given else super().n_train(seed)

    def read(self, seed: int) -> dict[str, ShortcutDataset]:
        """Every split, as it is."""
        if not self.splits_given:
            return super().read(seed)
        train, given = self.splits_given["train"], self.splits_given
        missing = [split for split in SPLITS[1:] if split not in given]
        rng = np.random.default_rng(seed)
        split_of = np.full(len(train), "train", dtype="<U10")
        for label in range(train.n_classes):
            members = (train.labels == label).nonzero()[:, 0].numpy()
            for i, split in draw_splits(len(members), missing, rng).items():
                split_of[members[i]] = split
        return {
            split: given[split]
            if split in given and split != "train"
            else train.subset(torch.from_numpy(split_of == split))
            for split in SPLITS
        }

    def _is_ready(self, config: Config) -> bool:
        return True

    def _own(self, config: Config, dataset: ShortcutDataset, random_state: int) -> nn.Module:
        network = copy.deepcopy(self.trained)
        if is_half(network):
            network.float()
        mean, std = self._numbers("mean"), self._numbers("std")
        if mean is None and std is None:
            return as_classifier(network).eval()
        return OwnNetwork(network, mean=mean, std=std).eval()
