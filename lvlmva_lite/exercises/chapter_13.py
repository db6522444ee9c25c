"""The functions that readers of chapter 13 may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from lvlmva_lite.exercises.exercise import Exercise, maps, uniform
from lvlmva_lite.models.pretrained import Normalise


def _some_masks(g: Generator) -> tuple[Tensor]:
    return ((uniform(g, 12, 6, 6) < 0.3) & (uniform(g, 12) < 0.6)[:, None, None],)


def _area(masks: Tensor) -> tuple[float, float]:
    judged = masks.flatten(1).any(1)
    return judged.double().mean().item(), masks[judged].double().mean().item()


def _probabilities(g: Generator) -> tuple[Tensor, Tensor]:
    broken = uniform(g, 2, 30)
    return tuple(torch.stack([p, 1 - p], 1) for p in broken)


def _moves(marked: Tensor, clean: Tensor) -> float:
    return (marked - clean)[:, 0].abs().mean().item()


def _coloured(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    return uniform(g, 2, 3, 4, 3), uniform(g, 3), 0.2 + uniform(g, 3)


def _held(g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    attributions, _ = maps(g)
    corners = torch.zeros(6, 6, dtype=torch.bool)
    corners[:2, :2] = corners[:2, -2:] = corners[-2:, :2] = corners[-2:, -2:] = True
    judged = torch.tensor([True, False, False, True])[torch.randperm(4, generator=g)]
    return attributions * torch.tensor([1.0, 2, 4, 8])[:, None, None], corners, judged


def _in_corners(
    attributions: Tensor, corners: Tensor, judged: Tensor, size: Callable[[Tensor], Tensor] = torch.relu
) -> float:
    held = size(attributions[~judged])
    return ((held * corners).sum() / held.sum()).item()


def _mean_in_corners(attributions: Tensor, corners: Tensor, judged: Tensor) -> float:
    held = attributions[~judged].clamp_min(0)
    return ((held * corners).sum((1, 2)) / held.sum((1, 2))).mean().item()


def _answers(g: Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(3, (60,), generator=g)
    turned = torch.randperm(3, generator=g)
    wrong = torch.rand(60, generator=g) < 0.2
    return torch.where(wrong, torch.randint(3, (60,), generator=g), turned[labels]), labels


def class_order(predicted: Tensor, labels: Tensor) -> Tensor:
    """The class of each output under which most answers are right, one output to a class.

    Parameters
    ----------
    predicted : (n,) int64, the output that is largest
    labels : (n,) int64, in 0 .. the largest label; as many outputs as classes

    Returns
    -------
    (K,) int64
    """
    k = int(labels.max()) + 1
    counts = torch.bincount(predicted * k + labels, minlength=k * k).view(k, k)
    return torch.from_numpy(linear_sum_assignment(counts.numpy(), maximize=True)[1])


EXERCISES: dict[str, Exercise] = {
    "masked_area": Exercise(
        13, "masks (n, H, W) bool, empty where nothing was judged spurious", _some_masks, _area,
        (
            (
                "The second is a mean over all images: take those that have a mask.",
                lambda m: (_area(m)[0], m.double().mean().item()),
            ),
            ("The second is a number of pixels: take their share of the image.",
             lambda m: (_area(m)[0], _area(m)[1] * m[0].numel())),
            ("The first is the share without a mask.", lambda m: (1 - _area(m)[0], _area(m)[1])),
        ),
    ),
    "sticker_moves": Exercise(
        13, "probabilities (n, 2) with the sticker, and (n, 2) of the same images without it", _probabilities, _moves,
        (
            (
                "Up and down cancel: take absolute values before the mean.",
                lambda m, c: (m - c)[:, 0].mean().item(),
            ),
            (
                "It counts answers that change: an answer may move and stay on its side.",
                lambda m, c: (m.argmax(1) != c.argmax(1)).double().mean().item(),
            ),
            ("It adds up both classes, of which one moves as the other does.", lambda m, c: 2 * _moves(m, c)),
        ),
    ),
    "class_order": Exercise(
        13, "predicted (n,), the largest output of each image, and labels (n,); gives (K,), a permutation", _answers,
        class_order,
        (
            (
                "It is the order the other way round: say of each output which class it is.",
                lambda p, y: class_order(p, y).argsort(),
            ),
            ("It trusts the order that there is.", lambda p, y: torch.arange(int(y.max()) + 1)),
        ),
    ),
    "normalised": Exercise(
        13, "images (n, 3, H, W), mean (3,) and std (3,), one a channel", _coloured,
        lambda x, m, s: Normalise(m.tolist(), s.tolist())(x),
        (
            (
                "Mean and std run along the width: let them run along the channels.",
                lambda x, m, s: (x - m) / s,
            ),
            (
                "It divides first: subtract the mean, then divide.",
                lambda x, m, s: x / s[:, None, None] - m[:, None, None],
            ),
            (
                "It takes mean and std of these images: take those that the network was trained with.",
                lambda x, m, s: (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True),
            ),
        ),
    ),
    "evidence_in_corners": Exercise(
        13, "attributions (n, H, W), corners (H, W) bool and judged (n,) bool", _held, _in_corners,
        (
            ("It counts what speaks against the class: positive attributions alone are evidence.",
             partial(_in_corners, size=torch.abs)),
            ("It takes the images in which something was judged.", lambda a, c, j: _in_corners(a, c, ~j)),
            ("It is the mean of each image's share: take one share of all their evidence.", _mean_in_corners),
        ),
    ),
}  # fmt: skip
