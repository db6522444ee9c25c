"""The converter to plain Markdown and the generator of the committed notebooks."""

import json
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupytext")
pytest.importorskip("pybtex")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from colab_markdown import Book, Target, UnknownMyST, citations, collect, convert, page_numbering  # noqa: E402

import notebooks  # noqa: E402

PAGE = "notebooks/03_shares.md"
BOOK = Book(
    "https://example.org/o/r/blob/v1",
    titles={PAGE: "Shares", "book/how_to_run.md": "How to run it", "notebooks/01_first.md": "First"},
    targets={
        "eq-share": Target("(3.1)", "(3.1)", PAGE),
        "fig-one": Target("Two bars", "Figure 1.2", "notebooks/01_first.md"),
        "thm-shares": Target("Shares", "Theorem 3.1", PAGE),
        "ex-one": Target("Exercise 3.1", "Exercise 3.1", PAGE),
    },
    citations={"one2007": ("One", "2007", "https://doi.org/1"), "two2017": ("Two and Three", "2017", "")},
)
CHAPTER = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

(shares)=
# Shares

```{code-cell} ipython3
:tags: [colab-setup, hide-cell]
```

```{code-cell} ipython3
:tags: [parameters]

profile = "quick"
```

:::{note}
See {cite:p}`arthur2007kmeans`, {numref}`fig-bars` and {eq}`eq-a`; we got {glue:text}`accuracy:.2f`.
:::

$$ a = b $$ (eq-a)

```{code-cell} ipython3
---
mystnb:
  image: {alt: Two bars}
  figure: {caption: Two bars., name: fig-bars}
---
print("{note} $x$ {cite:p}`left-alone`")
```

```{code-cell} ipython3
1 + 1
```

