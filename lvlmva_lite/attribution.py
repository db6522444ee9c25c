"""Step 2: DeepLIFT-SHAP attributions, one value per pixel."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from captum.attr import DeepLiftShap
from torch import Tensor, nn
from tqdm import tqdm

from lvlmva_lite.threads import threads

FLOOR = 1e-3
"""Share of what was summed below which an image's output difference counts as nearly zero.

Summed are the absolute attributions, and the outputs whose difference is taken.  Measured
rounding is below 7e-7 of the former and 4e-6 of the latter (MLP, residual networks,
EfficientNet-Lite0), and with the default tolerance errors up to 1e-5 pass.
"""


class CompletenessError(RuntimeError):
    """The attributions do not add up to the difference of the outputs."""


@threads()
def deeplift_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    baselines: Tensor,
    *,
    rivals: Tensor | None = None,
    batch_size: int = 128,
    max_rows: int = 4096,
    tolerance: float = 1e-2,
    progress: bool = False,
) -> Tensor:
    """DeepLIFT-SHAP attributions of the logits, summed over channels.

    A thin wrapper of ``captum.attr.DeepLiftShap``, which sends
    2 x images x baselines rows through the network at once and has no batch
    size of its own.  Here both are cut into chunks; the mean over baselines
    is the mean over their chunks, weighted by size, so that nothing depends
    on the cut but the time and the memory.

    Parameters
    ----------
    model : maps (n, C, H, W) to logits; each ReLU must be a module of its own
    images : (n, C, H, W) float32
    targets : (n,) int64, the class of interest
    baselines : (b, C, H, W) float32, b >= 2, the reference samples
    rivals : (n,) int64, optional
        Explain the logit of the target minus that of the rival: why this
        class rather than that one?
    batch_size : images attributed at once, at most
    max_rows : rows sent through the network at once, at most, and at least 6
        (one image against three baselines).  The default suits the MLP; 256
        is a good start for a convolutional network, whose memory is this
        number times its hidden maps.
    tolerance : largest completeness error accepted, of each image relative to
        its own output difference.  Completeness: the values of an image sum to
        its logit minus the mean logit of the baselines.  A difference that is
        nearly zero, because effects for and against the class cancel, is no
        scale, for rounding goes with what was summed: at least ``FLOOR`` of
        that is the scale
    progress : show a progress bar

    Returns
    -------
    Tensor, (n, H, W), float32, in units of the logit

    Raises
    ------
    ValueError : fewer than two baselines, or ``max_rows`` below 6
    CompletenessError : the model contains an operation that captum's DeepLIFT
        does not follow (F.relu, GELU, a ReLU beside a max-pooling, ...)
    """
    if len(baselines) < 2:
        raise ValueError(f"baselines must hold at least 2 images, got {len(baselines)}")
    if max_rows < 6:
        raise ValueError(f"max_rows must be at least 6, got {max_rows}")
    model.eval()
    # Chunks of nearly equal size, none of a single baseline, which captum refuses.
    n_chunks = min(math.ceil(len(baselines) / (max_rows // 2)), len(baselines) // 2)
    chunks = baselines.tensor_split(n_chunks)
    batch_size = min(batch_size, max(1, max_rows // (2 * len(chunks[0]))))
    explainer = DeepLiftShap(_Combination(model))
    explainer.gradient_func = _gradients_of_all
    with torch.no_grad():
        reference = torch.cat([model(rows) for rows in baselines.split(max_rows)]).mean(0)
    weights = nn.functional.one_hot(targets, len(reference)).to(reference)
    if rivals is not None:
        weights -= nn.functional.one_hot(rivals, len(reference))
    maps, differences, magnitudes = [], [], []
    batches = list(zip(images.split(batch_size), weights.split(batch_size), strict=True))
    for batch, weight in tqdm(batches, desc="explaining", unit="batch", disable=not progress):
        total = torch.zeros_like(batch)
        for chunk in chunks:
            with warnings.catch_warnings():
                # captum announces its hooks at every call.
                warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
                mean = explainer.attribute(batch, chunk, target=0, additional_forward_args=(weight,))
            total += mean.detach() * (len(chunk) / len(baselines))
        maps.append(total.sum(1))
        with torch.no_grad():
            logits = model(batch)
            differences.append(((logits - reference) * weight).sum(1))
            magnitudes.append(((logits.abs() + reference.abs()) * weight.abs()).sum(1))
    attributions, expected = torch.cat(maps), torch.cat(differences)
    # NaN is an error of its own kind, and no comparison finds it.
    summed = attributions.abs().sum((1, 2)) + torch.cat(magnitudes)
    scale = torch.maximum(expected.abs(), FLOOR * summed).clamp_min(torch.finfo(expected.dtype).tiny)
    errors = ((attributions.sum((1, 2)) - expected).abs() / scale).nan_to_num(math.inf)
    if len(errors) and errors.max() > tolerance:
        worst = int(errors.argmax())
        raise CompletenessError(
            f"DeepLIFT-SHAP misses completeness by {errors[worst]:.2g} of the output difference of image "
            f"{worst}, and by more than {tolerance:g} in {int((errors > tolerance).sum())} of {len(errors)}: give every ReLU its own nn.ReLU module and see "
            "captum's list of supported modules"
        )
    return attributions


def _gradients_of_all(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradients of the outputs (n,), each in its own input, in place of ``captum._utils.gradient.compute_gradients``.

    captum's own hands over n outputs one by one, which takes as long as all else together; the numbers are the same.
    """
    with torch.enable_grad():
        outputs = forward()
        return torch.autograd.grad(outputs, inputs, torch.ones_like(outputs))


class _Combination(nn.Module):
    """A weighted sum (n, 1) of the logits of each image, with ``weights`` (n, K)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        return (self.model(images) * weights).sum(1, keepdim=True)


def runner_up(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The most probable class (n,) int64 other than ``labels`` (n,), from ``probabilities`` (n, K)."""
    return probabilities.scatter(1, labels[:, None], -1.0).argmax(1)
