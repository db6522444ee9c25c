"""Run the chapters and render the book into ``_build/html``.

``python tools/build_book.py [--profile quick|paper] [--jobs N]`` stages the book in
``_build/work/src``, runs every chapter of ``_toc.yml`` into it (only those whose code, parameters,
constraints, or modules and data that they read have changed since: ``chapter_cache.py``) and renders it
with every warning an error, unless the very same was rendered before.  Before that it holds the claims to
what the chapters recorded and writes the scorecard; after it, it checks the links of the HTML.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from api_pages import (
    MAP_FILE,
    closing,
    map_page,
    mapped,
    page_with_entries,
    reference,
    sections,
    with_labels,
    write_map,
)
from chapter_cache import run
from example_report import PAGE as REPORT
from example_report import example_report
from parameters_page import page as parameters_page
from parameters_page import title
from reader_view import is_drawing, mended, preview, readable_table, readable_text, without_bookkeeping
from six_steps import files as six_steps
from six_steps import for_the_book
from vendor_javascript import SPHINX_CONFIG, vendor

from lvlmva_lite.experiments.claims import Claim, contradicted, load_claims
from lvlmva_lite.experiments.record import PREFIX
from lvlmva_lite.experiments.scorecard import scorecard
from notebooks import ROOT, SETUP_TAG, repository, write_full

# Under this type an output holds a number as the prose quotes it.
QUOTED = f"{PREFIX}text/plain"
# The first page lies deeper: this leads to it, without scripts, too.
INDEX = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<meta http-equiv="refresh" content="0; url={first}">
{preview}
</head>
<body><a href="{first}">{name}</a></body>
</html>
"""


def documents(toc: dict | list) -> list[str]:
    """Return the documents that a ``_toc.yml`` lists, in order."""
    if isinstance(toc, list):
        return [name for entry in toc for name in documents(entry)]
    here = [toc[key] for key in ("root", "file") if key in toc]
    return here + [
        name for key in ("parts", "chapters", "sections", "entries") for name in documents(toc.get(key, []))
    ]


