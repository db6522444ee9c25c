"""A Sphinx extension: the package's docstrings as definition lists, each with its chapters below.

In a docstring's sections (Parameters, Returns, Raises, ...) an entry is ``name : what it is``, and
what is indented below goes on with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from api_pages import DERIVED, MAP_FILE, number

UNDERLINE = re.compile(r"-{3,}")
ENTRY = re.compile(r"(?P<names>\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*) : ?(?P<told>.*)")
# Names of one entry that go on in a second line.
MANY_NAMES = re.compile(r"^(?P<names>\w+(?:, \w+)*,)\n(?=\w+(?:, \w+)* : )", re.MULTILINE)
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?(?P<name>[\w.]+)`")


def linked(line: str, names: Iterable[str]) -> str:
    """A line with a link to each thing that has an entry, and the names of the others as they are."""

    def link(role: re.Match) -> str:
        name = role["name"]
        full = next((one for one in names if one == name or one.endswith(f".{name}")), None)
        return f":py:obj:`{name} <{full}>`" if full else f"``{name}``"

    return ROLE.sub(link, line)


def as_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    text = MANY_NAMES.sub(r"\g<names> ", "\n".join(lines))
    lines, made, section = text.splitlines(), [], False
    for place, line in enumerate(lines):
        below = lines[place + 1] if place + 1 < len(lines) else ""
        if UNDERLINE.fullmatch(below) and len(below) == len(line):
            section = line not in ("Examples", "References", "Notes")
            made += ["", f".. rubric:: {line}", ""]
        elif UNDERLINE.fullmatch(line) and place and len(lines[place - 1]) == len(line):
            continue
        elif section and (entry := ENTRY.fullmatch(line)):
            told = entry["told"].strip()
            if told and told[-1] not in ".,;:" and re.match(r" +[A-Z]", below):
                told += "."
            names = ", ".join(f"``{name}``" for name in entry["names"].split(", "))
            made += ["", names, *([f"    {told}"] if told else [])]
        elif section and line.strip() and line[0] != " " and made and made[-1].startswith("    "):
            made += ["", line]
        else:
            made.append(line)
    return made


def footer(entry: dict[str, Any]) -> list[str]:
    """Where an entry is derived and used, with links to the sections."""
    links = {stem: labels[0] for stem, labels in entry["uses"].items()}
    derived = [stem for stem in links if number(stem) in entry["derived"]]
    told = []
    for what, stems in (
        ("Derived in", derived),
        ("Used in", [stem for stem in links if stem not in derived]),
    ):
        if stems:
            chapters = ", ".join(f":ref:`chapter {number(stem)} <{links[stem]}>`" for stem in stems)
            told.append(f"{what} {chapters}.")
    return ["", " ".join(told), ""] if told else []


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    entries: dict[str, Any] = {}

    def read(app: Any, config: Any) -> None:
        file = Path(app.confdir) / MAP_FILE
        if file.exists():
            entries.update(json.loads(file.read_text()))

    def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        plain = [DERIVED.sub("", line) for line in lines] if name in entries else lines
        lines[:] = [linked(line, entries) for line in as_rst(plain)] + (
            footer(entries[name]) if name in entries else []
        )

    app.connect("config-inited", read)
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
