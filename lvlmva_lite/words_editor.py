"""Edit words and the judge's examples, and see which verdicts flip; needs ``pip install 'lvlmva-lite[notebooks]'``."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from lvlmva_lite import plots
from lvlmva_lite.critic import Case, Critic, LexiconCritic, TextJudge, segment_names
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.reading import read_description
from lvlmva_lite.critic.text_judge import default_examples, kind_of_example
from lvlmva_lite.critic.types import EMPTY, KINDS
from lvlmva_lite.pipeline import AlignmentSet, verdict_matrix
from lvlmva_lite.widgets import picture, unshared_grid

if TYPE_CHECKING:
    from ipywidgets import VBox

N_SHOWN = 3
"""Images with a flipped verdict that are drawn."""


@dataclass(frozen=True)
class Flip:
    """A verdict that other words change.

    Attributes
    ----------
    case : position of the case
    segment : str, its letter
    was, now : str, of ``KINDS``
    """

    case: int
    segment: str
    was: str
    now: str


def flips(before: Tensor, after: Tensor) -> list[Flip]:
    """The verdicts in which ``before`` and ``after``, (n, J) int64 codes of ``KINDS``, differ."""
    names = segment_names(before.shape[1])
    return [
        Flip(i, names[j], KINDS[before[i, j]], KINDS[after[i, j]])
        for i, j in (before != after).nonzero().tolist()
    ]


def parse_examples(text: str) -> list[dict]:
    """The judge's examples from lines ``kind: text``; empty lines are passed over.

    Raises
    ------
    ValueError : a line without a kind that there is; the message names it
    """
    examples = []
    for line in filter(None, map(str.strip, text.splitlines())):
        kind, _, said = line.partition(":")
        if kind.strip() not in KINDS or not said.strip():
            raise ValueError(f"an example is 'kind: text', with a kind of {', '.join(KINDS)}; got {line!r}")
        examples.append({"kind": kind.strip(), "text": said.strip()})
    return examples


def as_lines(examples: Sequence[dict]) -> str:
    """What :func:`parse_examples` reads."""
    return "\n".join(f"{kind_of_example(one)}: {' '.join(one['text'].split())}" for one in examples)


@dataclass(frozen=True)
class Rulings:
    """Words and examples, and what they amount to on a set of cases; without a view, for tests and scripts.

    Attributes
    ----------
    alignment_set : AlignmentSet, whose cases are judged
    critic : who is asked
    """

    alignment_set: AlignmentSet
    critic: Critic

    def kinds(self, words: str, examples: Sequence[dict]) -> Tensor:
        """Verdicts (n, J) under these words, read by a judge with these examples.

        Raises
        ------
        ValueError : examples of one kind only
        """
        judge = TextJudge(list(examples))
        cases: list[Case] = [replace(case, description=words) for case in self.alignment_set.cases]
        segments = self.alignment_set.segments
        verdicts = judge_all(judge, criticise_all(self.critic, cases), segments.n_segments)
        return verdict_matrix(verdicts, segments.labels)


def words_editor(
    alignment_set: AlignmentSet,
    words: str,
    masks: Callable[[Tensor], Tensor],
    *,
    critic: Critic | None = None,
    examples: Sequence[dict] | None = None,
    proposed: str | None = None,
) -> VBox:
    """A field for the expert's words and one for the judge's examples, and below what they change.

    Each change is held against the words and examples that the editor began
    with.  It shows how the words were read, how many verdicts flip and to
    what, what becomes of the masks, and the first images concerned.

    Parameters
    ----------
    alignment_set : AlignmentSet, a few dozen cases, judged anew at each change
    words : the expert's
    masks : verdicts (n, J) -> masks (n, H, W) bool, such as ``Prepared.masks``
    critic : default the lexicon; a recorded one answers only its own words
    examples : of the judge, default those that ship
    proposed : words to begin the field with, so that a page without a kernel shows a change; default ``words``

    Returns
    -------
    VBox : show it at the end of a cell
    """
    from ipywidgets import HTML, Button, Layout, Textarea, VBox

    examples = default_examples() if examples is None else list(examples)
    rulings = Rulings(alignment_set, critic or LexiconCritic())
    before = rulings.kinds(words, examples)
    wide = Layout(width="100%", height="6em")
    text = Textarea(value=proposed or words, description="Words", layout=wide)
    lines = Textarea(value=as_lines(examples), description="Examples", layout=wide)
    button, shown = Button(description="Judge anew"), HTML()

    def judge(_=None) -> None:
        try:
            given = parse_examples(lines.value)
            after = rulings.kinds(text.value, given)
        except ValueError as error:
            shown.value = f"<p><b>{html.escape(str(error))}</b></p>"
            return
        shown.value = _told(alignment_set, before, after, masks, text.value)

    button.on_click(judge)
    judge()
    return VBox([text, lines, button, shown])


def summary(
    before: Tensor, after: Tensor, truth: Tensor | None, masks: Callable[[Tensor], Tensor]
) -> list[str]:
    """What a change of verdicts (n, J) amounts to, in lines of words.

    Parameters
    ----------
    truth : (n, J) of :func:`metrics.segment_truth`, for the segments that hold no pixel; may be None
    masks : verdicts -> masks (n, H, W) bool
    """
    changed = flips(before, after)
    n = before.numel() if truth is None else int((truth != EMPTY).sum())
    told = [
        f"{len(changed)} of {n} verdicts flip, in {len({one.case for one in changed})} of {len(before)} images."
    ]
    for (was, now), count in Counter((one.was, one.now) for one in changed).most_common():
        told.append(f"{was} → {now}: {count}")
    areas, images = [], []
    for kinds in (before, after):
        mask = masks(kinds)
        areas.append(mask.double().mean().item())
        images.append(int(mask.flatten(1).any(1).sum()))
    told.append(
        f"Masked images: {images[0]} → {images[1]}; masked pixels: {areas[0]:.1%} → {areas[1]:.1%}."
    )
    return told


def _told(
    alignment_set: AlignmentSet,
    before: Tensor,
    after: Tensor,
    masks: Callable[[Tensor], Tensor],
    words: str,
) -> str:
    told = summary(before, after, alignment_set.truth, masks)
    parts = [f"<p>I read: {html.escape('; '.join(read_description(words).lines()))}</p>"]
    parts.append(f"<p><b>{html.escape(told[0])}</b></p>")
    parts.append(f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in told[1:])}</ul>")
    concerned = list(dict.fromkeys(one.case for one in flips(before, after)))[:N_SHOWN]
    if concerned:
        figure, axes = unshared_grid(2, len(concerned), size=2)
        for column, i in zip(axes.T, concerned, strict=True):
            case = alignment_set.cases[i]
            for axis, kinds in zip(column, (before, after), strict=True):
                plots.show_segments(
                    axis, case.image, case.segment_labels, [KINDS[code] for code in kinds[i]]
                )
            column[0].set_title(case.case_id, fontsize="small")
        axes[0, 0].set_ylabel("before")
        axes[1, 0].set_ylabel("now")
        plots.kind_legend(figure)
        ids = ", ".join(alignment_set.cases[i].case_id for i in concerned)
        parts.append(picture(figure, f"Verdicts before, above, and now, below, of {ids}"))
    return "".join(parts)
