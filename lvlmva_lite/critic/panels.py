"""What a critic is shown of a case: the image, its segments, and the one over the other.

Each segment is outlined, coloured, and carries its letter, the name by which
prompts and answers refer to it (Set-of-Mark prompting, Yang et al. 2023,
arXiv 2310.11441).  In the segment map a pixel is the brighter the more
evidence it holds.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from lvlmva_lite.critic.types import Case, segment_names

PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233))
"""RGB, colour-blind-safe (Okabe and Ito), without vermilion, which stands for a verdict.

Colours return after six segments; letters do not.
"""

GAMMA, FLOOR = 0.7, 0.12
"""Brightness of a pixel in the segment map: (evidence / 98th percentile) ** GAMMA, at least FLOOR."""

_SMALLEST_LETTER = 14  # pixels


@dataclass(frozen=True)
class Panels:
    """Three PNG files, RGB and of one size; the same case gives the same bytes.

    Another build of Pillow may pack the same picture into other bytes (10.4 to
    13.0 on Linux do not).

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

    Derived in chapter 5.

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
    pixels = (case.image * 255).round().byte().permute(1, 2, 0).numpy()
    labels = case.segment_labels.numpy().astype(np.int64)

    evidence = case.evidence.numpy()

    scale = max(-(-min_size // max(labels.shape)), -(-24 // min(labels.shape)), 1)  # rounded up
    brightness = _enlarge(_brightness(evidence, labels), scale)[:, :, None]
    badges = _place_badges(labels, case.n_segments, scale, evidence)
    pixels = _enlarge(np.broadcast_to(pixels, (*labels.shape, 3)), scale)
    labels = _enlarge(labels, scale)
    colours = np.array([PALETTE[j % len(PALETTE)] for j in range(case.n_segments)] + [(0, 0, 0)], np.uint8)
    full = colours[labels]  # none, -1, is the last: black
    segment_map = (full * brightness).round().astype(np.uint8)
    covered = (labels >= 0)[:, :, None]
    overlay = np.where(covered, (3 * pixels.astype(np.uint16) + full) // 4, pixels).astype(np.uint8)

    # Outlines lie within their segment: a band of its colour, set off by a thin black line.
    width = max(max(labels.shape) // 128, 1)
    band = _rim(labels, width)
    overlay[band] = full[band]
    # Narrower in the map, where the band hides how bright the pixels below it are.
    thin = _rim(labels, max(width // 2, 1))
    segment_map[thin] = full[thin]
    line = _rim(labels, max(width // 4, 1))
    inner = np.bincount(labels[~line & (labels >= 0)], minlength=case.n_segments)
    line &= (inner > 0)[labels]  # a segment that would be all line keeps its colour
    segment_map[line] = overlay[line] = 0
    return Panels(
        _png(Image.fromarray(pixels)),
        _marked(segment_map, badges, labels),
        _marked(overlay, badges, labels),
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


def _enlarge(array: np.ndarray, scale: int) -> np.ndarray:
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


def _rim(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels (H, W) bool of a segment with another one, none, or the frame within ``width``."""
    near = {"size": 2 * width + 1, "mode": "constant", "cval": -2}
    return (labels >= 0) & (
        ndimage.minimum_filter(labels, **near) != ndimage.maximum_filter(labels, **near)
    )


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
    cost = _sums(_enlarge(cost / scale**2, scale))
    side, names = max(labels.shape) * scale, segment_names(n_segments)
    rims = _rim(_enlarge(labels, scale), max(side // 128, 1))
    taken = np.zeros((labels.shape[0] * scale, labels.shape[1] * scale), bool)
    badges: list[_Badge] = []
    for j in sorted(np.flatnonzero(sizes).tolist(), key=lambda j: (sizes[j], j)):
        own = labels == j
        distance, nearest = ndimage.distance_transform_edt(~own, return_indices=True)
        full = _enlarge(own, scale)
        inner = _sums(full & ~rims)
        own_pixels, others = _sums(full), _sums(taken)
        largest = max(side // 16, _SMALLEST_LETTER)
        for letter in (largest, (largest + _SMALLEST_LETTER) // 2, _SMALLEST_LETTER):
            spots = _Spots(letter, names[j], taken.shape)
            free = spots.total(others) == 0
            within = free & (spots.total(inner) == spots.area) & (3 * spots.area <= sizes[j] * scale**2)
            if within.any():
                badges.append(spots.badge(j, np.where(within, spots.total(cost), np.inf), None))
                break
        else:
            spots = _Spots(max(side // 28, _SMALLEST_LETTER), names[j], taken.shape)
            rows, columns = spots.centres
            rows, columns = (
                np.minimum(rows // scale, len(labels) - 1),
                np.minimum(columns // scale, labels.shape[1] - 1),
            )
            far = distance[rows[:, None], columns[None]] * scale / side
            # Beside, not upon, and not upon another letter, as long as there is room.
            crowded = 10.0 * (spots.total(others) > 0) + 5.0 * (spots.total(own_pixels) > 0)
            wanted = far + 4.0 * spots.total(cost) + crowded
            badges.append(spots.badge(j, wanted, nearest * scale + scale // 2, scale))
        taken[badges[-1].box] = True
    return badges


class _Spots:
    """Every third or so place for a badge with letters of one size, and sums over its box there."""

    def __init__(self, letter: int, name: str, shape: tuple[int, int]) -> None:
        self.name = name
        self.height = min(letter + 4, shape[0])
        self.width = min(max(len(name) * letter * 4 // 5, letter) + 4, shape[1])
        self.area = self.height * self.width
        step = max(max(shape) // 170, 1)
        self.tops, self.lefts = (
            np.unique(np.append(np.arange(0, length - size, step), length - size))
            for length, size in zip(shape, (self.height, self.width), strict=True)
        )

    @property
    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        return self.tops + self.height // 2, self.lefts + self.width // 2

    def total(self, sums: np.ndarray) -> np.ndarray:
        """Sum over the box at every place, (tops, lefts)."""
        top, left = self.tops[:, None], self.lefts[None]
        bottom, right = top + self.height, left + self.width
        return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]

    def badge(self, j: int, cost: np.ndarray, nearest: np.ndarray | None, scale: int = 1) -> _Badge:
        """At the place of least cost."""
        row, column = np.unravel_index(int(np.argmin(cost.round(9))), cost.shape)
        top, left = int(self.tops[row]), int(self.lefts[column])
        tip = None
        if nearest is not None:
            at = ((top + self.height // 2) // scale, (left + self.width // 2) // scale)
            tip = (int(nearest[0][at]), int(nearest[1][at]))
        return _Badge(self.name, j, top, left, self.height, self.width, tip)


def _sums(values: np.ndarray) -> np.ndarray:
    """Summed-area table with a border of zeros: (H + 1, W + 1)."""
    kind = np.int64 if values.dtype == bool else np.float64
    return np.pad(values.astype(kind).cumsum(0).cumsum(1), ((1, 0), (1, 0)))


def _marked(panel: np.ndarray, badges: list[_Badge], labels: np.ndarray) -> bytes:
    """The panel (H, W, 3) with badges and their lines, as PNG; ``labels`` (H, W) as large as it."""
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    thin = max(max(labels.shape) // 512, 1)
    for badge in badges:
        if badge.tip is None:
            continue
        start = (badge.left + badge.width // 2, badge.top + badge.height // 2)
        for width, colour in ((3 * thin, (0, 0, 0)), (thin, PALETTE[badge.segment % len(PALETTE)])):
            stroke = Image.new("1", labels.shape[::-1])
            ImageDraw.Draw(stroke).line((start, badge.tip[::-1]), fill=1, width=width)
            # It ends at its segment, and passes below other small ones.
            below = (labels >= 0) & ((labels == badge.segment) | (sizes[labels] < 4 * badge.height**2))
            panel[np.asarray(stroke) & ~below] = colour
    picture = Image.fromarray(panel)
    draw = ImageDraw.Draw(picture)
    for badge in badges:
        right, bottom = badge.left + badge.width - 1, badge.top + badge.height - 1
        colour = PALETTE[badge.segment % len(PALETTE)]
        draw.rectangle((badge.left, badge.top, right, bottom), fill=(0, 0, 0), outline=colour)
        middle = (badge.left + badge.width / 2, badge.top + badge.height / 2)
        font = ImageFont.load_default(badge.height - 4)  # Pillow's own, so the same everywhere
        draw.text(middle, badge.name, font=font, fill=(255, 255, 255), anchor="mm")
    return _png(picture)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()
