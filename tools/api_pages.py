"""The reference of the package, from its docstrings, and the map between functions and chapters.

A page ``book/api_*.md`` lists modules in a line ``{{ reference: segmentation superpixels }}``; when
the book is built, an entry for each of their public names takes its place.  A docstring that says
"Derived in chapter 4." is held to it: chapter 4 must use the name, and the map leads to the section
in which it first does.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

import nbformat
from reader_view import without_bookkeeping

from notebooks import SETUP_TAG

PACKAGE = "lvlmva_lite"
PLACE = re.compile(r"^\{\{ reference: (?P<modules>[\w. ]+) \}\}$", re.MULTILINE)
MAP = "{{ functions and chapters }}"
DERIVED = re.compile(r"Derived in chapters? (?P<chapters>\d+(?:(?:, | and )\d+)*)\.")
HEADING = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)
CLOSING = "In the package"
MAP_FILE = "functions_and_chapters.json"


@dataclass(frozen=True)
class Entry:
    """One public name.

    Attributes
    ----------
    name : where a reader imports it from, such as "lvlmva_lite.models.fit"
    module : of ``name``
    page : of the reference, such as "book/api_networks"
    kind : "class" or "function"
    summary : the first sentence of its docstring
    derived : numbers of the chapters that derive it
    uses : of each chapter that uses it, by its stem, the labels of the sections, in order
    """

    name: str
    module: str
    page: str
    kind: str
    summary: str
    derived: tuple[int, ...] = ()
    uses: Mapping[str, tuple[str, ...]] | None = None

    @property
    def short(self) -> str:
        return self.name.removeprefix(f"{PACKAGE}.")


@dataclass(frozen=True)
class Section:
    """A section ``## title`` of a chapter: its label, and the names that its code uses."""

    label: str
    title: str
    names: tuple[str, ...]


def number(stem: str) -> int:
    """The number of a chapter, from its file's name."""
    return int(stem.partition("_")[0])


def public(module: ModuleType) -> list[str]:
    """The public functions and classes of a module: of ``__all__``, or those that it defines."""
    own = getattr(module, "__all__", None)
    names = own if own is not None else [name for name in vars(module) if not name.startswith("_")]
    return [
        name
        for name in names
        if _is_entry(one := getattr(module, name))
        and (own is not None or one.__module__ == module.__name__)
    ]


def _is_entry(one: object) -> bool:
    """Whether it is a function or class of the package (a cached function counts)."""
    plain = inspect.unwrap(one) if callable(one) else None
    return (inspect.isclass(plain) or inspect.isfunction(plain)) and plain.__module__.startswith(PACKAGE)


def modules_of(page: Path) -> list[str]:
    """The modules, with the package's name, whose entries stand on a page."""
    return _named(" ".join(place["modules"] for place in PLACE.finditer(page.read_text())))


def _named(listed: str) -> list[str]:
    return [name if name == PACKAGE else f"{PACKAGE}.{name}" for name in listed.split()]


def reference(pages: Sequence[Path]) -> dict[str, Entry]:
    """The entry of every public name, by where it is defined ("module.qualified name").

    What several listed modules offer stands under the first of them.
    """
    found: dict[str, Entry] = {}
    for page in pages:
        for module in map(importlib.import_module, modules_of(page)):
            for name in public(module):
                one = getattr(module, name)
                home = f"{one.__module__}.{one.__qualname__}"
                if home in found:
                    continue
                told = inspect.getdoc(one) or ""
                said = DERIVED.search(told)
                found[home] = Entry(
                    f"{module.__name__}.{name}",
                    module.__name__,
                    f"book/{page.stem}",
                    "class" if inspect.isclass(one) else "function",
                    " ".join(told.partition("\n\n")[0].split()),
                    tuple(int(n) for n in re.findall(r"\d+", said["chapters"])) if said else (),
                )
    return found


def package_modules() -> Iterator[str]:
    """Every module of the package but the command line's, by its name."""
    package = importlib.import_module(PACKAGE)
    yield PACKAGE
    for one in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        if not one.name.startswith(f"{PACKAGE}.cli"):
            yield one.name


