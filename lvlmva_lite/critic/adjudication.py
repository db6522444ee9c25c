"""Which verdicts a person should look at first, and what they amount to once the person has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lvlmva_lite.critic.text_judge import TextJudge
from lvlmva_lite.critic.types import KINDS, SPURIOUS, UNDECIDED, Critique, Verdict


def certainty(kinds: Tensor, critiques: Sequence[Critique], judge: TextJudge) -> Tensor:
    """How far a critic's own prose bears out what it ruled.

    The chance that the judge, who reads the prose about a segment and not the
    verdict on it, gives to spurious if the segment was called so, else to not
    spurious.  What was left undecided has certainty 0; a verdict without a
    word about its segment 1/2.

    Parameters
    ----------
    kinds : (n, J) int64, codes of ``KINDS``
    critiques : n, in the same order
    judge : who reads

    Returns
    -------
    Tensor, (n, J), float64 in [0, 1]

    Raises
    ------
    ValueError : verdicts and critiques differ in number
    """
    if len(kinds) != len(critiques):
        raise ValueError(f"there are {len(kinds)} rows of verdicts and {len(critiques)} critiques")
    rows = [
        [
            0.5 if not chances else chances.get(KINDS[SPURIOUS], 0.0)
            for chances in judge.chances(one, kinds.shape[1])
        ]
        for one in critiques
    ]
    spurious = torch.tensor(rows, dtype=torch.float64).reshape(kinds.shape)
    sure = torch.where(kinds == SPURIOUS, spurious, 1 - spurious)
    return torch.where(kinds == UNDECIDED, 0.0, sure)


def vote_certainty(verdicts: Sequence[Verdict]) -> Tensor:
    """Of a critic that was asked several times: the share of its answers that agree, (n, J) in [0, 1].

    0 where the vote is undecided.

    Raises
    ------
    ValueError : a verdict on one answer alone, which knows no votes
    """
    for verdict in verdicts:
        if verdict.confidence is None:
            raise ValueError(
                f"the verdict on {verdict.case_id} has no votes: ask for several answers (samples of 2 or more)"
            )
    votes = torch.tensor([verdict.confidence for verdict in verdicts], dtype=torch.float64)
    undecided = torch.tensor([[kind == "undecided" for kind in verdict.kinds] for verdict in verdicts])
    return torch.where(undecided, 0.0, votes)


def queue(certainty: Tensor, present: Tensor) -> Tensor:
    """Segments in the order in which a person should see them, the least certain first.

    Parameters
    ----------
    certainty : (n, J) float
    present : (n, J) bool, segments that hold a pixel; the others never need a person

    Returns
    -------
    Tensor, (m, 2), int64
        case and segment; of equal certainty, in the order of the cases
    """
    places = present.nonzero()
    return places[certainty[present].argsort(stable=True)]


def adjudicated(kinds: Tensor, ruling: Tensor, places: Tensor) -> Tensor:
    """Verdicts (n, J) with those at ``places`` (m, 2) taken from ``ruling`` (n, J)."""
    changed = kinds.clone()
    changed[places[:, 0], places[:, 1]] = ruling[places[:, 0], places[:, 1]]
    return changed
