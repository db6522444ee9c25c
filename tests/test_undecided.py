"""What is undecided never counts as relevant."""

import pytest
import torch

from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.pipeline import taking_part

NAN = float("nan")
LABELS = torch.tensor([[[0, 1]]])


@pytest.mark.parametrize(
    ("rows", "keep_unjudged", "expected"),
    [
        # spurious found; found beside an undecided one; nothing found; undecided
        ([(1, 0), (1, NAN), (0, 0), (0, NAN)], False, [True, True, False, False]),
        ([(1, 0), (1, NAN), (0, 0), (0, NAN)], True, [True, True, True, False]),
        ([(0, 0), (0, NAN)], False, [True, False]),
        ([(NAN, NAN)], False, [False]),
        ([(NAN, NAN)], True, [False]),
    ],
)
def test_a_sample_left_undecided_is_set_aside(rows, keep_unjudged, expected):
    spurious = torch.tensor(rows, dtype=torch.float32)
    masks = correction_masks(LABELS.expand(len(rows), -1, -1), spurious == 1)
    assert not masks[spurious.isnan()[:, None, :]].any()
    assert taking_part(spurious, masks, keep_unjudged).tolist() == expected
