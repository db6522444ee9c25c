"""Who says which images show the spurious feature: one CSV file, one row per image.

Columns: ``image`` (path below the data folder, forward slashes), ``spurious``
(1, 0, or empty for "could not say"; 1.0, True and the like serve too), and optionally ``x0, y0, x1, y1`` (a box
in pixels of the original image as it stands upright, x to the right, y down, the far edges not
included) or ``mask`` (path of a mask image below the data folder, non-zero on
the spurious feature, of the image's shape at any size).
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lvlmva_lite.datasets.decoding import ImageDataError, image_size, read_marked
from lvlmva_lite.datasets.image_files import flag, named_file, normalised, read_table
from lvlmva_lite.files import append_line, write_whole

COLUMNS = ("image", "spurious", "x0", "y0", "x1", "y1")
BOX_COLUMNS = COLUMNS[2:]


@dataclass(frozen=True)
class Annotation:
    """What is known about one image.

    Attributes
    ----------
    spurious : bool, or None where the annotator could not say
    box : (x0, y0, x1, y1) in pixels of the original image, or None
    mask : path of a mask image, or None
    """

    spurious: bool | None
    box: tuple[float, float, float, float] | None = None
    mask: Path | None = None


def read_annotations(path: str | Path, root: str | Path) -> dict[str, Annotation]:
    """Read an annotation file.

    Parameters
    ----------
    path : the CSV file; see the module's own text for its columns
    root : the data folder that its image names start from

    Returns
    -------
    dict : image name, without "./", to :class:`Annotation`, in the file's order

    Raises
    ------
    ImageDataError : no such file; a column missing; a value that is none; a
        row for a file that does not exist or lies outside the data folder;
        two rows for one image; a box in shares of the image.  The message
        names the line.
    """
    path, root = Path(path), Path(root)
    found: dict[str, Annotation] = {}
    for line, row in read_table(path, ("image", "spurious")):
        where = f"{path}, line {line}"
        named_file(root, row["image"], where)
        name = normalised(row["image"])
        if name in found:
            raise ImageDataError(f"{where}: {name!r} has a row already; keep one")
        try:
            spurious = flag(row["spurious"])
        except ValueError as error:
            raise ImageDataError(f"{where}: spurious {error}") from None
        mask = named_file(root, row["mask"], where, "mask") if row.get("mask") else None
        box = _box(row, where)
        if not spurious and (box or mask):
            raise ImageDataError(f"{where}: a box or a mask, but spurious is not 1")
        found[name] = Annotation(spurious, box, mask)
    return found


def _box(row: dict[str, str], where: str) -> tuple[float, float, float, float] | None:
    corners = [row.get(column, "") for column in BOX_COLUMNS]
    if not any(corners):
        return None
    try:
        x0, y0, x1, y1 = map(float, corners)
    except ValueError as error:
        raise ImageDataError(f"{where}: a box needs four numbers x0,y0,x1,y1, got {corners}") from error
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise ImageDataError(f"{where}: a box needs 0 <= x0 < x1 and 0 <= y0 < y1, got {corners}")
    if x1 <= 1 and y1 <= 1:
        raise ImageDataError(
            f"{where}: the box {corners} lies within one pixel; it must be in pixels of the original image, "
            "so multiply x by its width and y by its height"
        )
    return x0, y0, x1, y1


def append_annotation(
    path: str | Path,
    name: str,
    spurious: bool | None,
    box: tuple[float, float, float, float] | None = None,
) -> None:
    """Add one row to an annotation file, on disk when this returns; make the file if there is none yet.

    A file that was edited by hand may lack the end of its last line: it gets one.

    Raises
    ------
    ImageDataError : the file exists with other columns than ``COLUMNS``, or a
        row could not be told from those before it
    """
    path = Path(path)
    fresh = not path.exists() or path.stat().st_size == 0
    if not fresh:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                columns = next(csv.reader(file, strict=True), [])
                file.seek(0)
                for _ in csv.reader(file, strict=True):  # a quote left open would swallow the row
                    pass
        except (UnicodeDecodeError, csv.Error) as error:
            raise ImageDataError(
                f"{path} is damaged ({error}), so no row can be added; mend its last lines"
            ) from None
        if tuple(columns) != COLUMNS:
            raise ImageDataError(
                f"{path} has the columns {columns}; rows can be added to {list(COLUMNS)} only"
            )
    value = "" if spurious is None else str(int(spurious))
    rows = [COLUMNS] * fresh + [[name, value, *(("",) * 4 if box is None else box)]]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    append_line(path, text.getvalue().removesuffix("\n"))


def remove_annotation(path: str | Path, name: str) -> None:
    """Take the row of an image out of an annotation file; the other rows stay as they are written.

    Raises
    ------
    ImageDataError : the file has no row of this image
    """
    path = Path(path)
    lines = path.read_text("utf-8-sig").splitlines(keepends=True)
    kept = [line for line in lines if next(csv.reader([line]), [""])[0] != name]
    if len(kept) == len(lines):
        raise ImageDataError(f"{path} has no row of {name!r}")
    write_whole(path, "".join(kept))


def read_mask(path: Path, size: int, image_path: Path | None = None) -> np.ndarray:
    """A mask file (non-zero counts) as (size, size) bool: True where at least half is covered.

    Where that is nowhere, because what is marked is small, True on all that it touches.

    Parameters
    ----------
    path : the mask file
    size : side of the result, in pixels
    image_path : the image that it belongs to, to compare their shapes

    Raises
    ------
    ImageDataError : the mask marks nothing or everything, or its aspect is not the image's
    """
    marked = read_marked(path)
    if not marked.any() or marked.all():
        raise ImageDataError(
            f"the mask {path} marks {'everything' if marked.all() else 'nothing'}; mark the spurious feature "
            "with values above 0 and leave the rest 0, or remove the mask"
        )
    if image_path is not None:
        (height, width), (across, down) = marked.shape, image_size(image_path)
        if abs(width * down - height * across) > max(across, down, width, height):  # more than a pixel off
            raise ImageDataError(
                f"the mask {path} is {width} pixels wide and {height} high, and its image {image_path} "
                f"{across} and {down}; draw the mask in the image's aspect"
            )
    return shrunk(marked, size)


def shrunk(marked: np.ndarray, size: int) -> np.ndarray:
    """A mask (H, W) bool as (size, size): where at least half is covered, else all that is touched."""
    whole = Image.fromarray(np.uint8(marked) * 255)
    mask = np.asarray(whole.resize((size, size), Image.Resampling.BOX)) >= 128
    if not mask.any():
        mask = np.zeros((size, size), bool)
        rows, columns = marked.nonzero()
        mask[rows * size // marked.shape[0], columns * size // marked.shape[1]] = True
    return mask


def box_mask(box: tuple[float, float, float, float], path: Path, size: int) -> np.ndarray:
    """A box of the image at ``path`` as (size, size) bool: True on every pixel that it touches."""
    width, height = image_size(path)
    x0, y0, x1, y1 = box
    if x1 > width or y1 > height:
        raise ImageDataError(
            f"the box {box} reaches beyond {path}, which is {width} pixels wide and {height} high"
        )
    mask = np.zeros((size, size), bool)
    columns = slice(int(x0 * size // width), int(np.ceil(x1 * size / width)))
    rows = slice(int(y0 * size // height), int(np.ceil(y1 * size / height)))
    mask[rows, columns] = True
    return mask
