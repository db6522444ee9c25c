"""What a critic is shown of a case: the image, its segments, and the one over the other.

Each segment is outlined, coloured, and carries its letter, the name by which
prompts and answers refer to it (Set-of-Mark prompting, Yang et al. 2023,
arXiv 2310.11441).
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

_SMALLEST_LETTER = 14  # pixels; its badge fits into one pixel of a 28 x 28 image in a 512 panel


@dataclass(frozen=True)
class Panels:
    """Three PNG files, RGB and of one size; the same case gives the same bytes.

    Another build of Pillow may pack the same picture into other bytes (10.4 to
    13.0 on Linux do not).

    Attributes
    ----------
    image : bytes, the image alone, enlarged without smoothing
    segment_map : bytes, the segments on black
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
    pixels = (case.image * 255).round().byte().permute(1, 2, 0).numpy()
    labels = case.segment_labels.numpy().astype(np.int64)

    scale = max(-(-min_size // max(labels.shape)), -(-24 // min(labels.shape)), 1)  # rounded up
    pixels = _enlarge(np.broadcast_to(pixels, (*labels.shape, 3)), scale)
    labels = _enlarge(labels, scale)
    colours = np.array([PALETTE[j % len(PALETTE)] for j in range(case.n_segments)] + [(0, 0, 0)], np.uint8)
    segment_map = colours[labels]  # none, -1, is the last: black
    covered = (labels >= 0)[:, :, None]
    overlay = np.where(covered, (3 * pixels.astype(np.uint16) + segment_map) // 4, pixels).astype(np.uint8)

    # Outlines lie within their segment: a band of its colour, set off by a thin black line.
    width = max(max(labels.shape) // 128, 1)
    band = _rim(labels, width)
    overlay[band] = segment_map[band]
    line = _rim(labels, max(width // 4, 1))
    segment_map[line] = overlay[line] = 0
    badges = _place_badges(labels, case.n_segments)
    return Panels(_png(Image.fromarray(pixels)), _marked(segment_map, badges), _marked(overlay, badges))


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
    """A letter on a black box: where, how high the letter, in which colour the box is framed."""

    name: str
    left: int
    top: int
    width: int
    height: int
    letter: int
    colour: tuple[int, int, int]

    def meets(self, other: _Badge) -> bool:
        return (
            abs(2 * (self.left - other.left) + self.width - other.width) < self.width + other.width
            and abs(2 * (self.top - other.top) + self.height - other.height) < self.height + other.height
        )


def _place_badges(labels: np.ndarray, n_segments: int) -> list[_Badge]:
    """A badge for each segment that has pixels, centred on one of them, apart from the others if it can be.

    Segments with the least room choose first; each takes the spot farthest
    from its rim that is still free.
    """
    found = []
    for j, box in enumerate(ndimage.find_objects(labels + 1, max_label=n_segments)):
        if box is not None:
            depth = ndimage.distance_transform_edt(np.pad(labels[box] == j, 1))[1:-1, 1:-1]
            found.append((float(depth.max()), j, depth, box))
    badges: list[_Badge] = []
    for room, j, depth, (rows, columns) in sorted(found, key=lambda segment: segment[:2]):
        name = segment_names(n_segments)[j]
        letter = int(np.clip(room, _SMALLEST_LETTER, max(max(labels.shape) // 16, _SMALLEST_LETTER)))
        spots = np.argwhere(depth > 0)
        spots = spots[np.argsort(-depth[depth > 0], kind="stable")]
        # Every spot of a small segment, some 2000 of a large one.
        spots = spots[:: -(-len(spots) // 2000)] + np.array([rows.start, columns.start])
        tried = (_badge(name, row, column, letter, j, labels.shape) for row, column in spots.tolist())
        free = (badge for badge in tried if not any(badge.meets(other) for other in badges))
        badges.append(
            next(free, None) or _badge(name, *spots[0].tolist(), _SMALLEST_LETTER, j, labels.shape)
        )
    return badges


def _badge(name: str, row: int, column: int, letter: int, j: int, shape: tuple[int, int]) -> _Badge:
    """Centred on a pixel, moved so that it lies within the panel."""
    height, width = letter + 4, max(len(name) * letter * 4 // 5, letter) + 4
    top = int(np.clip(row - height // 2, 0, max(shape[0] - height, 0)))
    left = int(np.clip(column - width // 2, 0, max(shape[1] - width, 0)))
    return _Badge(name, left, top, width, height, letter, PALETTE[j % len(PALETTE)])


def _marked(panel: np.ndarray, badges: list[_Badge]) -> bytes:
    picture = Image.fromarray(panel)
    draw = ImageDraw.Draw(picture)
    for badge in badges:
        right, bottom = badge.left + badge.width - 1, badge.top + badge.height - 1
        draw.rectangle((badge.left, badge.top, right, bottom), fill=(0, 0, 0), outline=badge.colour)
        middle = (badge.left + badge.width / 2, badge.top + badge.height / 2)
        font = ImageFont.load_default(badge.letter)  # Pillow's own, so the same everywhere
        draw.text(middle, badge.name, font=font, fill=(255, 255, 255), anchor="mm")
    return _png(picture)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()
