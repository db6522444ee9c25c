"""What the book calls its chapters, and where its words lead to the glossary."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from colab_markdown import WITH_TEXT  # noqa: E402

CHAPTERS = sorted((ROOT / "notebooks").glob("*.md"))
PAGES = [*CHAPTERS, *sorted((ROOT / "book").glob("*.md"))]
ROLE = re.compile(r"\{(\w+)\}`([^`]+)`")
CODE = re.compile(r"^ *(`{3,}|~{3,})(?!\{(?:exercise|solution|admonition|note|warning)).*?^ *\1", re.DOTALL | re.MULTILINE)  # fmt: skip


def prose(page):
    """A page's Markdown without its code, its header and its ``alt`` texts."""
    return CODE.sub("", re.sub(r"\A---\n.*?\n---\n", "", page.read_text("utf-8"), flags=re.DOTALL))


def parts(content):
    """(words, target) of a role's content."""
    found = WITH_TEXT.match(content)
    return (found["text"], found["target"]) if found else (content, content)


def names_of_chapters(text):
    """Faults: a chapter with a leading zero, without a link, or linked by other words than its number."""
    faults = []
    for role, content in ROLE.findall(text):
        words, target = parts(content)
        number = re.match(r"(?:\.\./notebooks/)?(\d\d)_\w+$", target)
        if role == "doc" and number and not re.fullmatch(rf"(?:[Cc]hapters? )?{int(number[1])}", words):
            faults.append(content)
        if role == "ref" and re.search(r"[Cc]hapter", words) and not re.fullmatch(r"chapter \d+", words):
            faults.append(content)
    return faults + re.findall(r"[Cc]hapters? \d+", ROLE.sub("", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_chapter_is_named_by_its_number_as_a_link(page):
    if page.stem != "intro":
        assert not names_of_chapters(prose(page))
        return
    rows = [
        line for line in prose(page).splitlines() if not line.startswith("|")
    ]  # data, and where they are from
    assert not names_of_chapters("\n".join(rows))


def test_other_names_of_chapters_are_found():
    wrong = "{doc}`05_critic_and_judge`, {doc}`chapter 05 <05_critic_and_judge>`, chapter 5, {doc}`knees <08_knee>`"
    assert len(names_of_chapters(wrong)) == 4
    right = "{doc}`chapter 5 <05_critic_and_judge>`, {doc}`Chapters 8 <../notebooks/08_knee>` and {doc}`9 <09_skin>`"
    assert not names_of_chapters(right)


def glossary():
    text = (ROOT / "book" / "glossary.md").read_text("utf-8")
    body = text[text.index("```{glossary}") :]
    return re.findall(r"^(?![`:\s])(.+)$", body, re.MULTILINE)


def test_the_glossary_says_each_word_once():
    words = [word.lower() for word in glossary()]
    assert len(words) > 40
    assert len(words) == len({*words})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_the_glossary_lead_to_a_word_of_it(page):
    known = {word.lower() for word in glossary()}
    assert not [target for role, content in ROLE.findall(page.read_text("utf-8"))
                if role == "term" and (target := parts(content)[1]).lower() not in known]  # fmt: skip


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_the_first_use_of_a_word_is_the_one_that_links(page):
    text = re.sub(r"^#.*$", "", prose(page), flags=re.MULTILINE)  # headings
    linked = [(found.start(), *parts(found[2])) for found in ROLE.finditer(text) if found[1] == "term"]
    assert linked, f"{page.name} links no word to the glossary"
    targets = [target.lower() for *_, target in linked]
    assert not {target for target in targets if targets.count(target) > 1}, (
        "a word is linked once in a chapter"
    )
    for at, words, _ in linked:
        assert not re.search(rf"\b{re.escape(words)}\b", ROLE.sub("", text[:at])), (
            f"{words!r} stands before its link"
        )
