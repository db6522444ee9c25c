"""The offline critic: a small lexicon in place of a vision-language model.

It maps words of the class description ("square", "corner", "stroke", ...) to
image regions that can be measured, compares every segment with the regions
that the description names, and writes down what it finds.  It is a
transparent baseline, weaker than a real model, and needs no key.
"""

from __future__ import annotations

import numpy as np

from lvlmva_lite.critic import regions
from lvlmva_lite.critic.reading import read_description
from lvlmva_lite.critic.types import Case, Critique, segment_names
from lvlmva_lite.threads import threads


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
    mostly a region that the description dismisses is called spurious, what
    covers one that it upholds relevant, and all else background.  There is one
    exception: where the description says that only this or that counts, a
    thing that was put into the picture (a letter, a dyed patch) is called
    spurious although no word names it.  Empty segments are not spoken of.

    It looks at a segment's area and not at its evidence, and knows a thing
    only by the looks that :mod:`regions` was written for.
    """

    name = "lexicon"
    samples = 1
    concurrency = 1

    @threads()
    def criticise(self, case: Case, sample: int = 0) -> Critique:
        """A text of one or two sentences per segment.

        Raises
        ------
        ValueError : the lexicon understands nothing of the description
        """
        clauses = read_description(case.description).clauses
        if not clauses:
            raise ValueError(
                f"the lexicon critic understands nothing of the description {case.description!r}; "
                "name things such as a square, a stroke, a letter, a joint, a lesion or a bandage, or use another critic"
            )
        image = case.image.numpy()
        labels = case.segment_labels.numpy()
        found = [clause.region(image) for clause in clauses]
        drawn = regions.grey(image)
        foreign = None
        if any(clause.only_this for clause in clauses):
            foreign = _foreign_object(image) & ~np.logical_or.reduce(found)

        lines = [f"The image is labelled {case.class_name}."]
        for clause, region in zip(clauses, found, strict=True):
            seen = f"I see it in the {_place(region)}" if region.any() else "I do not see it here"
            lines.append(f"The expert says: {_quoted(clause.phrase)}. {seen}.")
        for j, name in enumerate(segment_names(case.n_segments)):
            inside = labels == j
            if not inside.any():
                continue
            seen = inside & drawn
            basis = seen if seen.sum() >= 0.25 * inside.sum() else inside
            shares = [
                _cover(basis, region, clause.about_object)
                for clause, region in zip(clauses, found, strict=True)
            ]
            best = int(np.argmax(shares))
            if shares[best] < 0.5 and foreign is not None and _cover(basis, foreign, True) >= 0.5:
                what = "mostly a thing that is none of those that the expert says count"
                kind = "spurious"
            elif shares[best] < 0.5:
                what = "mostly parts that the expert does not mention"
                kind = "background"
            else:
                dismissed = clauses[best].means_nothing
                what = (
                    f"what the expert {'dismisses' if dismissed else 'asks for'} "
                    f"({shares[best]:.0%} of it): {_quoted(clauses[best].phrase)}"
                )
                kind = "spurious" if dismissed else "relevant"
            lines.append(
                f"Segment {name} lies in the {_place(inside)} and covers {what}. Segment {name} is {kind}."
            )
        return Critique(case.case_id, self.name, "\n".join(lines), sample)


def _quoted(phrase: str) -> str:
    """In quotation marks, of which the phrase itself then holds none."""
    return '"' + phrase.replace('"', "''") + '"'
