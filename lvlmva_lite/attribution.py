"""Step 2: attributions, one value per pixel, by DeepLIFT-SHAP or integrated gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn
from tqdm import tqdm

from lvlmva_lite.completeness import CANCELLED, CompletenessError, Question, describe
from lvlmva_lite.deeplift import Multipliers, activations
from lvlmva_lite.models.obstacles import obstacles
from lvlmva_lite.models.own import NetworkError, as_the_user_names, one_line
from lvlmva_lite.registry import EXPLAINERS
from lvlmva_lite.threads import threads


@EXPLAINERS.register("deeplift-shap")
@threads()
def deeplift_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    baselines: Tensor,
    *,
    rivals: Tensor | None = None,
    batch_size: int = 512,
    max_rows: int = 4096,
    tolerance: float = 1e-2,
    progress: bool = False,
) -> Tensor:
    """DeepLIFT-SHAP attributions of the logits, summed over channels.

    Its values are those of ``captum.attr.DeepLiftShap``, which sends
    2 x images x baselines rows through the network and back.  Here each image
    and each baseline goes forward once, and the images back once for each
    baseline; see :mod:`lvlmva_lite.deeplift`.

    Derived in chapter 3.

    Parameters
    ----------
    model : maps (n, C, H, W) to logits, or what :class:`models.OwnNetwork`
        makes logits of; each ReLU must be a module of its own.  Left in eval
        mode.  Of a network of half precision a copy in float32 is explained
    images : (n, C, H, W) float32
    targets : (n,) int64, the class of interest
    baselines : (b, C, H, W) float32, b >= 2, the reference samples
    rivals : (n,) int64, optional
        Explain the logit of the target minus that of the rival: why this
        class rather than that one?
    batch_size : images attributed at once, at most
    max_rows : images and baselines, together, whose activations are held at
        once, and at least 2.  Of more baselines than half of it, each batch
        of images sends all through the network anew.  The default suits the
        MLP; 256 is a good start for a convolutional network of small images,
        20 for one of 224 pixels
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
    ValueError : fewer than two baselines, or ``max_rows`` below 2
    NetworkError : the model fails on the baselines, or gives no logits
    CompletenessError : the model contains an operation that DeepLIFT has
        no rule for or does not see (GELU, F.relu, ...); says where, as far as it can be seen.  Raised at the first batch
    """
    if len(baselines) < 2:
        raise ValueError(f"baselines must hold at least 2 images, got {len(baselines)}")
    if max_rows < 2:
        raise ValueError(f"max_rows must be at least 2, got {max_rows}")
    question = Question(model, targets, baselines, rivals, max_rows)
    chunks = baselines.split(min(len(baselines), max_rows // 2))
    batch_size = min(batch_size, max_rows - len(chunks[0]))
    held: list[list[Tensor]] = []
    maps = []
    batches = list(zip(images.split(batch_size), question.weights.split(batch_size), strict=True))
    for batch, weight in tqdm(batches, desc="explaining", unit="batch", disable=not progress):
        total = torch.zeros_like(batch)
        with _stops_in_words(question.model, batch):
            multipliers = Multipliers(question.model, batch, weight)
            for chunk in chunks:
                if not held or len(chunks) > 1:
                    held = activations(question.model, chunk)
                for i, baseline in enumerate(chunk):
                    between = multipliers.between([step[i : i + 1] for step in held])
                    total.addcmul_(between, batch - baseline)
        total /= len(baselines)
        maps.append(total.sum(1))
        errors = question.errors(batch, weight, maps[-1])
        if (errors > tolerance).any():
            raise CompletenessError(
                f"DeepLIFT-SHAP misses completeness by {describe(errors, tolerance, len(maps), batch_size)}: "
                f"{_reason(question.model, batch)}"
            )
    return torch.cat(maps)


@EXPLAINERS.register("integrated-gradients")
@threads()
def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    baselines: Tensor,
    *,
    rivals: Tensor | None = None,
    batch_size: int = 128,
    max_rows: int = 4096,
    tolerance: float = 5e-2,
    n_steps: int = 8,
    max_steps: int = 512,
    progress: bool = False,
) -> Tensor:
    """Integrated gradients of the logits, averaged over baselines and summed over channels.

    The gradient is integrated along the straight line from a baseline to the
    image (Sundararajan, Taly and Yan, ICML 2017): that follows every network
    that has a gradient, whatever its parts.  For each line the values are
    those of ``captum.attr.IntegratedGradients``, which has no bound on its
    rows at once over many baselines and reckons its steps anew at each call.  The mean over baselines, not the mean image as the one baseline,
    for three reasons: it answers DeepLIFT-SHAP's question (the values add up
    to the logit minus the *mean logit of the baselines*; where no two inputs
    meet in a unit both give the Shapley values); the mean image is like no
    image; and the errors of few steps along many lines cancel.

    Gauss-Legendre quadrature begins with ``n_steps`` a line; images that miss
    completeness are done anew with twice as many.  Where outputs jump, no
    number of steps is enough.

    Derived in chapter 3.

    Parameters
    ----------
    model, images, targets, rivals, progress : as for :func:`deeplift_shap`; the
        network's parts do not matter
    baselines : (b, C, H, W) float32, b >= 1
    batch_size : images attributed at once, at most
    max_rows : rows sent through the network at once, at most, and at least 1;
        images x baselines x steps are cut accordingly
    tolerance : as for :func:`deeplift_shap`, but that at least ``CANCELLED`` of the
        sum of absolute values is the scale; the default is the one of the paper (its section 5)
    n_steps, max_steps : steps a line, at first and at most

    Returns
    -------
    Tensor, (n, H, W), float32, in units of the logit

    Raises
    ------
    ValueError : no baseline, or ``max_rows``, ``n_steps`` below 1 or above ``max_steps``
    NetworkError : the model fails on the baselines, gives no logits or has no gradient
    CompletenessError : an image misses completeness with ``max_steps`` steps, too
    """
    if not len(baselines):
        raise ValueError("baselines must hold at least 1 image, got 0")
    if max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, got {max_rows}")
    if not 1 <= n_steps <= max_steps:
        raise ValueError(f"n_steps must lie between 1 and max_steps = {max_steps}, got {n_steps}")
    question = Question(model, targets, baselines, rivals, max_rows)
    batch_size = min(batch_size, max_rows)
    maps = []
    batches = list(zip(images.split(batch_size), question.weights.split(batch_size), strict=True))
    for batch, weight in tqdm(batches, desc="explaining", unit="batch", disable=not progress):
        steps, left = n_steps, torch.arange(len(batch))
        values, errors = batch.new_zeros(len(batch), *batch.shape[2:]), batch.new_zeros(len(batch))
        while True:
            try:
                mean = _mean_over_lines(
                    question.model, batch[left], weight[left], baselines, steps, max_rows
                )
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise NetworkError(
                    f"integrated gradients stop in this network ({one_line(error)}); it needs a gradient from the "
                    "logits to the image: no torch.no_grad, detach or rounding in its forward"
                ) from error
            values[left] = mean.sum(1)
            errors[left] = question.errors(batch[left], weight[left], values[left], CANCELLED)
            left = (errors > tolerance).nonzero()[:, 0]
            if not len(left) or errors.isinf().any() or 2 * steps > max_steps:
                break
            steps *= 2
        if len(left):
            raise CompletenessError(
                f"with {steps} steps a line, integrated gradients miss completeness by "
                f"{describe(errors, tolerance, len(maps) + 1, batch_size)}: "
                + (
                    "the network gives NaN or infinity"
                    if errors.isinf().any()
                    else "its output jumps or is steep; allow more steps (max_steps) or a greater tolerance"
                )
            )
        maps.append(values)
    return torch.cat(maps)


def _mean_over_lines(
    model: nn.Module, images: Tensor, weights: Tensor, baselines: Tensor, n_steps: int, max_rows: int
) -> Tensor:
    """Integrated gradients (n, C, H, W), averaged over the lines from all baselines."""
    images, baselines = images.detach(), baselines.detach()
    combination, total = _Combination(model), torch.zeros_like(images)
    nodes, shares = (torch.from_numpy(values) / 2 for values in leggauss(n_steps))
    alphas, shares = (values.to(images).view(-1, 1, 1, 1) for values in (nodes + 0.5, shares))
    points = torch.cartesian_prod(
        *(torch.arange(len(x), device=images.device) for x in (images, baselines, alphas))
    )
    for rows in points.split(max_rows):
        image, baseline, step = rows.T
        change = images[image] - baselines[baseline]
        between = (baselines[baseline] + alphas[step] * change).detach().requires_grad_()
        (gradients,) = _gradients_of_all(
            lambda x=between, i=image: combination(x, weights[i])[:, 0], (between,)
        )
        total.index_add_(0, image, shares[step] * gradients * change)
    return total / len(baselines)


_OTHERWISE = ", or explain by integrated gradients"


def choose_explainer(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    baselines: Tensor,
    *,
    rivals: Tensor | None = None,
    max_rows: int = 4096,
    tolerance: float = 1e-2,
) -> tuple[str, str]:
    """Try DeepLIFT-SHAP on four images against four baselines: can it follow the network?

    Parameters
    ----------
    as for :func:`deeplift_shap`

    Returns
    -------
    name : "deeplift-shap" or "integrated-gradients", a key of ``EXPLAINERS``
    reason : what DeepLIFT-SHAP stumbled over; "" where it did not
    """
    few = slice(0, 4)
    try:
        deeplift_shap(
            model, images[few], targets[few], baselines[few],
            rivals=None if rivals is None else rivals[few], max_rows=max_rows, tolerance=tolerance,
        )  # fmt: skip
    except CompletenessError as error:
        return "integrated-gradients", str(error)
    return "deeplift-shap", ""


@EXPLAINERS.register("auto")
def auto(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    baselines: Tensor,
    *,
    rivals: Tensor | None = None,
    batch_size: int = 512,
    max_rows: int = 4096,
    tolerance: float | None = None,
    progress: bool = False,
) -> Tensor:
    """:func:`deeplift_shap` where it can follow the network, else :func:`integrated_gradients`, with a warning that says why.

    All images are explained by one of the two.

    Parameters, returns
    -------------------
    as for :func:`deeplift_shap`; ``tolerance`` None: the default of the one that is taken

    Raises
    ------
    CompletenessError : neither can
    """
    options = {"rivals": rivals, "max_rows": max_rows}
    if tolerance is not None:
        options["tolerance"] = tolerance
    name, reason = choose_explainer(model, images, targets, baselines, **options)
    options |= {"batch_size": batch_size, "progress": progress}
    if name == "deeplift-shap":
        try:
            return deeplift_shap(model, images, targets, baselines, **options)
        except CompletenessError as error:
            reason = str(error)
    reason = reason.removesuffix(_OTHERWISE)
    warnings.warn(f"explained by integrated gradients instead of DeepLIFT-SHAP: {reason}", stacklevel=2)
    return integrated_gradients(model, images, targets, baselines, **options)


def _reason(model: nn.Module, images: Tensor, error: Exception | None = None) -> str:
    """What a network holds that DeepLIFT does not follow, and the mend, in one line."""
    found = [as_the_user_names(line) for line in obstacles(model, images[:1])]
    if not found:
        found = ["it holds an operation without a rule" if error is None else one_line(error)]
    others = len(found) - 1
    more = f" (and {others} more such place{'s' * (others > 1)})" if others else ""
    return f"{found[0]}{more}{_OTHERWISE}"


@contextmanager
def _stops_in_words(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Say in one line with the place what PyTorch or a rule stopped at."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError, TypeError) as error:
        raise CompletenessError(
            f"DeepLIFT-SHAP stops in this network: {_reason(model, images, error)}"
        ) from error


def _gradients_of_all(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradients of the outputs (n,), each in its own input, (n, ...)."""
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
