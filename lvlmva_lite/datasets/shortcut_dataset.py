"""The one type in which every data set of the book is handed on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lvlmva_lite.datasets.image_store import ImageStore


@dataclass(frozen=True)
class ShortcutDataset:
    """Labelled images, and what is known about their shortcut.

    Attributes
    ----------
    images : Tensor, (N, C, H, W), float32 in [0, 1], or an :class:`ImageStore`
        N is 1 or more, C 1 or 3.  Normalisation belongs into the network: the critic is
        shown these images.
    labels : Tensor, (N,), int64 in 0 .. n_classes - 1
    groups : Tensor, (N,), int64, index into ``group_names``, or None where nobody knows them
        Class x spurious attribute.  For evaluation only: the method never
        reads it.
    spurious_masks : Tensor, (N, H, W), bool, or None where nobody drew them
        True on the spurious feature.  For evaluation and for the ground-truth
        bound only.
    class_names, group_names : tuple of str
    name : str
    core_masks : Tensor, (N, H, W), bool, or None where it is not known
        True on the feature that the label is about.  For evaluation only.

    Raises
    ------
    ValueError : a field is not as described; the message says which and how to mend it
    """

    images: Tensor | ImageStore
    labels: Tensor
    groups: Tensor | None = None
    spurious_masks: Tensor | None = None
    class_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    name: str = "images"
    core_masks: Tensor | None = None

    def __post_init__(self) -> None:
        _check_images(self.images)
        if not self.class_names:
            raise ValueError(
                "class_names is empty; give the name of each class, in the order of the labels"
            )
        _check_codes("labels", self.labels, len(self.images), self.class_names, "class_names")
        if self.groups is not None:
            _check_codes("groups", self.groups, len(self.images), self.group_names, "group_names")
        for field in ("spurious_masks", "core_masks"):
            _check_masks(field, getattr(self, field), self.images.shape)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    def require(self, *fields: str, by: str) -> None:
        """Refuse where one of the optional ``fields`` is not known.

        Parameters
        ----------
        fields : of "groups", "spurious_masks", "core_masks"
        by : what needs them, for the message

        Raises
        ------
        ValueError : the first field that is None
        """
        for field in fields:
            if getattr(self, field) is None:
                raise ValueError(
                    f"{by} needs {field}, and the data set {self.name!r} has none; give them, or do without {by}"
                )

    @cached_property
    def _fingerprints(self) -> list[bytes]:
        return [
            hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            for batch in self.images.split(256)
            for image in batch.numpy()
        ]

    def also_in(self, other: ShortcutDataset) -> Tensor:
        """Which samples have an image that is, bit for bit, in ``other`` too: (N,) bool."""
        known = set(other._fingerprints)
        return torch.tensor([one in known for one in self._fingerprints], dtype=torch.bool)

    def subset(self, indices: Tensor) -> ShortcutDataset:
        """The samples at ``indices`` (int64, any order, repeats allowed, or a mask).

        Of images in an :class:`ImageStore` none is read; see :meth:`in_memory`.

        Raises
        ------
        ValueError : there are no samples at ``indices``
        """
        return replace(self, **self._rows(torch.as_tensor(indices)))

    def in_memory(self) -> ShortcutDataset:
        """The same with its images as a tensor; the data set itself where they are one."""
        return self if isinstance(self.images, Tensor) else replace(self, images=self.images[:])

    def _rows(self, indices: Tensor) -> dict[str, object]:
        """The fields that hold one entry for each image, of the images at ``indices``."""
        fields = ("labels", "groups", "spurious_masks", "core_masks")
        known = [field for field in fields if getattr(self, field) is not None]
        images = self.images[indices] if isinstance(self.images, Tensor) else self.images.take(indices)
        return {"images": images, **{field: getattr(self, field)[indices] for field in known}}


def _check_images(images: Tensor | ImageStore) -> None:
    if not isinstance(images, Tensor | ImageStore):
        raise ValueError(
            f"images must be a torch.Tensor, got {type(images).__name__}; see torch.from_numpy and torch.stack"
        )
    shape = images.shape
    if len(shape) != 4:
        raise ValueError(f"images must be (N, C, H, W), got shape {tuple(shape)}")
    if shape[1] not in (1, 3):
        mend = "pass images.permute(0, 3, 1, 2)" if shape[3] in (1, 3) else "keep 1 or 3 of them"
        raise ValueError(f"images must have 1 or 3 channels, got shape {tuple(shape)}; {mend}")
    if 0 in shape:
        raise ValueError(f"images are empty, of shape {tuple(shape)}; give at least one")
    if isinstance(images, ImageStore):
        return
    if images.dtype == torch.uint8:
        raise ValueError(
            "images are uint8; pass images.float() / 255, or ImageStore(images) to keep the bytes"
        )
    if images.dtype != torch.float32:
        raise ValueError(f"images must be float32, got {images.dtype}; pass images.float()")
    low, high = (bound.item() for bound in images.aminmax())
    if low >= 0 and high <= 1:
        return
    if not images.isfinite().all():
        bad = int((~images.flatten(1).isfinite().all(1)).nonzero()[0])
        raise ValueError(
            f"images must be finite, and image {bad} holds NaN or infinity; leave it out or mend it"
        )
    mend = (
        "divide by 255"
        if low >= 0 and 1 < high <= 255 and (images == images.round()).all()
        else "undo their normalisation here and put it into the network, as its first layer"
    )
    raise ValueError(f"images must lie in [0, 1], got {low:.4g} to {high:.4g}; {mend}")


def _check_codes(field: str, codes: Tensor, n: int, names: tuple[str, ...], names_field: str) -> None:
    if not isinstance(codes, Tensor):
        raise ValueError(f"{field} must be a torch.Tensor, got {type(codes).__name__}; see torch.as_tensor")
    if codes.ndim != 1 or len(codes) != n:
        got = f"{len(codes)} rows" if codes.ndim == 1 else f"shape {tuple(codes.shape)}"
        raise ValueError(f"{field} has {got} for {n} images; give one each")
    if codes.dtype != torch.int64:
        raise ValueError(f"{field} must be int64, got {codes.dtype}; pass {field}.long()")
    wrong = (codes < 0) | (codes >= len(names))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"{field} must lie in 0 .. {len(names) - 1}, the {len(names)} {names_field}; image {first} has "
            f"{int(codes[first])}; number them from 0 or name them all"
        )


def _check_masks(field: str, masks: Tensor | None, shape: torch.Size) -> None:
    if masks is None:
        return
    wanted = (shape[0], *shape[2:])
    if not isinstance(masks, Tensor):
        raise ValueError(f"{field} must be a torch.Tensor, got {type(masks).__name__}; see torch.as_tensor")
    if len(masks) != shape[0]:
        raise ValueError(f"{field} has {len(masks)} rows for {shape[0]} images; give one each")
    if tuple(masks.shape) != wanted:
        mend = f"pass {field}.squeeze(1)" if masks.ndim == 4 and masks.shape[1] == 1 else "bring them to it"
        raise ValueError(f"{field} must be (N, H, W) = {wanted}, got {tuple(masks.shape)}; {mend}")
    if masks.dtype != torch.bool:
        raise ValueError(f"{field} must be bool, got {masks.dtype}; pass {field} > 0")
