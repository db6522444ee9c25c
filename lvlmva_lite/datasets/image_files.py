"""Images that the reader supplies as files: finding them, and the type that keeps their names."""

from __future__ import annotations

import csv
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from lvlmva_lite.datasets.decoding import IMAGE_SUFFIXES, ImageDataError, check_readable, read_image
from lvlmva_lite.datasets.shortcut_dataset import ShortcutDataset
from lvlmva_lite.files import inside

SPLITS = ("train", "validation", "test")
SPLIT_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""Shares of the images, or patients, where the source has no split of its own."""

SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "training": "train",
    "testing": "test",
}
"""What a folder or a table may call a split, in lower case."""

MASK_KINDS = ("none", "pasted", "drawn", "box", "estimated", "missing")

_TAIL = 4096
"""Bytes at the end of a file that are compared before all of them are."""


class SkippedFilesWarning(UserWarning):
    """Files in the data folder were passed over; the message counts and names them."""


class SharedImagesWarning(UserWarning):
    """One image is in two splits, so that a network is tested on what it was trained on."""


@dataclass(frozen=True)
class ImageFileDataset(ShortcutDataset):
    """A :class:`ShortcutDataset` made of image files.

    Attributes
    ----------
    names : tuple of str, one each
        Path below the data folder, with forward slashes: the name by which
        an annotation file calls the image.
    mask_kinds : tuple of str, one each, or empty where there are no ``spurious_masks``
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
            if field == "mask_kinds" and self.spurious_masks is None and not self.mask_kinds:
                continue
            if len(getattr(self, field)) != len(self):
                raise ValueError(
                    f"{field} has {len(getattr(self, field))} entries for {len(self)} images; give one each"
                )

    def _rows(self, indices: Tensor) -> dict[str, object]:
        rows = np.arange(len(self))[indices.numpy()]
        return {
            **super()._rows(indices),
            "names": tuple(self.names[row] for row in rows),
            "mask_kinds": tuple(self.mask_kinds[row] for row in rows) if self.mask_kinds else (),
        }


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
        slashes = "; write it with forward slashes" if "\\" in name else ""
        raise ImageDataError(
            f"{where} names the {what} {name!r}, but there is no such file in {root} (looked for {path}){slashes}"
        )
    return path


def normalised(name: str) -> str:
    """A name below the data folder as the loaders write it: without "./" and doubled slashes."""
    return PurePosixPath(name).as_posix()


def flag(value: str) -> bool | None:
    """1, 1.0 or True; 0, 0.0 or False; or empty for None.

    Raises
    ------
    ValueError : none of these
    """
    known = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": None}
    try:
        return known[value.strip().lower()]
    except KeyError:
        raise ValueError(f"must be 0, 1 or empty, got {value!r}") from None


def image_files(folder: Path, skipped: list[tuple[Path, str]] | None = None) -> list[Path]:
    """The images of a folder, sorted by name.

    Parameters
    ----------
    folder : its folders are not entered
    skipped : the other files are added to it, hidden ones excepted, each with the reason

    Raises
    ------
    ImageDataError : there is DICOM among them, and no pydicom
    """
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            check_readable(path)
            found.append(path)
        elif skipped is not None:
            skipped.append(
                (path, f"{path.suffix or 'a name without an end'} is no image that is read here")
            )
    return found


def images_below(folder: Path, skipped: list[tuple[Path, str]] | None = None) -> list[Path]:
    """As :func:`image_files`, with those of all folders below; folder by folder, hidden ones excepted."""
    found = image_files(folder, skipped)
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            found += images_below(child, skipped)
    return found


def report_skipped(skipped: Sequence[tuple[Path, str]], root: Path) -> str:
    """Warn of files that were passed over, in one line, which is returned; empty where there are none."""
    if not skipped:
        return ""
    shown = [f"{path.relative_to(root).as_posix()} ({reason})" for path, reason in skipped[:3]]
    text = f"{len(skipped)} file(s) of {root} passed over: {', '.join(shown)}{', ...' * (len(skipped) > 3)}"
    warnings.warn(text, SkippedFilesWarning, stacklevel=3)
    return text


def check_stems(paths: Iterable[Path]) -> None:
    """Refuse x.png beside x.jpg, which is one image twice."""
    seen: dict[Path, Path] = {}
    for path in paths:
        other = seen.setdefault(path.with_suffix(""), path)
        if other != path:
            raise ImageDataError(
                f"{other.name} and {path.name} in {path.parent} look like one image twice; keep one, or rename it"
            )


def apart(splits: Mapping[str, Sequence[Path]], shared_images: str = "error") -> dict[str, list[Path]]:
    """The files of each split, with no image, byte for byte, in two splits.

    Parameters
    ----------
    splits : files of each split, in the order of ``SPLITS``
    shared_images : "error"; "drop", which keeps such an image in the later split
        alone; or "warn", which keeps it everywhere

    Raises
    ------
    ImageDataError : an image in two splits, and ``shared_images`` is "error"
    """
    files = [(split, path) for split, paths in splits.items() for path in paths]
    shared = [same for same in equal_files(files) if len({split for split, _ in same}) > 1]
    dropped: set[Path] = set()
    if shared and shared_images == "drop":
        order = list(splits)
        for same in shared:
            last = max((split for split, _ in same), key=order.index)
            dropped |= {path for split, path in same if split != last}
    elif shared:
        one, first = shared[0][0]
        other, second = next(file for file in shared[0] if file[0] != one)
        text = (
            f"{len(shared)} image(s) are in more than one split, such as {first} ({one}) and {second} ({other}), "
            "which are equal byte for byte; remove one of the two"
        )
        if shared_images == "error":
            raise ImageDataError(text)
        warnings.warn(text, SharedImagesWarning, stacklevel=3)
    return {split: [path for path in paths if path not in dropped] for split, paths in splits.items()}


