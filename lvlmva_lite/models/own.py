"""The user's own network, checked, and brought to the form that all else here takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite.models.networks import Classifier
from lvlmva_lite.models.obstacles import called, running_modules

RESHAPING = (
    "Alias", "Clone", "Reshape", "Select", "Slice", "Squeeze", "ToCopy", "UnsafeView", "Unsqueeze", "View",
)  # fmt: skip
"""What autograd's names of functions that only change shape or type begin with."""


class NetworkError(ValueError):
    """A network or its weights cannot be taken; one line says which, and the mend."""


class OwnNetwork(nn.Module):
    """A network not written for this package, as the package takes networks.

    Images go to the device and type of the weights, logits come back on the
    device and in the type of the images.  An output (n,) or (n, 1), one logit
    z for the second of two classes, becomes (-z / 2, z / 2), of which the
    softmax is (1 - sigmoid(z), sigmoid(z)); with (0, z), of the same
    probabilities, the map of the first class would be empty.  Of a dict or an
    object (Hugging Face's ``ModelOutput``) ``logits`` is taken.  What
    ``torch.compile`` made is run uncompiled, for hooks and second derivatives
    do not reach into it.

    Parameters
    ----------
    network : maps (n, C, H, W) float to logits
    mean, std : one number a channel (or one for all), optional: the network
        sees ``(images - mean) / std``; give them where it does not normalise
        by itself
    repeat_grey : the network takes three channels, the images have one
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        repeat_grey: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.repeat_grey = network, repeat_grey
        self.normalises = mean is not None or std is not None
        for name, values in (
            ("mean", (0.0,) if mean is None else mean),
            ("std", (1.0,) if std is None else std),
        ):
            values = torch.as_tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            if name == "std" and not (values > 0).all():
                raise NetworkError(f"std must be above 0 in each channel, got {values.flatten().tolist()}")
            self.register_buffer(name, values, persistent=False)
        self.compiled = any(
            hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
            for module in network.modules()
        )

    def forward(self, images: Tensor) -> Tensor:
        inputs = self.as_input(images)
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            outputs = self.network(inputs)
        return self.as_output(outputs, images)

    def as_input(self, images: Tensor) -> Tensor:
        """Images as the network sees them."""
        inputs = images.expand(-1, 3, -1, -1) if self.repeat_grey and images.shape[1] == 1 else images
        weight = next(self.network.parameters(), None)
        if weight is not None:
            inputs = inputs.to(weight.device, weight.dtype)
        return (inputs - self.mean.to(inputs)) / self.std.to(inputs) if self.normalises else inputs

    @staticmethod
    def as_output(outputs: Any, images: Tensor) -> Tensor:
        """Logits (n, K) of what the network returns for ``images``."""
        return _logits(outputs, len(images)).to(images.device, images.dtype)


def _logits(outputs: Any, n_images: int) -> Tensor:
    outputs = _tensor(outputs)
    if outputs.shape in ((n_images,), (n_images, 1)):
        half = outputs.reshape(-1, 1) / 2
        return torch.cat([-half, half], 1)
    if outputs.ndim != 2 or len(outputs) != n_images:
        raise NetworkError(
            f"the network returns {tuple(outputs.shape)} for {n_images} image(s); it must return logits "
            "(n, classes)"
        )
    return outputs


def _tensor(outputs: Any) -> Tensor:
    """The logits as the network gives them."""
    if isinstance(outputs, Mapping):
        if "logits" not in outputs:
            raise NetworkError(
                f"the network returns a dict with {sorted(map(str, outputs))}; its logits must be under 'logits'"
            )
        outputs = outputs["logits"]
    elif hasattr(outputs, "logits"):
        outputs = outputs.logits
    if not isinstance(outputs, Tensor):
        raise NetworkError(
            f"the network returns a {type(outputs).__name__}; it must return logits (n, classes), or a dict or "
            "an object with 'logits'"
        )
    return outputs


def as_classifier(network: nn.Module) -> nn.Module:
    """``network`` as the package takes networks: in an :class:`OwnNetwork`, if it is a module of the user's.

    A :class:`Classifier` and a plain function of images are as they should be.
    """
    ours = isinstance(network, (Classifier, OwnNetwork))
    return OwnNetwork(network) if isinstance(network, nn.Module) and not ours else network


def is_half(network: nn.Module) -> bool:
    """Whether a weight is float16 or bfloat16."""
    return any(weight.dtype in (torch.float16, torch.bfloat16) for weight in network.parameters())


def check_trainable(network: nn.Module) -> None:
    """Refuse what no training can change, or only by steps that are rounded away.

    Raises
    ------
    NetworkError : each weight is frozen, or one is float16 or bfloat16
    """
    if not any(weight.requires_grad for weight in network.parameters()):
        raise NetworkError(
            "every weight of the network is frozen (requires_grad is False), so that training changes nothing; "
            "unfreeze some: network.requires_grad_()"
        )
    if is_half(network):
        raise NetworkError(
            "the network holds half-precision weights, in which small steps are rounded away; train it in "
            "float32: network.float() before, network.half() or .bfloat16() afterwards"
        )


def refuse_probabilities(network: nn.Module, images: Tensor) -> None:
    """Refuse a network that ends in a softmax or sigmoid: theirs would be taken once more.

    Read from what autograd noted last, not from values, so that it holds for one image.

    Raises
    ------
    NetworkError : the last function, but for changes of shape and type, is one of the two
    """
    model = as_classifier(network)
    if isinstance(model, Classifier):
        return
    outputs = []
    handle = model.network.register_forward_hook(lambda _, __, output: outputs.append(_tensor(output)))
    try:
        with torch.enable_grad():
            model(images.detach().requires_grad_())
    finally:
        handle.remove()
    node = outputs[0].grad_fn
    while node is not None and node.name().startswith(RESHAPING):
        node = node.next_functions[0][0]
    for function in ("Softmax", "Sigmoid", "LogSigmoid", "Hardsigmoid"):
        if node is not None and node.name().startswith(f"{function}Backward"):
            raise NetworkError(
                f"the network ends in a {function.lower()}, and logits are needed; leave its last {function.lower()} "
                "out (an nn.Identity in its place)"
            )


@torch.no_grad()
def check_network(network: nn.Module, images: Tensor, n_classes: int | None = None) -> None:
    """Refuse, before long work, a network that the method cannot be run with.

    Parameters
    ----------
    network : left in eval mode
    images : (n, C, H, W) float32, n >= 2, some of those it is meant for
    n_classes : what it must tell apart; None: any number

    Raises
    ------
    NetworkError : it fails on the images (with the module where), gives no
        logits, gives another number of classes, NaN or probabilities, or its answer
        for an image depends on the others of the batch or on chance
    """
    model = as_classifier(network).eval()
    with running_modules(model) as stack:
        try:
            logits = model(images)
        except NetworkError:
            raise
        except Exception as error:
            where = f" in {as_the_user_names(called(*stack[-1]))}" if len(stack) > 1 else ""
            raise NetworkError(
                f"the network fails{where} on images of shape {tuple(images.shape[1:])}: {one_line(error)}"
            ) from error
    if n_classes is not None and logits.shape[1] != n_classes:
        raise NetworkError(f"the network tells {logits.shape[1]} classes apart, the data has {n_classes}")
    if not logits.isfinite().all():
        raise NetworkError(
            "the network gives NaN or infinity; look at its weights and at how images are normalised"
        )
    refuse_probabilities(model, images[:1])
    one_by_one = torch.cat([model(image) for image in images.split(1)])
    if (logits - one_by_one).abs().max() > (0.1 if is_half(model) else 0.01) * logits.abs().max():
        raise NetworkError(
            "the network's answer for an image depends on the other images of its batch or on chance, in eval "
            "mode, too: give BatchNorm running statistics, and let dropout follow self.training"
        )


def as_the_user_names(line: str) -> str:
    """A message without the names that :class:`OwnNetwork` and ``torch.compile`` put before those of the user."""
    line = line.replace("'network._orig_mod", "'network")
    return line.replace("'network' (", "the network (").replace("'network.", "'")


def one_line(error: BaseException) -> str:
    """Type and first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
