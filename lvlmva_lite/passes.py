"""A penalty's pass through the network: differentiable twice, and its logits kept for the cross-entropy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lvlmva_lite.models.own import OwnNetwork, as_classifier


class _Hardsigmoid(TorchFunctionMode):
    """``hardsigmoid`` as relu6(x + 3) / 6, for PyTorch's own has no second derivative."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.hardsigmoid:
            return nn.functional.relu6(args[0] + 3) / 6
        return func(*args, **(kwargs or {}))


def twice_differentiable(model: nn.Module, images: Tensor) -> Tensor:
    """The logits, by functions that have a second derivative where PyTorch offers several."""
    model = as_classifier(model)
    if not isinstance(model, OwnNetwork):
        return model(images)
    with sdpa_kernel(SDPBackend.MATH), _Hardsigmoid():
        return model(images)


class KeptLogits:
    """A forward hook that keeps the logits of ``images`` from a penalty's pass, so that they need no second one.

    Attributes
    ----------
    logits : (n, K), with their graph; None as long as no pass began with ``images``
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.logits: Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        n, rows = len(self.images), inputs[0]
        # What torch.func wraps is dead when its transform ends.
        if self.logits is not None or any(map(is_functorch_wrapped_tensor, (rows, output))):
            return
        if rows.shape[1:] == self.images.shape[1:] and _same(rows[:n], self.images):
            self.logits = output[:n] if output.requires_grad else None


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal; at once where both lie in one place."""
    alike = (
        one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()
    )
    return alike or torch.equal(one, other)
