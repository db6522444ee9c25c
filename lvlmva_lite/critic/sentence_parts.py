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
    SEEN,
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
_THINGS, _PLACES = (
    "|".join(term.words for term in TERMS if term.kind in kinds)
    for kinds in (("object", "thing"), ("place", "tone"))
)
_ADVERBS = (
    r"very|so|too|also|quite|just|only|mere(?:ly)?|really|simply|even|always|ever|still|all|rather|most|more|less|much"
    r"|UNKNOWNLY"
)
_AFTER_IS = rf"(?:(?:{_ADVERBS}|a|an|the|as|of|for|what|something|things?|one|its?|that|which|to)\s+)*"
_BEFORE_A_VERB = rf"(?:(?:{_ADVERBS}|that|which|who|should|must|may|might|can|could|will|would|shall|ought|to|does|do|did)\s+)*"
_UNKNOWN_SAID = (
    # "is flurbly", but not "is wildly dark"
    rf"\b(?:is|are|was|were|be|been|being|seems?|appears?|looks?|remains?|becomes?|gets?|stays?|makes?)\s+{_AFTER_IS}"
    rf"(?:UNKNOWN(?:ED)?\b|UNKNOWNLY\b(?!\s+(?:{LOOKS}|{SEEN}|PLACE)\b))",
    # "the square blorps", "squares blorp", but neither "bone spurs" nor "squares blorped by hand"
    rf"\b(?:(?:{_ARTICLE}|its|their)\s+(?:[\w-]+\s+){{0,2}}TERM|TERMS)\s+{_BEFORE_A_VERB}"
    rf"(?:UNKNOWN\b|UNKNOWNED\b(?!\s+{_PREPOSITION}|\s+with\b))",
    # "flurb the square"
    rf"\bUNKNOWN(?:ED)?\s+(?:{_ARTICLE}|its|their|our|your|both|such)\s+(?:[\w-]+\s+)?(?:TERMS?|PLACE)\b",
)
"""What makes a part puzzling, once its words are marked: "is flurbly", "square blorps", "flurb the square"."""


@dataclass
class Part:
    """A stretch of a sentence between two cuts; ``sign`` +1 upholds, -1 dismisses, None is silent.

    ``puzzling``: it is silent, and says something with a word that is not
    known ("the square is flurbly"), which may be a verdict either way.
    """

    text: str
    start: int
    end: int
    mark: str
    terms: tuple[Term, ...]
    sign: int | None
    elliptic: bool  # "not the square", "the square doesn't": a negation without a verb of its own
    understood: bool
    negated: bool
    puzzling: bool
    flip: int = 1


def parts_of(sentence: str) -> list[Part]:
    """The parts of a sentence, in order, each with what its own words say."""
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
    puzzling = sign is None and _says_the_unknown(text)
    return Part(text, start, end, mark, terms, sign, elliptic, understood, negated, puzzling)


def goes_on_with_the_unknown(part: Part) -> bool:
    """Whether a part says of what stands before it something that is not known ("..., and blorps")."""
    if part.mark not in ("which", "and", "or", ",", "") or re.match(rf"\s*{_ARTICLE}\b", part.text, re.I):
        return False  # about something else
    return _says_the_unknown(f"it {part.text}") or _says_the_unknown(f"it is {part.text}")


def _says_the_unknown(text: str) -> bool:
    """Whether the verb of a part, or what stands after "is", is a word that is not known."""
    unknown = {word for word in unknown_words(text) if not find(SEEN, word)}
    if not unknown or re.match(r"\s*(?:whether|how|if)\b", text, re.IGNORECASE):
        return False

    def marked(match: re.Match) -> str:
        word = match[0]
        if word.lower() not in unknown:
            return word
        return "UNKNOWNLY" if word.endswith("ly") else "UNKNOWNED" if word.endswith("ed") else "UNKNOWN"

    text = re.sub(r"[^\W\d_][\w'-]*", marked, text)
    for names, mark in ((_THINGS, "TERM"), (_PLACES, "PLACE")):
        text = re.sub(
            rf"(?<![\w-])(?:{names})(?![\w-])",
            lambda match, mark=mark: mark + "S" * (mark == "TERM" and match[0].endswith("s")),
            text,
            flags=re.IGNORECASE,
        )
    text = re.sub(r"^\s*(?:(?:it|they|this|these)\s+)+", "TERMS ", text, flags=re.IGNORECASE)
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in _UNKNOWN_SAID)


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
