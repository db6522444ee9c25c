"""What a critic is shown of a case: the image, its segments, and the one over the other.

Each segment is outlined, coloured, and carries its letter, the name by which
prompts and answers refer to it (Set-of-Mark prompting, Yang et al. 2023,
arXiv 2310.11441).  In the segment map a pixel is the brighter the more
evidence it holds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from lvlmva_lite.critic.png import packed
from lvlmva_lite.critic.types import Case, segment_names

PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233))
"""RGB, colour-blind-safe (Okabe and Ito), without vermilion, which stands for a verdict.

Colours return after six segments; letters do not.
"""

GAMMA, FLOOR = 0.7, 0.12
"""Brightness of a pixel in the segment map: (evidence / 98th percentile) ** GAMMA, at least FLOOR."""

_SMALLEST_LETTER = 14  # pixels

_DRAWING = threading.Lock()
"""Threads that draw at the same time take half as long again, for want of memory and of the interpreter."""


@dataclass(frozen=True)
class Panels:
    """Three PNG files, RGB and of one size; the same case gives the same bytes.

    Another build of zlib may pack the same picture into other bytes.

    Attributes
    ----------
    image : bytes, the image alone, enlarged without smoothing
    segment_map : bytes, the segments on black, the brighter the more evidence a pixel holds
    overlay : bytes, the segments laid over the image, which shows through
    """

    image: bytes
    segment_map: bytes
    overlay: bytes


def render_panels(case: Case, min_size: int = 512) -> Panels:
    """Draw the panels of a case.

    Every pixel becomes a block of whole pixels, so that nothing is blurred.

    Parameters
    ----------
    case : Case, its image grey-scale (1, H, W) or RGB (3, H, W), any H and W
    min_size : int, pixels that the longer side of a panel has at least
        The shorter side has at least 24, so that a letter fits.

    Returns
    -------
    Panels
        Without a mark for segments that have no pixel.

    Raises
    ------
    ValueError : the case cannot be drawn, or ``min_size`` is below 1
    """
    _check(case, min_size)
    with _DRAWING:
        return _draw(case, min_size)


def _draw(case: Case, min_size: int) -> Panels:
    pixels = (case.image * 255).round().byte().permute(1, 2, 0).numpy()
    labels = case.segment_labels.numpy().astype(np.int64)
    evidence = case.evidence.numpy()

    scale = max(-(-min_size // max(labels.shape)), -(-24 // min(labels.shape)), 1)  # rounded up
    side = max(labels.shape) * scale
    badges = _place_badges(labels, case.n_segments, scale, evidence)

    # Drawn on the fewest rows and columns that hold all there is to see, and enlarged at the end.
    width = max(side // 128, 1)
    widths = (width, max(width // 2, 1), max(width // 4, 1))
    rows, columns = (_places(length, scale, widths) for length in labels.shape)

    def here(values: np.ndarray) -> np.ndarray:
        return values.take(columns // scale, axis=1).take(rows // scale, axis=0)

    band, thin, line = (_rim(labels, scale, width, rows, columns) for width in widths)
    colours = np.array([PALETTE[j % len(PALETTE)] for j in range(case.n_segments)] + [(0, 0, 0)], np.uint8)
    full = colours[labels]  # none, -1, is the last: black
    segment_map = here((full * _brightness(evidence, labels)[:, :, None]).round().astype(np.uint8))
    covered = (labels >= 0)[:, :, None]
    pixels = np.broadcast_to(pixels, full.shape)
    overlay = here(np.where(covered, (3 * pixels.astype(np.uint16) + full) // 4, pixels).astype(np.uint8))
    full, segments = here(full), here(labels)

    # Outlines lie within their segment: a band of its colour, set off by a thin black line.
    _lay(full, overlay, band)
    # Narrower in the map, where the band hides how bright the pixels below it are.
    _lay(full, segment_map, thin)
    inner = np.bincount(segments[~line & (segments >= 0)], minlength=case.n_segments)
    line &= (inner > 0)[segments]  # a segment that would be all line keeps its colour
    _lay(np.zeros_like(full), segment_map, line)
    _lay(np.zeros_like(full), overlay, line)

    strokes = _strokes(badges, labels, scale)
    # The rows that letters and strokes cross are all there; of the others, each stands for those down to the next.
    boxes = [badge.box[0] for badge in badges] + [box[0] for box, _, _ in strokes]
    every = np.unique(np.concatenate([rows, *(np.arange(box.start, box.stop + 1) for box in boxes)]))
    every = every[every < labels.shape[0] * scale]
    heights = np.diff(every, append=labels.shape[0] * scale)
    widths = np.diff(columns, append=labels.shape[1] * scale)
    stands_for = np.searchsorted(rows, every, side="right") - 1
    marked = (
        _marked(panel.repeat(widths, axis=1)[stands_for], every, badges, strokes)
        for panel in (segment_map, overlay)
    )
    return Panels(
        packed(pixels.repeat(scale, axis=1), np.full(len(pixels), scale)),
        *(packed(panel, heights) for panel in marked),
    )


def _brightness(evidence: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How bright a pixel of the segment map is, (H, W) in [FLOOR, 1]: the more, the more evidence.

    Relative to the 98th percentile over the pixels in segments, so that a
    single strong pixel does not leave all others dark.
    """
    inside = labels >= 0
    if not inside.any():
        return np.ones(labels.shape)
    top = float(np.percentile(evidence[inside], 98))
    relative = evidence / top if top > 0 else (evidence > 0).astype(float)
    return np.maximum(np.clip(relative.astype(float), 0, 1) ** GAMMA, FLOOR)


