"""Write the committed notebooks from their Markdown sources.

``notebooks/NN_name.md`` (MyST Markdown, jupytext format ``md:myst``) is the source.
``python tools/notebooks.py`` writes its twin ``notebooks/NN_name.ipynb``: the same code
cells, prose that Colab can show, no outputs, the same bytes every time.  It also writes
the cell tagged ``colab-setup`` of every source, which holds the repository's address and
tag from ``pyproject.toml``, and the same in ``CITATION.cff``.

``--check`` writes nothing and exits 1 with one line for every file that is not up to date.
``--full FOLDER`` writes the notebooks with their MyST left as it is, to run or render them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path

import jupytext
from colab_markdown import Book, UnknownMyST, caption, citations, collect, convert, page_numbering, title
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
SETUP_TAG = "colab-setup"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Colab brings torch, numpy and the rest: --no-deps leaves them alone.
SETUP_CELL = """\
# Where the helper package is missing, as on Colab, fetch it (and leave torch and numpy alone).
import importlib.util

if importlib.util.find_spec("lvlmva_lite") is None:
    %pip install -q --no-deps "lvlmva-lite @ git+{repository}@{tag}" captum safetensors"""
CODE_CELL = re.compile(
    r"^(?P<fence>`{3,})\{code-cell\}[^\n]*\n(?P<body>.*?)^(?P=fence) *$", re.DOTALL | re.MULTILINE
)
CITATION = "CITATION.cff"
HEADER = re.compile(r"(?P<options>(?:---\n.*?\n---\n|(?::[\w-]+:[^\n]*\n)+))\n*", re.DOTALL)


def repository(root: Path = ROOT) -> tuple[str, str]:
    """Return the repository's address and the tag of this version."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    package = (root / "lvlmva_lite" / "__init__.py").read_text()
    version = re.search(r'^__version__ = "(.+)"$', package, re.MULTILINE)[1]
    return project["urls"]["Repository"].rstrip("/"), f"v{version}"


def stamp(source: str, address: str, tag: str) -> str:
    """Return the chapter ``source`` with the first cell tagged ``colab-setup`` written anew."""
    for cell in CODE_CELL.finditer(source):
        header = HEADER.match(cell["body"])
        if header and SETUP_TAG in header["options"]:
            setup = SETUP_CELL.format(repository=address, tag=tag)
            body = f"{header['options']}\n{setup}\n"
            return source[: cell.start("body")] + body + source[cell.end("body") :]
    raise ValueError(f"no code cell is tagged {SETUP_TAG}")


