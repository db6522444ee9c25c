"""Foreign objects on the images of the small real skin set: what is neither skin nor lesion.

The masks of the data set mark the coloured patch alone.  The pictures hold more:
surgical ink, rulers, the lens's dark frame, bubbles and drops of the contact
fluid.  A critic that calls those spurious is right about the picture and wrong
by the data set's truth.  ``skin_foreign_objects.csv`` says where they lie, so
that an experiment can be read with and without them.

The CSV file has one row per object: ``image`` (the name that the loader hands
back), ``kind`` (one of ``KINDS``), ``shape`` and ``numbers``.  Numbers are
shares of the image's sides, x to the right and y down from the top left corner;
a shape may reach beyond the image.  Its first lines, which start with ``#``,
say by whom and how the objects were marked, and how coarse they are.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import skimage

from lvlmva_lite.datasets.decoding import ImageDataError

KINDS = ("patch", "ink", "ruler", "frame", "bubble", "other")
"""Coloured patches; surgical ink; rulers and scale marks; the lens's dark frame and dark bars at the
image's edge; bubbles, drops and edges of contact fluid; text, cloth, lamps and all else.  Hair is left out."""

SHAPES = {"rectangle": 4, "ellipse": 4, "outside ellipse": 4, "polygon": None}
"""How many numbers a shape takes.  rectangle: x0 y0 x1 y1; ellipse and outside ellipse (all but the
ellipse): centre x y, half-axes x y; polygon: x y of each corner, three corners or more."""

COLUMNS = ("image", "kind", "shape", "numbers")
MARKED = files("lvlmva_lite.datasets") / "skin_foreign_objects.csv"

_FINER = 4
"""Points a side at which each pixel is looked up."""


@dataclass(frozen=True)
class ForeignObject:
    """One marked object.

    Attributes
    ----------
    image : name of the image, as the loader calls it
    kind : one of ``KINDS``
    shape : one of ``SHAPES``
    numbers : its place and size, as shares of the image's sides

    Raises
    ------
    ValueError : a kind or shape that there is not, or numbers that do not make the shape
    """

    image: str
    kind: str
    shape: str
    numbers: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {list(KINDS)}, got {self.kind!r}")
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {list(SHAPES)}, got {self.shape!r}")
        n = len(self.numbers)
        if self.shape == "polygon":
            if n < 6 or n % 2:
                raise ValueError(f"a polygon takes x and y of at least three corners, got {n} numbers")
        elif n != SHAPES[self.shape]:
            raise ValueError(f"a shape {self.shape!r} takes {SHAPES[self.shape]} numbers, got {n}")
        if not np.isfinite(self.numbers).all():
            raise ValueError(f"numbers must be finite, got {list(self.numbers)}")
        if self.shape == "rectangle" and not (
            self.numbers[0] < self.numbers[2] and self.numbers[1] < self.numbers[3]
        ):
            raise ValueError(f"a rectangle needs x0 < x1 and y0 < y1, got {list(self.numbers)}")
        if "ellipse" in self.shape and min(self.numbers[2:]) <= 0:
            raise ValueError(f"the half-axes of an ellipse are above 0, got {list(self.numbers[2:])}")

    def mask(self, size: int) -> np.ndarray:
        """(size, size) bool: True where at least half of the pixel is covered."""
        side = size * _FINER
        at = (np.arange(side) + 0.5) / side
        y, x = at[:, None], at[None, :]
        if self.shape == "rectangle":
            x0, y0, x1, y1 = self.numbers
            fine = (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
        elif self.shape == "polygon":
            corners = np.reshape(self.numbers, (-1, 2))[:, ::-1]  # rows first
            fine = skimage.draw.polygon2mask((side, side), corners * side - 0.5)
        else:
            centre_x, centre_y, half_x, half_y = self.numbers
            inside = ((x - centre_x) / half_x) ** 2 + ((y - centre_y) / half_y) ** 2 <= 1
            fine = inside if self.shape == "ellipse" else ~inside
        return fine.reshape(size, _FINER, size, _FINER).mean(axis=(1, 3)) >= 0.5


def read_foreign_objects(path: str | Path | None = None) -> list[ForeignObject]:
    """Read a file of marked objects, in its order.

    Parameters
    ----------
    path : a CSV file as the module's own text describes it; None for what
        ships with the package, the small real skin set

    Raises
    ------
    ImageDataError : no such file, other columns, or a row that is no object;
        the message names the line
    """
    path = Path(str(MARKED if path is None else path))
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise ImageDataError(f"there is no file {path}") from error
    except (UnicodeDecodeError, OSError) as error:
        raise ImageDataError(f"cannot read {path} as text in UTF-8 ({error})") from error
    rows = [
        (line, [value.strip() for value in next(csv.reader([text]))])
        for line, text in enumerate(lines, start=1)
        if text.strip() and not text.startswith("#")
    ]
    if not rows or tuple(rows[0][1]) != COLUMNS:
        raise ImageDataError(
            f"{path} must start with the columns {list(COLUMNS)}, it has {rows[0][1] if rows else []}"
        )
    found = []
    for line, row in rows[1:]:
        where = f"{path}, line {line}"
        if len(row) != len(COLUMNS):
            raise ImageDataError(f"{where}: a row has {len(COLUMNS)} values, got {len(row)}")
        image, kind, shape, numbers = row
        try:
            found.append(ForeignObject(image, kind, shape, tuple(map(float, numbers.split()))))
        except ValueError as error:
            raise ImageDataError(f"{where}: {error}") from error
    return found


def foreign_object_masks(
    names: Sequence[str],
    size: int,
    *,
    kinds: Sequence[str] = KINDS,
    path: str | Path | None = None,
) -> np.ndarray:
    """Where foreign objects lie on images of the real skin set.

    The loader squashes each image to a square, and so do the shapes: the masks
    lie on the loader's images at any size.  An image without a marked object
    gets an empty mask, and so does one that nobody looked at, such as those of
    another set.

    Parameters
    ----------
    names : names of the images, as ``load_skin(...).names`` has them
    size : side of the images, in pixels
    kinds : which of ``KINDS`` to put in; all but "patch" is what the data
        set's own masks lack
    path : another file of marked objects, see :func:`read_foreign_objects`

    Returns
    -------
    ndarray, (N, size, size), bool

    Raises
    ------
    ValueError : a kind that there is not, or a size below 1
    ImageDataError : the file is not as described
    """
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"size must be an int of at least 1 pixel, got {size!r}")
    if isinstance(kinds, str) or (unknown := [kind for kind in kinds if kind not in KINDS]):
        wrong = kinds if isinstance(kinds, str) else unknown
        raise ValueError(f"kinds must be a sequence of some of {list(KINDS)}, got {wrong!r}")
    place = {name: i for i, name in enumerate(names)}
    masks = np.zeros((len(names), size, size), bool)
    for item in read_foreign_objects(path):
        if item.kind in kinds and item.image in place:
            masks[place[item.image]] |= item.mask(size)
    return masks
