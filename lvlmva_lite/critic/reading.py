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
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lvlmva_lite.critic import regions


@dataclass(frozen=True)
class Term:
    """Words that mean one measurable thing; ``kind`` says which words may be combined.

    An "object" is found by its own looks: words of place and tone that stand
    beside it ("the border of the lesion") do not narrow it down.
    """

    kind: str
    words: str
    region: Callable[[np.ndarray], np.ndarray]


TERMS = (
    Term("object", r"letters?|(lead )?markers?", regions.letter),
    Term(
        "object",
        r"knees?|joints?|gaps?|cartilages?|bones?|osteophytes?|tibias?|tibiae|femurs?|femora",
        regions.joint,
    ),
    Term("object", r"lesions?|moles?|n(a)?ev(us|i)", regions.lesion),
    Term("object", r"bandages?|plasters?|stickers?|band-aids?", regions.coloured_patch),
    Term(
        "thing",
        r"squares?|box(es)?|patch(es)?|blocks?|rectangles?",
        lambda image: regions.solid(image) | regions.coloured_patch(image),
    ),
    Term("thing", r"(pen )?strokes?|pens?|lines?|curves?|loops?|handwriting", regions.stroke),
    Term("thing", r"backgrounds?|empty", regions.empty),
    Term("place", r"corners?", regions.corner),
    Term("place", r"edges?|borders?|rims?|margins?", regions.edge),
    Term("place", r"cent(er|re)s?|middles?", regions.centre),
    Term("tone", r"bright|white", regions.bright),
    Term("tone", r"gr[ae]y", regions.grey),
    Term("tone", r"dark|black", regions.dark),
)

_DISMISSING = (
    r"irrelevant(ly)?|irrelevance|meaningless|unimportant|insignificant|immaterial|useless|worthless|pointless"
    r"|ignor(e|es|ed|ing)|disregard(s|ed|ing)?|discount(ed)?|dismiss(ed|ing)?|neglect(ed|ing)?"
    r"|overlook(ed|ing)?|forget|forgotten|skip(ped)?|exclud(e|ed|ing)|discard(ed|ing)?|avoid(ed|ing)?"
    r"|remov(e|ed)|leave out|left out|(left|put|set|leave) aside|by chance|fool(s|ed)?|mask(ed)? out|miss(ed)?|blank(ed)? out|steer clear|beware"
    r"|spurious(ly)?|artefacts?|artifacts?|nois[ey]|noises|shortcuts?|confound(s|er|ers|ing|ed)?"
    r"|distract(s|ion|ions|ing|or|ors)?|mislead(s|ing)?|misled|deceiv(es?|ing)|deceptive|nuisances?"
    r"|accidents?|coincidences?|coincidental(ly)?|incidental(ly)?|accidental(ly)?|arbitrary|random|red herrings?"
    r"|beside the point|unrelated|non-?diagnostic|unreliable|untrustworthy|lacks?|lacking|devoid|stop|don't care"
    r"|fake|bogus|trivial|negligible|superfluous|redundant|uninformative|unhelpful"
)
_WRONG = r"wrong(ly)?|mistakes?|mistaken|errors?|erroneous|foolish|careless|bad idea|bad practice"
_UPHOLDING = (
    r"relevant|relevance|important|importance|significant|significance|meaning(ful|s)?|means?|matter(s|ed)?"
    r"|count(s|ed)?|tell(s|ing)?|told|says?|said|shows?|shown|showing|decid(e|es|ed|ing)|decisive"
    r"|look(s|ed|ing)? (at|to|for)|use[sd]?|using|useful|of use|of any use|rely|relies|relied|reliable|rel(y|ies) on|trust(ed|worthy)?"
    r"|attention|focus(ed)?|attend|consider(ed|ing)?|regard(ed)?|diagnostic|indicat(e|es|ed|ive|ion|or|ors)"
    r"|defin(e|es|ed|ing)|essential|key|crucial|vital|central to|informative|information|helpful|help(s|ed)?"
    r"|contribut(e|es|ed)|influenc(e|es|ed)|affect(s|ed)?|inform(s|ed)?|belong(s|ed)?|identif(y|ies|ied)"
    r"|characteri[sz](e|es|ed)|characteristic|distinguish(es|ed)?|separat(e|es|ed)|reveal(s|ed)?"
    r"|support(s|ed)?|prove[sn]?|predict(s|ed|ive)?|determin(e|es|ed)|evidence|sign|signs|clues?|hints?"
    r"|reasons?|roles?|bearing|weight|value|interest(ing)?|valid|necessary|needs?|needed|care|cares|taken into account"
    r"|into account|kept|keep|heed(ed)?|notice|mind|to do|related|connected|judge[sd]?|learnt?|learned|learn from"
    r"|part of|feature|features|explain(s|ed)?|true|correct|differences?|consequences?"
)
_NEGATING = (
    r"not|never|cannot|no|nor|neither|nothing|none|nobody|without|hardly|barely|scarcely|rarely|seldom"
    r"|\w+n't|dont|doesnt|isnt|arent|wont|cant|shouldnt|mustnt|wasnt|didnt"
    r"|(of )?little(?= (importance|relevance|meaning|value|use|significance|weight|interest))"
    r"|(?<=matters )little|(?<=means )little|(?<=says )little|(?<=tells )little|(?<=counts )little"
    r"|(refrain from|avoid|stop|quit)(?= \w+ing\b)|fails? to|ALLBUT"
    rf"|far from(?= (?:being )?(?:{_UPHOLDING}|{_DISMISSING})\b)"
)
_PLAIN = frozenset(
    re.findall(
        r"[\w-]+",
        """
        a an the this that these those it its they them their he she we i you your our his her one ones
        thing things everything anything something all any some each every both many most much more less
        other others else another such own same what which who whom whose whatever whichever whether where
        when how why while if then than as so too also even just only merely mere really simply quite very
        at in on of to from for by with within into onto over under near beside besides next along around
        about between behind above below across inside outside through up down out off and or but yet be
        is are was were been being am has have had having do does did done doing should must may might can
        could will would shall ought need please there here part parts region regions area areas place
        places spot spots pixel pixels bit piece pieces shape shapes size sizes colour color colours
        colors shade shades thickness width form position location look looks looking appearance lie lies
        lying sit sits stand stands placed put found seen see sees visible appear appears seem seems
        located printed drawn pasted glued attached digit digits number numbers figure class classes label
        labels image images picture pictures photograph photographs photo x-ray x-rays radiograph
        radiographs scan scans model network classifier decision diagnosis answer case cases always ever
        now still again either because since though although however therefore thus hence example instance
        namely self itself themselves whole entire like kind kinds sort rest left right top bottom upper
        lower side sides pay give make makes take takes let think believe know us me my
        """,
    )
)
"""Words that carry no verdict and name nothing to look for."""

