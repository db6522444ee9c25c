"""How the lexicon does on markers that it was not made for.

Its thresholds were set by looking at images of the sets that it is judged on
(:mod:`lvlmva_lite.critic.regions`).  Here the same knees carry markers of
other looks: paler, black, in a frame, squares in place of letters; and none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lvlmva_lite.critic import regions
from lvlmva_lite.datasets import knee_phantom
from lvlmva_lite.datasets.pasting import letter_layer

SHAPES = ("letter", "square")
LOOKS = ("bright", "40 % contrast", "black", "framed")


def marked(
    image: np.ndarray, shape: str, look: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A bare knee with a marker.

    Parameters
    ----------
    image : (S, S) float in [0, 1]
    shape : one of ``SHAPES``; a square fills the box that the letter would stand in
    look : one of ``LOOKS``
        A bright marker lies on a dark place, a black one on a bright place.
        A frame is a bright line around the marker, a pixel in 64 wide.
    rng : draws letter, place, size, tilt and brightness

    Returns
    -------
    image : (S, S) float in [0, 1], a new array
    marker : (S, S) bool, the pixels of the marker, its frame included

    Raises
    ------
    ValueError : unknown shape or look
    """
    if shape not in SHAPES or look not in LOOKS:
        raise ValueError(f"shape must be one of {SHAPES}, look one of {LOOKS}; got {shape!r}, {look!r}")
    black = look == "black"
    layer = letter_layer(1 - image if black else image, "LR"[rng.integers(2)], rng)
    opacity = layer.opacity.astype(float)
    rows, columns = (np.flatnonzero(layer.mask.any(axis)) for axis in (1, 0))
    if shape == "square":
        opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1.0
    if look == "framed":
        width = max(1, round(len(image) / 64))
        box = np.zeros(image.shape, bool)
        box[max(rows[0] - 3 * width, 0) : rows[-1] + 1 + 3 * width,
            max(columns[0] - 3 * width, 0) : columns[-1] + 1 + 3 * width] = True  # fmt: skip
        inner = np.zeros_like(box)
        top, left = np.argwhere(box).min(0) + width
        bottom, right = np.argwhere(box).max(0) - width
        inner[top : bottom + 1, left : right + 1] = True
        opacity[box & ~inner] = 1.0
    marker = opacity > 0
    if look == "40 % contrast":
        opacity *= 0.4
    colour = 0.0 if black else rng.uniform(0.85, 1.0)
    return (1 - opacity) * image + opacity * colour, marker


def letters_seen(image: np.ndarray, marker: np.ndarray) -> bool:
    """Whether the lexicon's region for letters (and markers) holds at least half of the marker's pixels."""
    found = regions.letter(image[None])
    return bool((found & marker).sum() >= 0.5 * marker.sum())


def unseen_markers(images: np.ndarray | None = None, *, random_state: int = 0) -> pd.DataFrame:
    """Share of markers that the lexicon finds, by shape and look, and of bare images in which it sees one.

    Parameters
    ----------
    images : (n, S, S) float in [0, 1], knees without markers
        None: 100 knee phantoms of 64 pixels, gone through in some five seconds.
    random_state : int, of the phantoms and the markers

    Returns
    -------
    DataFrame
        Columns marker ("bright letter", ..., "none"), n, and seen in [0, 1]:
        the detection rate, or for "none" the false-alarm rate.  Of the looks,
        "bright letter" alone is what the lexicon was made for.
    """
    if images is None:
        bare = knee_phantom("validation", n=100, marker_rate=(0.0, 0.0), random_state=random_state)
        images = bare.images[:, 0].numpy().astype(float)
    rows = []
    for shape in SHAPES:
        for look in LOOKS:
            rng = np.random.default_rng(random_state)  # the same places for every look
            seen = [letters_seen(*marked(image, shape, look, rng)) for image in images]
            rows.append({"marker": f"{look} {shape}", "n": len(images), "seen": float(np.mean(seen))})
    alarms = [bool(regions.letter(image[None]).any()) for image in images]
    rows.append({"marker": "none", "n": len(images), "seen": float(np.mean(alarms))})
    return pd.DataFrame(rows)
