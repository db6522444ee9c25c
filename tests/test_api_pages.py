"""The package's reference and the map between functions and chapters."""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import api_pages  # noqa: E402
import docstrings  # noqa: E402

import notebooks  # noqa: E402

PAGES = sorted((ROOT / "book").glob("api_*.md"))
PACKAGE = ROOT / "lvlmva_lite"


@pytest.fixture(scope="module")
def chapters():
    return {
        path.stem: api_pages.sections(notebooks.read(text), path.stem)
        for path, text in notebooks.sources().items()
    }


@pytest.fixture(scope="module")
def entries(chapters):
    return api_pages.mapped(api_pages.reference(PAGES), chapters)


def test_every_public_name_has_one_entry(entries):
    names = {one.name.rpartition(".")[2] for one in entries.values()}
    for file in [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__init__.py")]:
        if file.parent.name == "cli":
            continue
        body = ast.parse(file.read_text()).body
        listed = [
            ast.literal_eval(node.value)
            for node in body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        public = listed[0] if listed else [
            node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)
        ]  # fmt: skip
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(name.removesuffix(".__init__"))
        # tasks.get and names are methods of a registry, which has an entry of its own.
        wanted = {name for name in public if name[0] != "_" and not inspect.ismethod(getattr(module, name))}
        assert wanted <= names, f"{file}: {sorted(wanted - names)} stand on no page book/api_*.md"
    assert len({one.name for one in entries.values()}) == len(entries)


def test_what_a_chapter_imports_has_an_entry(entries):
    homes = set(entries)
    for path, text in notebooks.sources().items():
        for found in re.finditer(
            r"^from (lvlmva_lite[\w.]*) import (?:\(([^)]*)\)|(.+))", text, re.MULTILINE
        ):
            module = importlib.import_module(found[1])
            for name in re.findall(r"\w+(?= as |,|\s*$)", found[2] or found[3]):
                one = getattr(module, name, None)
                if isinstance(one, type) or type(one).__name__ == "function":
                    assert f"{one.__module__}.{one.__qualname__}" in homes, (path.name, name)


def test_every_page_is_in_the_book_and_names_modules_that_exist():
    toc = (ROOT / "_toc.yml").read_text()
    for page in PAGES:
        assert f"book/{page.stem}\n" in toc
        assert f"{{doc}}`{page.stem}`" in (ROOT / "book" / "api.md").read_text()
        for name in api_pages.modules_of(page):
            importlib.import_module(name)


def test_a_docstring_that_names_a_chapter_is_mapped_both_ways(entries, chapters):
    said = {
        node.name
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and "Derived in chapter" in (ast.get_docstring(node) or "")
    }
    derived = [one for one in entries.values() if one.derived]
    assert {one.name.rpartition(".")[2] for one in derived} == said
    for one in derived:
        for stem in one.uses:
            if api_pages.number(stem) in one.derived:
                label = api_pages.first_place(one, stem)
                words = api_pages.closing(entries, stem, chapters[stem])
                assert f"<{label}>`" in words
                assert f"<{one.name}>` (**derived**)" in words
    # Each step of the method has its chapter.
    for name, number in {
        "sampling.sample_alignment_set": 2, "attribution.deeplift_shap": 3, "segmentation.ppeps_wgm": 4,
        "critic.TextJudge": 5, "alignment.rrr_penalty": 6, "alignment.correction_masks": 7,
    }.items():  # fmt: skip
        assert number in next(one.derived for one in derived if one.short == name)


def test_the_map_names_every_chapter_and_what_it_uses(entries, chapters):
    titles = {stem: stem for stem in chapters}
    text = api_pages.map_page(f"# Map\n\n{api_pages.MAP}\n", entries, titles)
    used = {home for parts in chapters.values() for part in parts for home in part.names}
    assert used <= set(entries)
    for home in used:
        assert text.count(f"<{entries[home].name}>`") >= 1
    assert not re.search(r"\{\{", text)
    assert all(parts and any(part.names for part in parts) for parts in chapters.values())


def cells(*sources):
    kinds = {"#": nbformat.v4.new_markdown_cell}
    made = [kinds.get(text[0], nbformat.v4.new_code_cell)(text) for text in sources]
    return nbformat.v4.new_notebook(cells=made)


def test_uses_are_found_under_other_names_and_by_attribute():
    notebook = cells(
        "from lvlmva_lite import metrics as m\nfrom lvlmva_lite.models import fit as train\nm.mu_align",
        "## One", "train\nfit = 3", "m.mu_align(1)\nm.stats", "## Two", "train(fit)",
    )  # fmt: skip
    one, two = api_pages.sections(notebook, "03_x")
    assert one.names == ("lvlmva_lite.models.training.fit", "lvlmva_lite.metrics.mu_align")
    assert two.names == ("lvlmva_lite.models.training.fit",)
    api_pages.with_labels(notebook, [one, two])
    assert notebook.cells[1].source == "(section-03_x-1)=\n## One"


def test_a_chapter_that_does_not_use_what_it_derives_is_named():
    entries = api_pages.reference(PAGES)
    unused = {"03_x": [api_pages.Section("a", "A", ())]}
    with pytest.raises(ValueError, match=r"is derived in chapter \d+, which does not use it"):
        api_pages.mapped(entries, unused)


def test_sections_of_a_docstring_become_definition_lists():
    lines = [
        "Sum.", "", "Parameters", "----------", "a, b,", "c : (n,) float,", "    in [0, 1]",
        "d : int", "    How many.", "", "Returns", "-------", "Tensor, scalar", "", "Raises", "------",
        "ValueError : a is empty", "what the model raises",
    ]  # fmt: skip
    made = docstrings.as_rst(lines)
    assert "``a``, ``b``, ``c``" in made
    assert made[made.index("``d``") + 1 : made.index("``d``") + 3] == ["    int.", "    How many."]
    assert made[-3:] == ["    a is empty", "", "what the model raises"]
    linked = docstrings.linked(
        "See :func:`metrics.mu_align` and :meth:`gone`.", ["lvlmva_lite.metrics.mu_align"]
    )
    assert linked == "See :py:obj:`metrics.mu_align <lvlmva_lite.metrics.mu_align>` and ``gone``."
