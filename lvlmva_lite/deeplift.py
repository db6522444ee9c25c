"""DeepLIFT's rules: what a step that bends hands back instead of its gradient.

Between an image and a reference the multiplier of y = f(x) is the slope of the secant,
(f(x) - f(r)) / (x - r) (the rescale rule; Shrikumar, Greenside and Kundaje, ICML 2017).  Where
all else is linear it follows from two passes that know nothing of each other, one of the images,
one of the references; pairs of the two occur on the way back alone.  So each image and each
reference goes forward once, and for each reference the images go back once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite.models.obstacles import FOLLOWED

EPSILON = 1e-10
"""Inputs that differ by less count as equal; the secant becomes the tangent (captum's number)."""

_POOLS = {
    nn.MaxPool1d: (1, nn.functional.max_pool1d),
    nn.MaxPool2d: (2, nn.functional.max_pool2d),
    nn.MaxPool3d: (3, nn.functional.max_pool3d),
}


class Multipliers:
    """The multipliers of a network between a batch of images and one reference after the other.

    Parameters
    ----------
    network : maps (n, C, H, W) to logits (n, K), in eval mode
    images : (n, C, H, W) float, whose activations are kept as long as this object is
    weights : (n, K), which sum of an image's logits is explained
    """

    def __init__(self, network: nn.Module, images: Tensor, weights: Tensor) -> None:
        self._images, self._weights = images.detach().requires_grad_(), weights
        self._steps: list[_Step] = []

        def keep(module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
            kind = _Pool if type(module) in _POOLS else _Rescale
            # Copies, for the network may go on in place, on the input or on the output.
            step = kind(module, x.detach().clone(), output.detach())
            self._steps.append(step)
            return _Replaced.apply(x, step)

        with _without_weights(network), _at_each_bend(network, keep), torch.enable_grad():
            self._logits = network(self._images)

    def between(self, reference: list[Tensor]) -> Tensor:
        """The multipliers (n, C, H, W) for one reference, given its part of :func:`activations`, each (1, ...)."""
        for step, r in zip(self._steps, reference, strict=True):
            step.reference = r
        return torch.autograd.grad(self._logits, self._images, self._weights, retain_graph=True)[0]


@torch.no_grad()
def activations(network: nn.Module, references: Tensor) -> list[Tensor]:
    """What goes into each step that bends, in the order of the pass, (b, ...) for ``references`` (b, C, H, W)."""
    found: list[Tensor] = []
    with _at_each_bend(network, lambda _module, x, _output: found.append(x.clone())):
        network(references)
    return found


class _Step:
    """One call of a module that bends: ``x`` and ``y`` (n, ...), of the images, and the input ``reference`` (1, ...)."""

    reference: Tensor

    def __init__(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        self.module, self.x, self.y = module, x, y

    def hand_back(self, gradient: Tensor) -> Tensor:
        """The gradient below the call, of the one above it; each rule has its own."""
        raise NotImplementedError


class _Rescale(_Step):
    """One number in, one out."""

    @cached_property
    def tangent(self) -> Tensor:
        with torch.enable_grad():
            leaf = self.x.detach().requires_grad_()
            return torch.autograd.grad(self._run(leaf).sum(), leaf)[0]

    def _run(self, x: Tensor) -> Tensor:
        return self.module.forward(x.clone() if getattr(self.module, "inplace", False) else x)

    def hand_back(self, gradient: Tensor) -> Tensor:
        change = self.x - self.reference
        slope = (self.y - self._run(self.reference)).div_(change)
        same = change.abs_() < EPSILON
        if same.any():
            slope = torch.where(same, self.tangent, slope)
        return slope.mul_(gradient)


class _Pool(_Step):
    """Max-pooling, windows that overlap included.

    What a window's maximum rises by is credited to where the image has it, what it falls by to
    where the reference has it (captum's rule); there the two inputs differ at least as much.
    """

    def __init__(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        super().__init__(module, x, y)
        self.places = self._pooled(x)[1]

    def _pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pool, (n_dims, function) = self.module, _POOLS[type(self.module)]
        y, places = function(
            x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, True
        )
        return y, places.flatten(-n_dims)

    def hand_back(self, gradient: Tensor) -> Tensor:
        n_dims, _ = _POOLS[type(self.module)]
        y, places = self._pooled(self.reference)
        gradient, rise = gradient.flatten(-n_dims), (self.y - y).flatten(-n_dims)
        credit = torch.zeros_like(self.x, memory_format=torch.contiguous_format)
        flat = credit.view(*self.x.shape[:-n_dims], -1)
        flat.scatter_add_(-1, self.places, gradient * rise.clamp_min(0))
        flat.scatter_add_(-1, places.expand_as(self.places), gradient * rise.clamp_max(0))
        change = self.x - self.reference
        return credit.div_(change).masked_fill_(change.abs_() < EPSILON, 0)


class _Replaced(torch.autograd.Function):
    """The output of a step, which hands back what its rule says."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: _Step) -> Tensor:
        ctx.step = step
        return step.y.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.step.hand_back(gradient), None


@contextmanager
def _at_each_bend(
    network: nn.Module, action: Callable[[nn.Module, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call ``action`` with each module of ``FOLLOWED`` that runs, its input and its output, which it may replace."""
    entered: list[Tensor] = []
    handles = []

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        if len(inputs) != 1:
            raise TypeError(f"{type(module).__name__} takes one tensor, without a name")
        entered.append(inputs[0])
        return (inputs[0].clone(),) if getattr(module, "inplace", False) else None

    def after(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not isinstance(output, Tensor):
            raise TypeError(f"{type(module).__name__} gives a {type(output).__name__}, not one tensor")
        return action(module, entered.pop(), output)

    try:
        for module in network.modules():
            if type(module) in FOLLOWED:
                handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _without_weights(network: nn.Module) -> Iterator[None]:
    """No graph to the weights, which would keep what only their gradients need."""
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
