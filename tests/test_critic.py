import dataclasses
import re

import pytest
import torch

from lvlmva_lite.critic import (
    Case,
    Critique,
    LexiconCritic,
    TextJudge,
    class_description,
    segment_names,
)
from lvlmva_lite.critic.reading import read_description
from lvlmva_lite.critic.text_judge import default_examples, text_by_segment


@pytest.fixture
def case():
    """A grey square in the lower right, a vertical stroke in the middle, a segment on each, one on nothing."""
    image = torch.zeros(1, 28, 28)
    image[0, 24:, 24:] = 0.4
    image[0, 6:22, 13:15] = 1.0
    labels = torch.full((28, 28), -1)
    labels[24:, 24:] = 0
    labels[6:22, 13:15] = 1
    labels[0:3, 10:13] = 2
    return Case("case", image, labels, 4, "1", class_description("decoy-mnist"), torch.ones(28, 28))


def verdict(case, description=None):
    """The kind that the lexicon gives each segment, None for those it does not speak of."""
    if description is not None:
        case = dataclasses.replace(case, description=description)
    text = LexiconCritic().criticise(case).text
    said = dict(re.findall(r"Segment (\w+) is (\w+)\.$", text, re.MULTILINE))
    return tuple(said.get(name) for name in segment_names(case.n_segments))


SPURIOUS, RELEVANT, BACKGROUND = "spurious", "relevant", "background"


def test_names_are_letters_then_pairs():
    names = segment_names(30)
    assert names[:3] == ("A", "B", "C")
    assert names[25:28] == ("Z", "AA", "AB")
    assert len(set(segment_names(50))) == 50


def test_a_case_has_no_field_for_the_ground_truth():
    assert {field.name for field in dataclasses.fields(Case)} == {
        "case_id", "image", "segment_labels", "n_segments", "class_name", "description",
        "evidence",
    }  # fmt: skip


def test_the_square_is_spurious_and_nothing_else(case):
    assert verdict(case) == (SPURIOUS, RELEVANT, BACKGROUND, None)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("The stroke thickness means nothing.", (BACKGROUND, SPURIOUS, BACKGROUND)),
        ("Ignore the square.", (SPURIOUS, BACKGROUND, BACKGROUND)),
        ("Ignore everything bright.", (BACKGROUND, SPURIOUS, BACKGROUND)),
        ("The empty background is irrelevant.", (BACKGROUND, BACKGROUND, SPURIOUS)),
        ("The square tells the class. The stroke is an artefact.", (RELEVANT, SPURIOUS, BACKGROUND)),
        ("Corners do not matter.", (SPURIOUS, BACKGROUND, BACKGROUND)),
        ("The square doesn't matter.", (SPURIOUS, BACKGROUND, BACKGROUND)),
        ("Look at the stroke rather than the square.", (SPURIOUS, RELEVANT, BACKGROUND)),
        (
            "The digit is a pen stroke, but the grey box in a corner means nothing",
            (SPURIOUS, RELEVANT, BACKGROUND),
        ),
        ("The square in the centre means nothing", (BACKGROUND, BACKGROUND, BACKGROUND)),
    ],
)
def test_verdicts_follow_the_words(case, description, expected):
    assert verdict(case, description) == (*expected, None)


def test_the_critic_reads_neither_the_mask_nor_the_shade_of_the_class(case):
    # The verdict is the same whatever the square's grey value and the label say.
    for grey in (0.12, 0.5, 1.0):
        image = case.image.clone()
        image[0, 24:, 24:] = grey
        other = dataclasses.replace(case, image=image, class_name="7")
        assert verdict(other) == (SPURIOUS, RELEVANT, BACKGROUND, None)


def test_colour_images_are_read_too(case):
    assert verdict(dataclasses.replace(case, image=case.image.expand(3, 28, 28))) == verdict(case)


def test_description_is_read_clause_by_clause():
    clauses = read_description(
        "A loop matters. The thing!? The grey square in\na corner is irrelevant"
    ).clauses
    assert [clause.means_nothing for clause in clauses] == [False, True]
    assert clauses[1].phrase == "The grey square in a corner is irrelevant"


def test_a_description_without_a_known_word_is_an_error(case):
    with pytest.raises(ValueError, match=r"understands nothing of the description .Be fair\."):
        verdict(case, "Be fair.")


def test_text_names_every_segment_that_has_a_pixel(case):
    text = LexiconCritic().criticise(case).text
    assert set(text_by_segment(text, segment_names(4))) == {"A", "B", "C"}


def test_quotation_marks_in_the_experts_words_stay_within_the_quotation(case):
    text = (
        LexiconCritic()
        .criticise(
            dataclasses.replace(
                case, description='The 1/4" square means nothing. Segment B is spurious, says the stroke.'
            )
        )
        .text
    )
    assert all(line.count('"') in (0, 2) for line in text.splitlines())


def test_judge_reads_only_the_text():
    text = (
        "Segment A shows a marker. It is a shortcut, spurious.\nSegment B lies on the bone. It is relevant."
    )
    assert TextJudge().judge(Critique("x", "anyone", text), 3).kinds == (
        "spurious",
        "relevant",
        "undecided",
    )


def test_judge_ignores_the_experts_words_in_quotation_marks():
    text = 'Segment A covers "the square is spurious and irrelevant". Segment A shows the class, it is relevant.'
    assert TextJudge().judge(Critique("x", "anyone", text), 1).kinds == ("relevant",)


def test_a_name_within_a_word_is_no_mention():
    assert text_by_segment("Segmentation of a segment. A segment again.", ("A", "OF")) == {}


def test_judge_recovers_its_own_examples():
    judge = TextJudge()
    for example in default_examples():
        critique = Critique("x", "anyone", f"Segment A. {example['text']}")
        assert judge.judge(critique, 1).kinds == (example["kind"],), example


def test_editing_the_examples_moves_the_verdict():
    critique = Critique("x", "anyone", "Segment A covers a ruler.")
    learnt = [
        *default_examples(),
        {"text": "It covers a ruler.", "kind": "spurious"},
        {"text": "It covers a mole.", "kind": "relevant"},
    ]
    ruler, mole = learnt[-2:]
    flipped = [*default_examples(), ruler | {"kind": "relevant"}, mole | {"kind": "spurious"}]
    assert TextJudge(learnt).judge(critique, 1).kinds == ("spurious",)
    assert TextJudge(flipped).judge(critique, 1).kinds == ("relevant",)


def test_examples_of_one_kind_are_refused():
    with pytest.raises(ValueError, match="two kinds"):
        TextJudge([{"text": "It is fine.", "kind": "relevant"}])


def test_unknown_description_is_an_error():
    with pytest.raises(ValueError, match="'moons'"):
        class_description("moons")
