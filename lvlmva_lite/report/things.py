"""What a critique names in each segment: a letter, ink, a ruler, bare ground, or a word of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lvlmva_lite.critic.text_judge import text_by_segment

THINGS = {
    "letter or marker": r"letters?|lead|markers?",
    "square or block": r"squares?|blocks?|rectangles?|box(es)?",
    "sticker, patch or plaster": r"stickers?|patch(es)?|plasters?|bandages?|band-aids?|discs?|disks?",
    "ruler or scale": r"rulers?|scales?|scale bars?|ticks?|tick marks?|graduations?",
    "ink": r"ink|ink marks?|pen marks?|pen lines?|dye|marker pen",
    "hair": r"hairs?",
    "bubble or glare": r"bubbles?|glare|reflections?|reflexes|gel",
    "frame or dark corner": r"frames?|vignettes?|(black|dark) (corners?|rims?|borders?)|aperture",
    "text or number": r"text|writing|captions?|watermarks?|digits|numbers?|labels?",
    "metal or implant": r"screws?|metal|implants?|wires?|plates?|staples?|clips?",
    "collimator edge": r"collimat(or|ion)s?",
}
"""Things that do not belong into a picture, by the words that name them."""

_WORD = re.compile(r"[a-z][a-z-]+")
_LEAST = 0.3
"""By how much more often a word must stand in texts about spurious segments to name a thing."""

_PLAIN = frozenset(
    re.findall(
        r"\w+",
        """
        all an and any are as ask asks at black bottom bright brighter brightest but by class corner corners count counts covers
        dark depend depends dismiss dismissed dismisses evenly evidence exactly expert fills for foreign
        from fully grey here image in inside is it its left lie lies lower meaning meaningless means
        mention mentions middle mostly names none not nothing object objects of on only outside over part parts rest rests
        right say says segment segments shortcut side spurious that the there those thing things this to top
        upon upper very what which white who whole with
        """,
    )
)
"""Words of every critique, which name nothing."""


_NOT_IT = re.compile(
    r"\b(without|no|not|neither|nor|none|nothing|hardly|miss\w*|off|touch\w*|graz\w*|between|beside|near"
    r"|next to|up to|away from|outside|above|below)\b[^.;:,]*"
)
"""What is not there, or only nearby."""

_OF_LIGHT = re.compile(r"\b(patch(es)?|dis[ck]s?)\b")
"""What critics call spots of evidence, too."""


def segment_texts(text: str, names: Sequence[str]) -> dict[str, str]:
    """What a critique says about each segment, in small letters, quotations included."""
    return {name: said.lower() for name, said in text_by_segment(text, names, as_written=True).items()}


def _times(pattern: str, text: str) -> int:
    return len(re.findall(rf"(?<![\w-])(?:{pattern})(?![\w-])", text, re.IGNORECASE))


def names_it(pattern: str, text: str) -> bool:
    """Whether a text holds words of a pattern, whole ones, in capitals or not."""
    return _times(pattern, text) > 0


def named_thing(text: str) -> str | None:
    """The one of ``THINGS`` that a text names most often, the first of those named alike; None if none."""
    counts = {name: _times(words, text) for name, words in THINGS.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None


def without_mentions(text: str) -> str:
    """A text, in small letters, less what it says is not there or only nearby, and spots of evidence.

    Of a segment called spurious the prose says what is wrong with it. Of others it often says what they do
    *not* hold ("ground without ink", "skin beside the sticker").
    """
    return _OF_LIGHT.sub(" ", _NOT_IT.sub(" ", text))


def telling_words(spurious: Sequence[str], other: Sequence[str]) -> list[str]:
    """Words that set texts about spurious segments apart, the most telling first.

    A word's measure is the share of spurious segments whose text holds it less
    the share of other segments; those of at least 0.3 are given.  So a thing
    that ``THINGS`` does not know is named by the critic's own word.

    Parameters
    ----------
    spurious, other : texts, one a segment
    """
    if not spurious:
        return []
    here, there = (
        Counter(w for text in texts for w in set(_WORD.findall(text))) for texts in (spurious, other)
    )
    more = {
        word: count / len(spurious) - there[word] / max(len(other), 1)
        for word, count in here.items()
        if word not in _PLAIN
    }
    return sorted((w for w in more if more[w] >= _LEAST), key=lambda w: (-more[w], w))
