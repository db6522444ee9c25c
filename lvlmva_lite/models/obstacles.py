"""Where in a network DeepLIFT loses the way, named so that it can be mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

MODULES = {
    "elu": "nn.ELU",
    "leaky_relu": "nn.LeakyReLU",
    "max_pool2d": "nn.MaxPool2d",
    "relu": "nn.ReLU",
    "sigmoid": "nn.Sigmoid",
    "softplus": "nn.Softplus",
    "tanh": "nn.Tanh",
}
"""Function that bends -> the module to call in its place."""

BENDING = MODULES.keys() | {
    "abs", "amax", "clamp", "clamp_min", "exp", "gelu", "hardsigmoid", "hardswish", "hardtanh", "log", "log_softmax",
    "maximum", "minimum", "mish", "native_group_norm", "native_layer_norm", "prelu", "scaled_dot_product", "silu",
    "softmax",
}  # fmt: skip
"""Functions that are not linear in their input, of those that networks use."""


FOLLOWED = frozenset({
    nn.ELU, nn.LeakyReLU, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.ReLU, nn.Sigmoid, nn.Softplus, nn.Tanh,
})  # fmt: skip
"""Types of modules that DeepLIFT has a rule for here: those of captum's, but for the softmax.

Its rule does not add up: it subtracts a mean over the whole batch.
"""


@contextmanager
def running_modules(network: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Name and module of all that are being run, the innermost last; after an error, of those that it left."""
    stack: list[tuple[str, nn.Module]] = []
    handles = []
    for name, module in network.named_modules():

        def enter(module: nn.Module, _: Any, name: str = name) -> None:
            stack.append((name, module))

        def leave(module: nn.Module, *_: Any) -> None:
            stack.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def called(name: str, module: nn.Module) -> str:
    """How messages call a module: its place in the network and its type."""
    return f"{name!r} ({type(module).__name__})" if name else f"the network ({type(module).__name__})"


@torch.no_grad()
def obstacles(network: nn.Module, images: Tensor) -> list[str]:
    """What keeps DeepLIFT from following ``network``: where, and what mends it.

    Watches one pass in eval mode.  What it names is a hint: whether an
    explanation holds is for its completeness to say, and an empty list
    promises nothing.

    Parameters
    ----------
    network : maps (n, C, H, W) to anything
    images : (n, C, H, W), one or two suffice

    Returns
    -------
    list of str, one line each, in the order of the pass
    """
    network.eval()
    found: list[str] = []
    with running_modules(network) as stack, _Watch(stack, found):
        network(images)
    return list(dict.fromkeys(found))


class _Watch(TorchDispatchMode):
    """Appends to ``found`` each call of a bending function outside a module with a rule."""

    def __init__(self, stack: list[tuple[str, nn.Module]], found: list[str]) -> None:
        super().__init__()
        self.stack, self.found = stack, found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = (
            func.overloadpacket.__name__.removesuffix("_with_indices").removesuffix("_kernel").strip("_")
        )
        function = next((name for name in BENDING if operator == name), "")
        if operator.startswith("scaled_dot_product"):
            function = "scaled_dot_product"
        name, module = self.stack[-1] if self.stack else ("", nn.Identity())
        if function and type(module) not in FOLLOWED:
            leaf = type(module).__module__.startswith("torch.nn") and not list(module.children())
            if leaf:
                self.found.append(f"DeepLIFT has no rule for {called(name, module)}")
            elif function in MODULES:
                self.found.append(
                    f"{called(name, module)} calls {function} as a function; use an {MODULES[function]} of its own there"
                )
            else:
                self.found.append(
                    f"DeepLIFT has no rule for the {function} that {called(name, module)} calls"
                )
        return func(*args, **(kwargs or {}))
