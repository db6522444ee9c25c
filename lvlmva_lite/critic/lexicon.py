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
from scipy import ndimage

from lvlmva_lite.critic.types import Case, Critique, segment_names

VISIBLE = 0.05
"""Intensity in [0, 1] from which a pixel counts as drawn upon."""

_NOTHING = re.compile(
    r"\b(means? nothing|says? nothing|tells? nothing|no meaning|meaningless|irrelevant|not relevant"
    r"|unimportant|not important|(does|do) not matter|ignore|disregard|spurious|artefacts?|artifacts?"
    r"|nothing to do|not diagnostic)\b",
    re.IGNORECASE,
)


def _solid_and_stroke(intensity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split what is drawn into solid, evenly filled rectangles and everything else."""
    components, _ = ndimage.label(intensity > VISIBLE, structure=np.ones((3, 3)))
    solid = np.zeros(intensity.shape, bool)
    for number, box in enumerate(ndimage.find_objects(components), start=1):
        inside = components[box] == number
        height, width = inside.shape
        if (
            min(height, width) >= 2
            and max(height, width) <= 1.5 * min(height, width)
            and inside.mean() > 0.9
            and intensity[box][inside].std() < 0.05
        ):
            solid[box] |= inside
    return solid, (intensity > VISIBLE) & ~solid


def _frame(shape: tuple[int, int], margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows (H, 1) and columns (1, W) that lie within ``margin`` of a side of the image."""
    rows, columns = ((np.arange(side) + 0.5) / side for side in shape)
    return (abs(rows - 0.5) > 0.5 - margin)[:, None], (abs(columns - 0.5) > 0.5 - margin)[None]


def _corner(intensity: np.ndarray) -> np.ndarray:
    rows, columns = _frame(intensity.shape, 0.25)
    return rows & columns


def _edge(intensity: np.ndarray) -> np.ndarray:
    rows, columns = _frame(intensity.shape, 0.15)
    return rows | columns


@dataclass(frozen=True)
class _Term:
    """Words that mean one measurable thing; ``kind`` says which words may be combined."""

    kind: str
    words: str
    region: Callable[[np.ndarray], np.ndarray]


_TERMS = (
    _Term("thing", r"squares?|box(es)?|patch(es)?|blocks?|rectangles?", lambda i: _solid_and_stroke(i)[0]),
    _Term("thing", r"strokes?|pen|lines?|curves?|loops?|handwriting", lambda i: _solid_and_stroke(i)[1]),
    _Term("thing", r"background|empty", lambda i: i <= VISIBLE),
    _Term("place", r"corners?", _corner),
    _Term("place", r"edges?|borders?|rim|margins?", _edge),
    _Term("place", r"cent(er|re)|middle", lambda i: ~_edge(i)),
    _Term("tone", r"bright|white", lambda i: i > 0.75),
    _Term("tone", r"gr[ae]y", lambda i: i > VISIBLE),
    _Term("tone", r"dark|black", lambda i: i < 0.25),
)


@dataclass(frozen=True)
class Clause:
    """One sentence of a description that names something to look for.

    Attributes
    ----------
    phrase : str, the sentence as the expert wrote it
    means_nothing : bool, whether the expert dismisses what it names
    terms : the lexicon's terms that occur in it
    """

    phrase: str
    means_nothing: bool
    terms: tuple[_Term, ...]

    def region(self, intensity: np.ndarray) -> np.ndarray:
        """Pixels (H, W) bool that fit: any term of each kind, and all kinds at once."""
        region = np.ones(intensity.shape, bool)
        for kind in {term.kind for term in self.terms}:
            fits = [term.region(intensity) for term in self.terms if term.kind == kind]
            region &= np.logical_or.reduce(fits)
        return region


def read_description(description: str) -> list[Clause]:
    """The clauses of a description that the lexicon understands; the rest is passed over."""
    clauses = []
    for phrase in re.split(r"[.;!?]+|\n\s*\n|\n\s*[-*] |,?\sbut\s", description):
        terms = tuple(t for t in _TERMS if re.search(rf"\b({t.words})\b", phrase, re.IGNORECASE))
        if terms:
            phrase = " ".join(phrase.split())
            clauses.append(Clause(phrase, bool(_NOTHING.search(phrase)), terms))
    return clauses


def _place(inside: np.ndarray) -> str:
    """Where a segment (H, W) bool lies: "upper left", "middle right", "centre", ..."""
    row, column = (
        (np.mean(where) + 0.5) / side for where, side in zip(np.nonzero(inside), inside.shape, strict=True)
    )
    vertical = "upper" if row < 1 / 3 else "lower" if row > 2 / 3 else "middle"
    horizontal = "left" if column < 1 / 3 else "right" if column > 2 / 3 else "middle"
    return "centre" if vertical == horizontal else f"{vertical} {horizontal}"


class LexiconCritic:
    """Argues about segments with the words of the description.

    A segment is held against each clause by the share of its drawn-upon
    pixels that lie in the clause's region (of all its pixels if it covers
    hardly any drawing).  What covers mostly a region that the description
    dismisses is called irrelevant; what covers a region that it upholds, or
    none at all, is called relevant.
    """

    name = "lexicon"
    samples = 1
    concurrency = 1

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
                "name things such as a square, a stroke, a corner, an edge, or use another critic"
            )
        intensity = case.image.mean(0).numpy()
        labels = case.segment_labels.numpy()
        regions = [clause.region(intensity) for clause in clauses]
        drawn = intensity > VISIBLE

        lines = [f"The image is labelled {case.class_name}."]
        for clause, region in zip(clauses, regions, strict=True):
            seen = f"I see it in the {_place(region)}" if region.any() else "I do not see it here"
            lines.append(f'The expert says: "{clause.phrase}". {seen}.')
        for j, name in enumerate(segment_names(case.n_segments)):
            inside = labels == j
            if not inside.any():
                lines.append(f"Segment {name} is empty; there is nothing to object to, it is relevant.")
                continue
            seen = inside & drawn
            basis = seen if seen.sum() >= 0.25 * inside.sum() else inside
            shares = [(region & basis).sum() / basis.sum() for region in regions]
            best = int(np.argmax(shares))
            covers = f"Segment {name} lies in the {_place(inside)} and covers "
            if shares[best] < 0.5:
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
