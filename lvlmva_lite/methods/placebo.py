"""A control: the method's masks in the wrong place, and its verdicts on the wrong image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lvlmva_lite.methods.lvlm_va import LVLMVA
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS
from lvlmva_lite.segmentation import segment_sums
from lvlmva_lite.streams import numpy_stream, stream


@METHODS.register("placebo")
class Placebo(LVLMVA):
    """The same images, the same budget, and masks of the same shape elsewhere."""

    label = "placebo masks"

    def masks(self, prepared: Prepared, kinds: Tensor | None) -> Tensor:
        """Those of the verdicts, moved."""
        return placebo_masks(prepared.masks(kinds), random_state=prepared.config.seed)


def placebo_masks(masks: Tensor, *, random_state: int) -> Tensor:
    """Masks of the same size and shape in the wrong place.

    Aligning with them shows what the penalty does whatever it is put on.
    Each mask is shifted, around the image's edges if need be.  Of all shifts
    those that overlap the original least are taken; of these, those that
    cross no edge, if there are any; of these, one at random.

    Derived in chapter 11.

    Parameters
    ----------
    masks : (n, H, W) bool
    random_state : int, draws the shifts

    Returns
    -------
    Tensor, (n, H, W), bool, each with as many pixels as its original
    """
    rng = numpy_stream(random_state, "placebo masks")
    moved = torch.empty_like(masks)
    for i, mask in enumerate(masks.numpy()):
        # Overlap of the mask with itself for every shift at once: its circular autocorrelation.
        overlap = np.fft.irfft2(np.abs(np.fft.rfft2(mask)) ** 2, mask.shape).round()
        crosses = _crosses_edge(mask.any(1))[:, None] | _crosses_edge(mask.any(0))
        # Overlaps are whole numbers: crossing costs less than one pixel, the draw less than crossing.
        cost = overlap + 0.5 * crosses + rng.uniform(0, 0.5, mask.shape)
        shift = np.unravel_index(cost.argmin(), mask.shape)
        moved[i] = masks[i].roll(tuple(int(s) for s in shift), (0, 1))
    return moved


def shuffle_verdicts(kinds: Tensor, labels: Tensor, *, random_state: int) -> Tensor:
    """Every case gets the verdicts on another case.

    Aligning with them shows what it is worth that verdicts speak of the image
    at hand.  Verdicts change places only between cases in which the same
    segments hold pixels; a case that has no match keeps its own.

    Parameters
    ----------
    kinds : (n, J), the verdicts
    labels : (n, H, W) int64, segment of each pixel, -1 for none
    random_state : int, draws who gets whose

    Returns
    -------
    Tensor, (n, J), dtype of ``kinds``
    """
    generator = stream(random_state, "shuffled verdicts")
    present = segment_sums(labels, kinds.shape[1]) > 0
    patterns = present.unique(dim=0, return_inverse=True)[1]
    shuffled = kinds.clone()
    for pattern in patterns.unique():
        cases = (patterns == pattern).nonzero()[:, 0]
        cases = cases[torch.randperm(len(cases), generator=generator)]
        # Each from its neighbour in a random ring, so that none of two or more gets its own.
        shuffled[cases] = kinds[cases.roll(1)]
    return shuffled


def _crosses_edge(line: np.ndarray) -> np.ndarray:
    """For each cyclic shift of ``line`` (L,) bool: would its span from first to last True cross an end?"""
    where = line.nonzero()[0]
    if not len(where):
        return np.zeros(len(line), bool)
    shifts = np.arange(len(line))
    return (where[-1] + shifts >= len(line)) & (where[0] + shifts < len(line))
