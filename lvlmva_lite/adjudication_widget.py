"""Verdicts put before a person, the least certain first; needs ``pip install 'lvlmva-lite[notebooks]'``."""

from __future__ import annotations

import csv
import html
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lvlmva_lite import plots
from lvlmva_lite.critic import Case, Critique, segment_names
from lvlmva_lite.critic.adjudication import queue
from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.files import append_line
from lvlmva_lite.fingerprint import fingerprint
from lvlmva_lite.segmentation import segment_sums
from lvlmva_lite.widgets import focus, key_field, picture, unshared_grid

if TYPE_CHECKING:
    from ipywidgets import VBox

KEYS = {"r": "relevant", "s": "spurious", "b": "background", "u": "undecided"}
BACK = "z"
"""Keys of the verdicts, and the one that takes the last answer back."""

_COLUMNS = ("case_id", "segment", "kind", "segments")


class AdjudicationQueue:
    """The order, the answers and their file; without a view, for tests and scripts.

    Every answer is on disk when :meth:`answer` returns.  The file only grows:
    of several rows on one segment the last counts, and one without a kind
    takes the answer back.  A queue made anew with the same file goes on where
    the last one stopped.

    Parameters
    ----------
    cases : n
    kinds : (n, J) int64, codes of ``KINDS``, a critic's verdicts
    certainty : (n, J) float, of :mod:`critic.adjudication`
    table : CSV of case_id, segment, kind and a fingerprint of the case's segments; made with the first answer
    budget : segments that are asked about; None: all

    Raises
    ------
    ValueError : cases, verdicts and certainty do not belong together; a file that is no such table,
        or that rules on other segments of these cases; a budget below 1
    """

    def __init__(
        self,
        cases: Sequence[Case],
        kinds: Tensor,
        certainty: Tensor,
        table: str | Path,
        *,
        budget: int | None = None,
    ) -> None:
        if kinds.shape != certainty.shape or len(kinds) != len(cases):
            raise ValueError(
                f"there are {len(cases)} cases, verdicts {tuple(kinds.shape)} and certainties "
                f"{tuple(certainty.shape)}; give one row a case and one column a segment"
            )
        if budget is not None and budget < 1:
            raise ValueError(f"the budget must be at least one segment, got {budget}")
        labels = torch.stack([case.segment_labels for case in cases])
        places = queue(certainty, segment_sums(labels, kinds.shape[1]) > 0)[:budget]
        self.cases, self._kinds, self._table = list(cases), kinds, Path(table)
        self._segments = {
            case.case_id: fingerprint(case.segment_labels.to("cpu", torch.int64))[:12] for case in cases
        }
        self._names = segment_names(kinds.shape[1])
        self._order = [(i, j) for i, j in places.tolist()]
        self._given = self._read() if self._table.exists() else {}
        # Undo goes through what this file holds of this queue, the latest last.
        ours = {self._key(place): place for place in self._order}
        self._done = [ours[key] for key in self._given if key in ours]

    def _key(self, place: tuple[int, int]) -> tuple[str, str]:
        return self.cases[place[0]].case_id, self._names[place[1]]

    def _read(self) -> dict[tuple[str, str], str]:
        try:
            rows = list(csv.reader(self._table.read_text("utf-8-sig").splitlines()))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{self._table} cannot be read: {error}") from None
        if not rows or tuple(rows[0]) != _COLUMNS:
            raise ValueError(
                f"{self._table} has other columns than {', '.join(_COLUMNS)}; give another file"
            )
        given: dict[tuple[str, str], str] = {}
        for line, row in enumerate(rows[1:], 2):
            if len(row) != len(_COLUMNS) or row[2] not in ("", *KINDS):
                raise ValueError(
                    f"{self._table}, line {line} is no answer: {','.join(row)!r}; mend or remove it"
                )
            if row[3] != self._segments.get(row[0], row[3]):
                raise ValueError(
                    f"{self._table}, line {line} rules on other segments of {row[0]}; give another file"
                )
            given.pop((row[0], row[1]), None)
            if row[2]:
                given[row[0], row[1]] = row[2]
        return given

    @property
    def waiting(self) -> list[tuple[int, int]]:
        """Case and segment of those still to be asked about, in order."""
        return [place for place in self._order if self._key(place) not in self._given]

    @property
    def progress(self) -> tuple[int, int]:
        """How many were answered, of how many."""
        return len(self._order) - len(self.waiting), len(self._order)

    def answer(self, kind: str) -> None:
        """Rule on the first that waits.

        Raises
        ------
        ValueError : no such kind; nothing waits
        """
        if kind not in KINDS:
            raise ValueError(f"a verdict is one of {', '.join(KINDS)}; got {kind!r}")
        if not self.waiting:
            raise ValueError("nothing waits any more")
        place = self.waiting[0]
        self._write(place, kind)
        self._given[self._key(place)] = kind
        self._done.append(place)

    def undo(self) -> bool:
        """Take the last answer back; False where there is none."""
        if not self._done:
            return False
        place = self._done.pop()
        self._write(place, "")
        del self._given[self._key(place)]
        return True

    def _write(self, place: tuple[int, int], kind: str) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._table.exists() or not self._table.stat().st_size:
            writer.writerow(_COLUMNS)
        case_id, name = self._key(place)
        writer.writerow((case_id, name, kind, self._segments[case_id]))
        append_line(self._table, text.getvalue().removesuffix("\n"))

    def kinds(self) -> Tensor:
        """Verdicts (n, J), the critic's and, where a person ruled, the person's."""
        changed = self._kinds.clone()
        for place in self._order:
            if (said := self._given.get(self._key(place))) is not None:
                changed[place] = KINDS.index(said)
        return changed