def names_used(sources: Sequence[str]) -> list[list[str]]:
    """Of each cell, where the functions and classes of the package are defined that it uses, in order."""
    known: dict[str, object] = {}
    found = []
    for source in sources:
        here: dict[str, None] = {}
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
                for alias in node.names:
                    module = importlib.import_module(node.module)
                    one = getattr(module, alias.name, None)
                    if one is None:
                        one = importlib.import_module(f"{node.module}.{alias.name}")
                    known[alias.asname or alias.name] = one
        for node in ast.walk(tree):
            one = None
            if isinstance(node, ast.Name):
                one = known.get(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                holder = known.get(node.value.id)
                one = getattr(holder, node.attr, None) if inspect.ismodule(holder) else None
            if _is_entry(one):
                here[f"{one.__module__}.{one.__qualname__}"] = None
        found.append(list(here))
    return found


def sections(notebook: nbformat.NotebookNode, stem: str) -> list[Section]:
    """The sections of a chapter that use the package; what stands before the first heading is left out."""
    code = [
        without_bookkeeping(cell.source)
        if cell.cell_type == "code" and SETUP_TAG not in cell.metadata.get("tags", ())
        else ""
        for cell in notebook.cells
    ]
    used = iter(names_used(code))
    found: list[tuple[str, dict[str, None]]] = []
    for cell in notebook.cells:
        here = next(used)
        if cell.cell_type == "markdown":
            found += [(heading["title"], {}) for heading in HEADING.finditer(cell.source)]
        elif found:
            found[-1][1].update(dict.fromkeys(here))
    return [
        Section(f"section-{stem}-{place}", title, tuple(names))
        for place, (title, names) in enumerate(found, start=1)
    ]


def mapped(entries: Mapping[str, Entry], chapters: Mapping[str, Sequence[Section]]) -> dict[str, Entry]:
    """The entries with the sections of the chapters that use them.

    Raises
    ------
    ValueError : a docstring says that a chapter derives what it does not use
    """
    filled = {}
    for home, entry in entries.items():
        uses = {
            stem: tuple(part.label for part in parts if home in part.names)
            for stem, parts in chapters.items()
        }
        uses = {stem: labels for stem, labels in uses.items() if labels}
        if lost := set(entry.derived) - {number(stem) for stem in uses}:
            raise ValueError(
                f"{entry.name} says that it is derived in chapter {min(lost)}, which does not use it"
            )
        filled[home] = replace(entry, uses=uses)
    return filled


def with_labels(notebook: nbformat.NotebookNode, parts: Sequence[Section]) -> None:
    """Give every section of a chapter its label, in place."""
    label = iter(part.label for part in parts)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = HEADING.sub(lambda found: f"({next(label)})=\n{found[0]}", cell.source)


def closing(entries: Mapping[str, Entry], stem: str, parts: Sequence[Section]) -> str:
    """What a chapter ends with: the functions that its sections use, and those that it derives."""
    rows = []
    for part in parts:
        names = [entries[home] for home in part.names if home in entries]
        told = ", ".join(
            f"{{py:obj}}`{one.short} <{one.name}>`"
            + (" (**derived**)" if first_place(one, stem) == part.label else "")
            for one in names
        )
        if told:
            rows.append(f"| {{ref}}`{part.title.replace('|', chr(92) + '|')} <{part.label}>` | {told} |")
    if not rows:
        return ""
    return "\n".join([f"## {CLOSING}", "", "| section | functions and classes |", "|---|---|", *rows])


def first_place(entry: Entry, stem: str) -> str | None:
    """The label of the section of a chapter that derives an entry; None where the chapter does not."""
    return entry.uses[stem][0] if number(stem) in entry.derived else None


def page_with_entries(text: str, entries: Iterable[Entry]) -> str:
    """A page with the entries of its modules, for Sphinx's autodoc."""

    def of_modules(place: re.Match) -> str:
        parts = []
        for module in _named(place["modules"]):
            here = [one for one in entries if one.module == module]
            listed = [
                f".. auto{one.kind}:: {one.name}" + "\n   :members:\n" * (one.kind == "class")
                for one in here
            ]
            lines = [f"## `{module}`", "", "```{eval-rst}", f".. automodule:: {module}", "", *listed, "```"]
            parts.append("\n".join(lines))
        return "\n\n".join(parts)

    return PLACE.sub(of_modules, text)


def map_page(text: str, entries: Mapping[str, Entry], titles: Mapping[str, str]) -> str:
    """The page ``text`` with two tables in place of ``{{ functions and chapters }}``.

    Parameters
    ----------
    titles : of the chapters, by their stems
    """
    short = {stem: f"{number(stem)}" for stem in titles}
    derived = ["| chapter | derives |", "|---|---|"]
    for stem, title in titles.items():
        names = [one for one in entries.values() if first_place(one, stem)]
        if names:
            told = ", ".join(f"{{py:obj}}`{one.short} <{one.name}>`" for one in names)
            derived.append(f"| {number(stem)}. {{doc}}`{title} <../notebooks/{stem}>` | {told} |")
    used = ["| function or class | what it is | derived in | used in |", "|---|---|---|---|"]
    for one in sorted(entries.values(), key=lambda one: one.name):
        if not one.uses:
            continue
        place = {stem: first_place(one, stem) for stem in one.uses}
        told = one.summary.replace("|", "\\|")
        used.append(
            f"| {{py:obj}}`{one.short} <{one.name}>` | {told} "
            f"| {', '.join(f'{{ref}}`{short[stem]} <{label}>`' for stem, label in place.items() if label)} "
            f"| {', '.join(f'{{ref}}`{short[stem]} <{labels[0]}>`' for stem, labels in one.uses.items())} |"
        )
    whole = [
        "## From chapter to function", "", *derived, "", "## From function to chapter", "", *used,
    ]  # fmt: skip
    return text.replace(MAP, "\n".join(whole))


def write_map(file: Path, entries: Mapping[str, Entry]) -> None:
    """Write for Sphinx, by the name of each entry, where it is derived and used."""
    file.write_text(json.dumps({one.name: asdict(one) for one in entries.values()}))
