"""Time of a critic's panels: drawing them, and packing them into PNG files.

``python benchmarks/panels.py``.  Cases are scattered boxes of segments on noise.  Pillow packs the very pixels
that we pack.  Matplotlib draws the same three pictures as one would by hand: nearest neighbours, outlines
by contours, letters at the segments' centres; it does not look for a place where a letter hides little.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import PIL
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from timing import ROOT, compare, scaling, write

from lvlmva_lite.critic import Case
from lvlmva_lite.critic.badges import PALETTE
from lvlmva_lite.critic.panels import render_panels
from lvlmva_lite.critic.png import packed
from lvlmva_lite.critic.types import segment_names

sys.path.insert(0, str(ROOT / "tests"))
from test_panels import opened, scattered

CASES = 10


def cases(side: int, n_segments: int) -> list[Case]:
    """Cases of side x side."""
    return [scattered((side, side), n_segments, seed) for seed in range(CASES)]


def by_matplotlib(case: Case) -> list[bytes]:
    """Image, segment map and overlay as PNG files of 532 pixels, as ours are."""
    image = case.image.permute(1, 2, 0).numpy()
    labels, files = case.segment_labels.numpy(), []
    colours = np.array(PALETTE)[labels % len(PALETTE)] / 255
    covered = (labels >= 0)[:, :, None]
    top = np.quantile(case.evidence.numpy()[labels >= 0], 0.98)
    bright = np.clip(case.evidence.numpy() / top, 0.1, 1)[:, :, None]
    for pixels in (
        image,
        covered * colours * bright,
        np.where(covered, 0.75 * image + 0.25 * colours, image),
    ):
        figure = Figure(figsize=(5.32, 5.32), dpi=100)
        FigureCanvasAgg(figure)
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.imshow(pixels, interpolation="nearest", aspect="auto")
        for j, name in enumerate(segment_names(case.n_segments) if len(files) else ()):
            if (labels == j).any():
                axis.contour(labels == j, [0.5], colors=[np.array(PALETTE[j % len(PALETTE)]) / 255])
                y, x = np.argwhere(labels == j).mean(0)
                axis.text(x, y, name, color="white", backgroundcolor="black", ha="center", va="center")
        file = io.BytesIO()
        figure.savefig(file, format="png")
        files.append(file.getvalue())
    return files


def by_pillow(pictures: list[np.ndarray], **options: Any) -> list[bytes]:
    """Each picture as a PNG file."""
    files = []
    for pixels in pictures:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png", **options)
        files.append(file.getvalue())
    return files


def ours(pictures: list[np.ndarray]) -> list[bytes]:
    """The same by us, who are told each row by itself."""
    return [packed(pixels, np.ones(len(pixels), int)) for pixels in pictures]


def drawn(side: int, n_segments: int) -> Callable[[], Any]:
    """The work of drawing and packing the panels of some cases."""
    todo = cases(side, n_segments)
    return lambda: [render_panels(case) for case in todo]


def right(case: Case, png: bytes) -> float:
    """Share of the image panel's pixels that are those of the image, to a step of grey, in whole blocks."""
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    scale = len(pixels) // case.image.shape[1]
    image = (case.image * 255).round().int().permute(1, 2, 0).numpy()
    return float((np.abs(pixels - image.repeat(scale, 0).repeat(scale, 1)) <= 1).all(2).mean())


def main() -> None:
    """Measure and write."""
    todo = cases(28, 6)
    pictures = [
        opened(png)
        for case in todo
        for panel in [render_panels(case)]
        for png in (panel.image, panel.segment_map, panel.overlay)
    ]
    rows = [
        compare(
            f"{CASES} cases of 28 x 28, J = 6: three panels drawn and packed",
            f"matplotlib {matplotlib.__version__}",
            lambda: [render_panels(case) for case in todo],
            lambda: [by_matplotlib(case) for case in todo],
            {
                "share of the image's pixels that are right, more is better": (
                    right(todo[0], render_panels(todo[0]).image), right(todo[0], by_matplotlib(todo[0])[0]),
                )
            },
        )
    ]  # fmt: skip
    for options in ({}, {"compress_level": 1}):
        theirs = partial(by_pillow, pictures, **options)
        size = (
            sum(map(len, ours(pictures))) / len(pictures) / 1e3,
            sum(map(len, theirs())) / len(pictures) / 1e3,
        )
        how = ", ".join(f"{name} {value}" for name, value in options.items()) or "as it packs by itself"
        rows.append(
            compare(
                f"{len(pictures)} of these panels packed",
                f"Pillow {PIL.__version__}, {how}",
                partial(ours, pictures),
                theirs,
                {"kB a file, less is better": size},
            )
        )
    curves = [
        scaling(
            f"panels of {CASES} cases, J = 6",
            "side of the image",
            (28, 56, 112, 224),
            lambda n: drawn(n, 6),
        ),
        scaling(f"panels of {CASES} cases of 28 x 28", "segments J", (2, 4, 8, 16), lambda n: drawn(28, n)),
    ]
    torch.set_num_threads(1)
    write("panels", rows, curves)


if __name__ == "__main__":
    main()