def adjudication_widget(waiting: AdjudicationQueue, critiques: Sequence[Critique]) -> VBox:
    """Show one segment after the other, with the critic's words, and write each ruling down at once.

    By mouse, or by keys in the field, where a click on a button puts the
    cursor: r, s, b, u, and z to take back.  What the critic says, its verdict
    included, is folded away, so that the person looks first.

    Parameters
    ----------
    waiting : the queue; its ``kinds()`` are the verdicts with the person's
    critiques : one a case, in the same order

    Returns
    -------
    VBox : show it at the end of a cell
    """
    from ipywidgets import HTML, Button, HBox, VBox

    status, shown = HTML(), HTML()
    acting = threading.RLock()  # JupyterLab may have a key and a click answered in two threads
    buttons = [Button(description=f"{kind} ({key})") for key, kind in KEYS.items()]
    back = Button(description=f"Take back ({BACK})")

    def show() -> None:
        done, n = waiting.progress
        if not waiting.waiting:
            status.value, shown.value = f"All {n} segments are ruled on.", ""
        else:
            i, j = waiting.waiting[0]
            name = segment_names(waiting.kinds().shape[1])[j]
            status.value = (
                f"<b>{done + 1} of {n}: segment {name} of {html.escape(waiting.cases[i].case_id)}</b>"
            )
            shown.value = _page(waiting.cases[i], name, critiques[i].text)
        for button in buttons:
            button.disabled = not waiting.waiting
        back.disabled = not done

    def rule(kind: str) -> None:
        with acting:
            if waiting.waiting:
                waiting.answer(kind)
                show()

    def undo() -> None:
        with acting:
            waiting.undo()
            show()

    keys = key_field({**{key: lambda kind=kind: rule(kind) for key, kind in KEYS.items()}, BACK: undo})
    for button, kind in zip(buttons, KEYS.values(), strict=True):
        button.on_click(lambda _, kind=kind: rule(kind))
    back.on_click(lambda _: undo())
    for button in (*buttons, back):
        button.on_click(lambda _: focus(keys))
    show()
    return VBox([status, shown, HBox([*buttons, back]), keys])


def _page(case: Case, name: str, text: str) -> str:
    figure, axes = unshared_grid(1, 2, size=2.4)
    plots.show_image(axes[0, 0], case.image)
    plots.show_segments(axes[0, 1], case.image, case.segment_labels)
    drawn = picture(figure, f"A {case.class_name} and its segments; the question is about segment {name}")
    said = "<br>".join(html.escape(line) for line in text.splitlines())
    return (
        f"{drawn}<p>Class: {html.escape(case.class_name)}. {html.escape(case.description)}</p>"
        f'<details><summary>What the critic says</summary><p style="line-height: 1.4">{said}</p></details>'
    )
