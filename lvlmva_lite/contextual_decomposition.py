"""What the masked pixels contribute to the logits, and the penalty on it: CDEP.

Rieger, Singh, Murdoch and Yu, "Interpretations are useful: penalizing explanations to align neural
networks with prior knowledge", ICML 2020.  Where RRR penalises a slope, this penalises a contribution.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.nn import functional

from lvlmva_lite.models import NetworkError, OwnNetwork
from lvlmva_lite.models.pretrained import Normalise, ReLU6
from lvlmva_lite.registry import PENALTIES
from lvlmva_lite.threads import threads

_AFFINE: set[Any] = {
    nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity, nn.Dropout,
    nn.Dropout2d, Normalise, operator.add, operator.sub, operator.getitem, torch.add, torch.cat, torch.flatten,
    torch.mean, functional.avg_pool2d, functional.adaptive_avg_pool2d, functional.dropout,
    "contiguous", "expand", "flatten", "mean", "reshape", "squeeze", "to", "view",
}  # fmt: skip
"""Modules, functions and methods of tensors that are affine in all that they are given."""
_PRODUCTS: set[Any] = {operator.mul, operator.truediv, torch.mul, torch.div}
"""Affine in the first thing that they are given, if the second is a constant."""
_ACTIVATIONS: set[Any] = {
    nn.ELU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Tanh, ReLU6, torch.relu, torch.tanh,
    functional.gelu, functional.leaky_relu, functional.relu, functional.relu6, functional.silu, "relu", "tanh",
}  # fmt: skip
"""Those that take each value by itself, and 0 to 0."""
_MAXIMA: set[Any] = {
    nn.MaxPool2d,
    functional.max_pool2d,
    functional.max_pool2d_with_indices,
    torch.max_pool2d,
}
_SHAPES = ("dim", "size")
_GRAPHS: WeakKeyDictionary[nn.Module, fx.Graph] = WeakKeyDictionary()
_MEND = "choose the penalty 'finite-difference', which needs no rules, or another network"


@PENALTIES.register("cdep")
@threads()
def cdep_penalty(
    model: nn.Module, images: Tensor, masks: Tensor, *, origin: Tensor | None = None, reduction: str = "sum"
) -> Tensor:
    """``sum_n sum_k |beta_nk|``, beta what the masked pixels contribute to logit k, differentiable in the weights.

    Rieger et al. (2020) with 0 as the contribution that is wanted.  (Their
    code bounds it by a softmax of beta and gamma.)  A first derivative is
    enough.  Its unit is the logits', not a slope's: give it a weight in nats,
    with ``penalty_scale`` "initial".

    Parameters
    ----------
    model, images, masks, origin : as for :func:`contextual_decomposition`
    reduction : "sum", or "mean" over the masks' entries (n H W), as every penalty has it
    """
    inside, _ = contextual_decomposition(model, images, masks, origin=origin)
    total = inside.abs().sum()
    return total if reduction == "sum" else total / masks.numel()


@threads()
def contextual_decomposition(
    model: nn.Module, images: Tensor, masks: Tensor, *, origin: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The logits in two parts: what comes of the masked pixels (beta) and the rest (gamma).

    Murdoch, Liu and Yu, ICLR 2018; for images Singh, Murdoch and Yu, ICLR
    2019.  The image is split into what lies inside and outside of the mask,
    and each layer takes both parts on: an affine one maps each, and its bias
    goes to both in proportion to their sizes (where both are 0, to gamma); of an activation that takes
    0 to 0, beta is that of beta alone, gamma the rest; a maximum is taken where the sum has it.

    Parameters
    ----------
    model : in eval mode; its layers have rules, and ``torch.fx`` can follow its code
    images : (n, C, H, W) float; a pixel at its origin contributes nothing
    masks : (n, H, W) bool
    origin : (n, C, H, W), what a masked pixel is counted from; None: 0, as in the papers, so that the
        masked part is cut out and put on black

    Returns
    -------
    beta, gamma : (n, K) each, which add up to ``model(images)``; beta is 0 where a mask is empty

    Raises
    ------
    NetworkError : a layer has no rule, or the code of the network asks for values
    """
    device = next(model.parameters()).device
    images, inside = images.to(device), masks[:, None].to(device)
    masked = (images if origin is None else images - origin.to(device)) * inside
    parts = _Parts(masked, images - masked)
    if isinstance(model, OwnNetwork):
        outputs = _run(model.network, _affine(model.as_input, (parts,), {}))
        if isinstance(outputs, Mapping):
            outputs = outputs["logits"]
        parts = _affine(model.as_output, (outputs, images), {})
    else:
        parts = _run(model, parts)
    return parts.beta.to(masks.device), parts.gamma.to(masks.device)


