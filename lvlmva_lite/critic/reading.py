"""How the lexicon reads an expert's sentences: what they uphold, what they dismiss, what it cannot tell.

A sentence is cut at commas, conjunctions and the like.  In each part the
lexicon looks for things, places and tones that it can measure, for words
that uphold or dismiss, and for negations; an odd number of negations and
dismissals dismisses ("not irrelevant" upholds).  A part without a verdict of
its own shares that of its neighbour, or has the opposite one after "rather
than", "but", "not".  It is a small grammar and no understanding: what it
made of a sentence is there to be read, and what it could not read is said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from lvlmva_lite.critic.sentence_parts import Part, goes_on_with_the_unknown, parts_of
from lvlmva_lite.critic.vocabulary import OPPOSED, Term, unknown_words

_SENTENCE = re.compile(r"[.;!?\u2026]+(?=\s|$|[A-Z\"'])|\n\s*\n|\n\s*[-*] ")
# What is said about the class after these words names what a thing has nothing to do with.
_ABOUT = re.compile(
    r"\b(nothing (to do with|about)|(with|about|on) whether)\b.*?(?=[,;:]|\bbut\b|\bwhereas\b|\bwhile\b|$)",
    re.IGNORECASE | re.DOTALL,
)
_ONLY = re.compile(
    r"^only\b|\bonly\b.{0,200}\b(counts?|matters?)\b|\ball that (counts?|matters?)\b|\bNOUGHT(BUT|ELSE)\b|\bALLBUT\b",
    re.IGNORECASE | re.DOTALL,
)
_REST = re.compile(r"\b(everything|anything|all|nothing) else\b|\bthe rest\b", re.IGNORECASE)
_PRONOUN = re.compile(
    r"^\W*(it|they|this|that|these|those)\b|\b(it|them|this|these|those)\W*$", re.IGNORECASE
)
_BUT = r"(but|except( for)?|apart from|besides|other than|outside( of)?|beyond)"
_TAKEN_IN = r"(fool(ed)?|misled|mislead|distract(ed)?|deceived?|confused?)"
_REWORDED = (
    # Said with the words of a negation, without being one, or as one sign where two words stand.
    (re.compile(r"[\u2018\u2019]"), "'"),
    (re.compile(r"\b(is|are|was|were) anything but (?!the\b|an?\b)", re.I), r"\1 not "),
    (re.compile(r"\bnothing (else )?" + _BUT + r"\b", re.I), "NOUGHTBUT"),
    (re.compile(r"\bnothing else\b", re.I), "NOUGHTELSE"),
    (re.compile(r"\b(everything|anything|all|things) (else )?" + _BUT + r"\b", re.I), "ALLBUT"),
    (re.compile(r"\b(do not|don't|never|must not|should not) (be|get) " + _TAKEN_IN + r"\b", re.I), "ignore"),
    (re.compile(r"\b(do not|don't|never) let (.{0,60}?) " + _TAKEN_IN + r"\b", re.I), r"ignore \2"),
    (re.compile(r"\bnot (only|just|merely)\b", re.I), "both"),
    (re.compile(r"\bno doubt\b|\bwithout (a |any )?doubt\b|\bor not\b|^\s*no,", re.I), ""),
    (re.compile(r",\s*not (at all|in the least|in the slightest|ever|one bit)\s*$", re.I), ""),
    (re.compile(r"\b(can|could|do|does|did|should|must|will|would|is|are|may|might)n't\b", re.I), r"\1 not"),
    (re.compile(r"\bwon't\b", re.I), "will not"),
    (re.compile(r"\bcan't\b|\bcannot\b", re.I), "can not"),
)  # fmt: skip


@dataclass(frozen=True)
class Clause:
    """What a sentence upholds or dismisses together.

    Attributes
    ----------
    phrase : str, the words as the expert wrote them, on one line
    means_nothing : bool, whether the expert dismisses what they name
    terms : the lexicon's terms that occur in it
    only_this : bool, whether the expert says that nothing else counts
    """

    phrase: str
    means_nothing: bool
    terms: tuple[Term, ...]
    only_this: bool = False

    @property
    def about_object(self) -> bool:
        """Whether an object is named, which is found by its own looks."""
        return any(term.kind == "object" for term in self.terms)

    def region(self, image: np.ndarray) -> np.ndarray:
        """Pixels (H, W) bool that fit: any object, or any term of each kind, and all kinds at once.

        ``image`` is (C, H, W) in [0, 1].
        """
        region = np.ones(image.shape[1:], bool)
        kinds = {term.kind for term in self.terms}
        for kind in {"object"} if "object" in kinds else kinds:
            region &= np.logical_or.reduce([term.region(image) for term in self.terms if term.kind == kind])
        return region


@dataclass(frozen=True)
class Reading:
    """What the lexicon made of a description.

    Attributes
    ----------
    clauses : what it can look for, upheld or dismissed, in order
    not_understood : phrases that name nothing it knows, or say of it what it cannot read
    unknown_words : lower case, each once, in order
    """

    clauses: tuple[Clause, ...]
    not_understood: tuple[str, ...]
    unknown_words: tuple[str, ...]

    @property
    def at_odds(self) -> list[tuple[str, str]]:
        """Phrases that say the opposite of the same things: (dismissed, upheld)."""
        return [
            (one.phrase, other.phrase)
            for one in self.clauses
            for other in self.clauses
            if one.means_nothing and not other.means_nothing and set(one.terms) == set(other.terms)
        ]

    def lines(self) -> list[str]:
        """How the description was read, for people: dismissed, upheld, at odds, not understood, unknown words."""
        dismissed = [f'"{clause.phrase}"' for clause in self.clauses if clause.means_nothing]
        upheld = [
            f'"{clause.phrase}"' + (" (and nothing else)" if clause.only_this else "")
            for clause in self.clauses
            if not clause.means_nothing
        ]
        said = [
            ("dismissed", dismissed),
            ("upheld", upheld),
            ("at odds", [f'"{one}" and "{other}"' for one, other in self.at_odds]),
            ("not understood", [f'"{phrase}"' for phrase in self.not_understood]),
            ("words I do not know", list(self.unknown_words)),
        ]
        return [
            f"{label}: {', '.join(words) or 'nothing'}"
            for label, words in said
            if words or label in ("dismissed", "upheld")
        ]


@lru_cache(64)  # every case of a class comes with the same words
def read_description(description: str) -> Reading:
    """Read an expert's words, clause by clause.

    Parameters
    ----------
    description : str, one or more sentences

    Returns
    -------
    Reading
        With no clause where nothing was understood.
    """
    clauses: list[Clause] = []
    lost: list[str] = []
    unknown: list[str] = []
    for sentence in _SENTENCE.split(description):
        sentence = " ".join(sentence.split())
        if not re.search(r"\w", sentence):
            continue
        found, missed = _read_sentence(sentence)
        lost += missed
        unknown += unknown_words(sentence)
        said = _said_of_what_came_before(sentence) if clauses and not found else None
        if said is not None:
            phrase = f"{clauses[-1].phrase}. {sentence}"
            only = said == 1 and bool(_ONLY.search(_reworded(sentence)))
            clauses[-1] = replace(clauses[-1], phrase=phrase, means_nothing=said == -1, only_this=only)
        elif not found and not missed:
            rest = _REST.search(sentence) and [i for i, c in enumerate(clauses) if not c.means_nothing]
            if rest:
                clauses[rest[-1]] = replace(clauses[rest[-1]], only_this=True)
            else:
                lost.append(sentence)
        clauses += found
    return Reading(tuple(clauses), tuple(dict.fromkeys(lost)), tuple(dict.fromkeys(unknown)))


def _said_of_what_came_before(sentence: str) -> int | None:
    """The verdict of "It means nothing." and the like on what the sentence before it named; None: there is none."""
    reworded = _reworded(sentence)
    if not _PRONOUN.search(reworded) or _REST.search(reworded):
        return None
    signs = {part.sign for part in parts_of(reworded) if part.sign is not None}
    return signs.pop() if len(signs) == 1 else None


def _reworded(sentence: str) -> str:
    """A sentence without the words of a negation that are none."""
    sentence = _ABOUT.sub(lambda match: match[1], sentence)
    for pattern, words in _REWORDED:
        sentence = pattern.sub(words, sentence)
    return sentence


def _read_sentence(sentence: str) -> tuple[list[Clause], list[str]]:
    """The clauses of one sentence, and the phrases in it that were not understood."""
    reworded = _reworded(sentence)
    if re.search(r"\bneither\b.{0,200}\bnor\b", reworded, re.IGNORECASE):  # one negation for all of them
        reworded = re.sub(r"\bneither\b", "not", re.sub(r"\bnor\b", "&", reworded), flags=re.IGNORECASE)
    parts = parts_of(reworded)
    _resolve(parts)

    lost = [part for part in parts if not part.understood]
    groups: list[list[Part]] = []
    for part in parts:
        if not part.understood or (not part.terms and not groups):
            continue
        if not groups or (part.terms and part.sign != groups[-1][0].sign):
            groups.append([])
        groups[-1].append(part)
    groups = [group for group in groups if group[0].terms]
    clauses = []
    for group in groups:
        alone = len(groups) == 1 and not lost
        phrase = sentence if alone else _as_written(reworded[group[0].start : group[-1].end])
        terms = tuple(dict.fromkeys(term for part in group for term in part.terms))
        upheld = group[0].sign == 1
        clauses.append(Clause(phrase, not upheld, terms, upheld and bool(_ONLY.search(reworded))))
    return clauses, [sentence if len(parts) == 1 else _as_written(part.text) for part in lost]


def _as_written(text: str) -> str:
    for token, words in (
        ("NOUGHTBUT", "nothing but"),
        ("NOUGHTELSE", "nothing else"),
        ("ALLBUT", "everything but"),
    ):
        text = text.replace(token, words)
    return text.strip(" ,:()\u2013\u2014-")


def _resolve(parts: list[Part]) -> None:
    """Give each part with terms a sign, from its own words or from its neighbours'."""
    waiting: list[Part] = []
    last: Part | None = None  # with terms and a sign
    pending: int | None = None  # a verdict that came before what it is about

    def settle(sign: int, *, said_of_them: bool = False) -> None:
        nonlocal last
        for part in waiting:
            if part.puzzling and not said_of_them:
                part.understood = False
                continue
            part.sign = sign * part.flip
            last = part
        waiting.clear()

    for part in parts:
        if not part.understood:
            continue
        same = (
            bool(
                re.search(
                    r"\b(either|neither|nor|too|likewise|as well)\b|^\s*so (is|are|does|do)\b",
                    part.text,
                    re.I,
                )
            )
            or part.mark == "nor"
        )
        opposed = bool(re.fullmatch(OPPOSED, part.mark or "", re.I))
        contrast = bool(re.fullmatch("but|yet|however|whereas|except", part.mark or "", re.I))
        if not part.terms:
            if part.sign is None:
                if waiting and (part.mark == "which" or _states(waiting[-1])):
                    waiting[-1].puzzling |= goes_on_with_the_unknown(part)
                continue
            if waiting:
                settle(part.sign, said_of_them=True)
            elif last is None:
                pending = part.sign
            elif contrast or last.mark in ("although", "though", "even though", "while", "despite"):
                _overrule(parts, last, part.sign)
            elif part.sign == -1 and not part.elliptic:
                _overrule(parts, last, -1)
            continue
        own, part.sign = part.sign, None
        if part.puzzling:
            if waiting and _states(waiting[-1]):
                settle(1)
            for listed in waiting:
                listed.puzzling = True
            waiting.append(part)
            continue
        if opposed:
            if last is not None and not waiting:
                part.sign = -last.sign
            else:
                part.flip = -waiting[-1].flip if waiting else -1
                waiting.append(part)
                if own is not None and len(waiting) > 1:
                    settle(own)
                continue
        elif own is not None and part.elliptic:
            if same:
                part.sign = -1 if last is None or last.sign == -1 else -last.sign
                if last is not None and last.sign == -1:
                    part.sign = -1
            elif waiting:
                part.flip = -waiting[-1].flip if not waiting[-1].elliptic else waiting[-1].flip
                waiting.append(part)
                continue
            elif last is not None:
                part.sign = last.sign if last.elliptic else -last.sign
            elif re.search(r"\w\s+not\s*$|\bn't\s*$", part.text):
                part.sign = -1
            else:
                part.flip = -1
                waiting.append(part)
                continue
        elif own is not None:
            if waiting and (contrast or _states(waiting[-1])) and not any(w.flip == -1 for w in waiting):
                settle(1)
            settle(own)
            part.sign = own
        elif waiting:
            part.flip = -waiting[-1].flip if contrast else waiting[-1].flip
            waiting.append(part)
            continue
        elif pending is not None:
            part.sign = pending
        elif last is not None:
            ellipsis = re.search(r"\b(does|do|is|are|did|can|should)\s*$", part.text, re.I)
            if contrast or (ellipsis and last.negated and not same):
                part.sign = -last.sign
            else:
                part.sign = last.sign
        else:
            waiting.append(part)
            continue
        last = part
    settle(1)
    for part in parts:
        if part.terms and part.sign is None:
            part.sign = 1


def _overrule(parts: list[Part], last: Part, sign: int) -> None:
    """A later word on the same things: it takes over all of them."""
    before = last.sign
    for part in reversed(parts[: parts.index(last) + 1]):
        if part.terms and part.sign == before:
            part.sign = sign
        elif part.terms:
            break


def _states(part: Part) -> bool:
    """Whether a part is a statement of its own and no item of a list."""
    return bool(
        re.search(
            r"\b(is|are|was|were|has|have|had|lies?|sits?|stands?|looks?|appears?)\b", part.text, re.I
        )
    )
