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
    from ipywidgets import Accordion, Tab


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
    figure, axes = plots.image_grid(1, 2, size=2)
    plots.show_image(axes[0, 0], case.image)
    plots.show_segments(axes[0, 1], case.image, case.segment_labels, verdict.kinds)
    plots.kind_legend(figure, verdict.kinds)
    picture = _picture(figure, f"A {case.class_name} and its segments; {', '.join(ruled)}")
    text = "<br>".join(html.escape(line) for line in critique.text.splitlines())
    return f'{picture}<p style="line-height: 1.4">{text}</p><p><b>Judge:</b> {html.escape(", ".join(ruled))}</p>'


def segment_browser(images: Tensor, segmentations: Mapping[int, Segments], indices: Sequence[int]) -> Tab:
    """A tab for each number of segments J, with the segments of the same images on each.

    Like :func:`case_browser`, it works in a static page, without a kernel.

    Parameters
    ----------
    images : (n, C, H, W) in [0, 1]
    segmentations : the segments of the n images, by J; the tabs are in ascending order
    indices : which images to show

    Raises
    ------
    ValueError : no segmentation or no index
    """
    from ipywidgets import HTML, Tab

    if not segmentations or not len(indices):
        raise ValueError("there is nothing to show: give at least one segmentation and one index")
    numbers = sorted(segmentations)
    view = Tab([HTML(_segment_page(images, segmentations[j], indices)) for j in numbers], selected_index=0)
    for k, j in enumerate(numbers):
        view.set_title(k, f"J = {j}")
    return view


def _segment_page(images: Tensor, segments: Segments, indices: Sequence[int]) -> str:
    figure, axes = plots.image_grid(2, len(indices), size=2)
    words = []
    for column, i in zip(axes.T, indices, strict=True):
        plots.show_image(column[0], images[i])
        plots.show_segments(column[1], images[i], segments.labels[i])
        column[0].set_title(f"image {i}", fontsize="small")
        shares = [
            f"{name} {share:.0%}"
            for name, share in zip(segment_names(segments.n_segments), segments.shares[i], strict=True)
            if share > 0
        ]
        words.append(f"Image {i}, share of evidence: {', '.join(shares) or 'none'}")
    text = "<br>".join(html.escape(line) for line in words)
    return f'{_picture(figure, ". ".join(words))}<p style="line-height: 1.4">{text}</p>'


def _picture(figure: Figure, alt: str) -> str:
    """A figure as an image in HTML; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" style="max-width: 100%">'
