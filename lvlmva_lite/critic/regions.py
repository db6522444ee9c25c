"""What an offline critic can measure: image regions that words may refer to.

Each function takes an image (C, H, W) float in [0, 1], one channel or RGB,
and gives a region (H, W) bool.  All lengths are shares of the image, so that
the same scene at another size gives the same regions.

**Thresholds were set by looking at training images of the phantoms and of the
real sets: the very sets on which the lexicon is judged.**  How well a region
fits there says nothing about markers of other looks, dim or black ones say;
:mod:`lvlmva_lite.experiments.unseen_markers` measures that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps

import numpy as np
import scipy
import skimage

VISIBLE = 0.05
"""Intensity in [0, 1] from which a pixel counts as drawn upon."""

_NEIGHBOURS = np.ones((3, 3))


def _remembered(find: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Of the last images, what was found, read-only: several words ask for the same regions of one image."""

    @lru_cache(4)
    def found(values: bytes, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        region = find(np.frombuffer(values, dtype).reshape(shape))
        region.flags.writeable = False
        return region

    @wraps(find)
    def region(image: np.ndarray) -> np.ndarray:
        return found(image.tobytes(), image.shape, image.dtype.str)

    return region


def intensity(image: np.ndarray) -> np.ndarray:
    """Mean over channels, (H, W)."""
    return image.mean(0)


@_remembered
def solid(image: np.ndarray) -> np.ndarray:
    """Evenly filled rectangles, set off from a dark ground."""
    grey = intensity(image)
    components, _ = scipy.ndimage.label(grey > VISIBLE, structure=_NEIGHBOURS)
    found = np.zeros(grey.shape, bool)
    for number, box in enumerate(scipy.ndimage.find_objects(components), start=1):
        inside = components[box] == number
        height, width = inside.shape
        if (
            min(height, width) >= 2
            and max(height, width) <= 1.5 * min(height, width)
            and inside.mean() > 0.9
            and grey[box][inside].std() < 0.05
        ):
            found[box] |= inside
    return found


def stroke(image: np.ndarray) -> np.ndarray:
    """All that is drawn upon and no solid rectangle."""
    return (intensity(image) > VISIBLE) & ~solid(image)


def empty(image: np.ndarray) -> np.ndarray:
    """Pixels that are not drawn upon."""
    return intensity(image) <= VISIBLE


def _frame(shape: tuple[int, int], margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows (H, 1) and columns (1, W) that lie within ``margin`` of a side of the image."""
    rows, columns = ((np.arange(side) + 0.5) / side for side in shape)
    return (abs(rows - 0.5) > 0.5 - margin)[:, None], (abs(columns - 0.5) > 0.5 - margin)[None]


def corner(image: np.ndarray) -> np.ndarray:
    """The four corners, a quarter of each side."""
    rows, columns = _frame(image.shape[1:], 0.25)
    return rows & columns


def edge(image: np.ndarray) -> np.ndarray:
    """The rim of the image."""
    rows, columns = _frame(image.shape[1:], 0.15)
    return rows | columns


def centre(image: np.ndarray) -> np.ndarray:
    """All but the rim."""
    return ~edge(image)


@_remembered
def letter(image: np.ndarray) -> np.ndarray:
    """Small bright compact things that stand out from what is around them: lead letters and markers.

    Made for bright letters of one tenth to a quarter of the image's height; a
    black one is no letter here, and the edge of a bone may be one.

    The hull of each, a pixel wider, since evidence gathers at its outline.
    """
    grey = intensity(image)
    side = min(grey.shape)
    # A white top-hat keeps what is brighter than its surroundings and too
    # narrow for the structuring element: the strokes of a letter.
    width = max(3, round(0.09 * side))
    above = scipy.ndimage.white_tophat(grey, size=(width, width))
    bright = above > max(0.12, 0.55 * np.percentile(above, 99.7))
    components, _ = scipy.ndimage.label(bright, structure=_NEIGHBOURS)
    found = np.zeros(grey.shape, bool)
    for number, box in enumerate(scipy.ndimage.find_objects(components), start=1):
        inside = components[box] == number
        height, across = (length / side for length in inside.shape)
        area = inside.sum() / side**2
        if (
            0.06 <= max(height, across) <= 0.32
            and max(height, across) <= 2.6 * min(height, across)
            and area >= 0.002
            and 0.15 <= inside.mean() <= 0.85
        ):
            hull = np.zeros(grey.shape, bool)
            hull[box] = skimage.morphology.convex_hull_image(inside) if min(inside.shape) > 1 else inside
            found |= scipy.ndimage.binary_dilation(hull, structure=_NEIGHBOURS)
    return found


def joint(image: np.ndarray) -> np.ndarray:
    """The band across a knee in which the joint lies, from end to end of the bones."""
    height, width = image.shape[1:]
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    return ((rows > 0.33) & (rows < 0.72))[:, None] & ((columns > 0.08) & (columns < 0.92))[None]


def _skin(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CIE Lab (H, W, 3) and the median colour (3,) of what is neither dark nor lesion."""
    lab = skimage.color.rgb2lab(np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0))
    lightness = lab[..., 0]
    lit = lightness > 0.6 * np.percentile(lightness, 90)
    return lab, np.median(lab[lit], axis=0)


@_remembered
def coloured_patch(image: np.ndarray) -> np.ndarray:
    """Large even areas at the rim whose colour is not that of skin: bandages, patches, stickers.

    The hull of each, a pixel wider.  Empty for grey images.
    """
    found = np.zeros(image.shape[1:], bool)
    if len(image) != 3:
        return found
    lab, skin = _skin(image)
    off_colour = np.hypot(*np.moveaxis(lab[..., 1:] - skin[1:], -1, 0)) > 18
    off_colour &= lab[..., 0] > 0.35 * skin[0]
    side = min(found.shape)
    opened = scipy.ndimage.binary_opening(off_colour, iterations=max(1, round(side / 64)))
    components, _ = scipy.ndimage.label(opened)
    rim = np.logical_or(*_frame(found.shape, 0.06))
    for number, box in enumerate(scipy.ndimage.find_objects(components), start=1):
        inside = components[box] == number
        if inside.sum() < 0.004 * found.size or not (rim[box] & inside).any():
            continue
        lightness, a, b = np.median(lab[box][inside], axis=0)
        turned = np.degrees(np.arctan2(b, a) - np.arctan2(skin[2], skin[1]))
        turned = abs((turned + 180) % 360 - 180)
        # A lesion is brown, like skin but darker; dyed things have another hue, or
        # are far more vivid; grey cloth is paler than skin and not much darker.
        pale = np.hypot(a, b) < 0.6 * np.hypot(*skin[1:]) and lightness > 0.7 * skin[0]
        if turned > 40 or np.hypot(a, b) > 52 or pale:
            hull = np.zeros(found.shape, bool)
            hull[box] = skimage.morphology.convex_hull_image(inside)
            found |= scipy.ndimage.binary_dilation(hull, structure=_NEIGHBOURS)
    return found


@_remembered
def lesion(image: np.ndarray) -> np.ndarray:
    """Pigmented skin: darker than the skin around, with its rim, and neither patch nor vignette."""
    grey = intensity(image)
    rows, columns = ((np.arange(length) + 0.5) / length - 0.5 for length in grey.shape)
    radius = np.hypot(rows[:, None], columns[None])
    allowed = ~coloured_patch(image) & (radius < 0.48)
    smooth = scipy.ndimage.gaussian_filter(grey, 0.012 * min(grey.shape))
    if not allowed.any() or np.ptp(smooth[allowed]) < 0.02:
        return np.zeros(grey.shape, bool)
    dark = (smooth < skimage.filters.threshold_otsu(smooth[allowed])) & allowed
    components, n = scipy.ndimage.label(dark)
    if not n:
        return dark
    # The largest, weighted towards the middle of the picture.
    weight = scipy.ndimage.sum(np.exp(-((radius / 0.3) ** 2)) * dark, components, np.arange(1, n + 1))
    kept = components == 1 + int(np.argmax(weight))
    return scipy.ndimage.binary_dilation(kept, iterations=max(1, round(0.03 * min(grey.shape))))


def bright(image: np.ndarray) -> np.ndarray:
    """Intensity above 0.75."""
    return intensity(image) > 0.75


def grey(image: np.ndarray) -> np.ndarray:
    """Drawn upon at all."""
    return intensity(image) > VISIBLE


def dark(image: np.ndarray) -> np.ndarray:
    """Intensity below 0.25."""
    return intensity(image) < 0.25
