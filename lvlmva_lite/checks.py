"""Check your own: a reader's function beside the package's, on drawn inputs, and what differs.

>>> import torch
>>> check("entropy", lambda p: torch.special.entr(p).sum(-1))
entropy: right on 5 drawn inputs.
>>> check("entropy", lambda p: -(p * p.clamp_min(1e-30).log2()).sum(-1))
entropy: not yet. It is in bits: take the natural logarithm. (Values are 1.443 times what is wanted.)
>>> check("entropy", lambda p: ...)
entropy: not written yet. It takes probabilities (n, K).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lvlmva_lite.exercises import EXERCISES, Exercise

TRIALS = 5
"""Drawn inputs of a check."""


@dataclass(frozen=True)
class Checked:
    """What came out of a check; it shows as its message."""

    passed: bool
    message: str

    def __repr__(self) -> str:
        return self.message


def check(name: str, function: Callable[..., Any], random_state: int = 0) -> Checked:
    """Compare a function of one's own with the package's on drawn inputs.

    Parameters
    ----------
    name : of :data:`EXERCISES`, whose ``arguments`` say what the function is given
    function : one's own
    random_state : int, draws the inputs

    Returns
    -------
    Checked
        Its message names the usual slip that explains the difference, if one does; else the shape,
        the factor or the place in which it differs, or the error that the function raised.

    Raises
    ------
    ValueError : there is no such exercise
    """
    if name not in EXERCISES:
        raise ValueError(f"there is no check {name!r}; there are {', '.join(EXERCISES)}")
    exercise = EXERCISES[name]
    generator = torch.Generator().manual_seed(random_state)
    for _ in range(TRIALS):
        given = exercise.draw(generator)
        wrong = _fault(exercise, function, given)
        if wrong is None:
            return Checked(False, f"{name}: not written yet. It takes {exercise.arguments}.")
        if wrong:
            return Checked(False, f"{name}: not yet. {wrong}")
    return Checked(True, f"{name}: right on {TRIALS} drawn inputs.")


def _fault(exercise: Exercise, function: Callable[..., Any], given: tuple) -> str | None:
    """What is wrong; "" where nothing is, None where the function gives nothing back."""
    wanted = exercise.right(*copy.deepcopy(given))
    mine = copy.deepcopy(given)
    try:
        got = function(*mine)
    except Exception as error:
        return f"It takes {exercise.arguments}, and raised {type(error).__name__}: {error}"
    if got is None or got is Ellipsis:
        return None
    difference = _difference(got, wanted)
    if not difference:
        if exercise.differentiable and not getattr(got, "requires_grad", False):
            return "The value is right, but it has no gradient in the weights: pass create_graph=True."
        if _difference(mine, given):
            return "The values are right, but it changes what it is given: work on a copy."
        return ""
    for words, slip in exercise.slips:
        if not _difference(got, slip(*copy.deepcopy(given))):
            return f"{words} ({difference})"
    return difference


def _numbers(value: Any) -> list[np.ndarray]:
    """A value, or each of several, as arrays; modules have none."""
    if isinstance(value, nn.Module):
        return []
    if isinstance(value, tuple | list) and not all(isinstance(one, str | float | int) for one in value):
        return [array for one in value for array in _numbers(one)]
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind == "O":
        raise TypeError(f"{type(value).__name__} holds no numbers")
    return [array if array.dtype.kind in "US" else array.astype(float)]


def _difference(got: Any, wanted: Any) -> str:
    """In what a value differs from the wanted one; "" where it does not."""
    try:
        ours, theirs = _numbers(got), _numbers(wanted)
    except (TypeError, ValueError):
        return f"It gives {type(got).__name__}, which holds no numbers."
    if len(ours) != len(theirs):
        return f"It gives {len(ours)} values, and {len(theirs)} are wanted."
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return f"It gives the shape {a.shape}, and {b.shape} is wanted."
        if b.dtype.kind in "US":
            if (a != b).any():
                return f"It says {a[a != b][0]} where {b[a != b][0]} is right."
            continue
        if a.dtype.kind in "US":
            return "It gives words, and numbers are wanted."
        if (np.isnan(a) & ~np.isnan(b)).any():
            return "It gives nan where there is a value: look at what happens at 0."
        if np.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True):
            continue
        away = np.abs(a - b)
        large = np.abs(b) > 1e-9
        ratio = a[large] / b[large]
        if (
            ratio.size
            and abs(ratio.mean()) > 1e-9
            and np.allclose(ratio, ratio.mean(), rtol=1e-3)
            and not a[~large].any()
        ):
            return f"Values are {ratio.mean():.4g} times what is wanted."
        return f"Values differ by up to {np.nanmax(away):.2g}."
    return ""
