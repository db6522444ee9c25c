"""The PDF of the book, of a small part that is made by hand."""

import re
import sys
from pathlib import Path

import pytest
from browser import executable
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import pdf  # noqa: E402

BREAK = '<p style="break-before: page">more</p>'
PAGE = """\
<html><head></head><body><nav>not this</nav><article class="bd-article"><section id="{name}">
<h1>{name}<a class="headerlink" href="#{name}">#</a></h1>
<p>See <a href="../{other}.html#there">there</a>, <a href="https://example.org">out</a>, <a href="x.ipynb">file</a>.</p>
<section id="there"><h2>Within {name}</h2><details class="hide"><pre>folded</pre></details><details class="folded-row"><summary>a row</summary></details></section>
<div class="solution dropdown admonition" id="sol"><p class="admonition-title">Solution</p>forty-two</div>
<div class="exercise admonition" id="asked"><p class="admonition-title">Exercise 1 (Sum)</p><section><p>1 + 1?</p>
<details class="sd-dropdown answer"><summary><span class="sd-summary-text">Three <i id="i">of</i></span><svg></svg></summary>
<div class="sd-summary-content"><p>No: too many.</p></div></details><details class="sd-dropdown answer"><summary>
<span class="sd-summary-text">Two</span></summary><div class="sd-summary-content"><p>Right.</p></div></details>
</section></div>{more}</section><script>1</script></article></body></html>
"""


@pytest.fixture
def html(tmp_path):
    for name, other, breaks in (
        ("book/first", "notebooks/second", 2),
        ("notebooks/second", "book/first", 3),
    ):
        file = tmp_path / f"{name}.html"
        file.parent.mkdir(exist_ok=True)
        file.write_text(PAGE.format(name=file.stem, other=other, more=BREAK * breaks))
    return tmp_path


def test_parts_come_in_order_and_solutions_at_the_end(html):
    text = pdf.whole(html, ["book/first", "notebooks/second"], "A <Book>")
    assert "<title>A &lt;Book&gt;</title>" in text
    order = [text.index(words) for words in ("Contents</h1>", "<h1>first", "<h1>second", "Solutions</h1>")]
    assert order == sorted(order)
    assert text.index("forty-two") > order[-1]
    assert text.count("forty-two") == 2
    assert text.count('<details class="folded-row" open="">') == 2
    for absent in ("<pre>folded", "not this", "headerlink", "<script>1"):
        assert absent not in text
    identifiers = re.findall(r'id="([^"]+)"', text)
    assert len(set(identifiers)) == len(identifiers)
    inside = set(re.findall(r'href="#([^"]+)"', text))
    assert inside <= set(identifiers)
    assert 'href="https://example.org"' in text
    assert "x.ipynb" not in text


def test_offered_answers_stay_in_the_text_and_what_is_said_of_them_stands_at_the_end(html):
    soup = BeautifulSoup(pdf.whole(html, ["book/first"], "A Book"), "html.parser")
    exercise = soup.select_one(".exercise")
    assert [" ".join(line.get_text().split()) for line in exercise.select("ol > li")] == ["Three of", "Two"]
    assert not soup.select("details.answer")
    solution, answers = soup.select("#solutions .solution")
    assert "forty-two" in solution.get_text()
    assert answers.a["href"] == f"#{exercise['id']}"
    assert " ".join(answers.get_text().split()) == (
        "Answers to Exercise 1 (Sum)Three ofNo: too many.TwoRight."
    )


def test_a_page_without_heading_is_named(html):
    (html / "book" / "first.html").write_text(
        '<html><head></head><article class="bd-article"></article></html>'
    )
    with pytest.raises(ValueError, match=r"book/first\.html has no heading"):
        pdf.whole(html, ["book/first"], "A Book")


@pytest.mark.slow
@pytest.mark.skipif(executable() is None, reason="there is no Chromium or Chrome; CHROMIUM names one")
def test_contents_give_the_pages_on_which_parts_begin(html, tmp_path):
    out = tmp_path / "out" / "book.pdf"
    pages = ["book/first", "notebooks/second"]
    # A cover, the contents, 1 + 2 pages, 1 + 3 pages, the solutions.
    assert pdf.make(html, pages, "A Book", out) == 1 + 1 + 3 + 4 + 1
    numbers = pdf.page_numbers(out.read_bytes())
    assert numbers[pdf.anchor("book/first")] == 3
    assert numbers[pdf.anchor("notebooks/second")] == 6
    assert numbers["solutions"] == 10
    assert not (html / pdf.WHOLE).exists()
    contents = pdf.whole(html, pages, "A Book", numbers)
    assert re.findall(r'<li class="">.*?<span>(\d+)</span>', contents) == ["3", "6", "10"]


def test_pages_are_counted_through_a_tree_whose_nodes_lie_in_any_order():
    tree = {9: [5, 6], 5: [7, 8], 6: [1, 2], 7: [3], 8: [4]}
    nodes = b"".join(
        b"%d 0 obj\n<</Type /Pages\n/Count 1\n/Kids [%s]>>\nendobj\n"
        % (n, b" ".join(b"%d 0 R" % k for k in kids))
        for n, kids in tree.items()
    )
    places = b"<</a [4 0 R /XYZ 0 0 0]\n/b [2 0 R /XYZ 0 0 0]\n/gone [77 0 R /XYZ 0 0 0]>>"
    assert pdf.page_numbers(nodes + places) == {"a": 2, "b": 4}
