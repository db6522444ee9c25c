"""What goes into a critic, what comes out, and what a judge makes of it."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

KINDS = ("relevant", "spurious", "background", "undecided")
"""What a segment can be judged to be; a kind's code is its place here.

relevant: what the network goes by there shows the class; spurious: it is a
thing that the expert dismisses or that does not belong to the scene;
background: bare surroundings, neither of the two; undecided: the critique
does not settle it.
"""

RELEVANT, SPURIOUS, BACKGROUND, UNDECIDED = range(len(KINDS))
"""Codes of the kinds."""

EMPTY = -1
"""Code of a segment without pixels, in the truth."""


def segment_names(n_segments: int) -> tuple[str, ...]:
    """How words refer to segments 0, 1, ...: "A", "B", ... "Z", "AA", "AB", ..."""
    names = list(string.ascii_uppercase[:n_segments])
    while len(names) < n_segments:
        first, second = divmod(len(names) - 26, 26)
        names.append(string.ascii_uppercase[first] + string.ascii_uppercase[second])
    return tuple(names)


@dataclass(frozen=True)
class Case:
    """One image put before the critic: exactly what a vision-language model would see.

    The ground-truth mask is not among the fields, on purpose.

    Attributes
    ----------
    case_id : str, unique within a run
    image : Tensor, (C, H, W), float32 in [0, 1]
    segment_labels : Tensor, (H, W), int64, -1 for none
    n_segments : int
    class_name : str, the true class
    description : str, the expert's words about the class
    evidence : Tensor, (H, W), float32 >= 0, the positive effect of each pixel, as segmented
    """

    case_id: str
    image: Tensor
    segment_labels: Tensor
    n_segments: int
    class_name: str
    description: str
    evidence: Tensor


@dataclass(frozen=True)
class Critique:
    """A critic's free text about the segments of one case.

    Attributes
    ----------
    case_id : str
    critic : str
    text : str, empty if the critic gave no answer
    sample : int, number of this answer where a critic was asked several times
    asked_about : letters of the segments it was asked about; empty: all
    question : fingerprint of what it answered, from :func:`batch.question_of`;
        empty: not known
    reason : why the critic gave no usable answer, its kind first ("refused: ...",
        "empty: ...", "failed: ..."); empty if it gave one
    """

    case_id: str
    critic: str
    text: str
    sample: int = 0
    asked_about: tuple[str, ...] = ()
    question: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """A judge's reading of one critique.

    Attributes
    ----------
    case_id : str
    judge : str
    kinds : tuple of str, of ``KINDS``, one for each segment
    confidence : tuple of float in [0, 1], one for each segment, or None
        Where the critic was asked several times: the share of its answers
        that agree.
    reason : why there is no ruling, as in :class:`Critique`; empty if there is one

    Raises
    ------
    ValueError : a kind that there is not
    """

    case_id: str
    judge: str
    kinds: tuple[str, ...]
    confidence: tuple[float, ...] | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"a verdict is one of {', '.join(KINDS)}; got {unknown[0]!r}")


class Critic(Protocol):
    """Step 4a, model g: looks at a case and argues in words.

    Attributes
    ----------
    name : str
    samples : int, how many answers to ask for on each case
    concurrency : int, how many may be asked for at a time

    A critic whose answers depend on more than its name and the case may have
    a method ``decided_by(case)`` that gives the rest as plain values: a
    recorded critique is taken over only where they are the same.
    """

    name: str
    samples: int
    concurrency: int

    def criticise(self, case: Case, sample: int = 0) -> Critique: ...


class Judge(Protocol):
    """Step 4b, model h: reads a critique, and nothing else, and rules on each segment."""

    name: str
    concurrency: int

    def judge(self, critique: Critique, n_segments: int) -> Verdict: ...