def _check(case: Case, min_size: int) -> None:
    shape, labels = tuple(case.image.shape), case.segment_labels
    wrong = None
    if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape:
        wrong = f"its image must be (1, H, W) or (3, H, W) with pixels, got {shape}"
    elif not (case.image.is_floating_point() and bool(((case.image >= 0) & (case.image <= 1)).all())):
        wrong = "its image must hold floats in [0, 1]"
    elif tuple(labels.shape) != shape[1:]:
        wrong = f"its segments must be {shape[1:]} like its image, got {tuple(labels.shape)}"
    elif int(labels.min()) < -1 or int(labels.max()) >= case.n_segments:
        wrong = f"its segments must be numbered -1 .. {case.n_segments - 1}"
    elif tuple(case.evidence.shape) != shape[1:]:
        wrong = f"its evidence must be {shape[1:]} like its image, got {tuple(case.evidence.shape)}"
    elif not bool(((case.evidence >= 0) & case.evidence.isfinite()).all()):
        wrong = "its evidence must be finite and at least 0"
    if wrong:
        raise ValueError(f"cannot draw case {case.case_id}: {wrong}")
    if min_size < 1:
        raise ValueError(f"min_size must be at least 1, got {min_size}")


def _lay(colours: np.ndarray, panel: np.ndarray, where: np.ndarray) -> None:
    """Put ``colours`` (h, w, 3) onto the panel at some pixels (h, w), all three channels in turn."""
    for channel in range(3):
        np.copyto(panel[:, :, channel], colours[:, :, channel], where=where)


def _places(length: int, scale: int, widths: Iterable[int]) -> np.ndarray:
    """Pixels of an enlarged side of ``length`` at which outlines of these widths may begin or end."""
    within = sorted({at % scale for width in widths for at in (0, width, -width)})
    return (np.arange(length)[:, None] * scale + within).ravel()


