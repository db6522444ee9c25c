"""Step 3 by name: what ``Config.segmenter`` stands for.

A segmenter is a function ``(images (n, C, H, W), attributions (n, H, W), config, *, progress) -> Segments``.
"""

from __future__ import annotations

import math
from functools import partial

import scipy
from torch import Tensor

from lvlmva_lite import superpixels
from lvlmva_lite.config import Config
from lvlmva_lite.registry import SEGMENTERS
from lvlmva_lite.segmentation import Segments, filled, ppeps_wgm


@SEGMENTERS.register("ppeps-wgm")
def gaussian_mixture(
    images: Tensor, attributions: Tensor, config: Config, *, progress: bool = False
) -> Segments:
    """The paper's mixture over positions, or over positions and colours, and what its Gaussians hold."""
    hybrid = {"features": images, "feature_weight": config.feature_weight} if config.feature_weight else {}
    segments = ppeps_wgm(
        attributions, config.n_segments,
        random_state=config.seed, tol=config.tolerance, progress=progress, **hybrid,
    )  # fmt: skip
    if config.fill:
        distance = config.fill
        if hybrid:  # as much of a Gaussian as that ellipse holds in the plane, 1 - exp(-fill / 2)
            distance = float(scipy.stats.chi2.isf(math.exp(-distance / 2), segments.means.shape[2]))
        segments = filled(segments, distance, features=images if hybrid else None)
    return segments


def _superpixels(
    method: str, images: Tensor, attributions: Tensor, config: Config, *, progress: bool = False
) -> Segments:
    return superpixels.superpixels(
        images, attributions, config.n_segments, method=method, progress=progress
    )


for _method in superpixels.METHODS:
    SEGMENTERS.register(_method, partial(_superpixels, _method))


@SEGMENTERS.register("sam")
def segment_anything(
    images: Tensor, attributions: Tensor, config: Config, *, progress: bool = False
) -> Segments:
    """The masks of Segment Anything, whose weights lie in ``config.segmenter_checkpoint``."""
    return superpixels.sam(
        images, attributions, config.n_segments, checkpoint=config.segmenter_checkpoint, progress=progress
    )
