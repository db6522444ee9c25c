"""What a reader of the rendered book sees of a chapter: tables set, bookkeeping left out, pages mended.

Nothing here changes what runs or what is measured: it works on copies, on their way to HTML.
"""

from __future__ import annotations

import ast
import io
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from bs4 import BeautifulSoup, Tag
from PIL import Image

NUMBER = re.compile(r"[-+]?\d+(?:\.(?P<decimals>\d+))?")
POWER = re.compile(r"(?<![\w.])(?P<digits>[-+]?\d(?:\.(?P<decimals>\d+))?)e(?P<exponent>[-+]\d+)")
# A hyphen that stands for a minus: before a digit, and not within a word, a range or a date.
HYPHEN = re.compile(r"(?<![\w.,)\]-])-(?=\.?\d)")


def without_bookkeeping(source: str) -> str:
    """Return a cell's code without its ``record(...)`` calls, which keep numbers for the prose.

    A loop, branch or ``else`` that does nothing else goes with them.  A call stays where it shares a line
    with something else, and where its block would be left empty.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a magic command of IPython
        return source
    lines = source.splitlines()
    kept = set(range(len(lines)))
    for block in _blocks(tree):
        for before, node in zip([None, *block], block, strict=False):
            if not _only_records(node) or not _alone(node, lines):
                continue
            first = node.lineno - 1
            while first and lines[first - 1].lstrip().startswith("#"):  # the comment on it
                first -= 1
            if before is None or before.end_lineno <= first:
                kept -= set(range(first, node.end_lineno))
    for node in ast.walk(tree):  # an else with nothing left in it
        if isinstance(node, ast.For | ast.If) and node.orelse and _all_records(node.orelse):
            kept -= set(range(node.body[-1].end_lineno, node.orelse[-1].end_lineno))
    left = "\n".join(line for number, line in enumerate(lines) if number in kept)
    return re.sub(r"\n{3,}", "\n\n", left).strip("\n") if len(kept) < len(lines) else source


def _blocks(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """Yield the cell's statements, and those of every block within that does something else, too."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and (node is tree or not _all_records(block)):
                yield block


def _alone(node: ast.stmt, lines: Sequence[str]) -> bool:
    before = lines[node.lineno - 1].encode()[: node.col_offset].decode()
    after = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    return not before.strip() and re.fullmatch(r"\s*(#.*)?", after) is not None


