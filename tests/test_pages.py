"""Every page of the rendered book in a browser: layout, the dark, the console, weight, accessibility.

``python tools/build_book.py`` makes the book that is looked at; ``make test`` does so before.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, Site, executable
from page_faults import page_faults, pages
from PIL import Image

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"
VENDOR = HTML.parent.parent / "book" / "_static" / "vendor"
CSS = VENDOR.parent / "custom.css"
AXE = VENDOR / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(executable() is None, reason="there is no Chromium or Chrome; CHROMIUM names one"),
]


@pytest.fixture(scope="module")
def browser():
    with Browser(executable()) as one:
        yield one


@pytest.fixture(scope="module")
def book():
    if not (HTML / "index.html").exists():
        pytest.skip("the book is not built: python tools/build_book.py")
    if not (HTML / "_static" / "vendor").exists():
        pytest.skip("the book was built without npm: its scripts lie on public CDNs")
    with Site(HTML) as address:
        yield address


@pytest.mark.parametrize("page", pages(HTML) or ["book/intro.html"])
def test_a_page_of_the_book_has_no_fault(page, book, browser):
    found = page_faults(browser, book + page, AXE.read_text() if AXE.exists() else "")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (1366, 768), (1440, 900)])
def test_the_landing_page_fits_a_screen(width, height, book, browser):
    """The sentence, the button, before and after, the six steps and the table are seen without scrolling."""
    browser.open(book + "book/intro.html", width=width, height=height)
    bottoms = browser.evaluate("""['.epigraph', '.sd-btn', 'img', 'svg.six-steps', 'table'].map(what =>
      [...document.querySelectorAll(`.landing ${what}`)].find(e => e.checkVisibility()).getBoundingClientRect().bottom)""")
    assert max(bottoms) <= height


def test_on_paper_code_is_whole_and_solutions_and_answers_stay_closed(book, browser):
    browser.open(book + "notebooks/04_ppeps_wgm.html", width=700)
    browser.send("Emulation.setEmulatedMedia", media="print")
    cut, solutions, grey = browser.evaluate("""(() => {
      const shown = e => e.checkVisibility({visibilityProperty: true}) && e.getBoundingClientRect().height > 0;
      const code = [...document.querySelectorAll('.cell_input pre')].filter(shown);
      window.dispatchEvent(new Event('beforeprint'));
      return [code.filter(e => e.scrollWidth > e.clientWidth + 1).length,
        [...document.querySelectorAll('.solution-content, .answer > .sd-summary-content')].filter(shown).length,
        code.filter(e => getComputedStyle(e).backgroundColor !== 'rgba(0, 0, 0, 0)').length];
    })()""")
    assert (cut, solutions, grey) == (0, 0, 0)


QUESTION = """
<div class="exercise admonition" id="asked"><p class="admonition-title">Exercise 1</p><section class="exercise-content">
<p>How many?</p>""" + "".join(
    f"""
