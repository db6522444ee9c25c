"""The judge's parser: every segment exactly once, and nothing read into a text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite.critic.types import KINDS, Verdict, segment_names
from lvlmva_lite.critic.verdicts import MalformedAnswer, parse_verdicts, vote

rulings = st.lists(st.sampled_from(KINDS), min_size=1, max_size=30)
WRAPPINGS = {
    "object": lambda pairs: json.dumps({"verdicts": [{"segment": n, "verdict": w} for n, w in pairs]}),
    "list": lambda pairs: json.dumps([{"segment": n, "verdict": w} for n, w in pairs]),
    "plain object": lambda pairs: json.dumps(dict(pairs)),
    "fence": lambda pairs: f"Here it is:\n```json\n{json.dumps(dict(pairs), indent=1)}\n```\nDone.",
    "lines": lambda pairs: "\n".join(f"- **Segment {n}**: {w.capitalize()}." for n, w in pairs),
    "prose around lines": lambda pairs: "My verdicts.\n\n" + "\n".join(f"{n} = {w}" for n, w in pairs),
    "sentences": lambda pairs: "\n".join(f"Segment {n} is {w}." for n, w in pairs),
    "table": lambda pairs: "\n".join(f"| {n} | {w} |" for n, w in pairs),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@given(words=rulings, data=st.data())
def test_any_form_that_is_complete_is_read_in_any_order(wrapping, words, data):
    names = segment_names(len(words))
    pairs = data.draw(st.permutations(list(zip(names, words, strict=True))))
    assert parse_verdicts(WRAPPINGS[wrapping](pairs), names) == tuple(words)


@given(words=rulings.filter(lambda words: len(words) > 1), data=st.data())
def test_a_segment_left_out_twice_or_unknown_is_refused(words, data):
    names = segment_names(len(words))
    pairs = list(zip(names, words, strict=True))
    wrap = data.draw(st.sampled_from([WRAPPINGS["object"], WRAPPINGS["lines"]]))
    i = data.draw(st.integers(0, len(pairs) - 1))
    for wrong, complaint in (
        (pairs[:i] + pairs[i + 1 :], "leaves out"),
        ([*pairs, pairs[i]], "more than once"),
        ([*pairs, ("ZZ", "spurious")], "not asked about"),
    ):
        with pytest.raises(MalformedAnswer, match=complaint):
            parse_verdicts(wrap(wrong), names)


@given(st.text())
def test_any_text_is_read_or_refused_and_nothing_else(text):
    try:
        ruled = parse_verdicts(text, ("A", "B"))
    except MalformedAnswer:
        return
    assert len(ruled) == 2


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I cannot help with that.",
        "Segment A is not spurious.\nSegment B is relevant.",
        "Segment A is spurious, but then again it may be relevant.\nB: relevant",
        '{"A": "spurious", "B": "relevant", "A": "relevant"}',
        '{"verdicts": [{"segment": "A", "verdict": "maybe"}, {"segment": "B", "verdict": "relevant"}]}',
        '{"verdicts": [{"segment": "A", "verdict": "spurious"}, {"segment": "B", "verdict": "rel',
        '{"verdicts": {"verdicts": []}}',
        "[" * 5000,
        # Two sets: one may be a quotation from the critique, and nobody can tell which.
        '{"A": "relevant", "B": "relevant"} said the text; I say {"A": "spurious", "B": "relevant"}',
    ],
)
def test_doubtful_answers_are_refused(answer):
    with pytest.raises(MalformedAnswer):
        parse_verdicts(answer, ("A", "B"))


def test_a_vote_is_the_majority_and_its_share():
    def verdict(*kinds):
        return Verdict("case", "judge", kinds)

    voted = vote(
        [
            verdict("spurious", "spurious", "undecided"),
            verdict("spurious", "relevant", "undecided"),
            verdict("relevant", "background", "spurious"),
        ]
    )
    assert voted == Verdict("case", "judge", ("spurious", "undecided", "undecided"), (2 / 3, 1 / 3, 2 / 3))
    assert vote([verdict("background"), verdict("relevant")]).kinds == ("undecided",)
    assert vote([verdict("background")] * 2).kinds == ("background",)
    with pytest.raises(ValueError, match="same case"):
        vote([])


@pytest.mark.parametrize(
    "filler", ["[", "{", "[ ", '["', '{"A":', "[1,", '["\\', "[]", "{}", "[\n", "[x] "]
)
@pytest.mark.parametrize("end", ["", '{"A": "spurious"}', "A: spurious"])
def test_brackets_without_end_are_read_in_linear_time(filler, end):
    """Tried one by one, 300,000 of them would take minutes."""
    answer = filler * (300_000 // len(filler)) + end
    try:
        parse_verdicts(answer, ("A",))
    except MalformedAnswer:
        return


def test_some_stray_brackets_hide_no_verdict():
    text = "[x] {y} [A " * 90 + '{"A": "spurious", "B": "relevant"}'
    assert parse_verdicts(text, ("A", "B")) == ("spurious", "relevant")


@pytest.mark.parametrize(
    "filler", ["_", "*", " ", "`", "|", "-", "1", "A", "segment ", "Segment A ", "A is ", "A:"]
)
@pytest.mark.parametrize("start", ["", "Segment A"])
@pytest.mark.parametrize("end", ["", "spurious", "A: spurious"])
def test_long_lines_are_read_in_linear_time(start, filler, end):
    """At 300,000 characters a quadratic reader would take hours."""
    line = start + filler * (300_000 // len(filler)) + end
    try:
        parse_verdicts(line, ("A",))
    except MalformedAnswer:
        return
