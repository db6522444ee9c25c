"""The functions that readers of chapter 9 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from skimage.color import rgb2lab
from torch import Generator, Tensor

from lvlmva_lite.exercises.exercise import Exercise, uniform


def _patched(g: Generator) -> tuple[Tensor, Tensor]:
    return uniform(g, 3, 3, 6, 6), uniform(g, 3, 6, 6) < 0.3


def _greyed(images: Tensor, masks: Tensor) -> Tensor:
    return torch.where(masks[:, None], images.mean(1, keepdim=True), images)


def _in_one_grey(images: Tensor, masks: Tensor) -> Tensor:
    flat = (images.mean(1) * masks).sum((1, 2)) / masks.sum((1, 2))
    return torch.where(masks[:, None], flat[:, None, None, None], images)


def _colours(g: Generator) -> tuple[np.ndarray]:
    return ((uniform(g, 5, 6, 3) ** 3).numpy(),)  # cubed: some so dark that the curve is a line there


def _regions(g: Generator) -> tuple[Tensor, Tensor]:
    return uniform(g, 4, 6, 6) < torch.tensor([0.2, 0.4, 0.6, 0.8])[:, None, None], uniform(
        g, 4, 6, 6
    ) < 0.3


def _overlap(regions: Tensor, truth: Tensor, among: Callable[[Tensor, Tensor], Tensor]) -> float:
    return ((regions & truth).sum((1, 2)) / among(regions, truth)).double().mean().item()


def _union(regions: Tensor, truth: Tensor) -> Tensor:
    return (regions | truth).sum((1, 2)).double()


def _called(g: Generator) -> tuple[Tensor]:
    chances = torch.tensor([[0.1, 0.3], [0.6, 0.9]], dtype=torch.float64)
    return (uniform(g, 40, 2, 2) < chances,)


def _effects(benign: Tensor, other: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Of the patch and of the look; ``other`` says at what of the other one (patch, look) -> (level,)."""
    shares = benign.double().mean(0)
    patch, look = other(shares[1] - shares[0]), other(shares[:, 1] - shares[:, 0])
    return patch.item(), look.item()


def _at_first(change: Tensor) -> Tensor:
    return change[0]


EXERCISES: dict[str, Exercise] = {
    "greyed_patch": Exercise(
        9, "images (n, 3, H, W) and masks (n, H, W) bool", _patched, _greyed,
        (
            ("All of the image is grey: leave what is not masked.", lambda x, m: _greyed(x, torch.ones_like(m))),
            ("The patch is greyed by one grey: take the mean of each pixel's three channels.", _in_one_grey),
            (
                "It is one of the channels: take their mean.",
                lambda x, m: torch.where(m[:, None], x[:, :1], x),
            ),
        ),
    ),
    "to_lab": Exercise(
        9, "colours (..., 3) in 0 to 1, as red, green and blue", _colours, rgb2lab,
        (
            (
                "The display's curve is not undone: do that first.",
                lambda c: rgb2lab(np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)),
            ),
            ("It is in 0 to 255: the formula takes 0 to 1.", lambda c: rgb2lab(c / 255)),
            ("a and b have changed places.", lambda c: rgb2lab(c)[..., [0, 2, 1]]),
        ),
    ),
    "region_overlap": Exercise(
        9, "regions and truth, (n, H, W) bool", _regions, partial(_overlap, among=_union),
        (
            (
                "It divides by the mean size of both (Dice): divide by the union.",
                partial(_overlap, among=lambda r, t: (r.sum((1, 2)) + t.sum((1, 2))) / 2),
            ),
            (
                "It divides by the truth alone, so that a region that is everything would be perfect.",
                partial(_overlap, among=lambda r, t: t.sum((1, 2))),
            ),
            (
                "It is one share of all images together: take each image's, then the mean.",
                lambda r, t: ((r & t).sum() / (r | t).sum()).item(),
            ),
        ),
    ),
    "patch_and_look": Exercise(
        9, "called benign (n, 2, 2) bool, without and with the patch by plain and warm look", _called,
        partial(_effects, other=_at_first),
        (
            (
                "It averages over the other change: ask what each does alone.",
                partial(_effects, other=torch.mean),
            ),
            (
                "It asks what each adds to the other: ask what it does alone.",
                partial(_effects, other=lambda change: change[1]),
            ),
            ("The two are the wrong way round.", lambda b: _effects(b, _at_first)[::-1]),
        ),
    ),
}  # fmt: skip