def cited(root: Path = ROOT) -> str:
    """Return ``CITATION.cff`` with the repository's address, this version and its date.

    The date is the changelog's; while that gives the version none, there is none.
    """
    address, tag = repository(root)
    version = tag.removeprefix("v")
    heading = re.escape(f"## [{version}] - ") + r"(\d{4}-\d\d-\d\d)$"
    date = re.search(f"^{heading}", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    stamps = {"version": version, "date-released": date and date[1], "repository-code": address}
    kept = [
        line for line in (root / CITATION).read_text().splitlines() if line.partition(":")[0] not in stamps
    ]
    return "\n".join(kept + [f'{key}: "{value}"' for key, value in stamps.items() if value]) + "\n"


def read(source: str) -> NotebookNode:
    """Return the notebook of a chapter's source: MyST as it is, fixed cell ids and metadata."""
    notebook = jupytext.reads(source, fmt="md:myst")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = NotebookNode(METADATA)
    _name_cells(notebook.cells)
    return notebook


def _name_cells(cells: list[NotebookNode]) -> None:
    seen: dict[str, int] = {}
    for cell in cells:
        name = hashlib.sha256((cell.cell_type + cell.source).encode()).hexdigest()[:8]
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"


def for_colab(notebook: NotebookNode, page: str, book: Book) -> NotebookNode:
    """Return a copy of ``notebook`` with plain Markdown and captions below the figures."""
    numbering = page_numbering(page)
    twin = NotebookNode(notebook, cells=[])
    for cell in notebook.cells:
        if cell.cell_type == "code":
            twin.cells.append(cell)
            words = caption(cell, page, book, numbering)
            if words:
                twin.cells.append(
                    NotebookNode(cell_type="markdown", id=f"{cell.id}-caption", metadata={}, source=words)
                )
        else:
            words = convert(cell.source, page, book, numbering)
            if words:
                twin.cells.append(NotebookNode(cell, source=words))
    return twin


def dumps(notebook: NotebookNode) -> str:
    """Return the notebook as text, the same for the same notebook, without outputs."""
    cells = []
    for cell in notebook.cells:
        plain = {key: cell[key] for key in ("cell_type", "id", "metadata")}
        plain["source"] = cell.source.splitlines(keepends=True)
        if cell.cell_type == "code":
            plain |= {"execution_count": None, "outputs": []}
        cells.append(plain)
    whole = {key: notebook[key] for key in ("metadata", "nbformat", "nbformat_minor")} | {"cells": cells}
    return json.dumps(whole, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def sources(root: Path = ROOT) -> dict[Path, str]:
    """Return the path and the stamped text of every chapter, in order."""
    stamped = {}
    for path in sorted((root / "notebooks").glob("*.md")):
        try:
            stamped[path] = stamp(path.read_text(), *repository(root))
        except ValueError as error:
            raise ValueError(f"{path.relative_to(root)}: {error}") from None
    return stamped


def survey(root: Path, chapters: dict[Path, str]) -> Book:
    """Return what the chapters may refer to: pages, labels and literature."""
    address, tag = repository(root)
    book = Book(f"{address}/blob/{tag}", citations=citations(root / "book" / "references.bib"))
    for path in sorted((root / "book").glob("*.md")):
        page, text = path.relative_to(root).as_posix(), path.read_text()
        book.titles[page] = title(text)
        book.targets.update(collect([{"cell_type": "markdown", "source": text}], page))
    for path, text in chapters.items():
        page, notebook = path.relative_to(root).as_posix(), read(text)
        book.titles[page] = next((words for cell in notebook.cells if (words := title(cell.source))), "")
        book.targets.update(collect(notebook.cells, page))
    return book


def twins(root: Path = ROOT) -> dict[Path, str]:
    """Return what the files written here should hold: sources with their setup cell, twins, the citation."""
    chapters = sources(root)
    book = survey(root, chapters)
    files = {**chapters, root / CITATION: cited(root)}
    for path, text in chapters.items():
        files[path.with_suffix(".ipynb")] = dumps(
            for_colab(read(text), path.relative_to(root).as_posix(), book)
        )
    return files


def faults(root: Path = ROOT) -> list[str]:
    """Return one line for every file that :func:`twins` gives and that is not as it should be."""
    expected, found = twins(root), []
    for path, text in expected.items():
        name = path.relative_to(root)
        if not path.exists():
            found.append(f"{name}: missing; run python tools/notebooks.py")
        elif path.read_text() != text:
            holds = path.suffix == ".ipynb" and any(
                cell.get("outputs") for cell in json.loads(path.read_text()).get("cells", [])
            )
            what = "holds outputs" if holds else "is stale"
            found.append(f"{name}: {what}; run python tools/notebooks.py")
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        if path not in expected:
            found.append(f"{path.relative_to(root)}: has no source {path.with_suffix('.md').name}")
    return found


def write_full(folder: Path, root: Path = ROOT, only: set[str] | None = None) -> list[Path]:
    """Write the chapters (those whose stem is in ``only``, if given) as notebooks with their MyST."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path, text in sources(root).items():
        if only is None or path.stem in only:
            written.append(folder / f"{path.stem}.ipynb")
            written[-1].write_text(dumps(read(text)))
    return written


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a file is not up to date"
    )
    parser.add_argument(
        "--full", type=Path, metavar="FOLDER", help="write the MyST notebooks into FOLDER instead"
    )
    options = parser.parse_args(arguments)
    try:
        if options.check:
            found = faults()
            print("\n".join(found) or "notebooks: up to date", file=sys.stderr if found else sys.stdout)
            return 1 if found else 0
        if options.full:
            for path in write_full(options.full):
                print(path)
            return 0
        for path, text in twins().items():
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
                print("wrote", path.relative_to(ROOT))
    except (UnknownMyST, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
