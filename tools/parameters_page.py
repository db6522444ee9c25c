"""The page of every chapter's parameters, from their cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nbformat
from papermill import inspect_notebook

from lvlmva_lite.experiments.parameters import declared

USUAL = {
    "seed": "draws everything that is drawn",
    "critic": "who judges the segments, as for `lvlmva run --critic`",
    "words": "the expert's words",
    "std": "see `mean`",
    "skin_root": "see `knee_root`",
}
"""What a parameter is whose chapter need not say so."""


def parameters_of(notebook: Path) -> list[tuple[str, str, str, str]]:
    """(name, default, what it may be, what it is) of each parameter, in order; its comment says what it is.

    Raises
    ------
    ValueError : ``check_parameters`` in the chapter lacks one, or has one that is none
    """
    known, kinds = inspect_notebook(str(notebook)), declared(notebook)
    if differ := {*known} ^ {*kinds}:
        raise ValueError(
            f"{notebook.name}: check_parameters and the cell differ in {', '.join(sorted(differ))}"
        )
    return [
        (name, str(one["default"]), kinds[name].words, one["help"] or USUAL.get(name, ""))
        for name, one in known.items()
    ]


def title(notebook: Path) -> str:
    """A chapter's first heading."""
    for cell in nbformat.read(notebook, 4).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("# "):
                return line[2:].strip()
    raise ValueError(f"{notebook} has no heading")


def page(text: str, notebooks: Sequence[Path]) -> str:
    """``text`` with ``{{ parameters }}`` replaced by a table for each chapter.

    Raises
    ------
    ValueError : a parameter without a comment that says what it is
    """
    parts = []
    for notebook in notebooks:
        rows = parameters_of(notebook)
        if silent := [name for name, _, _, told in rows if not told]:
            raise ValueError(f"{notebook.name}: say in a comment what the parameter {silent[0]} is")
        lines = [
            f"## {{doc}}`{title(notebook)} <../notebooks/{notebook.stem}>`",
            "",
            "| name | default | values | what it is |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| `{name}` | `{default}` | {kind} | {told.replace('|', chr(92) + '|')} |"
            for name, default, kind, told in rows
        ]
        parts.append("\n".join(lines))
    return text.replace("{{ parameters }}", "\n\n".join(parts))
