"""Weights that a network is to start from: whether they can be had, and what to do where they cannot."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvlmva_lite.config import Config
    from lvlmva_lite.tasks import Task


def check_weights(task: Task, config: Config) -> None:
    """Raise ConfigError where the weights that a network is to start from cannot be had."""
    from lvlmva_lite.config import ConfigError

    if not task.network_named(config.model).pretrained:
        return
    if config.weights not in ("imagenet", "none") and not Path(config.weights).is_file():
        raise ConfigError(f"there is no file of weights {config.weights}; name one that is there")
    if config.model == "resnet50" and config.weights == "imagenet":
        _require_resnet50()


@cache
def _require_resnet50() -> None:
    """Raise ConfigError unless torchvision's weights are in torch's cache, or their server answers."""
    from urllib.request import Request, urlopen

    import torch

    from lvlmva_lite.config import ConfigError
    from lvlmva_lite.torchvision_compat import import_torchvision

    try:
        url = import_torchvision().models.ResNet50_Weights.IMAGENET1K_V2.url
    except ImportError:
        raise ConfigError("resnet50 needs torchvision: pip install torchvision") from None
    if Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2]).is_file():
        return
    try:
        urlopen(Request(url, method="HEAD"), timeout=10).close()
    except OSError as error:
        raise ConfigError(no_download(error)) from None


def no_download(error: OSError) -> str:
    """What to do where the weights of torchvision's ResNet-50 cannot be fetched, in one line."""
    import torch

    return (
        f"the ImageNet weights of resnet50 cannot be fetched ({error}): give --weights FILE, a state dict of "
        "torchvision's, or --weights none, random ones, or --model efficientnet_lite0, whose weights are a "
        f"package, or put torchvision's file into torch's cache, {torch.hub.get_dir()}/checkpoints"
    )
