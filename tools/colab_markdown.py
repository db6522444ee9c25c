"""Turn a chapter's MyST Markdown into Markdown that Colab and GitHub display.

Colab shows directives and roles as raw text.  :func:`convert` rewrites the ones
that the chapters use: admonitions, exercises and proofs become block quotes,
solutions and drop-downs become ``<details>``, mathematics becomes ``$$``, and
citations, references and recorded numbers become readable text.  A directive or
role that it does not know raises :class:`UnknownMyST`, so that no raw MyST
slips through.

Numbers of figures, equations, exercises and theorems are counted as the
rendered book counts them: with the chapter's number in front, if it has one.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pybtex.database import Entry, parse_file

ADMONITIONS = {
    "attention": "Attention", "caution": "Caution", "danger": "Danger", "error": "Error", "hint": "Hint",
    "important": "Important", "note": "Note", "seealso": "See also", "tip": "Tip", "warning": "Warning",
}  # fmt: skip
PROOFS = {
    "algorithm", "assumption", "axiom", "conjecture", "corollary", "criterion", "definition", "example",
    "lemma", "observation", "property", "proposition", "remark", "theorem",
}  # fmt: skip
DROPPED = {"bibliography", "contents", "exercise-end", "index", "solution-end", "tableofcontents"}
FLAGS = {"nonumber", "no-number", "hidden"}

OPENING = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}(?=[^`]*$)|~{3,}|:{3,})(?P<info>.*)$")
DIRECTIVE = re.compile(r"^\{(?P<name>[\w:.-]+)\}\s*(?P<argument>.*)$")
OPTION = re.compile(r"^:(?P<key>[\w-]+):\s*(?P<value>.*)$")
LABEL_LINE = re.compile(r"^\((?P<label>[^()\s]+)\)=\s*$")
HEADING = re.compile(r"^#{1,6}\s+(?P<title>.*?)\s*#*$")
WITH_TEXT = re.compile(r"^(?P<text>.+?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)
_WITHIN = r"(?:(?!\n\s*\n).)"  # anything but the end of the paragraph
INLINE = re.compile(
    rf"\{{(?P<role>[\w:.-]+)\}}(?P<ticks>`+)(?P<content>{_WITHIN}+?)(?P=ticks)(?!`)"
    rf"|(?P<code>(?P<code_ticks>`+){_WITHIN}+?(?P=code_ticks)(?!`))"
    rf"|\$\$(?P<display>{_WITHIN}+?)\$\$(?: *\((?P<equation>[^()\s]+)\))?"
    rf"|(?P<math>(?<!\\)\$(?=\S){_WITHIN}+?(?<=\S)\$)"
    r"|(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<link>[^()\s]+)\)",
    re.DOTALL,
)


class UnknownMyST(ValueError):
    """The chapter uses MyST that the converter cannot turn into plain Markdown."""


@dataclass(frozen=True)
class Directive:
    """A fenced directive: its name, argument, options, body and indentation."""

    name: str
    argument: str
    options: dict[str, str]
    body: str
    indent: str = ""


@dataclass(frozen=True)
class Target:
    """What a label stands for: its words, its number with a word in front, and its page."""

    text: str
    number: str
    page: str


@dataclass
class Numbering:
    """Counts the numbered objects of one page in the order of reading."""

    prefix: str = ""
    counts: Counter = field(default_factory=Counter)

    def next(self, kind: str) -> str:
        """Return the number of the next object of this kind."""
        self.counts[kind] += 1
        return f"{self.prefix}{self.counts[kind]}"


@dataclass(frozen=True)
class Book:
    """What a page may refer to.

    ``address`` is where the repository's files are read (``.../blob/<tag>``), ``titles``
    maps pages (paths from the repository's root) to their titles, ``targets`` labels to
    what they stand for and ``citations`` keys to ``(authors, year, link)``.
    """

    address: str
    titles: dict[str, str] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    citations: dict[str, tuple[str, str, str]] = field(default_factory=dict)


def blocks(source: str) -> Iterator[str | Directive]:
    """Split Markdown into runs of text, verbatim code blocks (text, too) and directives."""
    lines = source.split("\n")
    text: list[str] = []
    position = 0
    while position < len(lines):
        opening = OPENING.match(lines[position])
        directive = opening and DIRECTIVE.match(opening["info"].strip())
        if not opening or (opening["fence"][0] == ":" and not directive):
            text.append(lines[position])
            position += 1
            continue
        fence, indent = opening["fence"], opening["indent"]
        closing = re.compile(rf"^ *{re.escape(fence[0])}{{{len(fence)},}}\s*$")
        end = position + 1
        while end < len(lines) and not closing.match(lines[end]):
            end += 1
        if text:
            yield "\n".join(text)
            text = []
        if directive:
            body = [
                line[len(indent) :] if line.startswith(indent) else line
                for line in lines[position + 1 : end]
            ]
            options, body = _options(body)
            yield Directive(
                directive["name"],
                directive["argument"].strip(),
                options,
                "\n".join(body).strip("\n"),
                indent,
            )
        else:
            yield "\n".join(lines[position : end + 1])
        position = end + 1
    if text:
        yield "\n".join(text)


def _options(body: list[str]) -> tuple[dict[str, str], list[str]]:
    options = {}
    if body and body[0].strip() == "---" and "---" in (line.strip() for line in body[1:]):
        end = [line.strip() for line in body].index("---", 1)
        for line in body[1:end]:
            key, _, value = line.partition(":")
            options[key.strip()] = value.strip()
        return options, body[end + 1 :]
    while body and (option := OPTION.match(body[0])):
        options[option["key"]] = option["value"].strip()
        body = body[1:]
    return options, body


def page_numbering(page: str) -> Numbering:
    """Return the numbering of a page: ``03_name`` counts 3.1, 3.2, ...; ``00_name`` and prose 1, 2, ..."""
    chapter = re.match(r"(\d+)_", Path(page).name)
    return Numbering(f"{int(chapter[1])}." if chapter and int(chapter[1]) else "")


def title(source: str) -> str:
    """Return the first heading of a page, or an empty string."""
    for block in blocks(source):
        if isinstance(block, str) and not OPENING.match(block):
            for line in block.split("\n"):
                if heading := HEADING.match(line):
                    return heading["title"]
    return ""


def figure_of(cell: dict) -> dict:
    """Return the figure options of a code cell (``caption``, ``name``), or an empty dictionary."""
    return cell.get("metadata", {}).get("mystnb", {}).get("figure", {})


def collect(cells: list[dict], page: str) -> dict[str, Target]:
    """Return the labels that a page defines; ``cells`` are its notebook cells, in order."""
    targets: dict[str, Target] = {}
    numbering = page_numbering(page)

    def add(label: str | None, text: str, number: str) -> None:
        if label:
            targets[label.lower()] = Target(text or number, number or text, page)

    def walk(source: str) -> None:
        pending: list[str] = []
        for block in blocks(source):
            if isinstance(block, Directive):
                number = _number(block, numbering)
                label = block.options.get("label") or block.options.get("name")
                words = block.argument if block.name.startswith(("prf:", "table", "admonition")) else ""
                if "exercise" in block.name and not number[-1:].isdigit():
                    words = block.argument
                for name in (*pending, label):
                    add(name, words, number)
                pending = []
                if block.name != "math":
                    walk(block.body)
                continue
            if OPENING.match(block):
                continue
            for line in block.split("\n"):
                if found := LABEL_LINE.match(line):
                    pending.append(found["label"])
                elif heading := HEADING.match(line):
                    for name in pending:
                        add(name, heading["title"], "")
                    pending = []
            for found in INLINE.finditer(block):
                if found["equation"]:
                    add(found["equation"], "", f"({numbering.next('equation')})")

    for cell in cells:
        if cell["cell_type"] == "markdown":
            walk(cell["source"])
        elif figure := figure_of(cell):
            number = f"Figure {numbering.next('figure')}" if figure.get("caption") else ""
            add(figure.get("name"), figure.get("caption", ""), number)
    return targets


def _number(block: Directive, numbering: Numbering) -> str:
    """Return what a directive is called by its number, such as ``Exercise 2.1``, counting it."""
    kind = block.name.removesuffix("-start").removeprefix("prf:")
    if kind == "math":
        return f"({numbering.next('equation')})" if block.options.get("label") else ""
    if kind == "figure":
        return f"Figure {numbering.next('figure')}" if block.body else ""
    if kind == "table":
        return f"Table {numbering.next('table')}" if block.argument else ""
    if kind == "exercise" or (block.name.startswith("prf:") and kind in PROOFS):
        return (
            kind.capitalize()
            if FLAGS & block.options.keys()
            else f"{kind.capitalize()} {numbering.next(kind)}"
        )
    return ""


def citations(bibliography: Path) -> dict[str, tuple[str, str, str]]:
    """Read ``(authors, year, link)`` of every entry of a BibTeX file."""

    def names(entry: Entry) -> str:
        last = [" ".join(str(part) for part in person.rich_prelast_names + person.rich_last_names)
                for person in entry.persons["author"]]  # fmt: skip
        return last[0] if len(last) == 1 else " and ".join(last) if len(last) == 2 else f"{last[0]} et al."

    def link(entry: Entry) -> str:
        fields = entry.fields
        if "doi" in fields:
            return f"https://doi.org/{fields['doi']}"
        return f"https://arxiv.org/abs/{fields['eprint']}" if "eprint" in fields else fields.get("url", "")

    entries = parse_file(str(bibliography), bib_format="bibtex").entries
    return {key: (names(entry), entry.fields["year"], link(entry)) for key, entry in entries.items()}


def convert(source: str, page: str, book: Book, numbering: Numbering | None = None) -> str:
    """Return the Markdown cell ``source`` of ``page`` as plain Markdown.

    Pass the page's :class:`Numbering` from cell to cell; without one, counting starts anew.
    """
    numbering = numbering or page_numbering(page)
    parts = []
    for block in blocks(source):
        if isinstance(block, Directive):
            parts.append(_indent(_directive(block, page, book, numbering), block.indent))
        elif OPENING.match(block):
            parts.append(block)
        else:
            parts.append(_text(block, page, book))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(part for part in parts if part is not None)).strip("\n")


def caption(cell: dict, page: str, book: Book, numbering: Numbering) -> str:
    """Return the caption that stands below a code cell with a figure, or an empty string."""
    words = figure_of(cell).get("caption", "")
    return words and f"**Figure {numbering.next('figure')}.** {_text(words.strip(), page, book)}"


def _indent(text: str | None, indent: str) -> str | None:
    if text is None or not indent:
        return text
    return "\n".join(indent + line if line else line for line in text.split("\n"))


def _quote(heading: str, body: str) -> str:
    lines = [f"**{heading}**", *(["", *body.split("\n")] if body else [])]
    return "\n" + "\n".join(f"> {line}".rstrip() for line in lines) + "\n"


def _details(summary: str, body: str) -> str:
    summary = re.sub(r"`+([^`]+)`+", r"<code>\1</code>", summary)  # no Markdown is read within HTML
    return f"\n<details><summary><b>{summary}</b></summary>\n\n{body}\n\n</details>\n"


def _directive(block: Directive, page: str, book: Book, numbering: Numbering) -> str | None:
    name, options = block.name, block.options
    if name in DROPPED:
        return None
    number = _number(block, numbering)
    if name == "math":
        return _display(f"{block.argument}\n{block.body}".strip(), number)
    if name == "code-block" or name == "code":
        return f"```{block.argument}\n{block.body}\n```"
    argument = _text(block.argument, page, book)
    body = convert(block.body, page, book, numbering)
    if name in ADMONITIONS:
        name, argument, body = "admonition", ADMONITIONS[name], "\n".join(filter(None, (argument, body)))
    if name == "dropdown" or (name == "admonition" and "dropdown" in options.get("class", "")):
        return _details(argument, body)
    if name in ("admonition", "margin", "sidebar", "topic"):
        return _quote(argument or "Aside", body)
    if name in ("exercise", "exercise-start") or name.removeprefix("prf:") in PROOFS:
        heading = f"{number} ({argument.strip('()')})" if argument else number
        return _quote(heading, body)
    if name == "prf:proof":
        return _quote("Proof", f"{body} $\\blacksquare$" if not body.endswith("$$") else body)
    if name in ("solution", "solution-start"):
        heading = f"Solution to {_target(block.argument, page, book).number}"
        return _details(heading, body) if name == "solution" else f"**{heading}**\n\n{body}"
    if name in ("figure", "image"):
        link = _link(block.argument, page, book, "raw")
        words = f"\n\n**{number}.** {body}" if body else ""
        return f"\n![{options.get('alt', '')}]({link}){words}\n"
    if name == "table":
        return f"\n**{number}.** {argument}\n\n{body}\n"
    raise UnknownMyST(f"{page}: the directive {{{name}}} has no plain form")


def _display(formula: str, number: str = "") -> str:
    if "\\\\" in formula and "\\begin" not in formula:
        formula = f"\\begin{{aligned}}\n{formula}\n\\end{{aligned}}"
    tag = f"\n\\tag{{{number.strip('()')}}}" if number else ""
    return f"\n$$\n{formula}{tag}\n$$\n"


def _text(text: str, page: str, book: Book) -> str:
    lines = [line for line in text.split("\n") if not LABEL_LINE.match(line) and not line.startswith("%")]

    def inline(found: re.Match) -> str:
        if found["role"]:
            return _role(found["role"], found["content"], page, book)
        if found["equation"]:
            number = _target(found["equation"], page, book).number
            return f"$${found['display'].rstrip()}\n\\tag{{{number.strip('()')}}}\n$$"
        if found["link"]:
            return _markdown_link(found, page, book)
        return found[0]

    return INLINE.sub(inline, "\n".join(lines))


def _markdown_link(found: re.Match, page: str, book: Book) -> str:
    link, text = found["link"], found["text"]
    if re.match(r"[a-z]+:", link):
        return found[0]
    label = link.removeprefix("#").lower()
    if link.startswith("#") or label in book.targets:
        return _refer(text or _target(label, page, book).text, _target(label, page, book), page, book)
    text = text or book.titles.get(_page(link, page), link)
    kind = "raw" if found["image"] else "blob"
    return f"{found['image']}[{text}]({_link(link, page, book, kind)})"


def _page(link: str, page: str) -> str:
    """Return a link of ``page`` to a file or document as a path from the repository's root."""
    path = link.partition("#")[0]
    path = path.lstrip("/") if path.startswith("/") else posixpath.join(posixpath.dirname(page), path)
    return posixpath.normpath(path)


def _link(link: str, page: str, book: Book, kind: str = "blob") -> str:
    if re.match(r"[a-z]+:", link):
        return link
    path = _page(link, page)
    if path.startswith("notebooks/"):
        path = re.sub(r"\.md$", ".ipynb", path)
    return f"{book.address.replace('/blob/', f'/{kind}/')}/{path}"


def _target(label: str, page: str, book: Book) -> Target:
    try:
        return book.targets[label.lower()]
    except KeyError:
        raise UnknownMyST(f"{page}: nothing is labelled {label!r}") from None


def _refer(text: str, target: Target, page: str, book: Book) -> str:
    text = re.sub(r"\s+", " ", text)
    return text if target.page == page else f"[{text}]({_link('/' + target.page, page, book)})"


def _role(role: str, content: str, page: str, book: Book) -> str:
    with_text = WITH_TEXT.match(content)
    text, name = (with_text["text"], with_text["target"]) if with_text else ("", content)
    if role in ("cite", "cite:p", "cite:t", "cite:ps", "cite:ts"):
        return _cite(role, content, page, book)
    if role.startswith("glue"):
        key = content.partition("::")[2] or content
        return f"`{key}`"
    if role == "math":
        return f"${content}$"
    if role == "ref":
        target = _target(name, page, book)
        return _refer(text or target.text, target, page, book)
    if role in ("numref", "prf:ref"):
        target = _target(name, page, book)
        number = target.number.rpartition(" ")[2]
        words = text.replace("%s", number).replace("{number}", number).replace("{name}", target.text)
        return _refer(words or target.number, target, page, book)
    if role in ("eq", "math:numref"):
        return _target(name, page, book).number
    if role == "doc":
        path = _page(name, page)
        path = next(
            (known for known in book.titles if known in (path, path + ".md", path + ".ipynb")), None
        )
        if path is None:
            raise UnknownMyST(f"{page}: there is no page {name!r}")
        return f"[{text or book.titles[path]}]({_link('/' + path, page, book)})"
    if role in ("term", "abbr"):
        return text or content
    if role in ("sub", "sup"):
        return f"<{role}>{content}</{role}>"
    if role == "kbd":
        return f"<kbd>{content}</kbd>"
    raise UnknownMyST(f"{page}: the role {{{role}}} has no plain form")


def _cite(role: str, keys: str, page: str, book: Book) -> str:
    def one(key: str) -> str:
        if key not in book.citations:
            raise UnknownMyST(f"{page}: the bibliography has no {key!r}")
        authors, year, link = book.citations[key]
        words = f"{authors} ({year})" if role.startswith("cite:t") else f"{authors}, {year}"
        return f"[{words}]({link})" if link else words

    cited = [one(key.strip()) for key in keys.split(",")]
    return ", ".join(cited) if role.startswith("cite:t") else f"({'; '.join(cited)})"