def with_outputs(notebook: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return ``notebook`` as the reader is shown it, with the outputs and widget states of its executed copy.

    Parameters that were injected are shown where they differ from the chapter's own; the cell that
    fetches the package on Colab, and code that only keeps numbers for the prose, are not.
    """
    ran = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    injected = [cell for cell in ran.values() if "injected-parameters" in cell.metadata.get("tags", [])]
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.setdefault("tags", [])
        cell.outputs, cell.execution_count = ran[cell.id].outputs, ran[cell.id].execution_count
        for output in cell.outputs:
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = readable_table(data["text/html"])
            if QUOTED in data:  # in quotes it stays as it was recorded: "+0.260" is no 0.26
                data[QUOTED] = repr(readable_text(data[QUOTED]))
        figures = [
            output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})
        ]
        if figures and all(is_drawing(cell.source, figure) for figure in figures):
            cell.metadata.setdefault("mystnb", {}).setdefault("image", {})["classes"] = "drawing"
        if "parameters" in tags:
            own = {line.partition("#")[0].strip() for line in cell.source.splitlines()}
            for extra in injected:
                if not {line.strip() for line in extra.source.splitlines() if line[:1] != "#"} <= own | {
                    ""
                }:
                    extra.metadata = nbformat.from_dict({"tags": ["injected-parameters", "hide-cell"]})
                    cells.append(extra)
        elif SETUP_TAG in tags:
            tags.append("remove-cell")
        else:
            cell.source = without_bookkeeping(cell.source)
            if not cell.source:
                tags.append("remove-input")
    notebook.cells = cells
    if "widgets" in executed.metadata:
        notebook.metadata.widgets = executed.metadata.widgets
    return notebook


def without_chapter(claims: list[Claim], chapters: set[str]) -> list[str]:
    """Return one line for every claim that no chapter of the book makes."""
    return [
        f"{claim.id} is about {claim.chapter}, which is not in _toc.yml"
        for claim in claims
        if claim.chapter not in chapters
    ]


def recorded_values(runs: Path, chapters: set[str]) -> dict[str, dict]:
    """Return what every chapter recorded."""
    return {name: json.loads((runs / name / f"{name}.json").read_text()) for name in sorted(chapters)}


def false_claims(claims: list[Claim], values: dict[str, dict]) -> list[str]:
    """Return one line for every claim that what the chapters recorded contradicts or cannot decide."""
    return [line for chapter in values for line in contradicted(claims, chapter, values[chapter])]


def configuration(root: Path, vendored: bool) -> dict:
    """Return ``_config.yml`` with the repository's address and tag, and where the JavaScript lies."""
    config = yaml.safe_load((root / "_config.yml").read_text())
    config["sphinx"]["local_extensions"] = {"docstrings": str(root / "tools")}
    address, tag = repository(root)
    config["repository"] = {"url": address, "branch": tag, "path_to_book": ""}
    config.setdefault("html", {})["use_repository_button"] = True
    if vendored:
        config["sphinx"]["config"] |= SPHINX_CONFIG
    return config


def content(places: list[Path]) -> str:
    """Return a hash of all files at and under ``places``, with their names."""
    digest = hashlib.sha256()
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(place.parent).as_posix().encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class Links(HTMLParser):
    """Collects the identifiers of a page and the addresses it links to or loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.addresses: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag's identifiers and addresses."""
        for key, value in attrs:
            if key == "id" or (key == "name" and tag == "a"):
                self.names.add(value or "")
            elif key in ("href", "src") and value is not None:
                self.addresses.add(value)


def broken_links(html: Path) -> list[str]:
    """Return one line for every address within the book that leads nowhere."""
    pages = {
        page: Links(page)
        for page in sorted(html.rglob("*.html"))
        if "_static" not in page.relative_to(html).parts
    }
    found = []
    for page, links in pages.items():
        for address in sorted(links.addresses):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            missing = not target.exists()
            if target in pages and parts.fragment:
                missing = unquote(parts.fragment) not in pages[target].names
            if missing:
                found.append(f"{page.relative_to(html)}: {address} leads nowhere")
    return found


def add_reference(stage: Path, chapters: list[Path]) -> None:
    """Write the package's reference into the staged pages, and into each chapter what it uses of it."""
    pages = sorted((stage / "book").glob("api_*.md"))
    notebooks = {path: nbformat.read(path, 4) for path in chapters}
    parts = {path.stem: sections(notebook, path.stem) for path, notebook in notebooks.items()}
    entries = mapped(reference(pages), parts)
    for path, notebook in notebooks.items():
        with_labels(notebook, parts[path.stem])
        if words := closing(entries, path.stem, parts[path.stem]):
            notebook.cells.append(nbformat.v4.new_markdown_cell(words, id="in-the-package"))
        nbformat.write(notebook, path)
    titles = {path.stem: title(path) for path in chapters}
    for page in pages:
        page.write_text(page_with_entries(page.read_text(), entries.values()))
    page = stage / "book" / "api.md"
    page.write_text(map_page(page.read_text(), entries, titles))
    write_map(stage / MAP_FILE, entries)


def build(root: Path, profile: str, jobs: int) -> Path:
    """Build the book and hold its numbers to the claims; return its first page.  Exits on the first fault."""
    build_folder = root / "_build"
    work, html = build_folder / "work", build_folder / "html"
    stage = work / "src"
    vendored = vendor(root)
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(root / "book", stage / "book")
    shutil.copy2(root / "_toc.yml", stage)
    config = configuration(root, vendored)
    (stage / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))

    listed = documents(yaml.safe_load((root / "_toc.yml").read_text()))
    chapters = {name.removeprefix("notebooks/") for name in listed if name.startswith("notebooks/")}
    claims = load_claims()
    if lines := without_chapter(claims, chapters):
        raise SystemExit("\n".join(["claims without a chapter:", *lines]))
    written = write_full(stage / "notebooks", root, only=chapters)
    if missing := chapters - {path.stem for path in written}:
        raise SystemExit(f"_toc.yml lists chapters that are not there: {', '.join(sorted(missing))}")
    page = stage / "book" / "parameters.md"
    page.write_text(parameters_page(page.read_text(), written))
    for path, drawn in six_steps().items():
        (stage / path.relative_to(ROOT)).write_text(for_the_book(drawn, *repository(root)))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same sums, and as many chapters at once as cores
    one = partial(run, parameters={"profile": profile}, cache=work / "runs" / profile, root=root)
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        report = pool.submit(example_report, work / "report")
        for path, result in zip(written, pool.map(one, written), strict=True):
            nbformat.write(with_outputs(nbformat.read(path, 4), nbformat.read(result, 4)), path)
        told = report.result()
    add_reference(stage, written)
    values = recorded_values(work / "runs" / profile, chapters)
    if lines := false_claims(claims, values):
        raise SystemExit("\n".join(["claims that no longer hold:", *lines]))
    page = stage / "book" / "scorecard.md"
    page.write_text(scorecard(page.read_text(), claims, values, profile))

    index, stamp = html / "index.html", work / "rendered.txt"
    sources = [
        stage,
        *(root / name for name in ("tools", "lvlmva_lite", "constraints.txt", "pyproject.toml")),
        told,
    ]
    rendered = content(sources)
    if index.exists() and stamp.exists() and stamp.read_text() == rendered:
        return index
    shutil.rmtree(html, ignore_errors=True)
    stamp.unlink(missing_ok=True)
    command = Path(sys.executable).parent / "jupyter-book"
    options = ["--path-output", str(root), "--all", "-W", "-n", "--keep-going", "-q"]
    if subprocess.run([str(command), "build", str(stage), *options], cwd=stage).returncode:
        raise SystemExit("jupyter-book failed; its messages stand above")
    name = escape(config["title"], quote=False)
    if not index.exists() or name not in (html / f"{listed[0]}.html").read_text():
        raise SystemExit(f"{index} is missing, or its book has no name")
    words = tomllib.loads((root / "pyproject.toml").read_text())["project"]["description"]
    seen_elsewhere = preview(config["title"], words, repository(root)[0])
    index.write_text(INDEX.format(name=name, first=f"{listed[0]}.html", preview=seen_elsewhere))
    for path in html.rglob("*.html"):
        path.write_text(mended(path.read_text(), seen_elsewhere))
    shutil.copy2(told, html / REPORT)
    for path in written:  # to download: the whole chapter, as Colab opens it
        shutil.copy2(root / "notebooks" / path.name, html / "_sources" / "notebooks")
    if found := broken_links(html):
        raise SystemExit("\n".join(found))
    (html / ".nojekyll").touch()
    stamp.write_text(rendered)
    return index


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", choices=["quick", "paper"], default="quick")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="chapters to run at once"
    )
    options = parser.parse_args(arguments)
    print("the book is at", build(ROOT, options.profile, options.jobs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
