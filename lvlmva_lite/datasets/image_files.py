"""Images that the reader supplies as files: reading them, and the type that keeps their names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from lvlmva_lite.datasets.mnist import DataFileError
from lvlmva_lite.datasets.shortcut_dataset import ShortcutDataset
from lvlmva_lite.files import inside

SPLITS = ("train", "validation", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_KINDS = ("none", "pasted", "drawn", "box", "estimated", "missing")


class ImageDataError(DataFileError):
    """Files that the reader supplied are missing, unreadable or not in the layout expected."""


@dataclass(frozen=True)
class ImageFileDataset(ShortcutDataset):
    """A :class:`ShortcutDataset` made of image files.

    Attributes
    ----------
    names : tuple of str, one each
        Path below the data folder, with forward slashes: the name by which
        an annotation file calls the image.
    mask_kinds : tuple of str, one each
        Where ``spurious_masks`` comes from.  "none": there is no spurious
        feature; "pasted": we put it there, the mask is exact; "drawn": a mask
        file; "box": a box of an annotation file; "estimated": found by
        colour; "missing": there is a spurious feature, its place is not
        known and the mask is empty.
    """

    names: tuple[str, ...] = ()
    mask_kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("names", "mask_kinds"):
            if len(getattr(self, field)) != len(self):
                raise ValueError(
                    f"{field} has {len(getattr(self, field))} entries for {len(self)} images; give one each"
                )

    def subset(self, indices: Tensor) -> ImageFileDataset:
        rows = np.arange(len(self))[np.asarray(indices)]
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            groups=self.groups[rows],
            spurious_masks=self.spurious_masks[rows],
            core_masks=None if self.core_masks is None else self.core_masks[rows],
            names=tuple(self.names[row] for row in rows),
            mask_kinds=tuple(self.mask_kinds[row] for row in rows),
        )


def check_request(
    split: str,
    size: int,
    unannotated: str,
    rates: tuple[float, float] | None,
    rate_name: str,
    random_state: int,
) -> None:
    """Refuse what no loader can do, before any file is read."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {list(SPLITS)}, got {split!r}")
    if not isinstance(size, int) or size < 16:
        raise ValueError(f"size must be an int of at least 16 pixels, got {size!r}")
    if unannotated not in ("error", "drop", "clean"):
        raise ValueError(f"unannotated must be 'error', 'drop' or 'clean', got {unannotated!r}")
    if not isinstance(random_state, int | np.integer):
        raise ValueError(f"random_state must be an int, got {random_state!r}")
    if rates is not None and (len(rates) != 2 or not all(0 <= rate <= 1 for rate in rates)):
        raise ValueError(f"{rate_name} must be two numbers in [0, 1], one for each class, got {rates!r}")


def data_folder(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise ImageDataError(
            f"there is no folder {root}; the page 'The data' of the book says how to download it"
        )
    return root


def named_file(root: Path, name: str, where: str, what: str = "image") -> Path:
    """The file that a table names, below the data folder.

    Raises
    ------
    ImageDataError : the name leads out of the folder, or there is no such file
    """
    try:
        path = inside(root, name)
    except ValueError as error:
        raise ImageDataError(f"{where}: {what} {error}") from None
    if not path.is_file():
        raise ImageDataError(f"{where} names the {what} {name!r}, but there is no such file in {root}")
    return path


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name; hidden files and others are passed over."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def read_image(path: Path, mode: str, size: int | None = None) -> np.ndarray:
    """One image, (H, W) for mode "L" or (H, W, 3) for "RGB", uint8.

    With ``size``, each pixel of the (size, size) result is the mean of the
    area that it covers; the aspect is not kept.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ImageDataError(f"{path} has more than 8 bits a channel; save it with 8 bits")
            if size is not None:
                image.draft(mode, (2 * size, 2 * size))  # lets the JPEG decoder do the first halvings
            image = image.convert(mode)
            if size is not None:
                image = image.resize((size, size), Image.Resampling.BOX)
            return np.asarray(image)
    except FileNotFoundError as error:
        raise ImageDataError(f"there is no image {path}") from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ImageDataError(
            f"cannot read the image {path} ({error}); delete it and download it again"
        ) from error


def read_images(paths: Sequence[Path], mode: str, size: int, progress: bool) -> np.ndarray:
    """All of them: (N, size, size) or (N, size, size, 3), float32 in [0, 1]."""
    channels = () if mode == "L" else (3,)
    images = np.empty((len(paths), size, size, *channels), np.float32)
    for i, path in enumerate(tqdm(paths, desc="images", disable=not progress)):
        images[i] = read_image(path, mode, size) / np.float32(255)
    return images


def read_table(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has at least the columns ``required``; values stripped."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [column.strip() for column in reader.fieldnames or ()]
            missing = [column for column in required if column not in columns]
            if missing:
                raise ImageDataError(f"{path} lacks the column(s) {missing}; it has {columns}")
            reader.fieldnames = columns
            return [
                {key: (value or "").strip() for key, value in row.items() if key is not None}
                for row in reader
            ]
    except FileNotFoundError as error:
        raise ImageDataError(f"there is no file {path}") from error
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ImageDataError(f"cannot read {path} as a CSV file in UTF-8 ({error})") from error


def check_classes(labels: np.ndarray, class_names: Sequence[str], where: str) -> None:
    for label, name in enumerate(class_names):
        if not (labels == label).any():
            raise ImageDataError(f"there is no image of the class {name!r} in {where}")
