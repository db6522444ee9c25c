"""CDEP: what the masked pixels contribute to the logits is penalised, not a slope."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lvlmva_lite.config import ConfigError
from lvlmva_lite.methods.method import Fitted
from lvlmva_lite.methods.rrr import RRR
from lvlmva_lite.models import Classifier
from lvlmva_lite.models.networks import Residual
from lvlmva_lite.models.pretrained import Normalise, ReLU6
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.registry import METHODS
from lvlmva_lite.threads import threads

_AFFINE = (
    nn.Linear, nn.Conv2d, nn.BatchNorm2d, Normalise, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity,
)  # fmt: skip
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, ReLU6)


@METHODS.register("cdep")
class CDEP(RRR):
    """RRR's masks and steps, another penalty: see :func:`cdep_penalty`."""

    label = "CDEP, true masks"

    def fit(
        self,
        prepared: Prepared,
        kinds: Tensor | None = None,
        *,
        progress: bool = False,
        strength: float = 1.0,
    ) -> Fitted:
        """``strength`` is lambda in nats: what the penalty of the model as it was is worth."""
        if not isinstance(prepared.model, Classifier):
            raise ConfigError(
                f"cdep has rules for the layers of the package's networks, and none for {prepared.config.model}; "
                "choose a network of the package, or another method"
            )
        model = prepared.aligned(
            self.masks(prepared, kinds), penalty=cdep_penalty, penalty_scale="initial",
            penalty_weight=strength, progress=progress,
        )  # fmt: skip
        return Fitted(model, (prepared.train,))


@threads()
def cdep_penalty(model: Classifier, images: Tensor, masks: Tensor, *, reduction: str = "sum") -> Tensor:
    """``sum_n sum_k |beta_nk|``, beta what the masked pixels contribute to logit k, differentiable in the weights.

    Rieger, Singh, Murdoch and Yu, "Interpretations are useful: penalizing
    explanations to align neural networks with prior knowledge", ICML 2020,
    with 0 as the contribution that is wanted.  (Their code bounds it by a
    softmax of beta and gamma.)  A first derivative is enough.

    Parameters
    ----------
    model, images, masks : as for :func:`contextual_decomposition`
    reduction : "sum", or "mean" over the masks' entries (n H W), as every penalty has it
    """
    inside, _ = contextual_decomposition(model, images, masks)
    total = inside.abs().sum()
    return total if reduction == "sum" else total / masks.numel()


@threads()
def contextual_decomposition(model: Classifier, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The logits in two parts: what comes of the masked pixels (beta) and the rest (gamma).

    Murdoch, Liu and Yu, ICLR 2018; for images Singh, Murdoch and Yu, ICLR
    2019.  The image is split into what lies inside and outside of the mask,
    and each layer takes both parts on: an affine one maps each, and its bias
    goes to both in proportion to their sizes (where both are 0, to gamma); of a ReLU, beta is that of
    beta alone, gamma the rest; a maximum is taken where the sum has it.

    Parameters
    ----------
    model : in eval mode
    images : (n, C, H, W) float; a pixel of value 0 contributes nothing
    masks : (n, H, W) bool

    Returns
    -------
    beta, gamma : (n, K) each, which add up to ``model(images)``; beta is 0 where a mask is empty

    Raises
    ------
    ConfigError : a layer has no rule
    """
    device = next(model.parameters()).device
    images, inside = images.to(device), masks[:, None].to(device)
    beta, gamma = _through(model, images * inside, images * ~inside)
    return beta.to(masks.device), gamma.to(masks.device)


def _through(layers: Iterable[nn.Module], beta: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    for layer in layers:
        beta, gamma = _rule(layer, beta, gamma)
    return beta, gamma


def _rule(layer: nn.Module, beta: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Both parts behind a layer, which add up to what it makes of their sum."""
    if isinstance(layer, nn.Sequential):
        return _through(layer, beta, gamma)
    if isinstance(layer, Residual):
        body, shortcut = (_rule(part, beta, gamma) for part in (layer.body, layer.shortcut))
        return _rule(layer.activation, body[0] + shortcut[0], body[1] + shortcut[1])
    if isinstance(layer, nn.MaxPool2d):
        where = nn.functional.max_pool2d(
            beta + gamma, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode,
            return_indices=True,
        )[1]  # fmt: skip
        beta, gamma = (part.flatten(2).gather(2, where.flatten(2)).view_as(where) for part in (beta, gamma))
        return beta, gamma
    whole, first = layer(beta + gamma), layer(beta)
    if isinstance(layer, _AFFINE):
        bias = layer(torch.zeros_like(beta[:1]))
        inside, outside = (first - bias).abs(), (whole - first).abs()
        first = first - bias + bias * inside / (inside + outside).clamp_min(1e-12)
    elif not isinstance(layer, _ACTIVATIONS):
        raise ConfigError(
            f"contextual decomposition has no rule for {type(layer).__name__}; choose a network of the package"
        )
    return first, whole - first
