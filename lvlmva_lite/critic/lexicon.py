"""The offline critic: a small lexicon in place of a vision-language model.

It maps words of the class description ("square", "corner", "stroke", ...) to
image regions that can be measured, compares every segment with the regions
that the description names, and writes down what it finds.  It is a
transparent baseline, weaker than a real model, and needs no key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lvlmva_lite.critic import regions
from lvlmva_lite.critic.types import Case, Critique, segment_names
from lvlmva_lite.threads import threads

_NOTHING = re.compile(
    r"\b(means? nothing|says? nothing|tells? nothing|no meaning|meaningless|irrelevant|not relevant"
    r"|unimportant|not important|(does|do) not matter|ignore|disregard|spurious|artefacts?|artifacts?"
    r"|nothing to do|not diagnostic)\b",
    re.IGNORECASE,
)


# What is said about the class after these words names what a thing has nothing to do with.
_ABOUT = re.compile(
    r"\b(nothing (to do with|about)|(with|about|on) whether)\b.*", re.IGNORECASE | re.DOTALL
)

_ONLY = re.compile(r"\bonly\b.*\b(counts?|matters?)\b|\bnothing else\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class _Term:
    """Words that mean one measurable thing; ``kind`` says which words may be combined.

    An "object" is found by its own looks: words of place and tone that stand
    beside it ("the border of the lesion") do not narrow it down.
    """

    kind: str
    words: str
    region: Callable[[np.ndarray], np.ndarray]


_TERMS = (
    _Term("object", r"letters?|(lead )?markers?", regions.letter),
    _Term("object", r"knees?|joints?|gap|cartilage|bones?|osteophytes?|tibia|femur", regions.joint),
    _Term("object", r"lesions?|moles?|n(a)?ev(us|i)", regions.lesion),
    _Term("object", r"bandages?|plasters?|stickers?", regions.coloured_patch),
    _Term(
        "thing",
        r"squares?|box(es)?|patch(es)?|blocks?|rectangles?",
        lambda image: regions.solid(image) | regions.coloured_patch(image),
    ),
    _Term("thing", r"strokes?|pen|lines?|curves?|loops?|handwriting", regions.stroke),
    _Term("thing", r"background|empty", regions.empty),
    _Term("place", r"corners?", regions.corner),
    _Term("place", r"edges?|borders?|rim|margins?", regions.edge),
    _Term("place", r"cent(er|re)|middle", regions.centre),
    _Term("tone", r"bright|white", regions.bright),
    _Term("tone", r"gr[ae]y", regions.grey),
    _Term("tone", r"dark|black", regions.dark),
)


@dataclass(frozen=True)
class Clause:
    """One sentence of a description that names something to look for.

    Attributes
    ----------
    phrase : str, the sentence as the expert wrote it
    means_nothing : bool, whether the expert dismisses what it names
    terms : the lexicon's terms that occur in it
    only_this : bool, whether the expert says that nothing else counts
    """

    phrase: str
    means_nothing: bool
    terms: tuple[_Term, ...]
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


def read_description(description: str) -> list[Clause]:
    """The clauses of a description that the lexicon understands; the rest is passed over."""
    clauses = []
    for phrase in re.split(r"[.;!?]+|\n\s*\n|\n\s*[-*] |,?\sbut\s", description):
        named = _ABOUT.sub("", phrase)
        terms = tuple(t for t in _TERMS if re.search(rf"\b({t.words})\b", named, re.IGNORECASE))
        if terms:
            phrase = " ".join(phrase.split())
            means_nothing = bool(_NOTHING.search(phrase))
            clauses.append(
                Clause(phrase, means_nothing, terms, bool(_ONLY.search(phrase)) and not means_nothing)
            )
    return clauses


def _place(inside: np.ndarray) -> str:
    """Where a segment (H, W) bool lies: "upper left", "middle right", "centre", ..."""
    row, column = (
        (np.mean(where) + 0.5) / side for where, side in zip(np.nonzero(inside), inside.shape, strict=True)
    )
    vertical = "upper" if row < 1 / 3 else "lower" if row > 2 / 3 else "middle"
    horizontal = "left" if column < 1 / 3 else "right" if column > 2 / 3 else "middle"
    return "centre" if vertical == horizontal else f"{vertical} {horizontal}"


def _cover(segment: np.ndarray, region: np.ndarray, is_object: bool) -> float:
    """How much a segment is about a region, in [0, 1]: the share of it that lies there.

    An object may lie in a segment as well as the other way round: one that fills
    at least a quarter of the segment is covered by as much of it as lies inside.
    """
    shared = (segment & region).sum()
    share = shared / segment.sum()
    if is_object and share >= 0.25:
        return max(share, shared / region.sum())
    return share


def _foreign_object(image: np.ndarray) -> np.ndarray:
    """Things that somebody put into a medical picture: dyed patches, and letters in grey ones."""
    return regions.coloured_patch(image) if len(image) == 3 else regions.letter(image)


class LexiconCritic:
    """Argues about segments with the words of the description.

    A segment is held against each clause by the share of its drawn-upon
    pixels that lie in the clause's region (of all its pixels if it covers
    hardly any drawing), or by how much of an object it holds.  What covers
    mostly a region that the description dismisses is called irrelevant; what
    covers a region that it upholds is called relevant.  What it does not
    mention is called relevant too, with one exception: where the description says that only this or that counts, a
    thing that was put into the picture (a letter, a dyed patch) is called
    irrelevant although no word names it.  Bare surroundings are no thing.
    """

    name = "lexicon"
    samples = 1
    concurrency = 1

    @threads()
    def criticise(self, case: Case, sample: int = 0) -> Critique:
        """A text of a few sentences per segment.

        Raises
        ------
        ValueError : the lexicon knows no word of the description
        """
        clauses = read_description(case.description)
        if not clauses:
            raise ValueError(
                f"the lexicon critic knows no word of the description {case.description!r}; "
                "name things such as a square, a stroke, a letter, a joint, a lesion or a bandage, or use another critic"
            )
        image = case.image.numpy()
        labels = case.segment_labels.numpy()
        found = [clause.region(image) for clause in clauses]
        drawn = regions.grey(image)
        only_this = any(clause.only_this for clause in clauses)
        foreign = _foreign_object(image) & ~np.logical_or.reduce(found)

        lines = [f"The image is labelled {case.class_name}."]
        for clause, region in zip(clauses, found, strict=True):
            seen = f"I see it in the {_place(region)}" if region.any() else "I do not see it here"
            lines.append(f'The expert says: "{clause.phrase}". {seen}.')
        for j, name in enumerate(segment_names(case.n_segments)):
            inside = labels == j
            if not inside.any():
                lines.append(f"Segment {name} is empty; there is nothing to object to, it is relevant.")
                continue
            seen = inside & drawn
            basis = seen if seen.sum() >= 0.25 * inside.sum() else inside
            shares = [
                _cover(basis, region, clause.about_object)
                for clause, region in zip(clauses, found, strict=True)
            ]
            best = int(np.argmax(shares))
            covers = f"Segment {name} lies in the {_place(inside)} and covers "
            if shares[best] < 0.5 and only_this and _cover(basis, foreign, True) >= 0.5:
                lines.append(
                    covers + "mostly a thing that is none of those that the expert says count. "
                    f"Segment {name} is not relevant, it is spurious."
                )
            elif shares[best] < 0.5:
                lines.append(
                    covers + "mostly parts that the expert does not mention. "
                    f"Nothing speaks against segment {name}: it is relevant."
                )
            elif clauses[best].means_nothing:
                lines.append(
                    covers + "what the expert dismisses "
                    f'({shares[best]:.0%} of it): "{clauses[best].phrase}". Segment {name} is not relevant, it is spurious.'
                )
            else:
                lines.append(
                    covers + "what the expert asks for "
                    f'({shares[best]:.0%} of it): "{clauses[best].phrase}". Segment {name} shows the class, it is relevant.'
                )
        return Critique(case.case_id, self.name, "\n".join(lines), sample)
