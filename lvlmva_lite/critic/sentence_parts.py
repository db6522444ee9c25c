"""A sentence cut into parts, and the verdict that each part holds by its own words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lvlmva_lite.critic.vocabulary import (
    CONTRAST,
    DISMISSING,
    LOOKS,
    NEGATING,
    OPPOSED,
    TERMS,
    UPHOLDING,
    WRONG,
    Term,
    find,
    terms_in,
    unknown_words,
)

_CUT = re.compile(
    rf"(?P<mark>,?\s*\b(?:{OPPOSED}|{CONTRAST})\b|[,:()\u2013\u2014]|\s-\s|\b(?:and|or|because|since|which|nor)\b)",
    re.IGNORECASE,
)
_PREPOSITION = (
    r"(in|at|on|near|next to|close to|beside|by|behind|around|over|above|below|under|along|across from|across"
    r"|inside|outside|between|within|upon)"
)
_ARTICLE = r"(the|an?|any|each|every|this|that|these|those|all|some)"
_SKIPPED = r"(?:(?:that|which|is|are|lying|placed|printed|glued|seen|visible|just|right|always|shown|drawn|found|sitting|standing|located|pasted|put|stuck|there)\s+)*"


@dataclass
class Part:
    """A stretch of a sentence between two cuts; ``sign`` +1 upholds, -1 dismisses, None is silent."""

    text: str
    start: int
    end: int
    mark: str
    terms: tuple[Term, ...]
    sign: int | None
    elliptic: bool  # "not the square", "the square doesn't": a negation without a verb of its own
    understood: bool
    negated: bool
    flip: int = 1


def parts_of(sentence: str) -> list[Part]:
    parts, start, mark = [], 0, ""
    for match in [*_CUT.finditer(sentence), None]:
        end = match.start() if match else len(sentence)
        text = sentence[start:end]
        if re.search(r"\w", text):
            parts.append(_part(text, start, end, mark.strip(" ,").lower()))
            mark = ""
        if match:
            # Of several marks in a row ("; but", ", rather than") the last one speaks.
            mark, start = match["mark"], match.end()
    return parts


def _part(text: str, start: int, end: int, mark: str) -> Part:
    named, lonely = _named(text)
    terms = terms_in(named)
    sign, elliptic, understood = _verdict(text, bool(terms))
    placed = terms and not any(term.kind in ("object", "thing") for term in terms)
    if (placed and unknown_words(text)) or lonely:
        terms = ()  # an unknown thing, told only by where it is or how it looks
        stands = re.search(rf"\b{_ARTICLE}\s[^,]{{0,80}}\s{_PREPOSITION}\s", text, re.IGNORECASE)
        understood = sign is None and not lonely and not stands
    negated = bool(find(NEGATING, text))
    return Part(text, start, end, mark, terms, sign, elliptic, understood, negated)


def _named(text: str) -> tuple[str, bool]:
    """The text without what only says where a thing is, and whether an unknown thing is put beside a known one.

    "The letter on the bone" is about the letter; "the ruler next to the
    lesion" about a ruler.  Places ("in the corner") narrow a thing down and stay.
    """
    lonely = False
    judged = bool(find(f"{DISMISSING}|{UPHOLDING}|{WRONG}|{NEGATING}", text))
    for match in re.finditer(
        rf"(?<![\w-])([\w-]{{1,40}})\s+{_SKIPPED}{_PREPOSITION}\s+((?:the|a|an|each|every|any|its|their)\s+)?([\w -]*)",
        text,
        re.I,
    ):
        head, beside = match[1], match[match.lastindex]
        if not any(term.kind in ("object", "thing") for term in terms_in(beside)):
            continue
        known = [term for term in terms_in(head) if term.kind in ("object", "thing")]
        before = text[: match.start(2)]
        if known:
            text = before + " " + _after(beside)
        elif unknown_words(head) and not [t for t in terms_in(before) if t.kind in ("object", "thing")]:
            named = rf"\b{_ARTICLE}\s+([\w-]+\s+)?{re.escape(head)}\b"
            lonely |= judged or bool(re.search(named, text, re.IGNORECASE))
    return text, lonely


def _after(beside: str) -> str:
    """What is left of "the bone means nothing" once the thing it begins with is told."""
    spans = [
        match for term in TERMS if term.kind in ("object", "thing") for match in find(term.words, beside)
    ]
    first = min(spans, key=lambda match: match.start())
    return beside[first.end() :]


def _verdict(text: str, has_terms: bool) -> tuple[int | None, bool, bool]:
    """Sign of a part, whether it is an elliptic negation, and whether that was understood."""
    negations = find(NEGATING, text)
    # "Ill knees show no gap" tells what is not there, and dismisses nothing.
    absent = re.search(
        rf"\b(shows?|has|have|having|had|with|see|sees|there is|there are|contains?|leaves?)\s+no\b(?!\s+(?:\w+\s+)?(?:{UPHOLDING})\b)",
        text, re.IGNORECASE,
    )  # fmt: skip
    if absent and has_terms:
        negations = [match for match in negations if not absent.start() <= match.start() < absent.end()]
    wrong = len(find(WRONG, text))
    counted = {match.start() for match in negations}
    dismissals = [match for match in find(DISMISSING, text) if match.start() not in counted]
    upholds = [
        m for m in find(UPHOLDING, text) if not any(d.start() <= m.start() < d.end() for d in dismissals)
    ]
    # "The spurious square": said of the thing itself, whatever else the part says.
    names = "|".join(term.words for term in TERMS)
    attributive = re.search(
        rf"(?<!not )(?<!not a )(?<!not an )(?<!not the )\b(?:{DISMISSING})\s+(?:[\w-]+\s+)?(?:{names})\b",
        text,
        re.I,
    )
    verbal = attributive and re.match(
        r"(ignor|disregard|discount|dismiss|neglect|overlook|forget|skip|exclud|discard|avoid|remov|leave|mask|miss|blank|stop|steer|beware|lack)",
        attributive[0], re.I,
    )  # fmt: skip
    if attributive and not verbal:
        others = [d for d in dismissals if d.start() != attributive.start()]
        if not (negations or others or wrong):
            return -1, False, True
        if others or (negations and upholds) or wrong:
            dismissals = others
    flips = len(negations) + wrong
    if dismissals or wrong or (negations and upholds):
        return (-1) ** (flips + bool(dismissals)), False, True
    if upholds:
        return 1, False, True
    if not negations:
        return None, False, True
    last = negations[-1]
    before, after = text[: last.start()], text[last.end() :]
    if not re.search(r"\w", re.sub(r"\b(either|too|also|at all|ever)\b", "", after)):
        return -1, True, True  # "the square doesn't"
    if last[0].lower() in ("nor", "neither") or re.search(r"\beither\b|^\s*not even\b", text, re.I):
        return -1, True, True
    if (
        not [t for t in terms_in(before) if t.kind in ("object", "thing")]
        and terms_in(after)
        and (
            re.match(
                r"\s*(even )?((on|at|in|by|with|to|from|for)\s+)?(the|a|an|any|its|their)?\s*[\w &-]*$",
                after,
                re.I,
            )
            and not unknown_words(after)
        )
    ):
        return -1, True, True  # "not the square"
    if re.match(rf"\s*(\w+ly |so |very |as |quite |always )?{LOOKS}\b", after, re.I):
        return None, False, True  # "the border is not sharp": a look, no verdict
    return -1, False, not has_terms
