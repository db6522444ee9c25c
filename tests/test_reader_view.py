"""What the reader of the rendered book sees: code without bookkeeping, tables, mended pages."""

import copy
import io
import sys
from base64 import b64encode
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bs4")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import six_steps  # noqa: E402
from reader_view import (  # noqa: E402
    is_drawing,
    mended,
    preview,
    readable_numbers,
    readable_table,
    without_bookkeeping,
)


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ('x = f(1)\nrecord("x", x)', "x = f(1)"),
        ('record("a", 1)\nrecord(\n    "b",\n    2,\n)', ""),
        ('x = 1\n\n# Quoted below.\nfor k in (0, 1):\n    record(f"a_{k}", x)\n\ny = 2', "x = 1\n\ny = 2"),
        # what does more than keep a number stays, without the call
        ('for k in (0, 1):\n    y = f(k)\n    record("a", y)', "for k in (0, 1):\n    y = f(k)"),
        (
            'def f(x):\n    with g():\n        # told\n        record(\n            "é", x\n        )  # so\n        y = x\n    return y',
            "def f(x):\n    with g():\n        y = x\n    return y",
        ),
        ('if a:\n    x = 1\nelse:\n    y = 2\n    record("y", y)', "if a:\n    x = 1\nelse:\n    y = 2"),
        ('if a:\n    x = 1\n# or not\nelse:\n    record("x", 0)\ny = 2', "if a:\n    x = 1\ny = 2"),
        ('if a:\n    x = 1\nelif b:\n    record("x", 0)', "if a:\n    x = 1"),
        # a block must not be left empty, nor a line lose what else stands in it
        ('def keep(x):\n    record("x", x)', None),
        ('if a:\n    record("x", 0)\nelse:\n    x = 1', None),
        ('records("a", 1)\nself.record("a", 2)', None),
        ('x = 1; record("x", x)', None),
        ('record("x", x); y = 1', None),
        ('if a: record("x", x); y = 1', None),
        ('%pip install x\nrecord("x", 1)', None),
        ("", None),
    ],
)
def test_code_is_shown_without_what_only_keeps_numbers(source, left):
    assert without_bookkeeping(source) == (source if left is None else left)


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["0.788", "-0.953", "-0.000"], ["0.788", "−0.953", "0.000"]),
        (["65025.0000", "7.8959", "16.0000", "0.0013"], ["65025", "7.8959", "16.00", "0.0013"]),
        (["144.571", "1000.000"], ["144.6", "1000"]),
        (["2.0", "3.0"], ["2", "3"]),
        (["1940.0", "12.5", str(10**17 + 1)], ["1940", "12.5", str(10**17 + 1)]),
        (["1.000", "1.000"], ["1.000", "1.000"]),  # shares, rounded
        (["-0.213 ± 0.100", "0-255", "critic-2", "2026-01-02", "1e-06", "3.62e+04", "3.6e-03", "1.25e+00", "–", ""],
         ["−0.213 ± 0.100", "0-255", "critic-2", "2026-01-02", "1 × 10⁻⁶", "36200", "0.0036", "1.25", "–", ""]),
        (["+0.007 (-0.001 to +0.010)", "-5%"], ["+0.007 (−0.001 to +0.010)", "−5%"]),
        (["-12.3456", "+12.3456"], ["−12.35", "+12.35"]),
    ],
)  # fmt: skip
def test_numbers_are_set_for_reading(texts, shown):
    assert readable_numbers(texts) == shown


def test_names_of_rows_lose_decimals_that_say_nothing():
    assert readable_numbers(["0.000000", "0.900000", "1.000000"], names=True) == ["0.0", "0.9", "1.0"]
    assert readable_numbers(["3.000000", "10.000000"], names=True) == ["3", "10"]


def test_tables_of_both_kinds_get_the_class_by_which_the_theme_knows_them():
    pd = pytest.importorskip("pandas")
    pytest.importorskip("jinja2")
    table = pd.DataFrame(
        {"long_name": [0.5, -1.25], "n": [1.0, 20.0]}, index=pd.Index([0.5, 2.0], name="rho")
    )
    for html in (table.style.format(precision=3).to_html(), table.to_html()):
        shown = readable_table(html)
        assert 'class="dataframe"' in shown
        assert "border=" not in shown
        assert "−1.25" in shown
        assert "long_<wbr/>name" in shown
        assert readable_table(shown) == shown
    assert ">20<" in readable_table(table.style.format(precision=3).to_html())
    assert readable_table("<p>a < b</p>") == "<p>a < b</p>"


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_previews_of_links_are_told_once():
    tags = preview("A & B", 'Says "yes"', "https://github.com/Owner/name")
    page = mended(mended("<html><head></head><body></body></html>", tags), tags)
    found = {
        attrs.get("property") or attrs.get("name"): attrs["content"]
        for tag, attrs in Tags(page).found
        if tag == "meta"
    }
    assert found["og:title"] == "A & B"
    assert found["description"] == found["og:description"] == 'Says "yes"'
    assert found["og:image"] == "https://owner.github.io/name/_images/before-after.png"
    assert page.count("og:title") == 1


