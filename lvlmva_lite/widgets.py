"""Interactive views for notebooks; they need ipywidgets (``pip install 'lvlmva-lite[notebooks]'``)."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lvlmva_lite import plots
from lvlmva_lite.critic import Case, Critique, Verdict, segment_names

if TYPE_CHECKING:
    from ipywidgets import Accordion


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


def _picture(figure: Figure, alt: str) -> str:
    """A figure as an image in HTML; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" style="max-width: 100%">'
