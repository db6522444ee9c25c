"""Interactive views for notebooks; they need ipywidgets (``pip install 'lvlmva-lite[notebooks]'``)."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

from lvlmva_lite import plots
from lvlmva_lite.critic import Case, Critique, Verdict, segment_names

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
    words = {True: "spurious", False: "relevant", None: "undecided"}
    ruled = [
        f"{name}: {words[r]}"
        for name, r in zip(segment_names(case.n_segments), verdict.spurious, strict=True)
    ]
    figure, axes = plots.image_grid(1, 2, size=2)
    plots.show_image(axes[0, 0], case.image)
    plots.show_segments(axes[0, 1], case.image, case.segment_labels, [bool(r) for r in verdict.spurious])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    picture = base64.b64encode(buffer.getvalue()).decode()
    alt = html.escape(f"A {case.class_name} and its segments; {', '.join(ruled)}")
    text = "<br>".join(html.escape(line) for line in critique.text.splitlines())
    return (
        f'<img src="data:image/png;base64,{picture}" alt="{alt}" style="max-width: 100%">'
        f'<p style="line-height: 1.4">{text}</p><p><b>Judge:</b> {html.escape(", ".join(ruled))}</p>'
    )
