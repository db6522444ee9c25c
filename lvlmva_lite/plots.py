"""Figures: one theme, colour-blind-safe colours."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from lvlmva_lite.critic.types import segment_names

if TYPE_CHECKING:
    from IPython.display import HTML

SPURIOUS = "#d55e00"
"""Vermilion of the Okabe-Ito palette: what is judged spurious, wherever it is drawn."""

KIND_STYLES = {
    "relevant": ("#56b4e9", ""),
    "spurious": (SPURIOUS, "////"),
    "background": ("#999999", "..."),
    "undecided": ("#f0e442", "xx"),
}
"""Colour (of the Okabe-Ito palette, and grey) and hatching of each kind of verdict."""


def set_theme() -> None:
    """The book's look: call once at the top of a notebook."""
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    plt.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "image.interpolation": "nearest"})


def image_grid(n_rows: int, n_columns: int, size: float = 1.15) -> tuple[Figure, np.ndarray]:
    """A figure and its (n_rows, n_columns) array of bare axes, ``size`` inches each."""
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(size * n_columns, size * n_rows * 1.12),
        squeeze=False,
        layout="compressed",
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def show_image(axis: Axes, image: Tensor) -> None:
    """Draw an image (C, H, W) in [0, 1], grey-scale or RGB."""
    pixels = image.permute(1, 2, 0).numpy()
    axis.imshow(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)


def show_attribution(axis: Axes, attribution: Tensor, limit: float | None = None) -> None:
    """Draw a map (H, W): red for, blue against the class; colours end at +-``limit``."""
    limit = float(attribution.abs().max()) if limit is None else limit
    axis.imshow(
        attribution.numpy(), cmap="RdBu_r", norm=TwoSlopeNorm(0, -max(limit, 1e-12), max(limit, 1e-12))
    )


def show_segments(axis: Axes, image: Tensor, labels: Tensor, kinds: Sequence[str] = ()) -> None:
    """Draw segments over a dimmed image, each with its letter, in the colour and hatching of its kind.

    Parameters
    ----------
    image : (C, H, W) in [0, 1]
    labels : (H, W) int64, -1 for none
    kinds : of ``KIND_STYLES``, one for each segment; empty: colour each segment differently
    """
    show_image(axis, image * 0.45)
    n_segments = int(labels.max()) + 1
    if len(kinds):
        colours = [KIND_STYLES[kind][0] for kind in kinds]
    else:
        # Without vermilion and grey, which stand for a verdict at first sight.
        palette = sns.color_palette("colorblind", 10)
        colours = [palette[i] for i in (0, 1, 2, 4, 8, 9, 5, 6)] * 8
    marked = np.ma.masked_less(labels.numpy(), 0)
    axis.imshow(marked, cmap=ListedColormap(colours[: max(n_segments, 1)]), vmin=-0.5,
                vmax=max(n_segments, 1) - 0.5, alpha=0.75)  # fmt: skip
    for j, kind in enumerate(kinds[:n_segments]):
        if KIND_STYLES[kind][1] and bool((labels == j).any()):
            axis.contourf(
                labels.numpy() == j, levels=[0.5, 1.5], colors="none", hatches=[KIND_STYLES[kind][1]]
            )
    for name, j in zip(segment_names(n_segments), range(n_segments), strict=True):
        pixels = np.argwhere(labels.numpy() == j)
        if len(pixels):
            # The pixel nearest to the segment's middle, so that the letter lies on it.
            row, column = pixels[((pixels - pixels.mean(0)) ** 2).sum(1).argmin()]
            axis.text(column, row, name, color="white", fontsize=8, weight="bold", ha="center", va="center",
                      bbox={"boxstyle": "circle,pad=0.12", "fc": "black", "ec": "none", "alpha": 0.65})  # fmt: skip


def kind_legend(figure: Figure, kinds: Sequence[str] = tuple(KIND_STYLES)) -> None:
    """A legend of the kinds below a figure of :func:`show_segments`."""
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=kind)
        for kind, (colour, hatch) in KIND_STYLES.items()
        if kind in kinds
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize="small"
    )