def _only_records(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        call = node.value
        return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "record"
    if isinstance(node, ast.For | ast.If):
        return _all_records([*node.body, *node.orelse])
    return False


def _all_records(block: Sequence[ast.stmt]) -> bool:
    return all(map(_only_records, block))


# Code that puts the pixels of an image, a map or segments into a figure.
PIXELS = re.compile(r"\b(imshow|image_grid|show_(image|attribution|segments|mask))\b")


def is_drawing(source: str, png: str) -> bool:
    """Whether a figure is lines, marks and bars on paper, which a dark page may show in light on dark.

    A picture must not be shown so: its negative is another picture.  Where in doubt, it is one.

    Parameters
    ----------
    source : the code of the cell that drew it
    png : the figure, in base64
    """
    pixels = np.asarray(Image.open(io.BytesIO(b64decode(png))).convert("RGB"))
    return bool((pixels == 255).all(-1).mean() > 0.5) and not PIXELS.search(source)


def readable_table(html: str) -> str:
    """Return an output's HTML with its tables in the theme's look and their numbers set for reading.

    The theme knows tables by pandas' class ``dataframe``, which the tables of a ``Styler`` lack.
    Whole numbers lose their decimals, long ones those beyond four digits; a hyphen becomes a minus,
    an e a power of ten.
    """
    if "<table" not in html:
        return html
    soup = BeautifulSoup(html, "html.parser")
    for table in soup.find_all("table"):
        table["class"] = [*(name for name in table.get("class", []) if name != "dataframe"), "dataframe"]
        del table["border"]
        for head in table.find_all("th"):
            if "_" in head.get_text() and not head.find(True):
                _break_at_underscores(soup, head)
        rows = [row.find_all(["td", "th"]) for row in table.select("tbody tr")]
        values = [[cell for cell in row if cell.name == "td"] for row in rows]
        for column in range(max(map(len, values), default=0)):
            _set([row[column] for row in values if column < len(row)])
        heads = [cell for row in rows for cell in row if cell.name == "th"]
        for level in {name for cell in heads for name in cell.get("class", []) if name.startswith("level")}:
            _set([cell for cell in heads if level in cell.get("class", [])], names=True)
    return str(soup)


def _break_at_underscores(soup: BeautifulSoup, head: Tag) -> None:
    first, *others = head.get_text().split("_")
    head.clear()
    head.append(first + "_" if others else first)
    for number, part in enumerate(others, start=1):
        head.append(soup.new_tag("wbr"))
        head.append(part + "_" if number < len(others) else part)


def _set(cells: Sequence[Tag], names: bool = False) -> None:
    texts = [cell.get_text(strip=True) for cell in cells]
    for cell, old, new in zip(cells, texts, readable_numbers(texts, names), strict=True):
        if new != old and not cell.find(True):
            cell.string = new


def readable_numbers(texts: Sequence[str], names: bool = False) -> list[str]:
    """Return the texts of a column with its numbers set for reading.

    Parameters
    ----------
    texts : what the cells of one column, or of one level of row names, say
    names : names of rows: decimals that are zero in all of them go
    """
    found = [NUMBER.fullmatch(text) for text in texts]
    numbers = [match for match in found if match]
    decimals = max((len(match["decimals"] or "") for match in numbers), default=0)
    needed = max((len((match["decimals"] or "").rstrip("0")) for match in numbers), default=0)
    # Shares that all came out as 1.000 were rounded; counts above one were not.
    whole = needed == 0 and any(abs(float(match[0])) >= 2 for match in numbers)
    cut = needed if decimals and (names or whole) else None
    return [
        _number(match[0], cut) if match else readable_text(text)
        for text, match in zip(texts, found, strict=True)
    ]


def readable_text(text: str) -> str:
    """Return words with numbers in them, a hyphen before one a minus and an e a power of ten."""
    return HYPHEN.sub("−", POWER.sub(_power, text))


def _number(text: str, cut: int | None) -> str:
    digits, _, decimals = text.lstrip("+-").partition(".")
    if cut is not None:
        text = f"{float(text):{'+' if text[0] == '+' else ''}.{cut}f}"
    elif decimals and (len(digits) > 3 or (len(digits) > 1 and len(decimals) > 2)):
        text = f"{float(text):{'+' if text[0] == '+' else ''}.{max(0, 4 - len(digits))}f}"
    if text[0] == "-" and not float(text):
        return text[1:]
    return text.replace("-", "−")


def _power(match: re.Match) -> str:
    exponent = int(match["exponent"])
    if -3 <= exponent <= 6:
        return f"{float(match[0]):.{max(0, len(match['decimals'] or '') - exponent)}f}"
    return f"{match['digits']} × 10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


# What the theme writes into every page, and what stands there instead.
MENDS = (
    # Its style sheet draws the same icons: a second copy of 1.5 MB is not needed.
    (re.compile(r'\s*<script defer src="[^"]*/fontawesome\.js[^"]*"></script>'), ""),
    # Live code is off; its scripts stand on every page nevertheless, one of them twice, an error.
    (re.compile(r"\s*<script>const THEBE_JS_URL.*?</script>", re.DOTALL), ""),
    (re.compile(r'\s*<script [^>]*src="[^"]*sphinx-thebe\.js[^"]*"></script>'), ""),
    (re.compile(r'\s*<link [^>]*href="[^"]*sphinx-thebe\.css[^"]*" />'), ""),
    # Names that hide what is written on a button; roles that lists of literature may not have.
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    (re.compile(r'<summary>(?=<span class="toctree-toggle")'), '<summary aria-label="Pages of this part">'),
    (re.compile(r'(<button class="btn search-button-field[^>]*?) aria-label="Search"'), r"\1"),
    (re.compile(r'<div role="list" class="citation-list">'), '<div class="citation-list">'),
    (re.compile(r'(<div class="citation" id="[^"]*") role="doc-biblioentry"'), r"\1"),
    # Every exercise and every solution of a page has the same identifier.
    (re.compile(r'<section id="(exercise|solution)-content">'), r'<section class="\1-content">'),
)


def preview(title: str, description: str, address: str) -> str:
    """Return the tags of which other sites make a preview of a link to the book.

    Parameters
    ----------
    address : the repository's; the book lies on GitHub Pages beside it
    """
    owner, name = address.rstrip("/").split("/")[-2:]
    site = f"https://{owner.lower()}.github.io/{name}"
    told = {"og:type": "website", "og:title": title, "og:description": description}
    told["og:image"] = f"{site}/_images/before-after.png"
    tags = [f'<meta property="{key}" content="{escape(value)}">' for key, value in told.items()]
    return "\n".join([f'<meta name="description" content="{escape(description)}">', *tags])


def mended(page: str, head: str = "") -> str:
    """Return a page of the book without the theme's faults in its HTML, and with ``head`` in its head."""
    for fault, mend in MENDS:
        page = fault.sub(mend, page)
    return page.replace("</head>", f"{head}\n</head>", 1) if head and head not in page else page
