"""The one type in which every data set of the book is handed on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class ShortcutDataset:
    """Labelled images, and what is known about their shortcut.

    Attributes
    ----------
    images : Tensor, (N, C, H, W), float32 in [0, 1]
    labels : Tensor, (N,), int64 in 0 .. n_classes - 1
    groups : Tensor, (N,), int64, index into ``group_names``
        Class x spurious attribute.  For evaluation only: the method never
        reads it.
    spurious_masks : Tensor, (N, H, W), bool
        True on the spurious feature.  For evaluation and for the ground-truth
        bound only.
    class_names, group_names : tuple of str
    name : str
    core_masks : Tensor, (N, H, W), bool, or None where it is not known
        True on the feature that the label is about.  For evaluation only.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    spurious_masks: Tensor
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    name: str
    core_masks: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.ndim != 4:
            raise ValueError(f"images must be (N, C, H, W), got shape {tuple(self.images.shape)}")
        for field in ("labels", "groups", "spurious_masks", "core_masks"):
            if getattr(self, field) is None:
                continue
            if len(getattr(self, field)) != n:
                raise ValueError(
                    f"{field} has {len(getattr(self, field))} rows for {n} images; give one each"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def _fingerprints(self) -> list[bytes]:
        return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in self.images.numpy()]

    def also_in(self, other: ShortcutDataset) -> Tensor:
        """Which samples have an image that is, bit for bit, in ``other`` too: (N,) bool."""
        known = set(other._fingerprints)
        return torch.tensor([one in known for one in self._fingerprints], dtype=torch.bool)

    def subset(self, indices: Tensor) -> ShortcutDataset:
        """The samples at ``indices`` (int64, any order, repeats allowed)."""
        indices = torch.as_tensor(indices)
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            groups=self.groups[indices],
            spurious_masks=self.spurious_masks[indices],
            core_masks=None if self.core_masks is None else self.core_masks[indices],
        )
