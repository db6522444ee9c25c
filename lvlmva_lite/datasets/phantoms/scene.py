"""What the knee and the skin phantom share: splits, random draws, textures, soft shapes.

Everything is drawn in relative units: the image spans -1 .. 1 in both
directions, y downwards, whatever its size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from lvlmva_lite.datasets.shortcut_dataset import ShortcutDataset
from lvlmva_lite.threads import threads

DEFAULT_N = {"train": 2000, "validation": 500, "test": 1200}
"""Images per split."""

TRAIN_RATES = (0.90, 0.03)
"""Share of the training images of class 0 and of class 1 that carry the spurious feature."""

MIXED_RATES = (0.50, 0.50)
"""The same for validation and test: all four groups are equally large."""

SIZES = (32, 224)
"""Smallest and largest image side in pixels."""

_SPLITS = ("train", "validation", "test")
_PIXELS_AT_ONCE = 50_000


class Draws:
    """Random numbers for several images, each image from a generator of its own.

    The draws of one image depend on its seed and on the order of the calls,
    never on the other images.
    """

    def __init__(self, seeds: list[list[int]]):
        self.generators = [np.random.default_rng(seed) for seed in seeds]

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> np.ndarray:
        draws = np.stack([g.random(shape, np.float32) for g in self.generators])
        return np.float32(low) + np.float32(high - low) * draws

    def normal(self, mean: float = 0.0, sd: float = 1.0, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Normal draws, cut off at 2.5 standard deviations."""
        draws = np.stack([g.standard_normal(shape, np.float32) for g in self.generators])
        return np.float32(mean) + np.float32(sd) * draws.clip(-2.5, 2.5)

    def texture(self, size: int, rows: int, columns: int) -> np.ndarray:
        """Smooth noise, (B, size, size): mean 0, unit variance on an infinitely fine grid.

        ``rows`` x ``columns`` is the grain; what is finer than a pixel is averaged.
        """
        lattice = np.stack([g.standard_normal((rows, columns), np.float32) for g in self.generators])
        return _interpolation(size, rows) @ lattice @ _interpolation(size, columns).T


@lru_cache(maxsize=64)
def _interpolation(size: int, knots: int) -> np.ndarray:
    """Cubic B-spline weights of ``knots`` values for ``size`` pixels, averaged over each pixel."""

    def weights(points: int) -> np.ndarray:
        at = (np.arange(points) + 0.5) / points * (knots - 1)
        t = np.abs(at[:, None] - np.arange(knots))
        inner, outer = 2 / 3 - t**2 + t**3 / 2, (2 - t).clip(0) ** 3 / 6
        w = np.where(t < 1, inner, outer)
        return w / w.sum(1, keepdims=True)

    per_pixel = max(1, -(-4 * knots // size))
    w = weights(size * per_pixel).reshape(size, per_pixel, knots).mean(1)
    w = w / np.sqrt((weights(16 * knots) ** 2).sum(1).mean())
    w.setflags(write=False)
    return w.astype(np.float32)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres: x (1, 1, size) and y (1, size, 1), float32."""
    centres = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def column(values: np.ndarray) -> np.ndarray:
    """(B,) to (B, 1, 1)."""
    return values[:, None, None]


def step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def inside(distance: np.ndarray, softness) -> np.ndarray:
    """1 where the signed ``distance`` to an edge is negative, 0 where positive, smooth between."""
    return step(0.5 - distance / (2 * softness))


def ridge(distance: np.ndarray, width, pixel: float) -> np.ndarray:
    """A line of Gaussian profile; its mass does not depend on the pixel size."""
    widened = np.sqrt(np.square(width) + (0.45 * pixel) ** 2)
    return (width / widened) * np.exp(-0.5 * np.square(distance / widened))


def severity(draws: Draws, labels: np.ndarray, gap: float) -> np.ndarray:
    """How ill each image looks: normal with sd 1, mean -gap / 2 in class 0 and +gap / 2 in class 1."""
    return draws.normal() + np.float32(gap) * (labels - np.float32(0.5))


@threads(1)
def build(
    draw: Callable,
    split: str,
    *,
    kind: int,
    channels: int,
    size: int,
    n: int | None,
    marker_rate: tuple[float, float] | None,
    overlap: bool,
    random_state: int,
    **names,
) -> ShortcutDataset:
    """Check the arguments, decide labels and groups, and have ``draw`` draw chunk after chunk.

    ``draw(anatomy, marker, labels, spurious, size, overlap)`` gets two
    ``Draws``, so that what it draws for the marker cannot move the anatomy,
    and returns images (B, C, size, size) and both masks (B, size, size).
    """
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {_SPLITS}, got {split!r}")
    if not SIZES[0] <= size <= SIZES[1] or size != int(size):
        raise ValueError(f"size must be a whole number from {SIZES[0]} to {SIZES[1]}, got {size!r}")
    n = DEFAULT_N[split] if n is None else n
    if n < 1 or n != int(n):
        raise ValueError(f"n must be a positive whole number, got {n!r}")
    rates = marker_rate
    if rates is None:
        rates = TRAIN_RATES if split == "train" else MIXED_RATES
    if len(rates) != 2 or not all(0 <= rate <= 1 for rate in rates):
        raise ValueError(f"marker_rate must be two shares in 0 .. 1, one per class, got {marker_rate!r}")
    if random_state < 0:
        raise ValueError(f"random_state must not be negative, got {random_state!r}")

    base = [random_state, kind, _SPLITS.index(split)]
    labels, spurious = _groups(base, n, rates)
    images = torch.empty(n, channels, size, size)
    spurious_masks = torch.empty(n, size, size, dtype=torch.bool)
    core_masks = torch.empty(n, size, size, dtype=torch.bool)
    chunk = max(1, _PIXELS_AT_ONCE // size**2)
    for start in range(0, n, chunk):
        rows = slice(start, min(start + chunk, n))
        anatomy, marker = (
            Draws([[*base, stream, i] for i in range(rows.start, rows.stop)]) for stream in (1, 2)
        )
        drawn, on_marker, on_core = draw(anatomy, marker, labels[rows], spurious[rows], size, overlap)
        # Eight bits, like an image file.
        images[rows] = torch.from_numpy(
            np.rint(np.clip(drawn, 0, 1) * 255).astype(np.float32) / np.float32(255)
        )
        spurious_masks[rows] = torch.from_numpy(on_marker)
        core_masks[rows] = torch.from_numpy(on_core)

    labels = torch.from_numpy(labels)
    return ShortcutDataset(
        images=images,
        labels=labels,
        groups=2 * labels + torch.from_numpy(spurious),
        spurious_masks=spurious_masks,
        core_masks=core_masks,
        **names,
    )


def _groups(base: list[int], n: int, rates: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) int64 and who carries the spurious feature (n,) bool.

    Every four images in a row hold two of each class; of each two, one draws
    its number from 0 .. 0.5 and one from 0.5 .. 1, and carries the feature if
    the number lies below its class's rate.  So rates of one half give groups
    of equal size, exactly.
    """
    blocks = [np.random.default_rng([*base, 0, block]) for block in range(-(-n // 4))]
    order = np.concatenate([g.permutation(4) for g in blocks])[:n]
    number = (order % 2 + np.concatenate([g.random(4) for g in blocks])[:n]) / 2
    labels = (order // 2).astype(np.int64)
    return labels, number < np.asarray(rates, float)[labels]
