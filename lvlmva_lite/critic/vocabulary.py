"""The words that the lexicon knows: what it can look for, and what upholds, dismisses or negates."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

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

DISMISSING = (
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
WRONG = r"wrong(ly)?|mistakes?|mistaken|errors?|erroneous|foolish|careless|bad idea|bad practice"
UPHOLDING = (
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
NEGATING = (
    r"not|never|cannot|no|nor|neither|nothing|none|nobody|without|hardly|barely|scarcely|rarely|seldom"
    r"|\w+n't|dont|doesnt|isnt|arent|wont|cant|shouldnt|mustnt|wasnt|didnt"
    r"|(of )?little(?= (importance|relevance|meaning|value|use|significance|weight|interest))"
    r"|(?<=matters )little|(?<=means )little|(?<=says )little|(?<=tells )little|(?<=counts )little"
    r"|(refrain from|avoid|stop|quit)(?= \w+ing\b)|fails? to|ALLBUT"
    rf"|far from(?= (?:being )?(?:{UPHOLDING}|{DISMISSING})\b)"
)
PLAIN = frozenset(
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

LOOKS = (
    r"(even|sharp|smooth|wide|narrow(ed)?|round|symmetric(al)?|regular|uniform|straight|closed|open|thick|thin"
    r"|visible|seen|there|present|brighter|darker|bright|dark|grey|gray|black|white|ragged|fading)"
)

SEEN = (
    r"a?symmetric(al)?|ir?regular|uneven|jagged|blurr(ed|y)|crisp|fuzzy|coarse|rough|pale|shiny|coloured|colored|colou?rful"
    r"|pigmented|dyed|blue|red|brown|green|yellow|orange|pink|purple|violet|turquoise|tan|large|small|big|tiny|long|short"
    r"|tall|curved|curly|bent|wavy|slanted|vertical|horizontal|diagonal|oval|flat|raised|homogeneous|heterogeneous|dense"
    r"|sclerotic|reduced|worn|lost|grow(s|n|ing)?|narrowing|narrows|thinning|spread(s|ing)?|surround(s|ed|ing)?"
    r"|contain(s|ing)?|cover(s|ed|ing)?|touch(es|ing)?|overlap(s|ping)?|cross(es|ed|ing)?|fill(s|ed|ing)?"
    r"|spaces?|clos(es|ing)|eroded|form(s|ed|ing)|destroy(s|ed)?|disappear(s|ed)?|thinned|notched|lobed|scalloped"
)
"""Further words for looks, which the lexicon neither measures nor takes for a verdict."""

CONTRAST = r"but|whereas|while|although|though|however|yet|even though|even if|despite|except"
OPPOSED = r"rather than|instead of|in place of|as opposed to|unlike|in contrast to"


def find(pattern: str, text: str) -> list[re.Match]:
    """Where words of a pattern stand in a text, whole words only."""
    return list(re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", text, re.IGNORECASE))


def terms_in(text: str) -> tuple[Term, ...]:
    """The terms that a text names, in the order of ``TERMS``."""
    return tuple(term for term in TERMS if find(term.words, text))


def unknown_words(text: str) -> list[str]:
    """Words that are neither terms nor verdicts nor plain, lower case."""
    left = text
    known = (DISMISSING, WRONG, UPHOLDING, NEGATING, OPPOSED, CONTRAST, LOOKS)
    for pattern in (*(term.words for term in TERMS), *known):
        left = re.sub(rf"(?<![\w-])(?:{pattern})(?![\w-])", " ", left, flags=re.IGNORECASE)
    words = re.findall(r"[^\W\d_][\w'-]*", left.lower().replace("\u2019", "'"))
    # "it's" is as plain as "it"
    return [word for word in words if word.partition("'")[0] not in PLAIN and len(word) > 1]
