"""Spurious features put into real images, with the exact mask of every pixel that changed.

Both return a layer: an opacity and a colour for each pixel.  Where the opacity
is zero the image stays as it is, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFont

OVERSAMPLING = 4
"""Letters are drawn so many times larger and then area-averaged."""

LETTER_SIZE = (0.12, 0.20)
"""Smallest and largest height of a letter before rotation, in image sides."""

LETTER_ANGLE = 25
"""Largest rotation of a letter in degrees, either way."""

JOINT = (0.33, 0.67)
"""Rows, in image heights, that a letter never enters: the joint space lies there."""

MARGIN = 0.30
"""A letter's centre lies at most so far, in image widths, from the left or right edge."""

LETTER_GROUND = 0.6
"""Median grey below which a bright letter can be read."""

LETTER_TRIES = 12

PATCH_SHIFT = 0.15
"""Largest shift of a cut-out patch, in image sides."""

PATCH_TRIES = 6


@dataclass(frozen=True)
class Layer:
    """``opacity``: (S, S) float32 in [0, 1]; ``colour``: (S, S) or (S, S, 3) float32 in [0, 1]."""

    opacity: np.ndarray
    colour: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """True on every pixel that the layer may change."""
        return self.opacity > 0

    def over(self, image: np.ndarray) -> np.ndarray:
        """``image`` with the layer on top; a new array."""
        result = image.copy()
        inside = self.mask
        opacity = self.opacity[inside]
        if image.ndim == 3:
            opacity = opacity[:, None]
        result[inside] = (1 - opacity) * image[inside] + opacity * self.colour[inside]
        return result


def letter_layer(image: np.ndarray, letter: str, rng: np.random.Generator) -> Layer:
    """A lead letter for the radiograph ``image``: size, tilt, place and brightness are drawn.

    It lies wholly inside the image, above or below the rows of ``JOINT`` and
    near the left or right edge.  Lead shows bright, so of the places drawn the
    first that is dark enough for it is taken; where a dozen are all too
    bright, the darkest is, and the letter is dark.

    Parameters
    ----------
    image : (S, S) float in [0, 1]
    letter : the text, as a rule "L" or "R"
    """
    side = len(image)
    height = rng.uniform(*LETTER_SIZE) * side
    glyph = _glyph(letter, height, rng.uniform(-LETTER_ANGLE, LETTER_ANGLE))
    rows, columns = glyph.shape

    def place() -> tuple[int, int]:
        near = rng.integers(0, max(1, int(MARGIN * side - columns / 2)) + 1)
        left = int(near) if rng.random() < 0.5 else side - columns - int(near)
        reach = max(0, int(JOINT[0] * side) - rows)
        off = int(rng.integers(0, reach + 1))
        return (off if rng.random() < 0.5 else side - rows - off), left

    def under(spot: tuple[int, int]) -> float:
        top, left = spot
        return float(np.median(image[top : top + rows, left : left + columns]))

    places = [place() for _ in range(LETTER_TRIES)]
    top, left = next((spot for spot in places if under(spot) < LETTER_GROUND), min(places, key=under))
    bright = rng.uniform(0.85, 1.0)
    dark = rng.uniform(0.0, 0.15)
    opacity = np.zeros((side, side), np.float32)
    opacity[top : top + rows, left : left + columns] = glyph
    value = bright if under((top, left)) < LETTER_GROUND else dark
    return Layer(opacity, np.full((side, side), value, np.float32))


def _glyph(letter: str, height: float, angle: float) -> np.ndarray:
    """The letter's coverage of each pixel, in [0, 1], cropped to its box."""
    font = ImageFont.load_default(size=height * OVERSAMPLING / 0.73)  # a capital is 0.73 em high
    left, top, right, bottom = font.getbbox(letter)
    edge = OVERSAMPLING
    canvas = Image.new("L", (int(right - left) + 2 * edge, int(bottom - top) + 2 * edge))
    ImageDraw.Draw(canvas).text(
        (edge - left, edge - top), letter, fill=255, font=font, stroke_width=edge // 2, stroke_fill=255
    )
    canvas = canvas.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    canvas = canvas.crop(canvas.getbbox())
    shape = tuple(-(-length // OVERSAMPLING) for length in canvas.size)
    padded = Image.new("L", tuple(length * OVERSAMPLING for length in shape))
    padded.paste(canvas)
    return np.asarray(padded.reduce(OVERSAMPLING), np.float32) / 255


def cut_out(image: np.ndarray, mask: np.ndarray, size: int) -> Layer:
    """The part of ``image`` under ``mask`` as a layer of ``size`` pixels a side.

    Colours are averaged over the masked part of each pixel's area alone, so
    that nothing of the skin beside the patch comes along.

    Parameters
    ----------
    image : (H, W, 3) uint8
    mask : (H, W) bool
    """

    def shrink(values: np.ndarray) -> np.ndarray:
        plane = Image.fromarray(np.asarray(values, np.float32), "F")
        return np.asarray(plane.resize((size, size), Image.Resampling.BOX))

    opacity = shrink(mask)
    weighted = np.stack([shrink(image[..., c] / 255 * mask) for c in range(3)], axis=2)
    colour = np.divide(
        weighted, opacity[..., None], out=np.zeros_like(weighted), where=opacity[..., None] > 0
    )
    return Layer(opacity, colour.clip(0, 1))


def patch_layer(image: np.ndarray, patch: Layer, rng: np.random.Generator) -> Layer:
    """``patch`` moved about for the skin image ``image``: mirrored and shifted.

    A patch that an edge of its own photograph cut off stays at an edge: it is
    shifted along it or farther out, never inwards.  Of half a dozen moves,
    the one that covers least of the image's dark part, as a rule the lesion,
    is taken.

    Parameters
    ----------
    image : (S, S, 3) float in [0, 1]
    patch : of the same side, from :func:`cut_out`
    """
    grey = image.mean(axis=2)
    dark = (
        grey < skimage.filters.threshold_otsu(grey)
        if grey.min() < grey.max()
        else np.zeros(grey.shape, bool)
    )
    return min(
        (_moved(patch, rng) for _ in range(PATCH_TRIES)),
        key=lambda layer: float((layer.opacity * dark).sum()),
    )


def _moved(patch: Layer, rng: np.random.Generator) -> Layer:
    opacity, colour = patch.opacity, patch.colour
    for axis in (0, 1):
        if rng.random() < 0.5:
            opacity, colour = np.flip(opacity, axis), np.flip(colour, axis)
    reach = int(PATCH_SHIFT * len(opacity))
    for axis in (0, 1):
        first = bool(opacity.take(0, axis).any())
        last = bool(opacity.take(-1, axis).any())
        # Outwards only where the patch touches an edge, and by no more than a third of itself.
        extent = int(opacity.any(axis=1 - axis).sum()) // 3
        low = 0 if last else -min(reach, extent)
        high = 0 if first else min(reach, extent)
        by = int(rng.integers(low, high + 1))
        opacity, colour = _shifted(opacity, by, axis), _shifted(colour, by, axis)
    return Layer(np.ascontiguousarray(opacity), np.ascontiguousarray(colour))


def _shifted(values: np.ndarray, by: int, axis: int) -> np.ndarray:
    result = np.zeros_like(values)
    n = values.shape[axis]
    to = [slice(None)] * values.ndim
    source = [slice(None)] * values.ndim
    to[axis] = slice(max(by, 0), n + min(by, 0))
    source[axis] = slice(max(-by, 0), n - max(by, 0))
    result[tuple(to)] = values[tuple(source)]
    return result