_LOOKS = (
    r"(even|sharp|smooth|wide|narrow(ed)?|round|symmetric(al)?|regular|uniform|straight|closed|open|thick|thin"
    r"|visible|seen|there|present|brighter|darker|bright|dark|grey|gray|black|white|ragged|fading)"
)

_CONTRAST = r"but|whereas|while|although|though|however|yet|even though|even if|despite|except"
_OPPOSED = r"rather than|instead of|in place of|as opposed to|unlike|in contrast to"
_CUT = re.compile(
    rf"(?P<mark>,?\s*\b(?:{_OPPOSED}|{_CONTRAST})\b|[,:()\u2013\u2014]|\s-\s|\b(?:and|or|because|since|which|nor)\b)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.;!?\u2026]+(?=\s|$|[A-Z\"'])|\n\s*\n|\n\s*[-*] ")
# What is said about the class after these words names what a thing has nothing to do with.
_ABOUT = re.compile(
    r"\b(nothing (to do with|about)|(with|about|on) whether)\b.*?(?=[,;:]|\bbut\b|\bwhereas\b|\bwhile\b|$)",
    re.IGNORECASE | re.DOTALL,
)
_ONLY = re.compile(
    r"^only\b|\bonly\b.{0,200}\b(counts?|matters?)\b|\bNOUGHT(BUT|ELSE)\b|\bALLBUT\b",
    re.IGNORECASE | re.DOTALL,
)
_REST = re.compile(r"\b(everything|anything|all|nothing) else\b|\bthe rest\b", re.IGNORECASE)
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
_PREPOSITION = (
    r"(in|at|on|near|next to|close to|beside|by|behind|around|over|above|below|under|along|across from|across"
    r"|inside|outside|between|within|upon)"
)
_ARTICLE = r"(the|an?|any|each|every|this|that|these|those|all|some)"
_SKIPPED = r"(?:(?:that|which|is|are|lying|placed|printed|glued|seen|visible|just|right|always|shown|drawn|found|sitting|standing|located|pasted|put|stuck|there)\s+)*"