def check_followed(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Raise NetworkError where :func:`contextual_decomposition` would, before any long work."""
    _, height, width = image_shape
    with torch.no_grad():
        contextual_decomposition(
            model.eval(), torch.zeros(1, *image_shape), torch.ones(1, height, width, dtype=torch.bool)
        )


@dataclass(frozen=True, eq=False)
class _Parts:
    beta: Tensor
    gamma: Tensor


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (Normalise, ReLU6)) or super().is_leaf_module(m, module_qualified_name)


def _run(network: nn.Module, parts: _Parts) -> Any:
    if network not in _GRAPHS:
        try:
            _GRAPHS[network] = _Tracer().trace(network)
        except Exception as error:  # whatever a network's own code raises when it is shown no values
            why = str(error).partition("\n")[0]
            raise NetworkError(
                f"the penalty cdep follows a network's layers, and cannot follow {type(network).__name__} "
                f"({why}); {_MEND}"
            ) from error
    return _Decomposition(network, graph=_GRAPHS[network]).run(parts)


class _Decomposition(fx.Interpreter):
    """Runs a network on both parts at once."""

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self.fetch_attr(target)
        return _apply(type(layer), layer, args, kwargs)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is getattr:
            return getattr(args[0].beta if isinstance(args[0], _Parts) else args[0], args[1])
        # In place, parts would change under the hands of those who still hold them.
        function = operator.add if target is operator.iadd else target
        return _apply(function, function, args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _SHAPES:
            return getattr(args[0].beta, target)(*args[1:], **kwargs)
        return _apply(target, partial(_method, target), args, kwargs)


def _method(name: str, of: Tensor, *args: Any, **kwargs: Any) -> Any:
    return getattr(of, name)(*args, **kwargs)


def _apply(kind: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Both parts behind a step, which add up to what it makes of their sum."""
    decomposed = [isinstance(one, _Parts) for one in (*args, *kwargs.values())]
    if not any(decomposed) and kind is not torch.cat:
        return function(*args, **kwargs)
    if kind in _AFFINE or (kind in _PRODUCTS and decomposed[0] and sum(decomposed) == 1):
        return _affine(function, args, kwargs)
    if kind in _ACTIVATIONS:
        # Copies, for some work in place.
        whole = _at(lambda one: one.beta + one.gamma, function, args, kwargs)
        beta = _at(lambda one: one.beta.clone(), function, args, kwargs)
        return _Parts(beta, whole - beta)
    if kind in _MAXIMA:
        return _maxima(function, args, kwargs)
    name = kind if isinstance(kind, str) else kind.__name__
    raise NetworkError(f"the penalty cdep has no rule for {name}, which the network has; {_MEND}")


def _at(value: Callable[[_Parts], Tensor], function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    def put(one: Any) -> Any:
        return value(one) if isinstance(one, _Parts) else one

    return function(*map_aggregate(args, put), **map_aggregate(kwargs, put))


def _affine(function: Callable[..., Any], args: Any, kwargs: Any) -> _Parts:
    whole = _at(lambda one: one.beta + one.gamma, function, args, kwargs)
    first = _at(lambda one: one.beta, function, args, kwargs)
    # A layer's is that of any image; what is told a shape is told that of all.
    n = 1 if isinstance(function, nn.Module) else None
    bias = _at(lambda one: torch.zeros_like(one.beta[:n]), function, args, kwargs)
    inside, outside = (first - bias).abs(), (whole - first).abs()
    beta = first - bias + bias * inside / (inside + outside).clamp_min(1e-12)
    return _Parts(beta, whole - beta)


def _maxima(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Parts:
    parts, *rest = args
    if isinstance(function, nn.MaxPool2d):
        how = {
            name: getattr(function, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        }
    else:
        how = (
            dict(zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), rest, strict=False))
            | kwargs
        )
        how = {name: value for name, value in how.items() if name != "return_indices"}
    _, where = functional.max_pool2d(parts.beta + parts.gamma, **how, return_indices=True)
    beta, gamma = (
        part.flatten(2).gather(2, where.flatten(2)).view_as(where) for part in (parts.beta, parts.gamma)
    )
    return _Parts(beta, gamma)
