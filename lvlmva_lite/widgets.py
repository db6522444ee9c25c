"""Interactive views for notebooks; they need ipywidgets (``pip install 'lvlmva-lite[notebooks]'``)."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from lvlmva_lite import plots
from lvlmva_lite.critic import Case, Critique, Verdict, segment_names
from lvlmva_lite.segmentation import Segments

if TYPE_CHECKING:
    from ipywidgets import VBox


def case_browser(
    cases: Sequence[Case],
    verdicts: Sequence[Verdict],
    critiques: Sequence[Critique],
    indices: Sequence[int],
) -> VBox:
    """A list of cases; choosing one shows its segments, the critic's text and the verdicts.

    The choice is linked in the browser, so that the view also works in a
    static page, without a kernel.

    Parameters
    ----------
    cases, verdicts, critiques : of equal length, in the same order
    indices : which of them to show
    """
    from ipywidgets import HTML, Dropdown, Stack, VBox, jslink

    pages = [HTML(_page(cases[i], verdicts[i], critiques[i])) for i in indices]
    choice = Dropdown(
        options=[f"{cases[i].case_id}: a {cases[i].class_name}" for i in indices],
        index=0,
        description="case",
    )
    stack = Stack(pages, selected_index=0)
    jslink((choice, "index"), (stack, "selected_index"))
    return VBox([choice, stack])


def _page(case: Case, verdict: Verdict, critique: Critique) -> str:
    ruled = [
        f"{name}: {kind}" for name, kind in zip(segment_names(case.n_segments), verdict.kinds, strict=True)
    ]
    figure, axes = plots.image_grid(1, 2, size=2)
    plots.show_image(axes[0, 0], case.image)
    plots.show_segments(axes[0, 1], case.image, case.segment_labels, verdict.kinds)
    plots.kind_legend(figure, verdict.kinds)
    picture = _picture(figure, f"A {case.class_name} and its segments; {', '.join(ruled)}")
    text = "<br>".join(html.escape(line) for line in critique.text.splitlines())
    return f'{picture}<p style="line-height: 1.4">{text}</p><p><b>Judge:</b> {html.escape(", ".join(ruled))}</p>'


def segment_browser(images: Tensor, segmentations: Mapping[int, Segments], indices: Sequence[int]) -> VBox:
    """A slider that moves the number of segments J, and a list of images to move it for.

    Like :func:`case_browser`, it works in a static page, without a kernel.

    Parameters
    ----------
    images : (n, C, H, W) in [0, 1]
    segmentations : the segments of the n images, by J; the slider goes
        through them in ascending order
    indices : which images to show

    Raises
    ------
    ValueError : no segmentation or no index
    """
    from ipywidgets import HTML, Dropdown, SelectionSlider, Stack, VBox, jslink

    if not segmentations or not len(indices):
        raise ValueError("there is nothing to show: give at least one segmentation and one index")
    numbers = sorted(segmentations)
    slider = SelectionSlider(options=[(str(j), j) for j in numbers], index=0, description="segments J")
    stacks = []
    for i in indices:
        pages = [HTML(_segment_page(images[i], segmentations[j], i)) for j in numbers]
        stack = Stack(pages, selected_index=0)
        jslink((slider, "index"), (stack, "selected_index"))
        stacks.append(stack)
    choice = Dropdown(options=[f"image {i}" for i in indices], index=0, description="image")
    outer = Stack(stacks, selected_index=0)
    jslink((choice, "index"), (outer, "selected_index"))
    return VBox([choice, slider, outer])


def _segment_page(image: Tensor, segments: Segments, i: int) -> str:
    figure, axes = plots.image_grid(1, 2, size=2)
    plots.show_image(axes[0, 0], image)
    plots.show_segments(axes[0, 1], image, segments.labels[i])
    shares = [
        f"{name} {share:.0%}"
        for name, share in zip(segment_names(segments.n_segments), segments.shares[i], strict=True)
        if share > 0
    ]
    words = f"Share of evidence: {', '.join(shares) or 'none'}"
    picture = _picture(figure, f"An image and its {len(shares)} segments. {words}")
    return f'{picture}<p style="line-height: 1.4">{html.escape(words)}</p>'


def _picture(figure: Figure, alt: str) -> str:
    """A figure as an image in HTML; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" style="max-width: 100%">'