def show_mask(axis: Axes, image: Tensor, mask: Tensor) -> None:
    """Draw a mask (H, W) bool in vermilion over a dimmed image (C, H, W)."""
    show_image(axis, image * 0.45)
    axis.imshow(np.ma.masked_equal(mask.numpy(), False), cmap=ListedColormap([SPURIOUS]))


def show_changes(rows: pd.DataFrame) -> None:
    """Draw the table of :func:`experiments.group_arms.changes`: means and intervals, WGA left, AGA right."""
    _, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, (measure, part) in zip(axes, rows.groupby("measure", sort=False), strict=True):
        for k, row in enumerate(part.itertuples()):
            ours = row.method.startswith("LVLM-VA")
            axis.plot([row.low, row.high], [k, k], color="black" if ours else "grey")
            axis.plot(row.mean, k, "o" if ours else "s", color=SPURIOUS if ours else "grey")
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set(yticks=range(len(part)), xlabel=f"change of {measure}")
        axis.set_yticklabels(part["method"])
        axis.grid(axis="x", alpha=0.4)
    axes[0].invert_yaxis()
    sns.despine()


# Each control shows the picture of its value and hides the others; no script but this line.
_SHOW = (
    "const k = +this.value, box = this.closest('.pictures'), names = box.dataset.labels.split('|');"
    "box.querySelectorAll('img').forEach((one, j) => one.style.display = j === k ? '' : 'none');"
    "box.querySelectorAll('output').forEach(one => one.textContent = names[k]);"
    "this.setAttribute('aria-valuetext', names[k]);"
)


def slider(
    draw: Callable[[int], Figure],
    labels: Sequence[str],
    *,
    name: str,
    alt: str,
    first: int | None = None,
    menu: bool = False,
) -> HTML:
    """Pictures of which the reader chooses one, by a slider or from a menu.

    All of them are drawn at once into the page, so that it works without a kernel and without a
    network; the arrow keys move it.  On paper, and without scripts, the first choice stands there.

    Parameters
    ----------
    draw : k, in 0 .. len(labels) - 1, -> Figure, which is closed then; the figures should be of one size
    labels : what each picture is of; no "|" in them
    name : of what is chosen, such as "step"
    alt : what all the pictures show; each one's own label follows
    first : the picture at the start; None: the middle one
    menu : a menu of the labels, for those that have no order

    Raises
    ------
    ValueError : fewer than two labels, a "|" in one, or ``first`` that is none of them
    """
    from IPython.display import HTML

    if len(labels) < 2 or any("|" in label for label in labels):
        raise ValueError(f"labels must be two or more, without '|', got {list(labels)}")
    first = len(labels) // 2 if first is None else first
    if not 0 <= first < len(labels):
        raise ValueError(f"first must lie in 0 .. {len(labels) - 1}, got {first}")
    pictures = []
    for k, label in enumerate(labels):
        figure = draw(k)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=90)
        plt.close(figure)
        hidden = "" if k == first else ' style="display: none"'
        words = html.escape(f"{alt} {name}: {label}")
        pictures.append(
            f'<img{hidden} alt="{words}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
        )
    told = f'aria-label="{html.escape(name)}" oninput="{html.escape(_SHOW)}"'
    if menu:
        options = "".join(
            f'<option value="{k}"{" selected" * (k == first)}>{html.escape(label)}</option>'
            for k, label in enumerate(labels)
        )
        control = f"<select {told}>{options}</select>"
    else:
        control = (
            f'<input type="range" min="0" max="{len(labels) - 1}" value="{first}" {told} '
            f'aria-valuetext="{html.escape(labels[first])}">'
        )
    return HTML(
        f'<div class="pictures" role="group" aria-label="{html.escape(alt)}" '
        f'data-labels="{html.escape("|".join(labels))}">'
        f"<p>{html.escape(name)}: {control} <output>{html.escape(labels[first])}</output></p>"
        f"{''.join(pictures)}</div>"
    )
