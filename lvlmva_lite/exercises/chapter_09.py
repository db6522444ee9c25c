"""The functions that readers of chapter 9 may write."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2lab
from torch import Generator

from lvlmva_lite.exercises.exercise import Exercise, uniform


def _colours(g: Generator) -> tuple[np.ndarray]:
    return ((uniform(g, 5, 6, 3) ** 3).numpy(),)  # cubed: some so dark that the curve is a line there


EXERCISES: dict[str, Exercise] = {
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
}  # fmt: skip
