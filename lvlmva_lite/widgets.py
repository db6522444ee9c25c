"""Interactive views for notebooks; they need ipywidgets (``pip install 'lvlmva-lite[notebooks]'``)."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lvlmva_lite import plots
from lvlmva_lite.critic import Case, Critique, Verdict, segment_names
from lvlmva_lite.segmentation import Segments, positive_effect

if TYPE_CHECKING:
    from ipywidgets import Accordion, Text, VBox


def case_browser(
    cases: Sequence[Case],
    verdicts: Sequence[Verdict],
    critiques: Sequence[Critique],
    indices: Sequence[int],
) -> Accordion:
    """A list of cases; opening one shows its segments, the critic's text and the verdicts.

    All pages are made at once, so that the view also works in a static page, without a kernel.

    Parameters
    ----------
    cases, verdicts, critiques : of equal length, in the same order
    indices : which of them to show

    Raises
    ------
    ValueError : no index
    """
    from ipywidgets import HTML, Accordion

    if not len(indices):
        raise ValueError("there is nothing to show: give at least one index")
    view = Accordion([HTML(_page(cases[i], verdicts[i], critiques[i])) for i in indices], selected_index=0)
    for k, i in enumerate(indices):
        view.set_title(k, f"{cases[i].case_id}: a {cases[i].class_name}")
    return view


def _page(case: Case, verdict: Verdict, critique: Critique) -> str:
    ruled = [
        f"{name}: {kind}" for name, kind in zip(segment_names(case.n_segments), verdict.kinds, strict=True)
    ]
    figure, axes = unshared_grid(1, 2, size=2)
    plots.show_image(axes[0, 0], case.image)
    plots.show_segments(axes[0, 1], case.image, case.segment_labels, verdict.kinds)
    plots.kind_legend(figure, verdict.kinds)
    drawn = picture(figure, f"A {case.class_name} and its segments; {', '.join(ruled)}")
    text = "<br>".join(html.escape(line) for line in critique.text.splitlines())
    return (
        f'{drawn}<p style="line-height: 1.4">{text}</p><p><b>Judge:</b> {html.escape(", ".join(ruled))}</p>'
    )


def strongest(attribution: Tensor, share: float) -> Tensor:
    """The fewest pixels (H, W), bool, that hold at least ``share`` of a map's positive effect.

    Parameters
    ----------
    attribution : (H, W) float
    share : in [0, 1]

    Raises
    ------
    ValueError : a share outside [0, 1]
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, got {share}")
    effect = positive_effect(attribution.double()[None])[0].flatten()
    order = effect.argsort(descending=True, stable=True)
    before = effect[order].cumsum(0) - effect[order]
    chosen = torch.zeros(len(effect), dtype=torch.bool)
    # Up to rounding: the last pixel that is needed, and none after it.
    chosen[order] = (before < share * effect.sum() * (1 - 1e-9)) & (effect[order] > 0)
    return chosen.reshape(attribution.shape)


def explanation_explorer(
    images: Tensor,
    maps: Mapping[str, Tensor],
    segments: Segments | None = None,
    *,
    names: Sequence[str] = (),
) -> VBox:
    """Choose an image and how much of the evidence to see, for several models or explainers side by side.

    A page without a kernel shows the first image, with half of the evidence.

    Parameters
    ----------
    images : (n, C, H, W) in [0, 1]
    maps : what explains -> maps (n, H, W), such as {"before": ..., "after": ...}; one scale for all of an image
    segments : of the same images, shown with their shares; may be left out
    names : of the images; default their positions

    Raises
    ------
    ValueError : no image, no maps, or maps of other images
    """
    from ipywidgets import HTML, Dropdown, VBox

    if not len(images) or not maps:
        raise ValueError("there is nothing to show: give at least one image and one kind of maps")
    for name, of in maps.items():
        if of.shape != (len(images), *images.shape[2:]):
            raise ValueError(
                f"the maps {name!r} are {tuple(of.shape)}, the images {tuple(images.shape)}; give one map an image"
            )
    titles = [str(name) for name in names] or [f"image {i}" for i in range(len(images))]
    chosen = Dropdown(options=[(title, i) for i, title in enumerate(titles)], value=0, description="Image")
    # A slider of ipywidgets has no name for a screen reader.
    shares = [(f"{twentieths * 5} %", twentieths / 20) for twentieths in range(1, 21)]
    share = Dropdown(options=shares, value=0.5, description="Evidence")
    shown = HTML()

    def draw(_=None) -> None:
        shown.value = _explanations(images, maps, segments, chosen.value, share.value, titles[chosen.value])

    for control in (chosen, share):
        control.observe(draw, "value")
    draw()
    return VBox([chosen, share, shown])