<details class="sd-sphinx-override sd-dropdown sd-card sd-mb-3 answer">
<summary class="sd-summary-title sd-card-header"><span class="sd-summary-text">{answer}</span>
<span class="sd-summary-state-marker sd-summary-chevron-right"></span></summary>
<div class="sd-summary-content sd-card-body docutils"><p class="sd-card-text">{feedback}</p></div></details>"""
    for answer, feedback in (("One", "No: one too few."), ("Two", "Right."))
)  # as sphinx-design writes it
QUESTION += "</section></div>"  # fmt: skip


def test_an_offered_answer_opens_by_the_keyboard_and_stays_closed_on_paper(browser, tmp_path):
    (tmp_path / "page.html").write_text(PAGE.format(CSS.read_text(), "", QUESTION))
    with Site(tmp_path) as address:
        assert page_faults(browser, address + "page.html", AXE.read_text() if AXE.exists() else "") == []
        read = """[...document.querySelectorAll('.answer')].map(e =>
          [e.querySelector('.sd-summary-text').checkVisibility(), e.querySelector('p').checkVisibility(),
           e.querySelector('.sd-summary-state-marker').checkVisibility()])"""
        browser.press("Tab")
        browser.press("Enter")
        browser.press("Tab")
        assert browser.evaluate(read) == [[True, True, True], [True, False, True]]
        browser.press("Enter")
        assert browser.evaluate(read) == [[True, True, True]] * 2
        browser.open(address + "page.html")
        browser.send("Emulation.setEmulatedMedia", media="print")
        browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert browser.evaluate(read) == [[True, False, False]] * 2


def linear(colours):
    """Linear RGB of sRGB colours (n, 3) in [0, 1]."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def contrasts(colours, ground):
    """The contrast of each colour with the ground, as WCAG 2 defines it."""
    lights, dark = (linear(each) @ [0.2126, 0.7152, 0.0722] + 0.05 for each in (colours, ground))
    return np.maximum(lights, dark) / np.minimum(lights, dark)


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
COLOUR_BLIND = {
    "not": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def test_drawings_are_read_in_the_dark_and_their_colours_told_apart(browser, tmp_path):
    """White paper, black letters and the palette's first five colours, as the style sheet turns them over."""
    rgb2lab = pytest.importorskip("skimage.color").rgb2lab
    difference = pytest.importorskip("skimage.color").deltaE_ciede2000
    palette = pytest.importorskip("seaborn").color_palette("colorblind")[:5]
    swatches = np.array([(1, 1, 1), (0, 0, 0), *palette])
    pixels = np.repeat(np.repeat((swatches * 255).round().astype(np.uint8)[None], 20, 0), 20, 1)
    Image.fromarray(pixels).save(tmp_path / "drawing.png")
    body = '<p class="bd-content"><img class="drawing" alt="" src="drawing.png"></p>'
    ground = "html { background: #121212 } :root { --pst-color-background: #121212 }"  # the theme's
    (tmp_path / "page.html").write_text(PAGE.format(CSS.read_text(), ground, body))
    with Site(tmp_path) as address:
        browser.open(address + "page.html")
        browser.evaluate("document.documentElement.dataset.theme = 'dark'; scrollTo(0, 0); 0")
        x, y = browser.evaluate("(r => [r.x, r.y])(document.querySelector('img').getBoundingClientRect())")
        browser.picture(tmp_path / "seen.png")
    seen = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB")) / 255
    colours = seen[int(y) + 10, int(x) + 10 + 20 * np.arange(len(swatches))]
    paper, letters, marks = colours[:1], colours[1:2], colours[2:]
    assert np.abs(paper * 255 - 0x12).max() <= 1  # no slab
    assert contrasts(letters, paper) > 7
    assert (contrasts(marks, paper) >= contrasts(swatches[2:], swatches[:1])).all()
    for kind, matrix in COLOUR_BLIND.items():
        as_seen = np.clip(linear(marks) @ np.transpose(matrix), 0, 1)
        lab = rgb2lab(np.where(as_seen <= 0.0031308, 12.92 * as_seen, 1.055 * as_seen ** (1 / 2.4) - 0.055))
        apart = [difference(a, b) for a, b in itertools.combinations(lab, 2)]
        assert min(apart) > 8, kind  # on white it is 9


TABLE = '<table class="dataframe"><tr><th>a</th><th>b</th></tr><tr><td>{}</td><td>{}</td></tr></table>'


def shown(inside, kind="output"):
    return f'<div class="cell"><div class="cell_{kind}">{inside}</div></div>'


WIDE_FIGURE = """<figure style="overflow-x: auto" tabindex="0"><img alt="" style="min-width: 600px" src='data:image/svg+xml,
<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="9"/>'></figure>"""

DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="

# With what looks like the faults below and is none.
SOUND = (
    shown(TABLE.format("0.000", "−0.953"))
    + shown("<pre>tensor([-0.1719])\n65025.0</pre>")
    + shown("<pre>" + "x = records(1)\n" * 40 + "</pre>", "input")
    + TABLE.format("<code>x == -1</code> or 2-3, a-1", "critic-2, 2026-01-02, (3 to −1)")
    + WIDE_FIGURE
    + "<p>At 0.00001 and 1940, 1 × 10⁻⁶; arXiv:2512.21985, 11434.0.0, at most 0.5, <code>1e-06</code>.</p>"
)
STYLE = "td, th { padding: 4px 10px } .cell_output, pre { overflow-x: auto } figcaption { color: #111 }"
PLANTED = {
    "columns run together": ("td { padding: 2px } table { border-spacing: 0 }", SOUND),
    "a number is not set for reading: -0.953": ("", SOUND.replace("−0", "-0")),
    "a number is not set for reading: 0.1 (-0.3 to 0.4)": ("", TABLE.format("0.1 (-0.3 to 0.4)", "1")),
    "a number is not set for reading: +0.0000": ("", shown(TABLE.format("+0.0000", "0.0013"))),
    "a number is not set for reading: 65025.0000": ("", TABLE.format("1", "65025.0000")),
    "a number is not set for reading: 1940.5": ("", TABLE.format("1", "1940.5")),
    "a number is not set for reading: 2e-08": ("", shown(TABLE.format("1", "2e-08"))),
    "a number is not set for reading: weigh 1940.0 grams": ("", "<p>weigh 1940.0 grams</p>"),
    "a number is not set for reading: by 0.0000 nats": ("", "<p>by 0.0000 nats</p>"),
    "a number is not set for reading: by 1.94e+03, in": ("", "<p>by 1.94e+03, in</p>"),
    "a number is not set for reading: by at most 0, in": (
        "",
        "<figure><figcaption>by at most <span>0</span>, in</figcaption></figure>",
    ),
    "a number is not set for reading: {'loss': 0.32572466135025024": (
        "",
        shown("<pre>{'loss': 0.32572466135025024}</pre>"),
    ),
    "bookkeeping in the code: record(f'x', 2)": (
        "",
        shown("<pre>for x in y:\n  record(f'x', 2)\n  z()</pre>", "input"),
    ),
    "a cell shows 41 lines": ("", shown("<pre>" + "x = 1\n" * 41 + "</pre>", "input")),
    "a table is cut": ("td, th { min-width: 900px }", SOUND),
    "code is clipped": ("", shown(f"<pre>{'x' * 400}</pre>", "input")),
    "at 390 pixels: the page scrolls sideways": ("", "<p style='width: 500px'>wide</p>"),
    "at 390 pixels: a figure is 4.1 times smaller than drawn": (
        "",
        "<figure><img alt='' style='width: 100%' src='data:image/svg+xml,"
        '<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="9"/>\'></figure>',
    ),
    "a folded cell stands before the first sentence": (
        "",
        "<h1>One</h1><details class='hide'></details><p>The first words that a reader reads.</p>",
    ),
    "at 390 pixels: does not scroll by itself": (
        "pre, body { overflow: hidden }",
        f"<pre>{'x' * 400}</pre>",
    ),
    "in the dark: a caption": (
        "[data-theme=dark] figcaption { color: #555 } [data-theme=dark] body { background: #111 }",
        "<figure><figcaption>a caption</figcaption></figure>",
    ),
    "a table lies on a pale slab": ("[data-theme=dark] .cell_output { background: #dde }", SOUND),
    "a drawing is a pale slab in the dark": ("", shown(f"<img class='drawing' alt='' src='{DOT}'>")),
    "a picture is a negative in the dark": (
        "[data-theme=dark] img { filter: invert(1) }",
        shown(f"<img alt='' src='{DOT}'>"),
    ),
    "console: Error: planted": ("", "<script>throw new Error('planted')</script>"),
    "console: Failed to load": ("", "<img src='missing.png' alt=''>"),
    "weighs": ("", f"<!--{'x' * 3_000_000}-->"),
    "two elements have the id one": ("", "<p id='one'></p><p id='one'></p>"),
    "bookkeeping: gap = 0.006": ("", shown("<pre>gap = 0.006\np = 0.078</pre>")),
}
PAGE = """<!DOCTYPE html><html lang="en"><head><title>t</title><link rel="icon" href="data:,"><style>{}{}</style></head>
<body><main class="bd-article">{}</main></body></html>"""


@pytest.mark.parametrize("fault", ["", *PLANTED])
def test_a_planted_fault_is_found_and_a_sound_page_has_none(fault, browser, tmp_path):
    style, body = PLANTED.get(fault, ("[data-theme=dark] body { background: #111; color: #eee }", SOUND))
    (tmp_path / "page.html").write_text(PAGE.format(STYLE, style, body))
    with Site(tmp_path) as address:
        found = page_faults(browser, address + "page.html")
    assert any(fault in line for line in found) if fault else found == []


@pytest.mark.skipif(not AXE.exists(), reason="axe-core was not fetched: python tools/vendor_javascript.py")
@pytest.mark.parametrize(
    ("style", "body", "fault"),
    [
        ("", "<img src='data:,' width=9 height=9>", "axe: image-alt (critical)"),
        (
            "[data-theme=dark] { background: #111; color: #333 }",
            "<p>words</p>",
            "in the dark: axe: color-contrast",
        ),
    ],
)
def test_axe_is_asked_in_the_light_and_in_the_dark(style, body, fault, browser, tmp_path):
    (tmp_path / "page.html").write_text(PAGE.format(STYLE, style, body))
    with Site(tmp_path) as address:
        found = page_faults(browser, address + "page.html", AXE.read_text())
    assert [line for line in found if line.startswith(fault)]
