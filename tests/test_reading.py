"""How the lexicon reads sentences: a table made by a person, and sentences put together at random."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite.critic import class_description
from lvlmva_lite.critic.reading import read_description
from lvlmva_lite.critic.vocabulary import TERMS

NAMES = {
    "letters": "letter", "osteophytes": "joint", "moles": "lesion", "bandage": "bandage", "square": "square",
    "pen": "stroke", "empty": "empty", "corner": "corner", "edge": "edge", "centre": "centre", "bright": "bright",
    "grey": "grey", "dark": "dark",
}  # fmt: skip
"""A word of each term -> how the table below calls it."""


def read(description: str) -> str:
    """What was dismissed (-) and upheld (+), and "?" where something was not understood, sorted."""
    reading = read_description(description)
    said = {
        ("-" if clause.means_nothing else "+") + name
        for clause in reading.clauses
        for term in clause.terms
        for word, name in NAMES.items()
        if name != "grey" and term in read_description(f"The {word} tells.").clauses[0].terms
    }
    return " ".join(sorted(said | ({"?"} if reading.not_understood else set())))


# fmt: off
SENTENCES = [
    ("The square doesn't matter.", '-square'),
    ('The square doesn’t matter.', '-square'),
    ('Do not look at the square.', '-square'),
    ('The square should not be used.', '-square'),
    ('The square is just noise.', '-square'),
    ("The square isn't relevant.", '-square'),
    ('Never look at the square.', '-square'),
    ('Pay no attention to the square.', '-square'),
    ('The square is without importance.', '-square'),
    ('Look at the stroke rather than the square.', '+stroke -square'),
    ('Not the square but the stroke tells the digit.', '+stroke -square'),
    ('Not the square but the stroke.', '+stroke -square'),
    ('It is not the square but the stroke that matters.', '+stroke -square'),
    ('The square is not irrelevant.', '+square'),
    ('Do not ignore the stroke.', '+stroke'),
    ('The square must not be overlooked.', '+square'),
    ('Never forget the stroke.', '+stroke'),
    ('The stroke matters, not the square.', '+stroke -square'),
    ('The square is irrelevant, not the stroke.', '+stroke -square'),
    ('The stroke, not the square, tells the digit.', '+stroke -square'),
    ('The square, not the stroke, is irrelevant.', '+stroke -square'),
    ("The stroke matters but the square doesn't.", '+stroke -square'),
    ("The square doesn't matter, the stroke does.", '+stroke -square'),
    ('The square does not matter and neither does the corner.', '-corner -square'),
    ('Neither the square nor the stroke matters.', '-square -stroke'),
    ('Instead of the square, use the stroke.', '+stroke -square'),
    ('Use the stroke instead of the square.', '+stroke -square'),
    ('Ignore the square and the letter.', '-letter -square'),
    ('Nothing but the stroke counts.', '+stroke'),
    ('Ignore everything but the stroke.', '+stroke'),
    ('Everything except the stroke is irrelevant.', '+stroke'),
    ('Only the stroke counts.', '+stroke'),
    ('Not only the stroke but also the square matters.', '+square +stroke'),
    ('It is wrong to use the square.', '-square'),
    ('It is wrong to ignore the stroke.', '+stroke'),
    ('Ignore the meaningless square.', '-square'),
    ('The spurious square means nothing.', '-square'),
    ('Never rely on the spurious square.', '-square'),
    ('Disregard artefacts such as the letter.', '-letter'),
    ('The watermark in the corner is irrelevant.', '?'),
    ('The ruler next to the lesion is meaningless.', '?'),
    ('The letter on the bone means nothing.', '-letter'),
    ('Corners do not matter.', '-corner'),
    ('Ignore everything bright.', '-bright'),
    ('Ignore the watermark in the corner.', '?'),
    ('The stripe along the edge is meaningless.', '?'),
    ('The square has no importance.', '-square'),
    ('The letter is no sign of osteoarthritis.', '-letter'),
    ('Ill knees show no gap.', '+joint'),
    ('Although the square is bright, it means nothing.', '-bright -square'),
    ('The square is bright, but it means nothing.', '-bright -square'),
    ('The square is of no use.', '-square'),
    ('The square should be ignored.', '-square'),
    ("The square can't be trusted.", '-square'),
    ('The square tells nothing about the digit.', '-square'),
    ('The square has nothing to do with the digit, the stroke does.', '+stroke -square'),
    ('Irrelevant: the square, the letter.', '-letter -square'),
    ('What does not matter is the square.', '-square'),
    ('I do not think that the square matters.', '-square'),
    ('It is not true that the square is irrelevant.', '+square'),
    ('The square is hardly relevant.', '-square'),
    ('The square matters little.', '-square'),
    ('The square does not tell the digit.', '-square'),
    ('No square matters.', '-square'),
    ('Without the stroke the digit cannot be told.', '+stroke'),
    ('Look not at the square but at the stroke.', '+stroke -square'),
    ('The square is a distraction.', '-square'),
    ('The square is meaningless, whereas the stroke is decisive.', '+stroke -square'),
    ('Squares mean nothing.', '-square'),
    ('Boxes in corners mean nothing.', '-corner -square'),
    ('The square is not important, nor is the letter.', '-letter -square'),
    ('The square is not what matters.', '-square'),
    ('Stop ignoring the stroke.', '+stroke'),
    ('Avoid looking at the square.', '-square'),
    ('You can ignore the square.', '-square'),
    ('The square is not without importance.', '+square'),
    ('The letters L and R are spurious.', '-letter'),
    ('The stroke is not noise.', '+stroke'),
    ('Be fair.', '?'),
    ('The square blorps.', '?'),
    ('The square does not blorp.', '?'),
    ('The square is flurbly.', '?'),
    ('The square should be flurbled.', '?'),
    ('Bin the square.', '?'),
    ('It is the square that blorps.', '?'),
    ('The square, which is flurbly.', '?'),
    ('The square is bright and blorps.', '?'),
    ('The stroke and the square are flurbly.', '?'),
    ('The stroke matters, the square is flurbly.', '+stroke ?'),
    ('The square is flurbly, but the letter is meaningless.', '-letter ?'),
    ('Unlike the stroke, the square is flurbly.', '?'),
    ('The square is flurbly and should be ignored.', '-square'),
    ('The square, which blorps, is irrelevant.', '-square'),
    ('The lesion is asymmetric.', '+lesion'),
    ('The lesion has pseudopods.', '+lesion'),
    ('The joint space is narrowed and the cartilage is eroded.', '+joint'),
    ('The square seems wildly dark.', '+dark +square'),
    ('The stroke of a seven.', '+stroke'),
    ('Unlike the stroke, the square means nothing.', '+stroke -square'),
    ('The stroke matters; the square – grey – does not.', '+stroke -square'),
    ('The stroke matters. Everything else is noise.', '+stroke'),
    ('The square, which is noise, should be ignored.', '-square'),
    ('The square and the corner mean nothing.', '-corner -square'),
    ("Don't use the square, use the stroke.", '+stroke -square'),
    ("The square isn't to be looked at.", '-square'),
    ('The bright watermark does not matter.', '?'),
    ('Please disregard any square you see.', '-square'),
    ('The square is in no way relevant.', '-square'),
    ('Under no circumstances look at the square.', '-square'),
    ('The square plays no role.', '-square'),
    ('There is no reason to look at the square.', '-square'),
    ('The square was never important.', '-square'),
    ('The square ought not to count.', '-square'),
    ('The square is not a valid feature.', '-square'),
    ('The stroke alone matters.', '+stroke'),
    ('The gap is not even in ill knees.', '+joint'),
    ('The border of the lesion is not sharp.', '+edge +lesion'),
    ('Hairs over the lesion are irrelevant.', '?'),
    ('Ignore the square and the watermark in the corner.', '-square ?'),
    ('Ignore the ruler beside the lesion.', '?'),
    ("The square isn't evidence, the stroke is.", '+stroke -square'),
    ('The square is irrelevant and the stroke is decisive.', '+stroke -square'),
    ('Do not use either the square or the letter.', '-letter -square'),
    ('The square is merely an accident of the scanner.', '-square'),
    ('The square says as much about the digit as the weather.', '+square'),
    ('The square should be left out of account.', '-square'),
    ('The square is anything but relevant.', '-square'),
    ('The square means next to nothing.', '-square'),
    ('The square is far from important.', '-square'),
    ("The square isn't noise but evidence.", '+square'),
    ('The square is not evidence but noise.', '-square'),
    ('You should look at the stroke and not at the square.', '+stroke -square'),
    ('Do not look at the square but at the stroke.', '+stroke -square'),
    ('The square, although bright, is irrelevant.', '-bright -square'),
    ("Don't ignore the stroke; don't use the square.", '+stroke -square'),
    ('There is no need to look at the square.', '-square'),
    ('The square need not be considered.', '-square'),
    ('Nobody should use the square.', '-square'),
    ('It would be a mistake to rely on the square.', '-square'),
    ('The square can be safely ignored.', '-square'),
    ('The square does not belong to the digit.', '-square'),
    ('The square is unrelated to the digit.', '-square'),
    ('Only the stroke matters, never the square.', '+stroke -square'),
    ("The square must be left aside.", "-square"),
    ("The square is there by chance.", "-square"),
    ("Don't be fooled by the square.", "-square"),
    ("Never let the square mislead you.", "-square"),
    ("It makes no difference what the square looks like.", "-square"),
    ("What the square shows is of no consequence.", "-square"),
    ("The square has no bearing on the class, unlike the stroke.", "+stroke -square"),
    ("The square is nothing but noise.", "-square"),
    ("The square is unimportant and so is the letter.", "-letter -square"),
    ("There is a square. It means nothing.", "-square"),
    ("A letter is printed beside the leg. Ignore it.", "-letter"),
    ("The square doesn't count. The stroke does. It is all that matters.", "+stroke -square"),
    ("There is a square. It is flurbly.", "+square ?"),
    ("The stroke counts. Ignore everything else about it.", "+stroke"),
]
# fmt: on


@pytest.mark.parametrize(("sentence", "expected"), SENTENCES)
def test_a_sentence_is_read_as_a_person_reads_it(sentence, expected):
    assert read(sentence) == expected


def test_every_term_has_a_name_in_the_table():
    for word in NAMES:
        (term,) = read_description(f"The {word} tells.").clauses[0].terms
        assert term in TERMS
    assert len(NAMES) == len(TERMS)


THINGS = st.sampled_from(
    [
        ("square", "square"),
        ("pen stroke", "stroke"),
        ("letter", "letter"),
        ("lesion", "lesion"),
        ("bandage", "bandage"),
    ]
)
GOOD = (
    "matters",
    "is relevant",
    "is important",
    "tells the class",
    "counts",
    "should be used",
    "is a sign of the class",
)
UPHOLD = st.sampled_from(GOOD)
DISMISS = st.sampled_from(
    [
        "is irrelevant",
        "means nothing",
        "is noise",
        "is spurious",
        "should be ignored",
        "has no meaning",
        "is of no importance",
        "is a distraction",
        "says nothing about the class",
    ]
)
NEGATED = {
    "matters": "does not matter", "is relevant": "isn't relevant", "is important": "is never important",
    "tells the class": "doesn't tell the class", "counts": "does not count",
    "should be used": "should not be used", "is a sign of the class": "is no sign of the class",
    "is irrelevant": "is not irrelevant", "is noise": "isn't noise", "is spurious": "is not spurious",
    "should be ignored": "must not be ignored", "is a distraction": "is no distraction",
}  # fmt: skip


@given(
    parts=st.lists(
        st.tuples(THINGS, st.one_of(UPHOLD, DISMISS), st.booleans()),
        min_size=1,
        max_size=4,
        unique_by=lambda part: part[0],
    ),
    joined=st.sampled_from([". ", "; ", ", but ", ", whereas ", ", and ", "! "]),
)
def test_sentences_put_together_mean_what_their_parts_mean(parts, joined):
    expected, texts = set(), []
    for (words, name), said, negated in parts:
        sign = 1 if said in GOOD else -1
        if negated and said in NEGATED:
            said, sign = NEGATED[said], -sign
        texts.append(f"the {words} {said}")
        expected.add(("+" if sign == 1 else "-") + name)
    assert read(joined.join(texts) + ".") == " ".join(sorted(expected))


@given(THINGS, THINGS, st.sampled_from([
    "Look at the {} rather than the {}", "Use the {} instead of the {}", "The {} matters, not the {}",
    "It is the {}, not the {}, that counts", "The {} is decisive, the {} is not", "Not the {1}, but the {0}",
    "Unlike the {1}, the {0} matters", "Do not ignore the {}; do not use the {}",
]))  # fmt: skip
def test_two_things_are_told_apart(kept, dropped, pattern):
    if kept != dropped:
        sentence = pattern.format(kept[0], dropped[0])
        assert read(sentence) == " ".join(sorted([f"+{kept[1]}", f"-{dropped[1]}"])), sentence


@given(st.sampled_from(["watermark", "ruler", "stamp", "hair", "gel bubble"]), st.sampled_from([
    "The {} in the corner is irrelevant", "Ignore the {} near the edge", "The {} beside the lesion means nothing",
    "The {} next to the joint should not be used", "A dark {} does not matter", "Never look at the {} at the border",
]))  # fmt: skip
def test_an_unknown_thing_at_a_place_dismisses_nothing_and_is_named(thing, pattern):
    reading = read_description(pattern.format(thing))
    assert not reading.clauses
    assert reading.not_understood
    assert thing.split()[0] in reading.unknown_words


@given(THINGS, st.sampled_from(["flurb", "gribble", "sketchy", "wibbled", "zorps"]), st.sampled_from([
    "The {} is {}", "The {} looks really {}", "The {} may be {}", "Each {} is a {}", "The {} {}", "The {} must {}",
    "It is the {} that {}", "Please {1} the {0}", "You should {1} any {0}", "The {} is bright and {}",
]))  # fmt: skip
def test_what_is_said_in_an_unknown_word_neither_upholds_nor_dismisses(thing, word, pattern):
    sentence = pattern.format(thing[0], word)
    alone = read_description(sentence)
    assert not alone.clauses
    assert alone.not_understood
    assert word in alone.unknown_words
    beside = "letter" if thing[1] == "lesion" else "lesion"
    assert read(f"The {beside} matters. {sentence}. Everything else is noise.") == f"+{beside} ?"


@given(st.text(max_size=80))
def test_any_text_can_be_read(text):
    reading = read_description(text)
    assert all(clause.terms for clause in reading.clauses)
    assert all("\n" not in line for line in reading.lines())


def test_what_is_read_can_be_told():
    reading = read_description(
        "The blue stroke tells. The square isn't relevant; ignore the watermark in the corner!"
    )
    assert reading.lines() == [
        'dismissed: "The square isn\'t relevant"',
        'upheld: "The blue stroke tells"',
        'not understood: "ignore the watermark in the corner"',
        "words I do not know: blue, watermark",
    ]
    assert read_description("The stroke tells.").lines()[0] == "dismissed: nothing"


def test_only_this_counts():
    for sentence in (
        "Only the lesion counts.",
        "Nothing but the lesion matters.",
        "Ignore everything except the lesion.",
        "The lesion matters. Everything else is noise.",
        "Look at the lesion and nothing else.",
    ):
        assert [clause.only_this for clause in read_description(sentence).clauses] == [True], sentence
    for sentence in (
        "Only the bandage is irrelevant.",
        "The lesion matters.",
        "Everything but the bandage counts.",
    ):
        assert not any(clause.only_this for clause in read_description(sentence).clauses), sentence


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decoy-mnist", "+stroke -corner -square"),
        ("knee", "+edge +joint -letter"),
        ("knee-joint", "+edge +joint"),
        ("skin", "+bright +edge +lesion"),
        ("skin-bandages", "-bandage -square"),
    ],
)
def test_the_descriptions_that_ship_are_understood(name, expected):
    assert read(class_description(name)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "_",
        " ",
        "\n",
        "a-",
        "the ",
        "in a ",
        "only ",
        "never let ",
        "square ",
        "matters ",
        "nor ",
        "It matters. ",
    ],
)
def test_a_long_text_is_read_in_time_proportional_to_its_length(text):
    started = time.process_time()
    read_description(text * (60_000 // len(text)))
    assert time.process_time() - started < 10  # one that goes with the square takes minutes


def test_a_shortened_verb_is_no_unknown_word():
    read = read_description(
        "It's not the square that matters. They\u2019re noise; that's all. The blorp's edge counts."
    )
    assert read.unknown_words == ("blorp's",)