```{code-cell} ipython3
1 + 1
```
"""


def plain(source: str) -> str:
    return convert(source, PAGE, BOOK)


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("Nothing *to* do, $x$ and `{ref}`.", "Nothing *to* do, $x$ and `{ref}`."),
        ("(label)=\n## Heading\n% a comment\ntext", "## Heading\ntext"),
        (":::{note}\nA *note*.\n\nMore.\n:::", "> **Note**\n>\n> A *note*.\n>\n> More."),
        ("```{tip} At once.\n```", "> **Tip**\n>\n> At once."),
        (":::{admonition} Read me\n:class: tip\nBody\n:::", "> **Read me**\n>\n> Body"),
        (
            "::::{note}\n:::{tip}\nInner\n:::\n::::",
            "> **Note**\n>\n> > **Tip**\n> >\n> > Inner",
        ),
        ("```python\n:::{note}\n# (x)=\n```", "```python\n:::{note}\n# (x)=\n```"),
        ("```{math}\na = b\n```", "$$\na = b\n$$"),
        ("```{math}\n:label: eq-share\na = b\n```", "$$\na = b\n\\tag{3.1}\n$$"),
        ("$$\na \\\\\nb\n$$ (eq-share)", "$$\na \\\\\nb\n\\tag{3.1}\n$$"),
        ("{math}`x^2`", "$x^2$"),
        ("{cite:p}`one2007,two2017`", "([One, 2007](https://doi.org/1); Two and Three, 2017)"),
        ("{cite:t}`two2017` say", "Two and Three (2017) say"),
        ("{eq}`eq-share`, {prf:ref}`thm-shares`", "(3.1), Theorem 3.1"),
        ("{numref}`fig-one`", "[Figure 1.2](https://example.org/o/r/blob/v1/notebooks/01_first.ipynb)"),
        ("{numref}`Bars %s <thm-shares>`", "Bars 3.1"),
        ("{ref}`these words <thm-shares>`", "these words"),
        ("{doc}`../book/how_to_run`", "[How to run it](https://example.org/o/r/blob/v1/book/how_to_run.md)"),
        ("[text](01_first.md)", "[text](https://example.org/o/r/blob/v1/notebooks/01_first.ipynb)"),
        ("[](#thm-shares)", "Shares"),
        ("[out](https://example.org)", "[out](https://example.org)"),
        ("![alt](../book/a.png)", "![alt](https://example.org/o/r/raw/v1/book/a.png)"),
        ("{glue:text}`accuracy` {glue:text}`../notebooks/01_x.ipynb::key:s`", "`accuracy` `key:s`"),
        (":::{exercise} Sum\n:label: ex-one\nDo.\n:::", "> **Exercise 3.1 (Sum)**\n>\n> Do."),
        (
            "````{solution} ex-one\n:class: dropdown\n```sh\na\n```\n````",
            "<details><summary><b>Solution to Exercise 3.1</b></summary>\n\n```sh\na\n```\n\n</details>",
        ),
        (
            "::::{exercise}\nHow many?\n\n:::{dropdown} {glue:text}`n` of $N$\n:class-container: answer\n\nNo.\n:::\n::::",
            "> **Exercise 3.1**\n>\n> How many?\n>\n> <details><summary><b><code>n</code> of $N$</b></summary>\n>\n"
            "> No.\n>\n> </details>",
        ),
        (":::{prf:theorem}\nYes.\n:::", "> **Theorem 3.1**\n>\n> Yes."),
        (":::{prf:proof}\nClear.\n:::", "> **Proof**\n>\n> Clear. $\\blacksquare$"),
        ("- item\n\n  ```{note}\n  Inside\n  ```", "- item\n\n  > **Note**\n  >\n  > Inside"),
    ],
)  # fmt: skip
def test_myst_becomes_plain_markdown(myst, markdown):
    assert plain(myst) == markdown
    assert plain(markdown) == markdown, "plain Markdown stays as it is"


@pytest.mark.parametrize(
    "myst",
    ["{unheard}`of`", "```{unheard} of\n```", "{ref}`nothing`", "{cite:p}`nobody`", "{doc}`nowhere`"],
)
def test_unknown_myst_is_refused_with_the_page(myst):
    with pytest.raises(UnknownMyST, match=PAGE):
        plain(myst)


def test_numbers_are_counted_by_page_and_kind():
    cells = [
        {
            "cell_type": "markdown",
            "source": "(top)=\n# Title\n$$x$$ (eq-x)\n\n:::{prf:lemma}\n:label: lem\n:::",
        },
        {
            "cell_type": "code",
            "source": "",
            "metadata": {"mystnb": {"figure": {"caption": "c", "name": "fig"}}},
        },
        {
            "cell_type": "markdown",
            "source": ":::{exercise}\n:label: One\n:::\n:::{exercise}\n:label: two\n:::",
        },
    ]
    numbers = {label: target.number for label, target in collect(cells, PAGE).items()}
    assert numbers == {
        "top": "Title", "eq-x": "(3.1)", "lem": "Lemma 3.1",
        "fig": "Figure 3.1", "one": "Exercise 3.1", "two": "Exercise 3.2",
    }  # fmt: skip
    assert page_numbering("notebooks/00_start.md").next("figure") == "1"


def test_bibliography_gives_authors_and_links():
    entries = citations(ROOT / "book" / "references.bib")
    assert entries["koebler2025lvlm"] == ("Koebler et al.", "2025", "https://arxiv.org/abs/2512.21985")
    assert entries["arthur2007kmeans"][0] == "Arthur and Vassilvitskii"
    assert all(authors and year.isdigit() for authors, year, _ in entries.values())


@pytest.fixture
def tree(tmp_path):
    needed = (
        "pyproject.toml",
        "book/references.bib",
        "lvlmva_lite/__init__.py",
        "CITATION.cff",
        "CHANGELOG.md",
    )
    for name in needed:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "03_shares.md").write_text(CHAPTER)
    return tmp_path


def write(tree: Path) -> dict[Path, str]:
    files = notebooks.twins(tree)
    for path, text in files.items():
        path.write_text(text)
    return files


def test_generator_is_idempotent_and_check_is_silent(tree):
    assert len(notebooks.faults(tree)) == 2
    first = write(tree)
    assert notebooks.twins(tree) == first
    assert notebooks.faults(tree) == []


def test_twin_has_the_same_code_plain_prose_and_no_outputs(tree):
    files = write(tree)
    source, twin = (files[tree / "notebooks" / f"03_shares.{ending}"] for ending in ("md", "ipynb"))
    full, twin = notebooks.read(source), json.loads(twin)
    before = [cell for cell in full.cells if cell.cell_type == "code"]
    after = [cell for cell in twin["cells"] if cell["cell_type"] == "code"]
    assert [(c.id, c.source, c.metadata) for c in before] == [
        (c["id"], "".join(c["source"]), c["metadata"]) for c in after
    ]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in after)
    ids = [cell["id"] for cell in twin["cells"]]
    assert len(set(ids)) == len(ids)
    prose = "\n".join("".join(cell["source"]) for cell in twin["cells"] if cell["cell_type"] == "markdown")
    assert "> See (Arthur and Vassilvitskii, 2007), Figure 3.1 and (3.1); we got `accuracy:.2f`." in prose
    assert "**Figure 3.1.** Two bars." in prose
    assert "{" not in prose.replace("\\tag{3.1}", "")


def test_setup_cell_holds_address_and_tag(tree):
    source = write(tree)[tree / "notebooks" / "03_shares.md"]
    address, tag = notebooks.repository(tree)
    assert f'--no-deps "lvlmva-lite @ git+{address}@{tag}"' in source
    moved = notebooks.stamp(source, "https://example.org/o/r", "v9")
    assert "git+https://example.org/o/r@v9" in moved
    assert address not in moved
    assert notebooks.stamp(moved, address, tag) == source


def test_check_names_every_fault(tree):
    write(tree)
    source, twin = tree / "notebooks" / "03_shares.md", tree / "notebooks" / "03_shares.ipynb"
    notebook = json.loads(twin.read_text())
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    twin.write_text(json.dumps(notebook))
    source.write_text(source.read_text().replace("git+https", "git+http"))
    (tree / "notebooks" / "04_lost.ipynb").write_text("{}")
    (tree / "CITATION.cff").write_text("version: 0.0.0\n")
    found = notebooks.faults(tree)
    assert [line.split(":")[0] for line in found] == [
        "notebooks/03_shares.md", "CITATION.cff", "notebooks/03_shares.ipynb", "notebooks/04_lost.ipynb",
    ]  # fmt: skip
    assert "stale" in found[0]
    assert "stale" in found[1]
    assert "holds outputs" in found[2]


def test_chapter_without_setup_cell_is_named(tree):
    (tree / "notebooks" / "04_bare.md").write_text("# Bare\n")
    with pytest.raises(ValueError, match=r"04_bare\.md: no code cell is tagged colab-setup"):
        notebooks.twins(tree)


def test_committed_notebooks_are_up_to_date():
    assert notebooks.faults(ROOT) == []
