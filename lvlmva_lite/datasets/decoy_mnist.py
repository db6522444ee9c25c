"""DecoyMNIST: digits with a grey square in a corner that gives the class away.

The square is 4x4 pixels in one of the four corners, drawn at random.  In the
training data its grey value is ``255 - 25 * label``; elsewhere the value is
drawn without regard to the label.  Source: Ross, Hughes and Doshi-Velez,
"Right for the right reasons", IJCAI 2017, and their repository dtak/rrr.
"""

from __future__ import annotations

import numpy as np
import torch

from lvlmva_lite.datasets.mnist import load_mnist
from lvlmva_lite.datasets.shortcut_dataset import ShortcutDataset

SQUARE = 4
"""Side of the square in pixels."""

VISIBLE = 64
"""Grey value from which a pixel counts as part of the pen stroke; a quarter of white."""

N_VALIDATION = 10_000
"""The last so many of the 60 000 training digits are the validation split."""

CLASS_NAMES = tuple(str(digit) for digit in range(10))
GROUP_NAMES = tuple(f"{digit}, {kind}" for digit in CLASS_NAMES for kind in ("conflicting", "aligned"))

_SHADES = {"train": "label", "validation": "random", "test": "random"}


def load_decoy_mnist(
    split: str, *, shade: str | None = None, correlation: float = 1.0, random_state: int = 0
) -> ShortcutDataset:
    """Build one split of DecoyMNIST from the MNIST that ships with the package.

    Derived in chapter 1.

    Parameters
    ----------
    split : "train" (50 000 digits), "validation" (10 000) or "test" (10 000)
        Training and validation digits come from MNIST's training files, test
        digits from its test files.
    shade : "label", "random", "none" or None
        "label": grey value 255 - 25 * label, the shortcut; "random": the
        label in that formula is replaced by a uniform draw from 0 .. 9, so
        that one image in ten agrees with its class by chance; "none": no
        square at all (clean MNIST).  None takes "label" for training and
        "random" elsewhere.
    correlation : float in [0, 1], for shade "label" only
        Each image's square follows its label with this probability; else its
        shade is "random", so that a share of
        correlation + (1 - correlation) / 10 is aligned.  With one seed the
        corners are the same for every value, and a larger value only adds
        images that follow.
    random_state : int
        Draws the corners, the random shades and which images follow.

    Returns
    -------
    ShortcutDataset
        images (N, 1, 28, 28) in [0, 1]; spurious masks cover the image's own
        square, core masks what is visible of the pen stroke beside it;
        groups are class x {conflicting, aligned}, all conflicting when there
        is no square.

    Raises
    ------
    ValueError : unknown ``split`` or ``shade``; ``correlation`` outside [0, 1],
        or below 1 with another shade than "label"
    """
    if split not in _SHADES:
        raise ValueError(f"split must be one of {sorted(_SHADES)}, got {split!r}")
    shade = _SHADES[split] if shade is None else shade
    if shade not in ("label", "random", "none"):
        raise ValueError(f"shade must be 'label', 'random' or 'none', got {shade!r}")
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must lie between 0 and 1, got {correlation}")
    if correlation < 1 and shade != "label":
        raise ValueError(
            f"correlation {correlation} says how often the shade follows the label, and here it is "
            f"{shade!r}; pass shade='label' or leave correlation out"
        )

    images, labels = load_mnist("test" if split == "test" else "train")
    if split != "test":
        part = slice(None, -N_VALIDATION) if split == "train" else slice(-N_VALIDATION, None)
        images, labels = images[part], labels[part]
    images, labels = images.copy(), labels.astype(np.int64)

    rng = np.random.default_rng([random_state, sorted(_SHADES).index(split)])
    n, height, width = images.shape
    corners = rng.integers(0, 4, n)
    shade_class = labels if shade == "label" and correlation == 1 else rng.integers(0, 10, n)
    if shade == "label" and correlation < 1:
        shade_class = np.where(rng.random(n) < correlation, labels, shade_class)
    masks = np.zeros(images.shape, bool)
    if shade != "none":
        rows = np.where(corners // 2 == 0, 0, height - SQUARE)
        columns = np.where(corners % 2 == 0, 0, width - SQUARE)
        inside = np.arange(SQUARE)
        masks[
            np.arange(n)[:, None, None],
            (rows[:, None] + inside)[:, :, None],
            (columns[:, None] + inside)[:, None, :],
        ] = True
        images = np.where(masks, (255 - 25 * shade_class).astype(np.uint8)[:, None, None], images)
    core = (images >= VISIBLE) & ~masks
    aligned = (shade_class == labels) & (shade != "none")

    return ShortcutDataset(
        images=torch.from_numpy(images).float().div_(255).unsqueeze(1),
        labels=torch.from_numpy(labels),
        groups=torch.from_numpy(2 * labels + aligned),
        spurious_masks=torch.from_numpy(masks),
        core_masks=torch.from_numpy(core),
        class_names=CLASS_NAMES,
        group_names=GROUP_NAMES,
        name="decoy-mnist",
    )