def test_the_landing_page_and_the_readme_quote_the_sentence_that_ships():
    said = files("lvlmva_lite.critic").joinpath("descriptions/decoy_mnist.txt").read_text("utf-8").strip()
    for page in ("book/intro.md", "README.md"):
        assert said in (ROOT / page).read_text(), page


def test_the_picture_of_the_steps_is_up_to_date_and_leads_somewhere():
    for path, drawn in six_steps.files().items():
        assert path.read_text() == drawn, "run python tools/six_steps.py"
        links = [attrs["href"] for tag, attrs in Tags(drawn).found if tag == "a"]
        assert len(links) == 2 * len(six_steps.STEPS)
        assert all((path.parent / link).exists() for link in links)
        there = six_steps.for_the_book(drawn, "https://example.org/o/r", "v1")
        assert '"../notebooks/02_entropy_sampling.html"' in there
        assert '"https://example.org/o/r/blob/v1/lvlmva_lite/sampling.py"' in there
        assert "../../" not in there


def drawn(draw):
    """What ``draw(axes)`` draws into a figure of two panels, as PNG in base64."""
    from matplotlib.figure import Figure

    figure, file = Figure(figsize=(6, 3)), io.BytesIO()
    draw(figure.subplots(1, 2))
    figure.savefig(file, format="png")
    return b64encode(file.getvalue()).decode()


DRAWN = {
    "lines": lambda axes: axes[0].plot([0, 1, 3]),
    "bars": lambda axes: axes[0].bar(range(4), [1, 3, 2, 3]),
    "band": lambda axes: axes[0].fill_between([0, 1], [0, 0.5], [0.5, 1], alpha=0.3),
}


def test_drawings_are_told_from_pictures():
    photograph = np.random.default_rng(0).random((8, 8, 3))
    for name, draw in DRAWN.items():
        assert is_drawing("axes[0].plot(x)", drawn(draw)), name
    beside = drawn(lambda axes: (axes[0].imshow(photograph), axes[1].plot([0, 1])))
    assert not is_drawing("plots.show_image(axes[0], image)\naxes[1].plot(x)", beside)
    panels = drawn(lambda axes: [axis.imshow(photograph) for axis in axes])
    assert not is_drawing("panels_of_mine(image)", panels)


def test_a_cell_of_drawings_is_marked_and_one_with_a_picture_is_not():
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("jupytext")
    from build_book import with_outputs

    line = nbformat.v4.new_output("display_data", {"image/png": drawn(DRAWN["lines"])})
    maps = drawn(lambda axes: [axis.imshow(np.eye(3)) for axis in axes])
    picture = nbformat.v4.new_output("display_data", {"image/png": maps})
    for outputs, classes in (([line], "drawing"), ([line, picture], None), ([], None)):
        chapter = nbformat.v4.new_notebook()
        chapter.cells.append(
            nbformat.v4.new_code_cell("plot()", id="a", metadata={"mystnb": {"image": {"alt": "A"}}})
        )
        ran = copy.deepcopy(chapter)
        ran.cells[0].outputs = outputs
        image = with_outputs(chapter, ran).cells[0].metadata.mystnb.image
        assert image.get("classes") == classes
        assert image.alt == "A"


def test_a_chapter_is_shown_without_its_bookkeeping_and_quotes_with_a_minus():
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("jupytext")
    from build_book import QUOTED, with_outputs

    def chapter(injected, *codes):
        notebook = nbformat.v4.new_notebook()
        for number, (source, tags) in enumerate(codes):
            notebook.cells.append(
                nbformat.v4.new_code_cell(source, id=f"c{number}", metadata={"tags": [*tags]})
            )
        if injected:
            extra = nbformat.v4.new_code_cell(injected, id="i", metadata={"tags": ["injected-parameters"]})
            notebook.cells.append(extra)
        return notebook

    codes = [
        ("%pip install x", ["colab-setup", "hide-cell"]),
        ('profile = "quick"  # or "paper"\nseed = 0', ["parameters"]),
        ('x = -1.0\nrecord("x", x)', []),
        ('record("y", 2)', []),
    ]
    for injected, cells in (
        ('# Parameters\nprofile = "quick"\n', 4),
        ('# Parameters\nprofile = "paper"\n', 5),
    ):
        ran = chapter(injected, *codes)
        ran.cells[2].outputs = [nbformat.v4.new_output("display_data", {QUOTED: "-1.000 (4e-07)"})]
        shown = with_outputs(chapter("", *codes), ran).cells
        assert len(shown) == cells
        assert "remove-cell" in shown[0].metadata.tags
        assert shown[-2].source == "x = -1.0"
        assert shown[-2].outputs[0].data[QUOTED] == "'−1.000 (4 × 10⁻⁷)'"
        assert "remove-input" in shown[-1].metadata.tags
