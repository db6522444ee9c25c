"""The functions that readers of chapter 7 may write."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.exercises.exercise import Exercise


def _verdicts(g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randint(-1, 3, (4, 5, 5), generator=g), torch.rand(4, 3, generator=g) < 0.5


EXERCISES: dict[str, Exercise] = {
    "correction_masks": Exercise(
        7, "labels (n, H, W), -1 for no segment, and spurious (n, J) bool", _verdicts, correction_masks,
        (
            ("It masks what is not spurious.", lambda s, r: correction_masks(s, ~r)),
            (
                "A pixel of label -1 lies in no segment; as an index, -1 is the last one.",
                lambda s, r: torch.stack([one[label] for one, label in zip(r, s, strict=True)]),
            ),
        ),
    ),
}  # fmt: skip
