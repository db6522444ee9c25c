"""What to put where a mask is, to ask what an answer would be without what lies there."""

from __future__ import annotations

import torch
from torch import Tensor

from lvlmva_lite.threads import threads

FILLS = ("surroundings", "mean", "noise", "another-image")
"""Variants of :func:`fill`."""

DRAWING = ("noise", "another-image")
"""Those that draw, anew at each call."""

SIGMA = 0.08
"""Of the Gaussian by which surroundings are weighted, as a share of the image's side."""


@threads()
def fill(
    images: Tensor,
    masks: Tensor,
    variant: str = "surroundings",
    *,
    others: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The images with other values under the masks; outside they stay as they are, bit for bit.

    Of an image that is masked all over, the whole image stands in for what lies outside.

    Derived in chapter 6.

    Parameters
    ----------
    images : (n, C, H, W) float
    masks : (n, H, W) bool
    variant : what comes under the masks, channel by channel

        - "surroundings": the mean of the pixels outside, weighted by a Gaussian of their
          distance (normalised convolution; Knutsson and Westin, CVPR 1993), of standard
          deviation ``SIGMA``;
        - "mean": the plain mean of the pixels outside;
        - "noise": for each pixel the colour of one outside, drawn;
        - "another-image": the same place of one of ``others``, drawn
    others : (m, C, H, W), for "another-image" alone; may show there what the mask is to take away
    generator : on the CPU; for the two that draw

    Returns
    -------
    Tensor, as ``images``

    Raises
    ------
    ValueError : unknown ``variant``, masks or others that do not fit the images, or nothing to draw from

    Examples
    --------
    >>> one_row = torch.tensor([[[[1.0, 9.0, 3.0]]]])
    >>> fill(one_row, torch.tensor([[[False, True, False]]]), "mean")
    tensor([[[[1., 2., 3.]]]])
    """
    if variant not in FILLS:
        raise ValueError(f"unknown fill {variant!r}; choose one of: {', '.join(FILLS)}")
    if masks.dtype != torch.bool or masks.shape != images.shape[:1] + images.shape[2:]:
        raise ValueError(
            f"masks must be bool, (n, H, W) = {(len(images), *images.shape[2:])}; "
            f"got {str(masks.dtype).removeprefix('torch.')}, {tuple(masks.shape)}"
        )
    if variant in DRAWING and generator is None:
        raise ValueError(f"the fill {variant!r} draws; give a generator")
    if variant == "another-image":
        values = _others(images, others, generator)
    else:
        outside = ~masks | masks.flatten(1).all(1)[:, None, None]
        values = (
            _drawn(images, outside, generator) if variant == "noise" else _means(images, outside, variant)
        )
    return torch.where(masks[:, None], values.to(images), images)


def _means(images: Tensor, outside: Tensor, variant: str) -> Tensor:
    weight = outside[:, None].double()
    parts = torch.cat([images.double() * weight, weight], 1)
    if variant == "mean":
        parts = parts.mean((2, 3), keepdim=True)
    else:
        # Double precision holds the weight of a pixel at the far end of the image, 1e-68, too.
        rows, columns = (_gaussian(side).to(images.device) for side in images.shape[2:])
        parts = rows @ parts @ columns
    return parts[:, :-1] / parts[:, -1:]


def _gaussian(side: int) -> Tensor:
    places = torch.arange(side, dtype=torch.float64) / side
    return (-0.5 * ((places[:, None] - places) / SIGMA).square()).exp()


def _drawn(images: Tensor, outside: Tensor, generator: torch.Generator) -> Tensor:
    flat, pixels = images.flatten(2), outside.flatten(1).double().cpu()
    where = torch.multinomial(pixels, pixels.shape[1], replacement=True, generator=generator)
    return flat.gather(2, where[:, None].expand_as(flat).to(images.device)).view_as(images)


def _others(images: Tensor, others: Tensor | None, generator: torch.Generator) -> Tensor:
    if others is None or not len(others) or others.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"the fill 'another-image' needs others, (m, C, H, W) = (m, {', '.join(map(str, images.shape[1:]))}); "
            f"got {None if others is None else tuple(others.shape)}"
        )
    return others[torch.randint(len(others), (len(images),), generator=generator)]
