"""Weights that a network is to start from: whether they can be had, and what to do where they cannot."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.request import Request, urlopen

import torch

from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.tasks import Task
from lvlmva_lite.torchvision_compat import import_torchvision

OF_A_COMMAND, OF_A_CHAPTER = "--{} {}", "{}={}"
"""How a setting is written."""


def check_weights(task: Task, config: Config, setting: str = OF_A_COMMAND) -> None:
    """Look, before any work, whether the weights that a network is to start from can be had.

    Parameters
    ----------
    task, config : of the run
    setting : how the reader writes one, ``OF_A_COMMAND`` or ``OF_A_CHAPTER``

    Raises
    ------
    ConfigError : they cannot; the message names the ways out
    """
    if not task.network_named(config.model).pretrained:
        return
    if config.weights not in ("imagenet", "none") and not Path(config.weights).is_file():
        raise ConfigError(f"there is no file of weights {config.weights}; name one that is there")
    if config.model == "resnet50" and config.weights == "imagenet":
        error = _why_no_resnet50()
        if error is not None:
            raise ConfigError(no_download(error, setting))


@cache
def _why_no_resnet50() -> OSError | None:
    """None where torchvision's weights are in torch's cache, or their server answers; else what came of it."""
    try:
        url = import_torchvision().models.ResNet50_Weights.IMAGENET1K_V2.url
    except ImportError:
        raise ConfigError("resnet50 needs torchvision: pip install torchvision") from None
    if Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2]).is_file():
        return None
    try:
        urlopen(Request(url, method="HEAD"), timeout=10).close()
    except OSError as error:
        return error
    return None


def no_download(error: OSError, setting: str = OF_A_COMMAND) -> str:
    """What to do where the weights of torchvision's ResNet-50 cannot be fetched, in one line."""
    file, none, other = (
        setting.format(*one)
        for one in (("weights", "FILE"), ("weights", "none"), ("model", "efficientnet_lite0"))
    )
    return (
        f"the ImageNet weights of resnet50 cannot be fetched ({error}): give {file}, a state dict of "
        f"torchvision's, or {none}, random ones, or {other}, whose weights are a "
        f"package, or put torchvision's file into torch's cache, {torch.hub.get_dir()}/checkpoints"
    )
