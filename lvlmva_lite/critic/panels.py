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

import numpy as np

from lvlmva_lite.critic.badges import PALETTE, Badge, letters_on_a_box, place_badges, strokes_of
from lvlmva_lite.critic.png import packed
from lvlmva_lite.critic.types import Case

GAMMA, FLOOR = 0.7, 0.12
"""Brightness of a pixel in the segment map: (evidence / 98th percentile) ** GAMMA, at least FLOOR."""

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
    with _DRAWING:
        return _draw(case, min_size)


def _draw(case: Case, min_size: int) -> Panels:
    pixels = (case.image * 255).round().byte().permute(1, 2, 0).numpy()
    labels = case.segment_labels.numpy().astype(np.int64)
    evidence = case.evidence.numpy()

    scale = max(-(-min_size // max(labels.shape)), -(-24 // min(labels.shape)), 1)  # rounded up
    side = max(labels.shape) * scale
    badges = place_badges(labels, case.n_segments, scale, evidence)

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

    strokes = strokes_of(badges, labels, scale)
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


def _marked(
    panel: np.ndarray, rows: np.ndarray, badges: Sequence[Badge], strokes: Sequence[tuple]
) -> np.ndarray:
    """The rows (m, W, 3) of a panel, in which badges and their strokes are drawn."""

    def at(box: tuple[slice, slice]) -> tuple[slice, slice]:
        start = int(np.searchsorted(rows, box[0].start))
        return slice(start, start + box[0].stop - box[0].start), box[1]

    for box, stroke, colour in strokes:
        panel[at(box)][stroke] = colour
    for badge in badges:
        colour = PALETTE[badge.segment % len(PALETTE)]
        panel[at(badge.box)] = letters_on_a_box(badge.name, colour, badge.height, badge.width)
    return panel
