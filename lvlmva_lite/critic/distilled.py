"""A critic learnt from another's answers: frozen features of segments, a linear head, silence where it is unsure.

A few hundred answers are paid for; the rest of the images cost nothing.  It
sees what its teacher saw, image and evidence, and knows only what the
teacher's verdicts tell: wrong ones are learnt, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from skimage.feature import hog
from skimage.transform import resize
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lvlmva_lite.critic.types import KINDS, Case, Critique, Verdict, segment_names

_SIDE = 24
"""Of a crop, in pixels."""


def segment_features(case: Case) -> np.ndarray:
    """What is measured of each segment, (J, F) float64; nothing of it is learnt.

    Weighted by the evidence in the segment: where it lies (centre, spread),
    how bright and how coloured it is, and how much of the case's evidence and
    area it holds.  Then the outlines (HOG, Dalal and Triggs 2005) and the
    mean colours of a square crop around that evidence.  A segment without a
    pixel has zeros.
    """
    image = case.image.double().numpy()
    height, width = image.shape[1:]
    labels, evidence = case.segment_labels.numpy(), case.evidence.double().numpy()
    rows, columns = np.mgrid[:height, :width]
    total = evidence.sum()
    grey = image.mean(0)
    found = []
    for j in range(case.n_segments):
        inside = labels == j
        weight = np.where(inside, evidence, 0.0)
        if not weight.sum():
            weight = inside.astype(float)
        mass = weight.sum()
        if not mass:
            found.append(None)
            continue
        share = weight / mass
        centre = np.array([(share * rows).sum(), (share * columns).sum()])
        spread = np.sqrt(
            np.array([(share * (rows - centre[0]) ** 2).sum(), (share * (columns - centre[1]) ** 2).sum()])
        )
        channels = (share * image).sum((1, 2))
        bright = (share * grey).sum()
        deviation = np.sqrt((share * (grey - bright) ** 2).sum())
        held = evidence[inside].sum() / total if total else 0.0
        # A square of two standard deviations each way, of an eighth of the image at least.
        half = max(2 * spread.max(), height / 16)
        top, left = np.clip(np.round(centre - half).astype(int), 0, None)
        bottom, right = np.minimum(np.round(centre + half).astype(int) + 1, (height, width))
        crop = np.stack([resize(one[top:bottom, left:right], (_SIDE, _SIDE)) for one in image])
        outlines = hog(crop.mean(0), orientations=8, pixels_per_cell=(8, 8), cells_per_block=(1, 1))
        size = (height, width)
        found.append(
            np.concatenate(
                [
                    centre / size, np.abs(centre / size - 0.5), spread / size, channels.mean(keepdims=True),
                    [channels.max() - channels.min(), deviation, held, inside.mean()],
                    outlines, crop.mean((1, 2)), crop.std((1, 2)),
                ]
            )
        )  # fmt: skip
    length = next((len(one) for one in found if one is not None), 1)
    return np.stack([np.zeros(length) if one is None else one for one in found])


class DistilledCritic:
    """Says of a segment what the answers that it learnt from would say, or that it is undecided.

    Parameters
    ----------
    cases : that were answered
    verdicts : one for each of these, in the same order; what was left undecided teaches nothing
    sure : chance in (0, 1] from which it says so; below, the segment is undecided
    name : of the teacher
    features : measures a case, (J, F); of a network that stays as it is, for instance

    Raises
    ------
    ValueError : cases and verdicts do not belong together; the verdicts are all of one kind; ``sure`` is outside
        (0, 1]
    """

    samples = 1
    concurrency = 1

    def __init__(
        self,
        cases: Sequence[Case],
        verdicts: Sequence[Verdict],
        *,
        sure: float = 0.8,
        name: str = "a critic",
        features: Callable[[Case], np.ndarray] = segment_features,
    ) -> None:
        if [case.case_id for case in cases] != [verdict.case_id for verdict in verdicts]:
            raise ValueError("cases and verdicts must be of the same cases in the same order")
        if not 0 < sure <= 1:
            raise ValueError(f"sure must be above 0 and at most 1, got {sure}")
        rows, kinds = [], []
        for case, verdict in zip(cases, verdicts, strict=True):
            present = set(case.segment_labels.unique().tolist())
            for j, (row, kind) in enumerate(zip(features(case), verdict.kinds, strict=True)):
                if j in present and kind != "undecided":
                    rows.append(row)
                    kinds.append(kind)
        if len(set(kinds)) < 2:
            raise ValueError(
                f"the {len(kinds)} verdicts to learn from are all {kinds[0] if kinds else 'undecided'}; give answers "
                "of two kinds at least"
            )
        self.name = f"distilled from {len(cases)} answers of {name} (sure from {sure:g})"
        self._sure, self._features = sure, features
        self._head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(
            np.stack(rows), kinds
        )

    def criticise(self, case: Case, sample: int = 0) -> Critique:
        """One sentence for each segment, in words that the text judge reads without error."""
        present = set(case.segment_labels.unique().tolist())
        lines = ["Distilled: a linear head on frozen features, not seen by a vision-language model."]
        chances = self.chances(case)
        for j, (name, row) in enumerate(zip(segment_names(case.n_segments), chances, strict=True)):
            kind = KINDS[int(row.argmax())] if row.max() >= self._sure else "undecided"
            lines.append(f"Segment {name} is {kind if j in present else 'background'}.")
        return Critique(case.case_id, self.name, "\n".join(lines), sample)

    def chances(self, case: Case) -> np.ndarray:
        """Chance of each of ``KINDS`` for each segment, (J, 4), rows add up to 1; 0 for kinds it never saw."""
        found = np.zeros((case.n_segments, len(KINDS)))
        known = [KINDS.index(kind) for kind in self._head.classes_]
        found[:, known] = self._head.predict_proba(self._features(case))
        return found

    def decided_by(self, case: Case) -> list[object]:
        """What its answers depend on beside the case: the head that was fitted and the chance asked for."""
        head = self._head[-1]
        return [self._sure, list(map(str, head.classes_)), head.coef_.round(6).tolist()]