def _explanations(
    images: Tensor, maps: Mapping[str, Tensor], segments: Segments | None, i: int, share: float, title: str
) -> str:
    columns = 1 + len(maps) + (segments is not None)
    figure, axes = unshared_grid(2, columns, size=1.9)
    for axis in axes.flat:
        axis.set_axis_off()
    plots.show_image(axes[0, 0], images[i])
    axes[0, 0].set_title(title, fontsize="small")
    limit = max(float(of[i].abs().max()) for of in maps.values())
    words = []
    for k, (name, of) in enumerate(maps.items(), 1):
        held = strongest(of[i], share)
        plots.show_attribution(axes[0, k], of[i], limit)
        plots.show_mask(axes[1, k], images[i], held)
        axes[0, k].set_title(name, fontsize="small")
        words.append(
            f"{name}: {share:.0%} of the evidence lies on {held.double().mean():.1%} of the pixels"
        )
    if segments is not None:
        plots.show_segments(axes[0, -1], images[i], segments.labels[i])
        held = zip(segment_names(segments.n_segments), segments.shares[i].tolist(), strict=True)
        words.append("segments: " + ", ".join(f"{name} {of:.0%}" for name, of in held if of > 0))
    text = "<br>".join(html.escape(line) for line in words)
    return f'{picture(figure, f"{title}. " + "; ".join(words))}<p style="line-height: 1.4">{text}</p>'


def key_field(actions: Mapping[str, Callable[[], None]]) -> Text:
    """A field in which each key acts as it is typed; what was typed stays in it.

    ipywidgets hears no keys elsewhere; buttons are reached with Tab and pressed with Enter as well.
    The field is never emptied from here: that would meet the next key on its way, and one of
    the two would be lost or act twice.

    Parameters
    ----------
    actions : key, one letter in small -> what it does; other keys do nothing
    """
    from ipywidgets import Text

    field = Text(description="Keys", placeholder=" ".join(actions), continuous_update=True)

    def pressed(change: Mapping[str, str]) -> None:
        for key in _inserted(change["old"], change["new"]).lower():
            if key in actions:
                actions[key]()

    field.observe(pressed, "value")
    return field


def _inserted(old: str, new: str) -> str:
    """What was typed into ``old``, at any place, to make it ``new``; empty where characters were only removed."""

    def alike(one: str, other: str) -> int:
        pairs = enumerate(zip(one, other, strict=False))
        return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))

    start = alike(old, new)
    return new[start : len(new) - alike(old[start:][::-1], new[start:][::-1])]


def focus(field: Text) -> None:
    """Put the cursor into a field, with ipywidgets 8; 7 cannot.

    JupyterLab takes a letter that is typed while a button has the focus as a command of its own:
    r makes the cell raw text and hides the widget, b adds a cell.
    """
    if hasattr(field, "focus"):
        field.focus()


def unshared_grid(n_rows: int, n_columns: int, size: float) -> tuple[Figure, np.ndarray]:
    """As :func:`plots.image_grid`, but a figure that pyplot does not know.

    JupyterLab has what a widget does run in a thread of its own (a subshell), beside others; after each
    message the notebook draws and closes whatever figure pyplot knows, also one that is half drawn elsewhere.
    """
    figure = Figure(figsize=(size * n_columns, size * n_rows * 1.12), layout="compressed")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def picture(figure: Figure, alt: str) -> str:
    """A figure as an image in HTML; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" style="max-width: 100%">'
