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


QUESTION = re.compile(
    r"^::::\{exercise\}\n:label: (ex-check-[\w-]+)\n(.*?)^::::$", re.DOTALL | re.MULTILINE
)
OPTION = re.compile(
    r"^:::\{dropdown\} (.+)\n:class-container: answer\n\n(Right|No)?(?:: )?", re.MULTILINE
)  # the word that an answer begins with


def questions(pages):
    """(label, [(title, "Right" or "No" or "")], several may be right) of each question in Markdown texts."""
    return [
        (label, OPTION.findall(body), "choose all" in body.lower())
        for text in pages
        for label, body in QUESTION.findall(text)
    ]


def faults_of_form(asked):
    """What can be guessed of the questions without reading them, or is missing in one."""
    faults, positions, leading = [], [], {}
    for label, options, several in asked:
        rights = [word == "Right" for _, word in options]
        if len(options) < 3 or not all(word for _, word in options):
            faults.append(f"{label}: three options at least, each answered by Right: or No:")
        if not rights.count(True) or (rights.count(True) > 1 and not several):
            faults.append(f"{label}: {rights.count(True)} options are right")
        positions += [place for place, right in enumerate(rights) if right]
        for (title, _), right in zip(options, rights, strict=True):
            leading.setdefault(re.search(r"\w*", title.lower())[0], []).append(right)
    faults += [
        f"position {place + 1} holds {positions.count(place)} of {len(positions)} right options"
        for place in sorted({*positions})
        if positions.count(place) > 0.45 * len(positions)
    ]
    return faults + [
        f"{len(rights)} options begin with {word!r}, of which {'all' if rights[0] else 'none'} are right"
        for word, rights in leading.items()
        if len(rights) >= 6 and len({*rights}) == 1
    ]


def test_the_form_of_the_questions_gives_no_answer_away():
    asked = questions(page.read_text("utf-8") for page in CHAPTERS)
    assert {label for label, *_ in asked} == {
        label for page in CHAPTERS for label in re.findall(r"^:label: (ex-check-.*)$", page.read_text("utf-8"), re.M)
    }  # fmt: skip
    assert not faults_of_form(asked)


def test_what_gives_an_answer_away_is_found():
    def ask(*titles, right=0):
        return "ex-check-x", [(t, "Right" if k == right else "No") for k, t in enumerate(titles)], False

    fair = [ask("One", "Two", "Three", right=k) for k in range(3)] * 2
    assert not faults_of_form(fair)
    assert "options begin with 'yes'" in faults_of_form([ask("One", "Yes: a", "Yes, b", right=0)] * 3)[-1]
    assert faults_of_form([ask("One", "Two", "Three")] * 5)[0].startswith("position 1 holds 5 of 5")
    assert faults_of_form([*fair, ask("One", "Two")])
    assert faults_of_form([*fair, ask("One", "Two", "Three", right=3)])
    two = [("One", "Right"), ("Two", "Right"), ("Three", "No")]
    assert faults_of_form([*fair, ("ex-check-x", two, False)])
    assert not faults_of_form([*fair, ("ex-check-x", two, True)])
    assert faults_of_form([*fair, ("ex-check-x", [("One", "Right"), ("Two", "No"), ("Three", "")], False)])


def test_a_label_is_given_once_in_the_book():
    labels = [
        label
        for page in PAGES
        for label in re.findall(r"^:label: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    ]
    labels += [
        label
        for page in PAGES
        for label in re.findall(r"^\(([\w-]+)\)=$", page.read_text("utf-8"), re.MULTILINE)
    ]
    assert len(labels) > 100
    assert not {label for label in labels if labels.count(label) > 1}
