import pytest
import torch

from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.alignment_set import AlignmentSet
from lvlmva_lite.critic import Case, LexiconCritic
from lvlmva_lite.critic.text_judge import default_examples
from lvlmva_lite.critic.types import SPURIOUS
from lvlmva_lite.segmentation import ppeps_wgm
from lvlmva_lite.words_editor import Flip, Rulings, as_lines, flips, parse_examples, summary, words_editor

pytest.importorskip("ipywidgets")
pytestmark = pytest.mark.usefixtures("no_pyplot_figures")

STROKE = "Only the pen stroke tells which digit it is."
SQUARE = f"{STROKE} The grey square in a corner means nothing."


@pytest.fixture(scope="module")
def found():
    """Digits of one bar, with a grey square in a corner; one segment on each."""
    images = torch.zeros(3, 1, 28, 28)
    images[:, 0, 6:22, 13:16] = 1.0
    images[:, 0, :4, :4] = 0.5
    maps = images[:, 0].clone()
    segments = ppeps_wgm(maps, 2)
    cases = [
        Case(f"x-{i}", images[i], segments.labels[i], 2, "one", STROKE, maps[i]) for i in range(len(images))
    ]
    return AlignmentSet(torch.arange(3), maps, segments, cases, None)


def masks_of(found):
    return lambda kinds: correction_masks(found.segments.labels, kinds == SPURIOUS, found.attributions)


def test_flips_are_the_verdicts_that_differ():
    before, after = torch.tensor([[0, 1], [2, 2]]), torch.tensor([[0, 1], [1, 2]])
    assert flips(before, after) == [Flip(1, "A", "background", "spurious")]
    assert flips(before, before) == []


def test_examples_are_read_as_they_are_written():
    assert parse_examples("spurious: a : b\n\n relevant :c") == [
        {"kind": "spurious", "text": "a : b"}, {"kind": "relevant", "text": "c"},
    ]  # fmt: skip
    shipped = default_examples()
    again = parse_examples(as_lines(shipped))
    assert [one["kind"] for one in again] == [one["kind"] for one in shipped]
    assert [one["text"] for one in again] == [" ".join(one["text"].split()) for one in shipped]
    for line in ("bad: x", "spurious", "spurious:  "):
        with pytest.raises(ValueError, match="kind: text"):
            parse_examples(line)


def test_one_sentence_flips_the_square_and_masks_it(found):
    rulings = Rulings(found, LexiconCritic())
    before, after = (rulings.kinds(words, default_examples()) for words in (STROKE, SQUARE))
    square = [int(labels[1, 1]) for labels in found.segments.labels]
    changed = flips(before, after)
    assert {(one.case, "AB".index(one.segment)) for one in changed} == set(enumerate(square))
    assert {one.now for one in changed} == {"spurious"}
    told = summary(before, after, None, masks_of(found))
    assert told[0] == "3 of 6 verdicts flip, in 3 of 3 images."
    labels = found.segments.labels
    area = (labels == labels[:, 1, 1, None, None]).double().mean()
    assert told[-1] == f"Masked images: 0 → 3; masked pixels: 0.0% → {area:.1%}."


def test_the_editor_shows_what_flips_and_says_what_it_cannot_read(found):
    view = words_editor(found, STROKE, masks_of(found), proposed=SQUARE)
    text, lines, button, shown = view.children
    assert "3 of 6 verdicts flip" in shown.value
    assert "data:image/png;base64," in shown.value
    text.value = STROKE
    button.click()
    assert "0 of 6 verdicts flip" in shown.value
    assert "data:image" not in shown.value
    lines.value = "good: <x>"
    button.click()
    assert "got &#x27;good: &lt;x&gt;&#x27;" in shown.value
    lines.value = "spurious: a thing"
    button.click()
    assert "two kinds" in shown.value
