"""Step 2: DeepLIFT-SHAP attributions, one value per pixel."""

from __future__ import annotations

import warnings

import torch
from captum.attr import DeepLiftShap
from torch import Tensor, nn
from tqdm import tqdm


class CompletenessError(RuntimeError):
    """The attributions do not add up to the difference of the outputs."""


def deeplift_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    baselines: Tensor,
    *,
    rivals: Tensor | None = None,
    batch_size: int = 128,
    tolerance: float = 1e-2,
    progress: bool = False,
) -> Tensor:
    """DeepLIFT-SHAP attributions of the logits, summed over channels.

    A thin wrapper of ``captum.attr.DeepLiftShap``, which holds
    2 x images x baselines rows at once and has no batch size of its own.

    Parameters
    ----------
    model : maps (n, C, H, W) to logits; each ReLU must be a module of its own
    images : (n, C, H, W) float32
    targets : (n,) int64, the class of interest
    baselines : (b, C, H, W) float32, b >= 2, the reference samples
    rivals : (n,) int64, optional
        Explain the logit of the target minus that of the rival: why this
        class rather than that one?
    batch_size : images attributed at once; memory grows with
        ``2 * batch_size * b``
    tolerance : largest completeness error accepted, relative to the largest
        output difference.  Completeness: the values of an image sum to its
        logit minus the mean logit of the baselines.
    progress : show a progress bar

    Returns
    -------
    Tensor, (n, H, W), float32, in units of the logit

    Raises
    ------
    ValueError : fewer than two baselines
    CompletenessError : the model contains an operation that captum's DeepLIFT
        does not follow (F.relu, GELU, a ReLU beside a max-pooling, ...)
    """
    if len(baselines) < 2:
        raise ValueError(f"baselines must hold at least 2 images, got {len(baselines)}")
    model.eval()
    attributions, expected = _attribute(model, images, targets, baselines, batch_size, progress)
    if rivals is not None:
        against, expected_against = _attribute(model, images, rivals, baselines, batch_size, progress)
        attributions, expected = attributions - against, expected - expected_against
    error = (attributions.sum((1, 2)) - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
    if not error <= tolerance:
        raise CompletenessError(
            f"DeepLIFT-SHAP misses completeness by {error:.2g} of the largest output difference "
            f"(tolerance {tolerance:g}): give every ReLU its own nn.ReLU module and see "
            "captum's list of supported modules"
        )
    return attributions


def _attribute(
    model: nn.Module, images: Tensor, targets: Tensor, baselines: Tensor, batch_size: int, progress: bool
) -> tuple[Tensor, Tensor]:
    """Maps (n, H, W), and the output differences (n,) to which they must add up."""
    explainer = DeepLiftShap(model)
    maps, logits = [], []
    batches = list(zip(images.split(batch_size), targets.split(batch_size), strict=True))
    for batch, target in tqdm(batches, desc="explaining", unit="batch", disable=not progress):
        with warnings.catch_warnings():
            # captum announces its hooks at every call.
            warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
            maps.append(explainer.attribute(batch, baselines, target=target).detach().sum(1))
        with torch.no_grad():
            logits.append(model(batch).gather(1, target[:, None])[:, 0])
    with torch.no_grad():
        expected = torch.cat(logits) - model(baselines).mean(0)[targets]
    return torch.cat(maps), expected


def runner_up(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The most probable class (n,) int64 other than ``labels`` (n,), from ``probabilities`` (n, K)."""
    return probabilities.scatter(1, labels[:, None], -1.0).argmax(1)
