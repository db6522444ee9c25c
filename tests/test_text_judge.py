"""The offline judge on a real critic's way of writing: by its conclusion, and never more than it said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite.critic import Critique, TextJudge, segment_names
from lvlmva_lite.critic.text_judge import text_by_segment
from lvlmva_lite.critic.types import KINDS

JUDGE = TextJudge()

# Claude's answer to a drawn knee (knee phantoms, seed 1, of the prompt critic-2); the judge learnt from skin alone.
KNEE = """\
1. Knee with a wide, even dark gap; large white letter R at upper left.
2. The wide gap with smooth edges belongs to the class; the letter R is dismissed.
3. A: left stem of the R, bright. B: right gap, bright along the plateau. C: shaft of the thigh bone, faint.
4. A on the letter. B on the joint gap. C on bone away from the joint.
5. A rests on a marker that means nothing. B shows the wide gap. C shows neither joint nor marker.
"""
LINES = "6.\nSegment A is spurious.\nSegment B is relevant.\nSegment C is background.\n"


def ruled(text, n_segments=3):
    return JUDGE.judge(Critique("x", "anyone", text), n_segments).kinds


def test_the_conclusion_is_read_from_prose_alone():
    assert ruled(KNEE) == ("spurious", "relevant", "background")


def test_lines_at_the_end_decide():
    assert ruled(KNEE + LINES) == ("spurious", "relevant", "background")
    turned = LINES.replace("A is spurious", "A is undecided").replace("B is relevant", "B is background")
    assert ruled(KNEE + turned) == ("undecided", "background", "background")


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=30))
def test_every_word_is_read_and_undecided_is_never_anything_else(kinds):
    names = segment_names(len(kinds))
    lines = "\n".join(f"Segment {name} is {kind}." for name, kind in zip(names, kinds, strict=True))
    assert ruled(KNEE + "6.\n" + lines, len(kinds)) == tuple(kinds)
    # A line that says the opposite leaves nothing decided.
    other = {"relevant": "spurious"}
    more = "\n".join(
        f"Segment {name}: {other.get(kind, 'relevant')}" for name, kind in zip(names, kinds, strict=True)
    )
    assert set(ruled(f"{lines}\n{more}", len(kinds))) == {"undecided"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Segments A and B are background. Segment C is undecided.",
            ("background", "background", "undecided"),
        ),
        ("Segments A to C are background.", ("background",) * 3),
        ("Segments B-C are spurious. Segment A is relevant.", ("relevant", "spurious", "spurious")),
        (
            "Segments C through A are relevant.\nSegments A \N{EN DASH} B are relevant.",
            ("relevant",) * 3,
        ),
        (
            "The expert says \N{LEFT DOUBLE QUOTATION MARK}Segment A is spurious.\N{RIGHT DOUBLE QUOTATION MARK} "
            "Segment A is relevant.",
            ("relevant", "undecided", "undecided"),
        ),
        (
            "The words \N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}Segment B is relevant."
            "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK} are wrong. Segment B is spurious.",
            ("undecided", "spurious", "undecided"),
        ),
        ("Segment A is not relevant, it is spurious.", ("spurious", "undecided", "undecided")),
        (
            'Segment A holds the 1/4" square. Segment B is spurious. Segment C holds the 1/4" square. '
            "Segment A is relevant. Segment C is background.",
            ("relevant", "spurious", "background"),
        ),
        (
            'A ruler of 3". They said "Segment B is relevant." of it. Segment B is spurious.',
            ("undecided", "spurious", "undecided"),
        ),
        ("The 5 mm scar is in segment B, it is spurious.", ("undecided", "spurious", "undecided")),
        ("Segment A does not touch the joint, it is background.", ("background", "undecided", "undecided")),
        (
            "Segment A would matter if it is relevant. Segment A is spurious.",
            ("spurious",) + ("undecided",) * 2,
        ),
        *(
            (text, ("undecided",) * 3)
            for text in (
                "I do not think of segment A that it is relevant.",
                "I do not think, of segment A, it is relevant.",
                "For segment A, nobody can say whether it is relevant.",
                "Segment A would matter if it is relevant.",
                "Segment A is foreign, unless, as some say, it is relevant.",
                "It is wrong to say of segment A that it is spurious.",
                "It is doubtful of segment A that it is background.",
            )
        ),
        ("- **Segment A**: relevant\n- **Segment C**: background", ("relevant", "undecided", "background")),
        ("", ("undecided",) * 3),
        ("I cannot see anything.", ("undecided",) * 3),
    ],
)
def test_ways_to_say_it(text, expected):
    assert ruled(text) == expected


@pytest.mark.parametrize("odd", ['a 1/4" square', 'it is 5" wide and "high', '"'])
def test_an_odd_quote_hides_nothing_on_other_lines(odd):
    text = f"The expert says: {odd}\nSegment A is spurious.\nHe adds: {odd}\nSegment B is background."
    assert ruled(text, 2) == ("spurious", "background")
    assert (
        ruled(
            'Segment A is "spurious and" nothing.\nSegment B is "background".\nSegment B is relevant.', 2
        )[1]
        == "relevant"
    )


def test_names_are_capitals_of_segments_that_exist():
    text = "This segment is not relevant. A segment of a circle. Segment Q is spurious. I see a knee."
    assert text_by_segment(text, segment_names(3)) == {}
    assert ruled(text) == ("undecided",) * 3
    # With 300 segments there is one called IS, and it is still not named here.
    assert set(ruled("This segment is not relevant.", 300)) == {"undecided"}
    assert "I" not in text_by_segment("I find nothing. I am done.", segment_names(10))


def test_old_examples_say_how_to_mend_them():
    with pytest.raises(ValueError, match="kind: spurious"):
        TextJudge([{"text": "It is a ruler.", "spurious": True}])
    with pytest.raises(ValueError, match="one of relevant"):
        TextJudge([{"text": "It is a ruler.", "kind": "irrelevant"}])


@pytest.mark.parametrize(
    "filler", ['"', "Segment ", "A ", "A, ", "Segment A is ", "1. ", ". ", "_", ", but "]
)
def test_long_texts_are_read_in_linear_time(filler):
    """At 400,000 characters on one line a quadratic reader would take minutes."""
    text_by_segment(
        "2." + filler * (400_000 // len(filler)) + "x\n3." + filler * (400_000 // len(filler)), ("A", "B")
    )
    ruled(filler * (400_000 // len(filler)) + "x")


@pytest.mark.parametrize("kind", ["relevant", "spurious", "background"])
@pytest.mark.parametrize(
    "denial", ["is not {}", "is hardly {}", "isn't {} at all", "was never {}", "is not at all {}"]
)
def test_what_is_denied_is_not_the_verdict(kind, denial):
    text = f"Segment A {denial.format(kind)}."
    assert TextJudge().judge(Critique(case_id="x", critic="m", text=text), 1).kinds != (kind,)
