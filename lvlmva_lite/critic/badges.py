"""Letters of a critic's panels: where each segment's stands, and the strokes that lead to those that are small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np
import scipy
from PIL import Image, ImageDraw, ImageFont

from lvlmva_lite.critic.types import segment_names

PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233))
"""RGB, colour-blind-safe (Okabe and Ito), without vermilion, which stands for a verdict.

Colours return after six segments; letters do not.
"""

_SMALLEST_LETTER = 14  # pixels


@dataclass(frozen=True)
class Badge:
    """A letter on a black box framed in the segment's colour.

    ``tip`` is the pixel (row, column) of the segment to which a line leads
    from a box that stands beside it; None for a box within.
    """

    name: str
    segment: int
    top: int
    left: int
    height: int
    width: int
    tip: tuple[int, int] | None

    @property
    def box(self) -> tuple[slice, slice]:
        """Its pixels, (rows, columns)."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def place_badges(labels: np.ndarray, n_segments: int, scale: int, evidence: np.ndarray) -> list[Badge]:
    """A badge for each segment that has pixels: within it where that hides little of it, else beside it.

    Each goes where it hides least, of segments' areas and of their evidence,
    and near its own segment.  The smallest segments choose first.

    Parameters
    ----------
    labels, evidence : (H, W), not enlarged
    scale : panel pixels of one of these, along a side
    """
    sizes = np.bincount(labels[labels >= 0], minlength=n_segments)
    held = np.bincount(labels[labels >= 0], evidence[labels >= 0], minlength=n_segments)
    # Half area, half evidence: over a segment, `cost` adds up to 1.
    cost = np.zeros(labels.shape)
    for j in np.flatnonzero(sizes):
        here = labels == j
        cost[here] = 0.5 / sizes[j] + 0.5 * (evidence[here] / held[j] if held[j] > 0 else 1 / sizes[j])
    costs = _sums(cost / scale**2, scale)
    side, names = max(labels.shape) * scale, segment_names(n_segments)
    rim = max(side // 128, 1)
    largest = max(side // 16, _SMALLEST_LETTER)
    sizes_within = (largest, (largest + _SMALLEST_LETTER) // 2, _SMALLEST_LETTER)
    spots_of = cache(lambda letter, n_letters: _Spots(letter, n_letters, labels.shape, scale, rim))
    badges: list[Badge] = []
    for j in sorted(np.flatnonzero(sizes).tolist(), key=lambda j: (sizes[j], j)):
        own = labels == j
        cells = _sums(own)
        for letter in sizes_within:
            spots = spots_of(letter, len(names[j]))
            if 3 * spots.area > sizes[j] * scale**2:
                continue
            within = spots.inside(cells) & ~spots.crowded(badges)
            rows, columns = np.nonzero(within)
            if len(rows):
                least = _least(spots.total_at(rows, columns, costs))
                badges.append(spots.badge(names[j], j, rows[least], columns[least]))
                break
        else:
            spots = spots_of(max(side // 28, _SMALLEST_LETTER), len(names[j]))
            distance, nearest = scipy.ndimage.distance_transform_edt(~own, return_indices=True)
            rows, columns = spots.centres
            far = distance[rows[:, None] // scale, columns[None] // scale] * scale / side
            # Beside, not upon, and not upon another letter, as long as there is room.
            crowded = 10.0 * spots.crowded(badges) + 5.0 * spots.touching(cells)
            wanted = far + 4.0 * spots.total(costs) + crowded
            row, column = np.unravel_index(_least(wanted), wanted.shape)
            badges.append(spots.badge(names[j], j, row, column, nearest * scale + scale // 2))
    return badges


class _Spots:
    """Every third or so place for a badge with letters of one size, and what its box holds there.

    Parameters
    ----------
    letter : pixels, its size
    n_letters : in the name
    shape : (H, W), not enlarged
    scale : panel pixels of one of these, along a side
    rim : panel pixels that a box within a segment keeps from its edge and from the frame
    """

    def __init__(self, letter: int, n_letters: int, shape: tuple[int, int], scale: int, rim: int) -> None:
        self.scale, self.rim = scale, rim
        self.panel = tuple(length * scale for length in shape)
        self.height = min(letter + 4, self.panel[0])
        self.width = min(max(n_letters * letter * 4 // 5, letter) + 4, self.panel[1])
        self.area = self.height * self.width
        step = max(max(self.panel) // 170, 1)
        self.tops, self.lefts = (
            np.unique(np.append(np.arange(0, length - size, step), length - size))
            for length, size in zip(self.panel, (self.height, self.width), strict=True)
        )

    @property
    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        return self.tops + self.height // 2, self.lefts + self.width // 2

    def total(self, sums: np.ndarray) -> np.ndarray:
        """Sum over the box at every place, (tops, lefts), of a summed-area table of panel pixels."""
        left, right = sums[self.lefts], sums[self.lefts + self.width]
        top, bottom = self.tops, self.tops + self.height
        return (right[:, bottom] - right[:, top] - left[:, bottom] + left[:, top]).T

    def total_at(self, rows: np.ndarray, columns: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """The same at some places (k,), (k,)."""
        top, left = self.tops[rows], self.lefts[columns]
        bottom, right = top + self.height, left + self.width
        return sums[right, bottom] - sums[right, top] - sums[left, bottom] + sums[left, top]

    def touching(self, cells: np.ndarray) -> np.ndarray:
        """Whether the box has a pixel of the segment whose summed-area table, not enlarged, is ``cells``."""
        return _totals(cells, *self._cells(0)) > 0

    def inside(self, cells: np.ndarray) -> np.ndarray:
        """Whether the box, with the rim around it, lies in that segment."""
        edges, whole = self._with_rim
        return _totals(cells, *edges) == whole

    @cached_property
    def _with_rim(self) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """As :meth:`_cells`, and how many those are; -1 where they pass the frame."""
        top, bottom, left, right = edges = self._cells(self.rim)
        rows, columns = (
            (places >= self.rim) & (places + size + self.rim <= length)
            for places, size, length in zip(
                (self.tops, self.lefts), (self.height, self.width), self.panel, strict=True
            )
        )
        count = (bottom - top)[:, None] * (right - left)[None]
        return edges, np.where(rows[:, None] & columns[None], count, -1)

    def _cells(self, more: int) -> tuple[np.ndarray, ...]:
        """Rows from, to, columns from, to that the box touches with ``more`` around it, not enlarged."""
        return tuple(
            np.clip(edges, 0, length) // self.scale
            for places, size, length in zip(
                (self.tops, self.lefts), (self.height, self.width), self.panel, strict=True
            )
            for edges in (places - more, places + size + more + self.scale - 1)
        )

    def crowded(self, badges: Sequence[Badge]) -> np.ndarray:
        """Whether a badge covers a part of the box."""
        over = np.zeros((len(self.tops), len(self.lefts)), bool)
        for other in badges:
            rows, columns = (
                slice(*np.searchsorted(places, (start - size + 1, start + length)))
                for places, size, start, length in (
                    (self.tops, self.height, other.top, other.height),
                    (self.lefts, self.width, other.left, other.width),
                )
            )
            over[rows, columns] = True
        return over

    def badge(self, name: str, j: int, row: int, column: int, nearest: np.ndarray | None = None) -> Badge:
        """At one place."""
        top, left = int(self.tops[row]), int(self.lefts[column])
        tip = None
        if nearest is not None:
            at = ((top + self.height // 2) // self.scale, (left + self.width // 2) // self.scale)
            tip = (int(nearest[0][at]), int(nearest[1][at]))
        return Badge(name, j, top, left, self.height, self.width, tip)


def _least(cost: np.ndarray) -> int:
    """Where the cost is least; the first of those that differ by rounding alone."""
    return int(np.argmin(cost.round(9)))


def _sums(values: np.ndarray, scale: int = 1) -> np.ndarray:
    """Summed-area table of the enlarged values, with a border of zeros.

    Returns
    -------
    (W * scale + 1, H * scale + 1) : columns first, so that a whole column is added at once
    """
    kind = np.int32 if values.dtype == bool else np.float64
    height, width = values.shape
    columns = np.zeros((width, height * scale + 1), kind)
    columns[:, 1:] = values.T.astype(kind).repeat(scale, axis=1).cumsum(1)
    sums = np.zeros((width * scale + 1, height * scale + 1), kind)
    for x in range(width * scale):
        np.add(sums[x], columns[x // scale], out=sums[x + 1])
    return sums


def _totals(
    sums: np.ndarray, top: np.ndarray, bottom: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Sums of whole numbers over boxes, (rows, columns)."""
    across = sums[right] - sums[left]
    return (across[:, bottom] - across[:, top]).T


def strokes_of(
    badges: Sequence[Badge], labels: np.ndarray, scale: int
) -> list[tuple[tuple[slice, slice], np.ndarray, tuple[int, int, int]]]:
    """What leads from badges to their segments: (rows, columns) of a box, its pixels, a colour.

    A stroke ends at its segment, and passes below other small ones.

    Parameters
    ----------
    labels : (H, W), not enlarged
    scale : panel pixels of one of these, along a side
    """
    height, width = (length * scale for length in labels.shape)
    sizes = np.bincount(labels[labels >= 0], minlength=1) * scale**2
    thin = max(max(height, width) // 512, 1)
    strokes = []
    for badge in badges:
        if badge.tip is None:
            continue
        start = (badge.top + badge.height // 2, badge.left + badge.width // 2)
        rows, columns = (
            np.arange(max(min(a, b) - 2 * thin - 2, 0), min(max(a, b) + 2 * thin + 3, length))
            for a, b, length in zip(start, badge.tip, (height, width), strict=True)
        )
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        here = labels[np.ix_(rows // scale, columns // scale)]
        below = (here >= 0) & ((here == badge.segment) | (sizes[here] < 4 * badge.height**2))
        for thickness, colour in ((3 * thin, (0, 0, 0)), (thin, PALETTE[badge.segment % len(PALETTE)])):
            stroke = Image.new("L", (width, height))
            ImageDraw.Draw(stroke).line((start[::-1], badge.tip[::-1]), fill=1, width=thickness)
            strokes.append((box, (np.asarray(stroke)[box] > 0) & ~below, colour))
    return strokes


@lru_cache(1024)
def letters_on_a_box(name: str, colour: tuple[int, int, int], height: int, width: int) -> np.ndarray:
    """White on black in a frame of that colour, (height, width, 3)."""
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width - 1, height - 1), outline=colour)
    font = _font(height - 4)
    draw.text((width / 2, height / 2), name, font=font, fill=(255, 255, 255), anchor="mm")
    return np.asarray(picture)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # Pillow's own, so the same everywhere
