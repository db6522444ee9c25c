"""What the values of a map must add up to, and by how much they miss it."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from lvlmva_lite.models.own import as_classifier, check_network, is_half

FLOOR = 1e-3
"""Share of what was summed below which an image's output difference counts as nearly zero.

Summed are the absolute attributions, and the outputs whose difference is taken.  Measured
rounding is below 7e-7 of the former and 4e-6 of the latter (MLP, residual networks,
EfficientNet-Lite0), and with the default tolerance errors up to 1e-5 pass.
"""


CANCELLED = 0.1
"""Share of the absolute attributions that is scale enough for integrated gradients.

Their steps err in proportion to that sum.  With the default tolerance a two-hundredth of it passes:
a map that is off by so little tells the same.
"""


class CompletenessError(RuntimeError):
    """The explainer does not follow the network: its values do not add up to the difference of the outputs."""


class Question:
    """What is to be explained: a weighted sum of the logits, against their mean over the baselines.

    Attributes
    ----------
    model : in eval mode, single precision at least
    weights : (n, K) float32
    """

    def __init__(
        self, model: nn.Module, targets: Tensor, baselines: Tensor, rivals: Tensor | None, max_rows: int
    ) -> None:
        model = as_classifier(model)
        if is_half(model):
            model = copy.deepcopy(model).float()
        self.model = model.eval()
        if len(baselines) > 1:
            check_network(model, baselines[:2])
        with torch.no_grad():
            self.reference = torch.cat([model(rows) for rows in baselines.split(max_rows)]).mean(0)
        n_classes = len(self.reference)
        for classes in (targets,) if rivals is None else (targets, rivals):
            if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < n_classes:
                raise ValueError(
                    f"the network tells {n_classes} classes apart, so that targets and rivals must be below "
                    f"{n_classes}, got {int(classes.min())} to {int(classes.max())}"
                )
        self.weights = nn.functional.one_hot(targets, n_classes).to(self.reference)
        if rivals is not None:
            self.weights -= nn.functional.one_hot(rivals, n_classes)

    @torch.no_grad()
    def errors(self, images: Tensor, weights: Tensor, maps: Tensor, cancelled: float = 0.0) -> Tensor:
        """Completeness error (n,) of each map (n, H, W), relative to its scale; NaN becomes infinite."""
        logits = self.model(images)
        expected = ((logits - self.reference) * weights).sum(1)
        magnitudes = ((logits.abs() + self.reference.abs()) * weights.abs()).sum(1)
        values = maps.abs().sum((1, 2))
        summed = values + magnitudes
        scale = torch.maximum(expected.abs(), FLOOR * summed).clamp_min(torch.finfo(expected.dtype).tiny)
        scale = torch.maximum(scale, cancelled * values)
        # NaN is an error of its own kind, and no comparison finds it.
        return ((maps.sum((1, 2)) - expected).abs() / scale).nan_to_num(math.inf)


def describe(errors: Tensor, tolerance: float, n_batches: int, batch_size: int) -> str:
    """The worst error of the last batch, its image, and how many are too large."""
    worst = int(errors.argmax())
    return (
        f"{errors[worst]:.2g} of the output difference of image {(n_batches - 1) * batch_size + worst}, and by more "
        f"than {tolerance:g} in {int((errors > tolerance).sum())} of {len(errors)}"
    )
