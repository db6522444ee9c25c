"""Print the built book into one PDF: ``python tools/pdf.py`` writes ``_build/book.pdf``.

The pages of ``_build/html`` in the order of ``_toc.yml``, behind a page of contents with page numbers;
solutions, and what there is to say of each offered answer, stand at the end.  A Chromium prints it (the environment variable ``CHROMIUM`` names one).
Folded code and interactive views are left out: the notebooks hold them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from copy import copy
from html import escape
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from build_book import documents

from notebooks import ROOT

sys.path.insert(0, str(ROOT / "tests"))  # the tests' client of Chromium

from browser import Browser, Site, executable

WHOLE = "whole-book.html"
LEFT_OUT = (
    "script, a.headerlink, details.hide, .prev-next-area, .jupyter-widgets, .widget-subarea, "
    "[data-mime-type^='application/vnd.jupyter.widget'], .pictures img[style*='none'], .pictures :is(input, select)"
)
FOOT = '<div style="font-size: 8pt; width: 100%; text-align: center"><span class="pageNumber"></span></div>'
STYLE = """
body { counter-reset: none; }
main { max-width: none; padding: 0; }
.part { break-before: page; }
h1 { font-size: 20pt; } h2 { font-size: 14pt; } h3 { font-size: 12pt; }
h1, h2, h3 { break-after: avoid; }
.cover { padding-top: 8cm; text-align: center; }
.contents ol { list-style: none; padding: 0; }
.contents li { display: flex; justify-content: space-between; gap: 1rem; }
.contents a { color: inherit; text-decoration: none; }
.contents .within { padding-left: 1.5rem; font-size: 9pt; }
img, svg { max-width: 100%; height: auto; }
#solutions ol .sd-summary-text { font-weight: bold; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
"""
# A destination in a PDF that Chromium writes: /name [page 0 R /XYZ x y zoom].
PLACE = re.compile(rb"/(?P<name>[^\s/\[\]()<>]+) \[(?P<page>\d+) 0 R /XYZ")
NODE = re.compile(rb"(?P<number>\d+) 0 obj\s*<<\s*/Type /Pages\b(?P<rest>.*?)endobj", re.DOTALL)
KIDS = re.compile(rb"/Kids \[(?P<kids>[^\]]*)\]")


def anchor(page: str, fragment: str = "") -> str:
    """The identifier, in the whole book, of a page ("book/intro") or of a place on it; letters and digits."""
    return re.sub(
        r"[^0-9A-Za-z]", lambda found: f"-{ord(found[0]):x}-", f"{page}#{fragment}" if fragment else page
    )


def article(html: Path, page: str) -> Tag:
    """What a page says, with its identifiers, links and images as the whole book needs them."""
    soup = BeautifulSoup((html / f"{page}.html").read_text(), "html.parser")
    part = soup.select_one("article.bd-article")
    if part is None:
        raise ValueError(f"{page}.html has no article")
    for tag in part.select(LEFT_OUT):
        tag.decompose()
    for tag in part.select("details:not(.answer)"):  # paper does not open
        tag["open"] = ""
    here = html / page
    for tag in part.find_all(id=True):
        tag["id"] = anchor(page, tag["id"])
    for tag in part.find_all("a", href=True):
        address = urlsplit(tag["href"])
        if not address.scheme and not address.netloc:
            target = (
                (here.parent / unquote(address.path)).resolve()
                if address.path
                else here.with_suffix(".html")
            )
            if target.suffix == ".html" and target.is_relative_to(html):
                there = target.relative_to(html).with_suffix("").as_posix()
                tag["href"] = "#" + anchor(there, unquote(address.fragment))
            else:
                del tag["href"]
    for tag in part.find_all(src=True):
        if not urlsplit(tag["src"]).scheme:
            tag["src"] = quote((here.parent / unquote(tag["src"])).resolve().relative_to(html).as_posix())
    return part


def answered(exercise: Tag) -> Tag:
    """What there is to say of each answer that ``exercise`` offers; there, only the answers stay, lettered."""
    details = exercise.select("details.answer")
    offered, told = (BeautifulSoup('<ol type="A"></ol>', "html.parser").ol for _ in range(2))
    details[0].insert_before(offered)
    for one in details:
        title = one.extract().select_one(".sd-summary-text")
        words = copy(title)
        for tag in words.find_all(id=True):
            del tag["id"]
        for place, parts in ((offered, [words]), (told, [title, one.select_one(".sd-summary-content")])):
            line = BeautifulSoup("<li></li>", "html.parser").li
            line.extend(parts)
            place.append(line)
    name = heading(exercise.select_one(".admonition-title"))
    box = BeautifulSoup(
        f'<div class="solution admonition"><p class="admonition-title">Answers to '
        f'<a href="#{exercise["id"]}">{escape(name)}</a></p></div>',
        "html.parser",
    ).div
    box.append(told)
    return box


def heading(tag: Tag) -> str:
    """The words of a heading."""
    return " ".join(tag.get_text().split())


def whole(html: Path, pages: Sequence[str], title: str, numbers: dict[str, int] | None = None) -> str:
    """The book as one page.

    Parameters
    ----------
    pages : in order, such as "notebooks/04_ppeps_wgm"
    numbers : of the pages on which identifiers stand; None: not known yet
    """
    parts, solutions, contents = [], [], []
    for page in pages:
        part = article(html, page)
        name = anchor(page)
        first = part.find("h1")
        if first is None:
            raise ValueError(f"{page}.html has no heading")
        contents.append((name, heading(first), ""))
        for second in part.select("section > h2"):
            second["id"] = f"{name}-h-{len(contents)}"
            contents.append((second["id"], heading(second), "within"))
        solved = [
            one.extract() if "solution" in one["class"] else answered(one)
            for one in part.select("div.solution, div.exercise:has(details.answer)")
        ]
        if solved:
            solutions.append(f"<h2>{escape(heading(first))}</h2>" + "".join(map(str, solved)))
        parts.append(f'<div class="part bd-article" id="{name}">{part.decode_contents()}</div>')
    if solutions:
        contents.append(("solutions", "Solutions", ""))
        parts.append(
            f'<div class="part bd-article" id="solutions"><h1>Solutions</h1>{"".join(solutions)}</div>'
        )
    lines = [
        f'<li class="{kind}"><a href="#{name}">{escape(words)}</a>'
        f"<span>{(numbers or {}).get(name, 0) or '000'}</span></li>"
        for name, words, kind in contents
    ]
    head = BeautifulSoup((html / f"{pages[0]}.html").read_text(), "html.parser").head
    kept = [str(tag) for tag in head.select('link[rel="stylesheet"]')]
    body = BeautifulSoup((html / f"{pages[0]}.html").read_text(), "html.parser")
    kept += [str(tag) for tag in body.find_all("script") if "mathjax" in str(tag).lower()]
    top = (html / pages[0]).parent.relative_to(html).as_posix()
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title>"
        + "".join(kept).replace('"../', '"' if top != "." else '"../')
        + f'<style>{STYLE}</style></head><body><main class="bd-content">'
        f'<div class="cover"><h1>{escape(title)}</h1></div>'
        f'<div class="part contents" id="contents"><h1>Contents</h1><ol>{"".join(lines)}</ol>'
        "<p>Folded code and interactive views are left out; the notebooks hold them.</p></div>"
        f"{''.join(parts)}</main></body></html>"
    )


def page_numbers(pdf: bytes) -> dict[str, int]:
    """On which page, from 1, each identifier of a PDF that Chromium wrote stands."""
    below = {
        int(node["number"]): [int(n) for n in re.findall(rb"(\d+) 0 R", KIDS.search(node["rest"])["kids"])]
        for node in NODE.finditer(pdf)
    }
    inner = {kid for kids in below.values() for kid in kids}

    def leaves(number: int) -> list[int]:
        return [leaf for kid in below[number] for leaf in leaves(kid)] if number in below else [number]

    pages = [leaf for root in below if root not in inner for leaf in leaves(root)]
    order = {one: place for place, one in enumerate(pages, start=1)}
    return {
        place["name"].decode(): order[int(place["page"])]
        for place in PLACE.finditer(pdf)
        if int(place["page"]) in order
    }


def make(html: Path, pages: Sequence[str], title: str, out: Path) -> int:
    """Write the PDF; return how many pages it has."""
    file = html / WHOLE
    out.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "displayHeaderFooter": True, "headerTemplate": "<span></span>", "footerTemplate": FOOT,
        "generateTaggedPDF": True, "generateDocumentOutline": True, "preferCSSPageSize": False,
        "marginTop": 0.6, "marginBottom": 0.7, "marginLeft": 0.7, "marginRight": 0.7,
    }  # fmt: skip
    try:
        with Site(html) as site, Browser(executable()) as browser:
            numbers = None
            for _ in range(2):  # the second time with the numbers that the first one gave
                file.write_text(whole(html, pages, title, numbers))
                browser.open(site + WHOLE)
                browser.printed(out, **options)
                numbers = page_numbers(out.read_bytes())
    finally:
        file.unlink(missing_ok=True)
    return len(re.findall(rb"/Type /Page\b(?!s)", out.read_bytes()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "book.pdf")
    options = parser.parse_args(arguments)
    html = ROOT / "_build" / "html"
    if executable() is None:
        raise SystemExit("no Chromium or Chrome was found; the environment variable CHROMIUM names one")
    if not (html / "index.html").exists():
        raise SystemExit("the book is not built yet: make book")
    pages = documents(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    title = yaml.safe_load((ROOT / "_config.yml").read_text())["title"]
    print(f"{options.out}: {make(html, pages, title, options.out)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
