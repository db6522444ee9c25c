"""What a check knows of a function that a reader may write, and the inputs that several checks draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class Exercise:
    """One function that a reader may write.

    Attributes
    ----------
    chapter : whose
    arguments : what the function takes, in words
    draw : a generator -> the arguments
    right : the function to be
    slips : the usual wrong ones, and what to say to each
    differentiable : the result must lead back to the weights
    """

    chapter: int
    arguments: str
    draw: Callable[[Generator], tuple]
    right: Callable[..., Any]
    slips: tuple[tuple[str, Callable[..., Any]], ...] = ()
    differentiable: bool = False


def uniform(g: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=g, dtype=torch.float64)


def maps(g: Generator) -> tuple[Tensor, Tensor]:
    return uniform(g, 4, 6, 6) - 0.4, uniform(g, 4, 6, 6) < 0.3


def network(g: Generator) -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(uniform(g, *weights.shape) - 0.5)
    return model, uniform(g, 3, 1, 4, 4)
