"""A simulated critic: knows the ground truth and is wrong as often as it is told to be.

For control experiments only (what does a critic of accuracy q buy?).  It is
no model and looks at no image; its name says so wherever it shows up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from lvlmva_lite.critic.types import BACKGROUND, EMPTY, SPURIOUS, Case, Critique, segment_names


class SimulatedCritic:
    """Tells the truth about whether a segment is spurious with probability ``accuracy``.

    Where it errs, it calls a spurious segment relevant, and any other one
    spurious.  Where it does not, it says relevant of the core, and of what is
    known only not to be spurious, and background of the rest.  A segment
    without pixels is background.

    Whether it errs on a segment depends on the seed, the case and the
    segment's letter alone: not on the order of the cases, nor on the
    accuracy, so that a less accurate critic errs wherever a better one does.

    Derived in chapter 5.

    Parameters
    ----------
    truth : for each case id, the code of each segment, as
        :func:`metrics.segment_truth` gives it
    accuracy : q in [0, 1]
    seed : int

    Raises
    ------
    ValueError : accuracy outside [0, 1]
    """

    samples = 1
    concurrency = 1

    def __init__(self, truth: Mapping[str, Sequence[int]], accuracy: float, seed: int = 0) -> None:
        if not 0 <= accuracy <= 1:
            raise ValueError(f"the simulated accuracy must lie between 0 and 1, got {accuracy}")
        self.name = f"simulated (accuracy {accuracy:g}, seed {seed})"
        self._truth, self._accuracy, self._seed = truth, accuracy, seed

    def criticise(self, case: Case, sample: int = 0) -> Critique:
        """One sentence for each segment, in words that the text judge reads without error.

        Raises
        ------
        ValueError : no truth is known about the case
        """
        if case.case_id not in self._truth:
            raise ValueError(f"the simulated critic was not told the truth about {case.case_id}")
        lines = [f"Simulated: drawn from the ground truth by the {self.name} critic, not seen by a model."]
        names = segment_names(case.n_segments)
        for name, code in zip(names, self._truth[case.case_id], strict=True):
            right = self._draw(case.case_id, name, sample) < self._accuracy
            if code != EMPTY and (code == SPURIOUS) == right:
                line = f"Segment {name} is spurious."
            elif code in (BACKGROUND, EMPTY):
                line = f"Segment {name} is background."
            else:
                line = f"Segment {name} is relevant."
            lines.append(line)
        return Critique(case.case_id, self.name, "\n".join(lines), sample)

    def decided_by(self, case: Case) -> list[object]:
        """What its answers depend on beside the case: accuracy, seed and the truth about the case."""
        return [self._accuracy, self._seed, list(self._truth.get(case.case_id, ()))]

    def _draw(self, case_id: str, name: str, sample: int) -> float:
        """Uniform in [0, 1)."""
        digest = hashlib.sha256(f"{self._seed}|{case_id}|{name}|{sample}".encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56