def _rim(labels: np.ndarray, scale: int, width: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Pixels of a segment with another one, none, or the frame within ``width``.

    Parameters
    ----------
    labels : (H, W), not enlarged
    scale : panel pixels of one of these, along a side
    width : panel pixels
    rows, columns : of the panel, at which to look

    Returns
    -------
    (rows, columns), bool
    """
    small = labels.astype(np.min_scalar_type(-int(labels.max()) - 3))  # there is much of it to compare
    low = high = np.pad(small, 1, constant_values=-2)  # beyond the frame
    for axis, places in ((1, columns), (0, rows)):  # in this order: rows are copied at once
        length = labels.shape[axis]
        first = np.maximum((places - width) // scale, -1) + 1
        last = np.minimum((places + width) // scale, length) + 1
        near = [np.minimum(first + k, last) for k in range((last - first).max() + 1)]
        low = np.minimum.reduce([low.take(at, axis) for at in near])
        high = np.maximum.reduce([high.take(at, axis) for at in near])
    return (low != high) & (labels >= 0).take(columns // scale, axis=1).take(rows // scale, axis=0)


@dataclass(frozen=True)
class _Badge:
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


def _place_badges(labels: np.ndarray, n_segments: int, scale: int, evidence: np.ndarray) -> list[_Badge]:
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
    badges: list[_Badge] = []
    for j in sorted(np.flatnonzero(sizes).tolist(), key=lambda j: (sizes[j], j)):
        own = labels == j
        cells = _sums(own)
        for letter in sizes_within:
            spots = spots_of(letter, len(names[j]))
            if 3 * spots.area > sizes[j] * scale**2:
                continue
            within = spots.inside(cells) & ~spots.crowded(badges)
            if within.any():
                badges.append(spots.badge(names[j], j, spots.total_where(within, costs)))
                break
        else:
            spots = spots_of(max(side // 28, _SMALLEST_LETTER), len(names[j]))
            distance, nearest = ndimage.distance_transform_edt(~own, return_indices=True)
            rows, columns = spots.centres
            far = distance[rows[:, None] // scale, columns[None] // scale] * scale / side
            # Beside, not upon, and not upon another letter, as long as there is room.
            crowded = 10.0 * spots.crowded(badges) + 5.0 * spots.touching(cells)
            wanted = far + 4.0 * spots.total(costs) + crowded
            badges.append(spots.badge(names[j], j, wanted, nearest * scale + scale // 2))
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

    def total_where(self, wanted: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """The same at some places; infinite elsewhere."""
        rows, columns = np.nonzero(wanted)
        top, left = self.tops[rows], self.lefts[columns]
        bottom, right = top + self.height, left + self.width
        totals = np.full(wanted.shape, np.inf)
        totals[rows, columns] = (
            sums[right, bottom] - sums[right, top] - sums[left, bottom] + sums[left, top]
        )
        return totals

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

    def crowded(self, badges: Sequence[_Badge]) -> np.ndarray:
        """Whether a badge covers a part of the box."""
        over = np.zeros((len(self.tops), len(self.lefts)), bool)
        for other in badges:
            rows = (self.tops < other.top + other.height) & (other.top < self.tops + self.height)
            columns = (self.lefts < other.left + other.width) & (other.left < self.lefts + self.width)
            over |= rows[:, None] & columns[None]
        return over

    def badge(self, name: str, j: int, cost: np.ndarray, nearest: np.ndarray | None = None) -> _Badge:
        """At the place of least cost."""
        row, column = np.unravel_index(int(np.argmin(cost.round(9))), cost.shape)
        top, left = int(self.tops[row]), int(self.lefts[column])
        tip = None
        if nearest is not None:
            at = ((top + self.height // 2) // self.scale, (left + self.width // 2) // self.scale)
            tip = (int(nearest[0][at]), int(nearest[1][at]))
        return _Badge(name, j, top, left, self.height, self.width, tip)


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


def _strokes(
    badges: Sequence[_Badge], labels: np.ndarray, scale: int
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


def _marked(
    panel: np.ndarray, rows: np.ndarray, badges: Sequence[_Badge], strokes: Sequence[tuple]
) -> np.ndarray:
    """The rows (m, W, 3) of a panel, in which badges and their strokes are drawn."""

    def at(box: tuple[slice, slice]) -> tuple[slice, slice]:
        start = int(np.searchsorted(rows, box[0].start))
        return slice(start, start + box[0].stop - box[0].start), box[1]

    for box, stroke, colour in strokes:
        panel[at(box)][stroke] = colour
    for badge in badges:
        colour = PALETTE[badge.segment % len(PALETTE)]
        panel[at(badge.box)] = _letters_on_a_box(badge.name, colour, badge.height, badge.width)
    return panel


@lru_cache(1024)
def _letters_on_a_box(name: str, colour: tuple[int, int, int], height: int, width: int) -> np.ndarray:
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
