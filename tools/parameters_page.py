"""The page of every chapter's parameters, from their cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nbformat
from papermill import inspect_notebook

USUAL = {
    "seed": "draws everything that is drawn",
    "critic": "who judges the segments, as for `lvlmva run --critic`",
    "words": "the expert's words",
    "std": "see `mean`",
    "skin_root": "see `knee_root`",
}
"""What a parameter is whose chapter need not say so."""


def parameters_of(notebook: Path) -> list[tuple[str, str, str]]:
    """(name, default, what it is) of each parameter of a chapter, in order; its comment says what it is."""
    return [
        (name, str(one["default"]), one["help"] or USUAL.get(name, ""))
        for name, one in inspect_notebook(str(notebook)).items()
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
        if silent := [name for name, _, told in rows if not told]:
            raise ValueError(f"{notebook.name}: say in a comment what the parameter {silent[0]} is")
        lines = [
            f"## {{doc}}`{title(notebook)} <../notebooks/{notebook.stem}>`",
            "",
            "| name | default | what it is |",
            "|---|---|---|",
        ]
        lines += [
            f"| `{name}` | `{default}` | {told.replace('|', chr(92) + '|')} |"
            for name, default, told in rows
        ]
        parts.append("\n".join(lines))
    return text.replace("{{ parameters }}", "\n\n".join(parts))
