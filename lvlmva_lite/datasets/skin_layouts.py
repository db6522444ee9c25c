"""Which file is which image of skin, in each layout of folders and tables that is read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy

from lvlmva_lite.datasets.decoding import ImageDataError
from lvlmva_lite.datasets.image_files import (
    SPLIT_NAMES,
    SPLIT_SHARES,
    check_masks_fit,
    check_stems,
    flag,
    image_files,
    images_below,
    named_file,
    normalised,
    read_table,
    report_skipped,
)
from lvlmva_lite.files import inside

CLASS_NAMES = ("benign", "malignant")

ISIC_2019_CLASSES = {
    "MEL": "malignant",
    "BCC": "malignant",
    "SCC": "malignant",
    "NV": "benign",
    "BKL": "benign",
    "DF": "benign",
    "VASC": "benign",
    "AK": None,
    "UNK": None,
}
"""Actinic keratosis may turn into cancer; the ISIC Archive files it under "Indeterminate".  It is left out."""


@dataclass(frozen=True)
class SkinRow:
    """One image of known class: its file, split, and whether it shows a patch (None: not known)."""

    path: Path
    label: int
    split: str
    patch: bool | None
    mask: Path | None


def found_layout(root: Path) -> str:
    files = {
        "manifest": "manifest.csv",
        "isic-2019": "ISIC_2019_Training_GroundTruth.csv",
        "isic-cli": "metadata.csv",
    }
    found = [layout for layout, file in files.items() if (root / file).is_file()]
    if not found:
        inner = [
            child for child in sorted(root.iterdir()) for file in files.values() if (child / file).is_file()
        ]
        raise ImageDataError(
            f"{root} must hold one of {', '.join(files.values())} to tell its layout, it holds none"
            + (f"; {inner[0]} does, so give that as the data folder" if inner else "")
        )
    if len(found) > 1:
        raise ImageDataError(
            f"{root} must hold one of {', '.join(files.values())} to tell its layout, "
            f"it holds {[files[layout] for layout in found]}; pass layout=... to say which"
        )
    return found[0]


def with_masks(root: Path, rows: list[SkinRow]) -> list[SkinRow]:
    """The rows with the masks of ``patch_masks``; those that fit no image are reported."""
    folder = root / "patch_masks"
    if not folder.is_dir():
        return rows
    skipped: list[tuple[Path, str]] = []
    paths = image_files(folder, skipped)
    check_stems(paths)
    masks = {path.stem: path for path in paths}
    stems = Counter(row.path.stem for row in rows)
    for row in rows:
        if row.path.stem in masks and stems[row.path.stem] > 1:
            raise ImageDataError(
                f"{masks[row.path.stem]} fits {stems[row.path.stem]} images of one name, such as {row.path}; "
                "rename them, or name the masks in an annotation file"
            )
    # An image that is left out, of no class that is read, may have a mask all the same.
    pictured = {*stems, *(path.stem for path in images_below(root) if folder not in path.parents)}
    report_skipped([*skipped, *check_masks_fit(masks, pictured)], root)
    return [replace(row, mask=masks.get(row.path.stem)) for row in rows]


def _check_rows(rows: Sequence[tuple[int, dict[str, str]]], column: str, table: Path) -> None:
    """Refuse two rows of one image."""
    first: dict[str, int] = {}
    for line, row in rows:
        name = normalised(row[column])
        if name in first:
            raise ImageDataError(
                f"{table}, line {line}: {name!r} has a row already, line {first[name]}; keep one"
            )
        first[name] = line


def _manifest_rows(root: Path) -> list[SkinRow]:
    table = root / "manifest.csv"
    records = read_table(table, ("image", "label", "split", "coloured_patch"))
    rows = []
    for line, row in records:
        where = f"{table}, line {line}"
        for column, allowed in (("label", CLASS_NAMES), ("split", SPLIT_NAMES)):
            if row[column].lower() not in allowed:
                raise ImageDataError(
                    f"{where}: {column} must be one of {list(allowed)}, got {row[column]!r}"
                )
        try:
            patch = flag(row["coloured_patch"])
        except ValueError as error:
            raise ImageDataError(f"{where}: coloured_patch {error}") from None
        named_file(root, row["image"], where)
        path, label = root / normalised(row["image"]), CLASS_NAMES.index(row["label"].lower())
        rows.append(SkinRow(path, label, SPLIT_NAMES[row["split"].lower()], patch, None))
    _check_rows(records, "image", table)
    return rows


def _isic_cli_rows(root: Path) -> list[SkinRow]:
    table = root / "metadata.csv"
    records = read_table(table, ("isic_id",))
    if records and not {"diagnosis_1", "benign_malignant"} & set(records[0][1]):
        raise ImageDataError(
            f"{table} has neither the column diagnosis_1 nor the older benign_malignant; "
            f"it has {sorted(records[0][1])}"
        )
    _check_rows(records, "isic_id", table)
    files = _by_stem(
        image_files(root) or [path for path in images_below(root) if "mask" not in path.parent.name.lower()]
    )
    split_of = hashed_splits([record for _, record in records], "isic_id")
    rows = []
    for (line, record), split in zip(records, split_of, strict=True):
        diagnosis = (record.get("diagnosis_1") or record.get("benign_malignant") or "").lower()
        if diagnosis in CLASS_NAMES:
            path = _named(record["isic_id"], files, root, f"{table}, line {line} ({record['isic_id']})")
            rows.append(SkinRow(path, CLASS_NAMES.index(diagnosis), split, None, None))
    return rows


def _isic_2019_rows(root: Path) -> list[SkinRow]:
    table = root / "ISIC_2019_Training_GroundTruth.csv"
    records = read_table(table, ("image", *ISIC_2019_CLASSES))
    _check_rows(records, "image", table)
    extra = root / "ISIC_2019_Training_Metadata.csv"
    if extra.is_file():
        lesions = {row["image"]: row["lesion_id"] for _, row in read_table(extra, ("image", "lesion_id"))}
        records = [(n, {**record, "lesion_id": lesions.get(record["image"], "")}) for n, record in records]
    folder = root / "ISIC_2019_Training_Input"
    folder = folder / folder.name if (folder / folder.name).is_dir() else folder
    files = _by_stem(image_files(folder) if folder.is_dir() else [])
    split_of = hashed_splits([record for _, record in records], "image")
    rows = []
    for (line, record), split in zip(records, split_of, strict=True):
        where = f"{table}, line {line} ({record['image']})"
        try:
            of = [name for name in ISIC_2019_CLASSES if flag(record[name])]
        except ValueError as error:
            raise ImageDataError(
                f"{where}: a class {error}; the columns {list(ISIC_2019_CLASSES)} hold 0 or 1"
            ) from error
        if len(of) != 1:
            raise ImageDataError(f"{where} must be of one class, it is of {of}")
        diagnosis = ISIC_2019_CLASSES[of[0]]
        if diagnosis is not None:
            path = _named(record["image"], files, folder, where)
            rows.append(SkinRow(path, CLASS_NAMES.index(diagnosis), split, None, None))
    return rows


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    """Images by their name without the end, however that is written."""
    files: dict[str, Path] = {}
    for path in paths:
        other = files.setdefault(path.stem, path)
        if other != path:
            raise ImageDataError(f"{other} and {path} are of one name, so one image twice; keep one")
    return files


def _named(name: str, files: dict[str, Path], folder: Path, where: str) -> Path:
    """The image of a table that names it without folder and end."""
    try:
        inside(folder, name)
    except ValueError as error:
        raise ImageDataError(f"{where}: image {error}") from None
    if name not in files:
        raise ImageDataError(
            f"{where} names the image {name + '.jpg'!r}, but there is no such file in {folder}, with .jpg or "
            "any other end; download it again, or remove its row"
        )
    return files[name]


def hashed_splits(records: list[dict[str, str]], image_column: str) -> list[str]:
    """A split for each record such that no patient, no lesion and no image is in two.

    Records are tied by a patient, a lesion or an image that they share, and
    so are those tied to them; the hash of the first patient's name (else the
    lesion's, else the image's) places all of them.
    """
    columns = ("patient_id", "lesion_id", image_column)
    nodes: dict[tuple[int, str], int] = {}
    owners, members = [], []
    for i, record in enumerate(records):
        for kind, column in enumerate(columns):
            if name := record.get(column):
                owners.append(i)
                members.append(nodes.setdefault((kind, name), len(nodes)))
    n = len(records)
    links = scipy.sparse.coo_array(
        (np.ones(len(owners), bool), (owners, np.array(members, int) + n)), shape=(n + len(nodes),) * 2
    )
    _, group = scipy.sparse.csgraph.connected_components(links, directed=False)
    first: dict[int, tuple[int, str]] = {}
    for node, number in nodes.items():
        tied = group[n + number]
        first[tied] = min(first.get(tied, node), node)
    bounds = np.cumsum(list(SPLIT_SHARES.values()))
    splits = []
    for tied in group[:n]:
        place = int.from_bytes(hashlib.sha256(first.get(tied, (2, ""))[1].encode()).digest()[:8]) / 2**64
        splits.append(list(SPLIT_SHARES)[min(int(np.searchsorted(bounds, place, side="right")), 2)])
    return splits


READERS = {"isic-cli": _isic_cli_rows, "isic-2019": _isic_2019_rows, "manifest": _manifest_rows}
"""Layout -> function from the data folder to the rows of its images."""
