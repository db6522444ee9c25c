"""From a judge's answer to one verdict for each segment, or a plain reason why not.

The answer should be a JSON object; servers without structured output may wrap
it in prose or a code fence, or write one line for each segment.  Whatever the
form: every segment exactly once, no other name, no second opinion.  A text
that leaves room for doubt is refused rather than read generously.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from lvlmva_lite.critic.types import KINDS, Verdict

_SPACE = string.whitespace + "\xa0"
_MARKS = _SPACE + "*_`'\""
_BULLETS = _SPACE + string.digits + "*_`#>|-.)"
_SEPARATORS = (":", "=", "|", "->", "-", "\N{EN DASH}", "\N{EM DASH}", "\N{RIGHTWARDS ARROW}")

_MOST_STRAY = 300


class MalformedAnswer(ValueError):
    """A judge's answer that gives no clear verdict; the message says what is wrong with it."""


def parse_verdicts(answer: str, names: Sequence[str]) -> tuple[str, ...]:
    """The verdicts on the segments ``names``, in that order, each of ``KINDS``.

    Derived in chapter 5.

    Raises
    ------
    MalformedAnswer : no verdicts, more than one set of them, a segment left
        out, named twice or not asked about, or a word that is no verdict
    """
    if not answer.strip():
        raise MalformedAnswer("it is empty")
    objects = [pairs for pairs in map(_pairs_of, _json_values(answer)) if pairs is not None]
    if len(objects) > 1:
        raise MalformedAnswer("it holds more than one set of verdicts")
    lines = _pairs_of_lines(answer)
    pairs = objects[0] if objects else lines
    if objects and lines and not set(lines) <= {(name.strip().upper(), word) for name, word in pairs}:
        raise MalformedAnswer("its lines and its JSON disagree")
    if not pairs:
        raise MalformedAnswer("it holds no verdicts")
    said = [(name.strip().upper(), word) for name, word in pairs]
    counts = Counter(name for name, _ in said)
    for complaint, wrong in (
        ("it names segments that were not asked about", [n for n in counts if n not in names]),
        ("it names segments more than once", [n for n in counts if counts[n] > 1]),
        ("it leaves out segments", [n for n in names if n not in counts]),
    ):
        if wrong:
            raise MalformedAnswer(f"{complaint}: {', '.join(sorted(wrong)[:10])[:80]}")
    ruled = dict(said)
    return tuple(ruled[name] for name in names)


def vote(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict from several on the same case (self-consistency, Wang et al. 2022).

    A segment is of the kind that more than half of the verdicts say; else it
    is undecided.  ``confidence`` is the share of the verdicts that
    gave the commonest answer.

    Derived in chapter 5.

    Raises
    ------
    ValueError : no verdicts, or of different cases
    """
    if len({(verdict.case_id, len(verdict.kinds)) for verdict in verdicts}) != 1:
        raise ValueError("a vote needs at least one verdict, and all on the same case")
    ruled, shares = [], []
    for answers in zip(*(verdict.kinds for verdict in verdicts), strict=True):
        (commonest, count), *_ = Counter(answers).most_common()
        ruled.append(commonest if 2 * count > len(answers) else "undecided")
        shares.append(count / len(answers))
    return Verdict(verdicts[0].case_id, verdicts[0].judge, tuple(ruled), tuple(shares))


class _Pairs(list):
    """A JSON object as its (name, value) pairs: a name given twice is not lost."""


def _json_values(text: str) -> Iterable[object]:
    """Every JSON object or list in a text, from the outermost brackets; of stray ones not too many."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    position = stray = 0
    while found := re.compile(r"[{\[]").search(text, position):
        try:
            value, position = decoder.raw_decode(text, found.start())
        except (json.JSONDecodeError, RecursionError):
            position = found.end()
            stray += 1
            if stray > _MOST_STRAY:  # each costs a look at all that follows
                raise MalformedAnswer(
                    f"it holds more than {_MOST_STRAY} brackets that begin no JSON"
                ) from None
        else:
            yield value


def _pairs_of(value: object) -> list[tuple[str, str]] | None:
    """(segment, verdict) pairs of a JSON value; None if it is something else altogether."""
    if isinstance(value, _Pairs):
        fields = dict(value)
        if "verdicts" in fields and [name for name, _ in value].count("verdicts") == 1:
            return _pairs_of(fields["verdicts"])
        if value and all(isinstance(word, str) and word.strip().lower() in KINDS for _, word in value):
            return [(name, word.strip().lower()) for name, word in value]
        return None
    if isinstance(value, list) and value:
        pairs = []
        for item in value:
            if not isinstance(item, _Pairs):
                return None
            fields = dict(item)
            name, word = fields.get("segment"), fields.get("verdict")
            if not isinstance(name, str) or len(fields) != len(item):
                return None
            if not isinstance(word, str) or word.strip().lower() not in KINDS:
                raise MalformedAnswer(f"the verdict on segment {name[:10]} is none of: {', '.join(KINDS)}")
            pairs.append((name, word.strip().lower()))
        return pairs
    return None


def _pairs_of_lines(text: str) -> list[tuple[str, str]]:
    """(segment, kind) pairs of lines that say this and nothing else, as "Segment A: spurious."."""
    return [pair for line in text.splitlines() if (pair := pair_of_line(line)) is not None]


def pair_of_line(line: str) -> tuple[str, str] | None:
    """The pair that a line consists of, or None.  Every step passes over the line once."""
    rest = line.lstrip(_BULLETS)
    head, _, tail = rest.partition(" ")
    if head.lower() == "segment":
        rest = tail
    rest = rest.lstrip(_MARKS)
    letters = len(rest) - len(rest.lstrip(string.ascii_uppercase))
    name, rest = rest[:letters], rest[letters:].lstrip(_MARKS)
    if not 1 <= letters <= 2:
        return None
    if rest[:2].lower() == "is" and not rest[2:3].isalnum():
        rest = rest[2:]
    else:
        mark = next((mark for mark in _SEPARATORS if rest.startswith(mark)), None)
        if mark is None:
            return None
        rest = rest[len(mark) :]
    word = rest.strip(_MARKS + "|.,;").lower()
    return (name, word) if word in KINDS else None
