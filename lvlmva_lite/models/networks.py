"""Networks that are trained from scratch."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn


class Classifier(nn.Sequential):
    """A chain of modules from images to logits, of which the last is a linear head.

    ``model(images)`` equals ``model.head(model.embed(images))``.  Images may lie
    on another device than the weights: they are sent there, and what comes out is
    sent back, so that ``model.to("cuda")`` is all that a GPU asks for.
    """

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.to(self._device)).to(images.device)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def head(self) -> nn.Linear:
        """The last layer, embedding to logits."""
        return self[-1]

    def embed(self, images: Tensor) -> Tensor:
        """What the head sees: (n, D) float32 for ``images`` (n, C, H, W)."""
        embedding = images.to(self._device)
        for module in list(self)[:-1]:
            embedding = module(embedding)
        return embedding.to(images.device)


class Residual(nn.Module):
    """``activation(body(x) + shortcut(x))``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, images: Tensor) -> Tensor:
        return self.activation(self.body(images) + self.shortcut(images))


def mlp(
    image_shape: tuple[int, int, int],
    n_classes: int,
    hidden: tuple[int, ...] = (50, 30),
    random_state: int = 0,
) -> Classifier:
    """A multi-layer perceptron on flattened images.

    The default, two hidden layers of 50 and 30 ReLU units, is the DecoyMNIST
    network of Ross et al. 2017 (repository dtak/rrr).  Each ReLU is a module
    of its own, which DeepLIFT needs.

    Parameters
    ----------
    image_shape : (C, H, W)
    n_classes : number of outputs (logits)
    hidden : units of each hidden layer
    random_state : int, draws the initial weights

    Returns
    -------
    Classifier : maps (n, C, H, W) float32 to logits (n, n_classes)
    """
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        sizes = (math.prod(image_shape), *hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        return Classifier(*layers, nn.Linear(sizes[-1], n_classes))


def small_resnet(
    image_shape: tuple[int, int, int],
    n_classes: int,
    *,
    widths: tuple[int, ...] = (16, 32, 64),
    random_state: int = 0,
) -> Classifier:
    """A small residual network for images of about 64 pixels.

    A 3x3 convolution of stride 2, then one residual block of two 3x3
    convolutions for each further width, each halving the resolution, then the
    mean over positions and a linear head (He et al., CVPR 2016, cut down).
    Every convolution is followed by BatchNorm, every ReLU is a module of its
    own, and strides replace pooling, because DeepLIFT needs the first and
    fails silently on a ReLU beside a max-pooling.

    Parameters
    ----------
    image_shape : (C, H, W); C counts, any H and W from ``2 ** len(widths)`` up will do
    n_classes : number of outputs (logits)
    widths : channels of the stem and of each block; at least two
    random_state : int, draws the initial weights

    Returns
    -------
    Classifier
        maps (n, C, H, W) float32 in [0, 1] to logits (n, n_classes); its
        weights lie channels-last in memory, which trains faster on a CPU

    Raises
    ------
    ValueError : fewer than two widths, or images too small for so many halvings
    """
    channels, height, width = image_shape
    if len(widths) < 2:
        raise ValueError(f"widths must name the stem and at least one block, got {widths}")
    if min(height, width) < 2 ** len(widths):
        raise ValueError(
            f"{len(widths)} widths halve the image {len(widths)} times: give images of at least "
            f"{2 ** len(widths)} pixels, or fewer widths; got {height} x {width}"
        )
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        blocks = []
        for n_in, n_out in itertools.pairwise(widths):
            body = nn.Sequential(
                *_convolution(n_in, n_out, 3, stride=2), nn.ReLU(), *_convolution(n_out, n_out, 3, stride=1)
            )
            shortcut = nn.Sequential(*_convolution(n_in, n_out, 1, stride=2))
            blocks.append(Residual(body, shortcut, nn.ReLU()))
        model = Classifier(
            *_convolution(channels, widths[0], 3, stride=2),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[-1], n_classes),
        )
    return model.to(memory_format=torch.channels_last)


def _convolution(n_in: int, n_out: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps H and W but for its stride, and its BatchNorm."""
    return nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False), nn.BatchNorm2d(n_out)