def _find(pattern: str, text: str) -> list[re.Match]:
    return list(re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", text, re.IGNORECASE))


def _terms(text: str) -> tuple[Term, ...]:
    return tuple(term for term in TERMS if _find(term.words, text))


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

    def lines(self) -> list[str]:
        """How the description was read, for people: dismissed, upheld, not understood, unknown words."""
        dismissed = [f'"{clause.phrase}"' for clause in self.clauses if clause.means_nothing]
        upheld = [
            f'"{clause.phrase}"' + (" (and nothing else)" if clause.only_this else "")
            for clause in self.clauses
            if not clause.means_nothing
        ]
        said = [
            ("dismissed", dismissed),
            ("upheld", upheld),
            ("not understood", [f'"{phrase}"' for phrase in self.not_understood]),
            ("words I do not know", list(self.unknown_words)),
        ]
        return [
            f"{label}: {', '.join(words) or 'nothing'}"
            for label, words in said
            if words or label in ("dismissed", "upheld")
        ]


@dataclass
class _Part:
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
        unknown += _unknown_words(sentence)
        if not found and not missed:
            rest = _REST.search(sentence) and [i for i, c in enumerate(clauses) if not c.means_nothing]
            if rest:
                clauses[rest[-1]] = replace(clauses[rest[-1]], only_this=True)
            else:
                lost.append(sentence)
        clauses += found
    return Reading(tuple(clauses), tuple(dict.fromkeys(lost)), tuple(dict.fromkeys(unknown)))


def _unknown_words(text: str) -> list[str]:
    """Words that are neither terms nor verdicts nor plain, lower case."""
    left = text
    known = (_DISMISSING, _WRONG, _UPHOLDING, _NEGATING, _OPPOSED, _CONTRAST, _LOOKS)
    for pattern in (*(term.words for term in TERMS), *known):
        left = re.sub(rf"(?<![\w-])(?:{pattern})(?![\w-])", " ", left, flags=re.IGNORECASE)
    words = re.findall(r"[^\W\d_][\w'-]*", left.lower())
    return [word for word in words if word not in _PLAIN and len(word) > 1]


def _read_sentence(sentence: str) -> tuple[list[Clause], list[str]]:
    """The clauses of one sentence, and the phrases in it that were not understood."""
    reworded = _ABOUT.sub(lambda match: match[1], sentence)
    for pattern, words in _REWORDED:
        reworded = pattern.sub(words, reworded)
    if re.search(r"\bneither\b.{0,200}\bnor\b", reworded, re.IGNORECASE):  # one negation for all of them
        reworded = re.sub(r"\bneither\b", "not", re.sub(r"\bnor\b", "&", reworded), flags=re.IGNORECASE)
    parts = _parts(reworded)
    _resolve(parts)

    lost = [part for part in parts if not part.understood]
    groups: list[list[_Part]] = []
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


def _parts(sentence: str) -> list[_Part]:
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


def _part(text: str, start: int, end: int, mark: str) -> _Part:
    named, lonely = _named(text)
    terms = _terms(named)
    sign, elliptic, understood = _verdict(text, bool(terms))
    placed = terms and not any(term.kind in ("object", "thing") for term in terms)
    if (placed and _unknown_words(text)) or lonely:
        terms = ()  # an unknown thing, told only by where it is or how it looks
        stands = re.search(rf"\b{_ARTICLE}\s[^,]{{0,80}}\s{_PREPOSITION}\s", text, re.IGNORECASE)
        understood = sign is None and not lonely and not stands
    negated = bool(_find(_NEGATING, text))
    return _Part(text, start, end, mark, terms, sign, elliptic, understood, negated)


def _named(text: str) -> tuple[str, bool]:
    """The text without what only says where a thing is, and whether an unknown thing is put beside a known one.

    "The letter on the bone" is about the letter; "the ruler next to the
    lesion" about a ruler.  Places ("in the corner") narrow a thing down and stay.
    """
    lonely = False
    judged = bool(_find(f"{_DISMISSING}|{_UPHOLDING}|{_WRONG}|{_NEGATING}", text))
    for match in re.finditer(
        rf"(?<![\w-])([\w-]{{1,40}})\s+{_SKIPPED}{_PREPOSITION}\s+((?:the|a|an|each|every|any|its|their)\s+)?([\w -]*)",
        text,
        re.I,
    ):
        head, beside = match[1], match[match.lastindex]
        if not any(term.kind in ("object", "thing") for term in _terms(beside)):
            continue
        known = [term for term in _terms(head) if term.kind in ("object", "thing")]
        before = text[: match.start(2)]
        if known:
            text = before + " " + _after(beside)
        elif _unknown_words(head) and not [t for t in _terms(before) if t.kind in ("object", "thing")]:
            named = rf"\b{_ARTICLE}\s+([\w-]+\s+)?{re.escape(head)}\b"
            lonely |= judged or bool(re.search(named, text, re.IGNORECASE))
    return text, lonely


def _after(beside: str) -> str:
    """What is left of "the bone means nothing" once the thing it begins with is told."""
    spans = [
        match for term in TERMS if term.kind in ("object", "thing") for match in _find(term.words, beside)
    ]
    first = min(spans, key=lambda match: match.start())
    return beside[first.end() :]


def _verdict(text: str, has_terms: bool) -> tuple[int | None, bool, bool]:
    """Sign of a part, whether it is an elliptic negation, and whether that was understood."""
    negations = _find(_NEGATING, text)
    # "Ill knees show no gap" tells what is not there, and dismisses nothing.
    absent = re.search(
        rf"\b(shows?|has|have|having|had|with|see|sees|there is|there are|contains?|leaves?)\s+no\b(?!\s+(?:\w+\s+)?(?:{_UPHOLDING})\b)",
        text, re.IGNORECASE,
    )  # fmt: skip
    if absent and has_terms:
        negations = [match for match in negations if not absent.start() <= match.start() < absent.end()]
    wrong = len(_find(_WRONG, text))
    counted = {match.start() for match in negations}
    dismissals = [match for match in _find(_DISMISSING, text) if match.start() not in counted]
    upholds = [
        m for m in _find(_UPHOLDING, text) if not any(d.start() <= m.start() < d.end() for d in dismissals)
    ]
    # "The spurious square": said of the thing itself, whatever else the part says.
    names = "|".join(term.words for term in TERMS)
    attributive = re.search(
        rf"(?<!not )(?<!not a )(?<!not an )(?<!not the )\b(?:{_DISMISSING})\s+(?:[\w-]+\s+)?(?:{names})\b",
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
        not [t for t in _terms(before) if t.kind in ("object", "thing")]
        and _terms(after)
        and (
            re.match(
                r"\s*(even )?((on|at|in|by|with|to|from|for)\s+)?(the|a|an|any|its|their)?\s*[\w &-]*$",
                after,
                re.I,
            )
            and not _unknown_words(after)
        )
    ):
        return -1, True, True  # "not the square"
    if re.match(rf"\s*(\w+ly |so |very |as |quite |always )?{_LOOKS}\b", after, re.I):
        return None, False, True  # "the border is not sharp": a look, no verdict
    return -1, False, not has_terms


def _resolve(parts: list[_Part]) -> None:
    """Give each part with terms a sign, from its own words or from its neighbours'."""
    waiting: list[_Part] = []
    last: _Part | None = None  # with terms and a sign
    pending: int | None = None  # a verdict that came before what it is about

    def settle(sign: int) -> None:
        nonlocal last
        for part in waiting:
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
        opposed = bool(re.fullmatch(_OPPOSED, part.mark or "", re.I))
        contrast = bool(re.fullmatch("but|yet|however|whereas|except", part.mark or "", re.I))
        if not part.terms:
            if part.sign is None:
                continue
            if waiting:
                settle(part.sign)
            elif last is None:
                pending = part.sign
            elif contrast or last.mark in ("although", "though", "even though", "while", "despite"):
                _overrule(parts, last, part.sign)
            elif part.sign == -1 and not part.elliptic:
                _overrule(parts, last, -1)
            continue
        own, part.sign = part.sign, None
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


def _overrule(parts: list[_Part], last: _Part, sign: int) -> None:
    """A later word on the same things: it takes over all of them."""
    before = last.sign
    for part in reversed(parts[: parts.index(last) + 1]):
        if part.terms and part.sign == before:
            part.sign = sign
        elif part.terms:
            break


def _states(part: _Part) -> bool:
    """Whether a part is a statement of its own and no item of a list."""
    return bool(
        re.search(
            r"\b(is|are|was|were|has|have|had|lies?|sits?|stands?|looks?|appears?)\b", part.text, re.I
        )
    )
