"""What is undecided never counts as relevant."""

import pytest
import torch

from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.critic import Verdict
from lvlmva_lite.pipeline import taking_part, verdict_matrix

LABELS = torch.tensor([[[0, 1]]])


@pytest.mark.parametrize(
    ("rows", "keep_unjudged", "expected"),
    [
        # spurious found; found beside an undecided one; nothing found; undecided
        ([(1, 2), (1, 3), (2, 2), (2, 3)], True, [True, True, True, False]),
        ([(1, 0), (1, 3), (0, 0), (0, 3)], False, [True, True, False, False]),
        ([(1, 0), (1, 3), (0, 0), (0, 3)], True, [True, True, True, False]),
        ([(0, 0), (0, 3)], False, [True, False]),
        ([(3, 3)], False, [False]),
        ([(3, 3)], True, [False]),
    ],
)
def test_a_sample_left_undecided_is_set_aside(rows, keep_unjudged, expected):
    kinds = torch.tensor(rows)
    masks = correction_masks(LABELS.expand(len(rows), -1, -1), kinds == 1)
    assert not masks[(kinds == 3)[:, None, :]].any()
    assert taking_part(kinds, masks, keep_unjudged).tolist() == expected


def test_nobody_is_undecided_about_a_segment_that_has_no_pixel():
    verdicts = [Verdict("case", "judge", ("spurious", "undecided", "undecided"))]
    assert verdict_matrix(verdicts).tolist() == [[1, 3, 3]]
    kinds = verdict_matrix(verdicts, LABELS)  # the third segment is empty
    assert kinds.tolist() == [[1, 3, 2]]
    seen = verdict_matrix([Verdict("case", "judge", ("relevant", "relevant", "undecided"))], LABELS)
    masks = correction_masks(LABELS, seen == 1)
    assert taking_part(seen, masks, keep_unjudged=True).tolist() == [True]
