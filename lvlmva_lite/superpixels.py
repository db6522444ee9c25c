"""Step 3, otherwise: segments that follow the image instead of the attribution.

Superpixels (Felzenszwalb and Huttenlocher 2004; SLIC, Achanta et al. 2012) and
the masks of Segment Anything (Kirillov et al. 2023) cut an *image* into
regions.  The regions that hold the most positive effect become the segments,
so that either can stand in the place of the mixture of
:mod:`lvlmva_lite.segmentation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from torch import Tensor
from tqdm import tqdm

from lvlmva_lite.segmentation import Segments, positive_effect
from lvlmva_lite.threads import threads

METHODS = ("felzenszwalb", "slic")

SAM_WEIGHTS = "https://github.com/facebookresearch/segment-anything#model-checkpoints"


class SamError(RuntimeError):
    """Segment Anything cannot be had; the message says what is missing and how to get it."""


@threads()
def superpixels(
    images: Tensor,
    attributions: Tensor,
    n_segments: int,
    *,
    method: str = "felzenszwalb",
    options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Segments:
    """Cut each image into superpixels and keep the J with the most positive effect.

    A segment is the whole superpixel, also where the effect is not positive:
    it is a region of the image, and so is the mask that a verdict on it gives.

    Derived in chapter 4.

    Parameters
    ----------
    images : (n, C, H, W) float in [0, 1], grey-scale or RGB
    attributions : (n, H, W) float tensor or array
    n_segments : J >= 1, segments to keep; the image has more superpixels than that
    method : "felzenszwalb" or "slic", of scikit-image
    options : arguments for scikit-image's function, over these defaults:
        felzenszwalb: scale 50, sigma 0.5, min_size 1/200 of the image;
        slic: n_segments 50, compactness 0.1 (grey) or 10 (RGB)
    progress : show a progress bar

    Returns
    -------
    Segments
        labels: -1 outside the J superpixels kept.  shares: of the positive
        effect, largest first; they sum to less than 1 where superpixels that
        were not kept hold some.  means and covariances: of the positive effect
        within each segment, the covariance widened by a pixel's, as in the
        mixture.  log_likelihood and entropy: nan, for no density was fitted.

    Raises
    ------
    ValueError : wrong shape, ``n_segments`` < 1, unknown method, NaN or infinite values
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    pictures, mass = _checked(images, attributions, n_segments)
    n_channels, height, width = images.shape[1:]
    if method == "felzenszwalb":
        cut = skimage.segmentation.felzenszwalb
        settings = {"scale": 50, "sigma": 0.5, "min_size": max(height * width // 200, 1)}
    else:
        cut = skimage.segmentation.slic
        settings = {"n_segments": 50, "compactness": 10 if n_channels == 3 else 0.1, "start_label": 0}
    settings |= options or {}
    regions = [
        np.asarray(cut(picture, channel_axis=-1, **settings), dtype=np.int64)
        for picture in tqdm(pictures, desc="superpixels", unit="image", disable=not progress)
    ]
    return segments_of_regions(torch.from_numpy(np.stack(regions)), mass, n_segments)


@threads()
def sam(
    images: Tensor,
    attributions: Tensor,
    n_segments: int,
    *,
    checkpoint: str | Path,
    model_type: str = "vit_b",
    device: str = "cpu",
    progress: bool = False,
) -> Segments:
    """Like :func:`superpixels`, with the masks of Segment Anything as regions.

    Its masks may overlap: a pixel belongs to the smallest mask that covers it,
    and to no segment if none does.

    Parameters
    ----------
    images, attributions, n_segments, progress : as in :func:`superpixels`
    checkpoint : file with the weights
    model_type : "vit_b", "vit_l" or "vit_h", whichever the weights are for
    device : where torch runs it

    Returns
    -------
    Segments, as from :func:`superpixels`

    Raises
    ------
    SamError : the package or the checkpoint is missing; before any work
    ValueError : as :func:`superpixels`
    """
    pictures, mass = _checked(images, attributions, n_segments)
    try:
        import segment_anything
    except ModuleNotFoundError as error:
        raise SamError(
            "Segment Anything needs the package 'segment_anything': "
            "pip install git+https://github.com/facebookresearch/segment-anything"
        ) from error
    if not Path(checkpoint).is_file():
        raise SamError(
            f"there is no checkpoint of Segment Anything at {checkpoint}: download the weights "
            f"for {model_type!r} from {SAM_WEIGHTS} and give their path"
        )
    if model_type not in segment_anything.sam_model_registry:
        known = ", ".join(segment_anything.sam_model_registry)
        raise ValueError(f"model_type must be one of {known}; got {model_type!r}")
    model = segment_anything.sam_model_registry[model_type](checkpoint=str(checkpoint)).to(device)
    generator = segment_anything.SamAutomaticMaskGenerator(model)
    regions = torch.full(mass.shape, -1)
    for region, picture in zip(
        regions, tqdm(pictures, desc="Segment Anything", unit="image", disable=not progress), strict=True
    ):
        rgb = np.broadcast_to((picture * 255).round().astype(np.uint8), (*picture.shape[:2], 3))
        masks = [found["segmentation"] for found in generator.generate(np.ascontiguousarray(rgb))]
        for number, mask in enumerate(sorted(masks, key=np.sum, reverse=True)):
            region[torch.from_numpy(mask)] = number
    return segments_of_regions(regions, mass, n_segments)


def _checked(images: Tensor, attributions: Tensor, n_segments: int) -> tuple[np.ndarray, Tensor]:
    """Images as (n, H, W, C) float64 and the positive effect (n, H, W)."""
    if n_segments < 1:
        raise ValueError(f"n_segments must be at least 1, got {n_segments}")
    mass = positive_effect(attributions)
    images = torch.as_tensor(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or (len(images), *images.shape[2:]) != mass.shape:
        raise ValueError(
            f"images must be (n, C, H, W) with C 1 or 3 and fit the attributions {tuple(mass.shape)}, "
            f"got shape {tuple(images.shape)}"
        )
    if not ((images >= 0) & (images <= 1)).all():
        raise ValueError("images must lie in [0, 1]; scale them first")
    return images.detach().cpu().permute(0, 2, 3, 1).double().numpy(), mass


def segments_of_regions(regions: Tensor, mass: Tensor, n_segments: int) -> Segments:
    """The J regions of each image with the most mass, as segments.

    Parameters
    ----------
    regions : (n, H, W) int64, number of each pixel's region, -1 for none
    mass : (n, H, W) float64, from :func:`segmentation.positive_effect`
    n_segments : J >= 1
    """
    n, height, width = mass.shape
    regions, mass = regions.flatten(1), mass.flatten(1)
    # Column 0 takes what lies in no region.
    n_regions = max(int(regions.max()) + 1, n_segments) if len(regions) else n_segments
    held = torch.zeros(n, n_regions + 1, dtype=torch.float64).scatter_add_(1, regions + 1, mass)[:, 1:]
    order = held.argsort(dim=1, descending=True, stable=True)
    shares = held.gather(1, order)[:, :n_segments]
    # A region without effect is no segment.
    number = torch.where(shares > 0, torch.arange(n_segments), -1)
    rank = torch.full((n, n_regions + 1), -1)
    rank.scatter_(1, order[:, :n_segments] + 1, number)
    labels = rank.gather(1, regions + 1)

    rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    columns = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    positions = torch.cartesian_prod(rows, columns)
    products = (positions[:, :, None] * positions[:, None]).flatten(1)
    pixel = torch.diag(torch.tensor([height**-2.0, width**-2.0], dtype=torch.float64)) / 12
    means = torch.full((n, n_segments, 2), 0.5, dtype=torch.float64)
    covariances = pixel.repeat(n, n_segments, 1, 1)
    for j in range(n_segments):
        some = shares[:, j] > 0
        weights = torch.where(labels == j, mass, 0.0)[some] / shares[some, j, None]
        mean = weights @ positions
        means[some, j] = mean
        covariances[some, j] += (weights @ products).view(-1, 2, 2) - mean[:, :, None] * mean[:, None]
    unknown = torch.full((n,), torch.nan, dtype=torch.float64)
    return Segments(labels.view(n, height, width), shares, means, covariances, unknown, unknown.clone())