def equal_files(files: Iterable[tuple[str, Path]]) -> list[list[tuple[str, Path]]]:
    """Those that are equal byte for byte, together; of each, what is said of it and its path.

    Only files of one length are read, and whole only those of one end, so that this takes little time.
    """
    together = [list(files)]
    for key in (_length, _tail, _digest):
        together = [same for some in together for same in _alike(some, key)]
    return together


def _alike(files: list[tuple[str, Path]], key: Callable[[Path], Hashable]) -> list[list[tuple[str, Path]]]:
    """Two files or more of equal keys."""
    by_key = defaultdict(list)
    for split, path in files:
        by_key[key(path)].append((split, path))
    return [same for same in by_key.values() if len(same) > 1]


def _length(path: Path) -> int:
    return path.stat().st_size


def _digest(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes()).digest()


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()


def check_masks_fit(masks: Mapping[str, Path], images: Iterable[str]) -> list[tuple[Path, str]]:
    """Masks that belong to no image, as files passed over.

    Parameters
    ----------
    masks : mask files by the name that an image must have
    images : such names

    Raises
    ------
    ImageDataError : no mask fits any image
    """
    images = set(images)
    lost = [path for name, path in masks.items() if name not in images]
    if lost and len(lost) == len(masks):
        raise ImageDataError(
            f"{lost[0]} fits no image, and neither does any other mask beside it ({len(lost)} in all); "
            "a mask has the name of its image"
        )
    return [(path, "a mask that fits no image") for path in lost]


def read_images(paths: Sequence[Path], mode: str, size: int, progress: bool) -> np.ndarray:
    """All of them: (N, size, size) or (N, size, size, 3), float32 in [0, 1]."""
    channels = () if mode == "L" else (3,)
    images = np.empty((len(paths), size, size, *channels), np.float32)
    for i, path in enumerate(tqdm(paths, desc="images", disable=not progress)):
        images[i] = read_image(path, mode, size) / np.float32(255)
    return images


def read_table(path: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file that has at least the columns ``required``, each with its line.

    Values are stripped; empty lines are passed over.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [column.strip() for column in reader.fieldnames or ()]
            missing = [column for column in required if column not in columns]
            if missing:
                mend = "; put commas in place of the semicolons" if ";" in "".join(columns) else ""
                raise ImageDataError(f"{path} lacks the column(s) {missing}; it has {columns}{mend}")
            if twice := [column for i, column in enumerate(columns) if column and column in columns[:i]]:
                raise ImageDataError(f"{path} has the column {twice[0]!r} twice; rename one")
            reader.fieldnames = columns
            rows = []
            for row in reader:
                if any(row.pop(None, ())):
                    raise ImageDataError(
                        f"{path}, line {reader.line_num} has more values than the {len(columns)} columns; "
                        "put a value with a comma into double quotes"
                    )
                rows.append((reader.line_num, {key: (value or "").strip() for key, value in row.items()}))
            return rows
    except FileNotFoundError as error:
        raise ImageDataError(f"there is no file {path}") from error
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ImageDataError(f"cannot read {path} as a CSV file in UTF-8 ({error})") from error


def read_splits(path: Path, known: Iterable[str]) -> dict[str, str]:
    """Which split each image is in, from a CSV file with the columns image and split.

    Parameters
    ----------
    path : the file; splits are train, val (or validation) and test
    known : the names of all images there are; each needs a row, and other rows are passed over

    Returns
    -------
    dict : image name to "train", "validation" or "test"

    Raises
    ------
    ImageDataError : no such file, no such column or split, two rows for an image, or none
    """
    splits: dict[str, str] = {}
    for line, row in read_table(path, ("image", "split")):
        name, split = normalised(row["image"]), SPLIT_NAMES.get(row["split"].lower())
        if split is None:
            raise ImageDataError(
                f"{path}, line {line}: split must be one of {list(SPLIT_NAMES)}, got {row['split']!r}"
            )
        if name in splits:
            raise ImageDataError(f"{path}, line {line}: {name!r} has a row already; keep one")
        splits[name] = split
    lacking = [name for name in known if name not in splits]
    if lacking:
        raise ImageDataError(
            f"{path} has no row for {len(lacking)} image(s), such as {lacking[0]!r}; give each its split"
        )
    return splits


def draw_splits(n: int, missing: Sequence[str], rng: np.random.Generator) -> dict[int, str]:
    """Which of n images leave train for the splits that are missing, by ``SPLIT_SHARES``."""
    total = sum(SPLIT_SHARES[split] for split in ("train", *missing))
    order = iter(rng.permutation(n).tolist())
    return {i: split for split in missing for i in islice(order, round(SPLIT_SHARES[split] / total * n))}


def check_classes(labels: np.ndarray, class_names: Sequence[str], where: str) -> None:
    for label, name in enumerate(class_names):
        if not (labels == label).any():
            raise ImageDataError(f"there is no image of the class {name!r} in {where}")
