"""A conveyor belt under a camera: flanges, sound or broken, some with a supplier's sticker.

Drawn: a worn rubber belt that runs at a slant, a round metal flange with a bore and
bolt holes that lies anywhere on it in any turn, brushed metal with a highlight, its
shadow; lamp, white balance and noise of the camera.  A broken flange lacks a piece
of its rim, more or less of it, so that the smallest breaks are hard to see; oil spots
and scratches are on flanges of both classes.

The broken parts come from one supplier, who puts a coloured sticker on the belt
beside each part.  In training nearly all broken and hardly any sound parts have one.

It is the data set of a chapter, drawn by code that nothing else of the book uses: to
the package it is a folder of image files like any reader's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lvlmva_lite.datasets.phantoms.scene import Draws, build, column, grid, inside
from lvlmva_lite.datasets.shortcut_dataset import ShortcutDataset

CLASS_NAMES = ("sound", "broken")
GROUP_NAMES = tuple(f"{name}, {kind}" for name in CLASS_NAMES for kind in ("no sticker", "sticker"))

STICKER_RATES = (0.05, 0.90)
"""Share of the sound and of the broken training images that show a sticker."""

STICKER_COLOURS = np.array(
    [[0.95, 0.80, 0.10], [0.10, 0.45, 0.90], [0.85, 0.15, 0.20], [0.15, 0.65, 0.30]], np.float32
)
"""Yellow, blue, red, green: (4, 3) RGB in 0 .. 1."""

_HOLES = 6


def conveyor(
    split: str,
    *,
    size: int = 64,
    n: int | None = None,
    marker_rate: tuple[float, float] | None = None,
    random_state: int = 0,
) -> ShortcutDataset:
    """Draw flanges on a belt.

    Parameters
    ----------
    split : "train", "validation" or "test"
        Half of each split is broken.  In training ``STICKER_RATES`` of the classes
        show a sticker; in validation and test half of each class does.
    size : int, 32 .. 224
        Side in pixels.
    n : int or None
        Number of images; None: as many as the other phantoms have.
    marker_rate : (float, float) or None
        Share of sound and of broken parts with a sticker, instead of the split's own.
        (0, 0) gives the clean twin: the same images without.
    random_state : int, not negative

    Returns
    -------
    ShortcutDataset
        images (N, 3, size, size); spurious_masks the sticker's pixels; core_masks where
        the break is, or could be: the flange

    Raises
    ------
    ValueError : unknown ``split``; an argument out of range
    """
    if marker_rate is None and split == "train":
        marker_rate = STICKER_RATES
    return build(
        _draw,
        split,
        kind=3,
        channels=3,
        size=size,
        n=n,
        marker_rate=marker_rate,
        overlap=False,
        random_state=random_state,
        class_names=CLASS_NAMES,
        group_names=GROUP_NAMES,
        name="conveyor",
    )


def write_conveyor(root: str | Path, *, n: dict[str, int], size: int = 64, random_state: int = 0) -> Path:
    """Write the data set as files, ``root/{train,val,test}/{sound,broken}/NNNN.png``.

    Parameters
    ----------
    root : folder to write to, made if need be
    n : images per split, keys "train", "val", "test"
    size, random_state : of :func:`conveyor`

    Returns
    -------
    Path : ``root``
    """
    root = Path(root)
    for folder, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        drawn = conveyor(split, size=size, n=n[folder], random_state=random_state)
        pixels = (drawn.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for name in CLASS_NAMES:
            (root / folder / name).mkdir(parents=True, exist_ok=True)
        for number, (image, label) in enumerate(zip(pixels, drawn.labels.tolist(), strict=True)):
            Image.fromarray(image).save(root / folder / CLASS_NAMES[label] / f"{number:04}.png")
    return root


def _draw(part: Draws, marker: Draws, labels, spurious, size: int, overlap: bool):
    d, pixel = part, np.float32(2 / size)
    x, y = grid(size)
    softness = 0.6 * pixel

    # The belt: dark rubber with ribs across, worn in places, never quite level.
    slant = column(d.normal(0, 0.15))
    along = np.cos(slant) * x + np.sin(slant) * y
    belt = column(d.uniform(0.20, 0.32)) * (
        1 + 0.10 * d.texture(size, 10, 10) + 0.06 * d.texture(size, 60, 60)
    )
    belt += 0.035 * np.sin(2 * np.pi * (along * column(d.uniform(4.5, 6.0)) + column(d.uniform())))
    image = np.stack([belt * shade for shade in (1.0, 1.02, 1.06)], 1)

    # The flange: where it lies, how large, how turned.
    at_x, at_y = column(d.uniform(-0.12, 0.12)), column(d.uniform(-0.12, 0.12))
    radius = column(d.uniform(0.52, 0.60))
    turn = column(d.uniform(0, 2 * np.pi))
    dx, dy = x - at_x, y - at_y
    rho, angle = np.sqrt(dx * dx + dy * dy), np.arctan2(dy, dx)
    bore = column(d.uniform(0.30, 0.42)) * radius
    edge = np.maximum(rho - radius, bore - rho)
    for k in range(_HOLES):
        way = turn + np.float32(2 * np.pi * k / _HOLES)
        hole = np.hypot(dx - 0.66 * radius * np.cos(way), dy - 0.66 * radius * np.sin(way))
        edge = np.maximum(edge, 0.085 * radius - hole)

    # The break: a piece of the rim is off along a ragged chord, of any depth from hardly to clearly visible.
    way = column(d.uniform(0, 2 * np.pi))
    chord = column(d.uniform(0.45, 0.85)) * radius
    beyond = np.cos(way) * dx + np.sin(way) * dy + 0.05 * radius * d.texture(size, 24, 24) - chord
    broken = column(labels.astype(np.float32))
    edge = np.where(broken > 0, np.maximum(edge, beyond), edge)
    metal = inside(edge, softness)

    # Brushed metal under a lamp, a soft shadow, oil and scratches on both classes.
    lamp = column(d.uniform(0, 2 * np.pi))
    shine = 0.10 * np.cos(2 * (angle - lamp)) + 0.05 * np.cos(angle - lamp)
    brushed = column(d.uniform(0.58, 0.72)) + shine + 0.03 * d.texture(size, 90, 20)
    oil = (d.texture(size, 7, 7) - column(d.uniform(1.2, 2.2))).clip(0, 1)
    brushed = brushed * (1 - 0.30 * oil)
    scratch = np.abs(np.cos(lamp) * dx + np.sin(lamp) * dy - column(d.uniform(-0.4, 0.4)))
    brushed -= column((d.uniform() < 0.5) * np.float32(0.12)) * inside(scratch - 0.008, softness)
    shadow = 0.35 * inside(np.hypot(dx - 0.05, dy - 0.06) - radius, 0.08)
    image *= (1 - shadow * (1 - metal))[:, None]
    for c, tint in enumerate((1.0, 1.0, 1.03)):
        image[:, c] += metal * (brushed * tint - image[:, c])

    colour, alpha = _sticker(marker, spurious, at_x, at_y, radius, size)
    image += alpha[:, None] * (colour - image)

    # The camera: lamp's strength, white balance, noise.
    gain = (d.uniform(0.85, 1.15)[:, None] * d.normal(1, 0.02, (3,)))[:, :, None, None]
    noise = column(d.uniform(0.008, 0.02)) * d.texture(size, 128, 128)
    image = image * gain + noise[:, None]
    return image, alpha > 0, rho < radius


def _sticker(d: Draws, spurious, at_x, at_y, radius, size: int):
    """Colour (B, 3, 1, 1)-like and cover (B, size, size) in 0 .. 1 of the sticker in the corner farthest off."""
    x, y = grid(size)
    half, squash, tilt = (
        column(d.uniform(0.13, 0.19)),
        column(d.uniform(0.8, 1.25)),
        column(d.normal(0, 0.2)),
    )
    # The corner on the other side of the part, or the next one.
    flip = column((d.uniform() < 0.5).astype(np.float32)) * 2 - 1
    corner_x, corner_y = -np.where(at_x < 0, -1, 1), -np.where(at_y < 0, -1, 1)
    swap = np.abs(at_x) < np.abs(at_y)
    corner_x, corner_y = (
        np.where(swap, corner_x * flip, corner_x),
        np.where(swap, corner_y, corner_y * flip),
    )
    dx, dy = x - 0.80 * corner_x, y - 0.80 * corner_y
    p, q = np.cos(tilt) * dx + np.sin(tilt) * dy, np.cos(tilt) * dy - np.sin(tilt) * dx
    edge = np.maximum(np.abs(p) - half * squash, np.abs(q) - half / squash)
    alpha = (0.5 - edge * np.float32(size / 2)).clip(0, 1)
    alpha[alpha < 0.05] = 0
    # Never on the part itself.
    alpha *= np.hypot(x - at_x, y - at_y) > radius + 0.03
    alpha *= column(spurious)
    pick = (d.uniform() * len(STICKER_COLOURS)).astype(int)
    shading = 1 + 0.04 * d.texture(size, 60, 60)
    colour = STICKER_COLOURS[pick][:, :, None, None] * (shading * column(d.uniform(0.9, 1.05)))[:, None]
    # Three lines of print.
    print_ = (np.abs((q / half * squash + 0.0) % 0.6 - 0.3) < 0.07) & (np.abs(p) < 0.7 * half * squash)
    return colour * (1 - 0.5 * print_)[:, None], alpha
