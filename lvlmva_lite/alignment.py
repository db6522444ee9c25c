"""Steps 5 and 6: verdicts become masks, masks steer the fine-tuning.

The loss is that of "Right for the right reasons" (Ross, Hughes and
Doshi-Velez, IJCAI 2017): cross-entropy plus a penalty on the input gradient of
the summed log-probabilities inside a mask.  Two other penalties can stand in
its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lvlmva_lite.config import Config
from lvlmva_lite.fills import DRAWING, fill
from lvlmva_lite.models.own import NetworkError, as_classifier, check_trainable, one_line
from lvlmva_lite.models.training import one_kernel, rows_of
from lvlmva_lite.passes import KeptLogits, twice_differentiable
from lvlmva_lite.registry import PENALTIES
from lvlmva_lite.streams import stream
from lvlmva_lite.threads import threads

MARGIN = 1 / 32
"""What a mask near the evidence is widened by, as a share of the image's side."""


def correction_masks(
    labels: Tensor, spurious: Tensor, evidence: Tensor | None = None, *, near: float = 0.0
) -> Tensor:
    """A = sum_j R_j 1[C = j]: the union of the segments judged spurious, or of what is near their evidence.

    A critic judges a segment by where its evidence lies; a large segment whose
    one bright spot is a letter is called spurious with all the bone in it. Derived in chapter 7.

    Parameters
    ----------
    labels : (n, H, W) int64, segment of each pixel, -1 for none
    spurious : (n, J) bool, the verdicts R
    evidence : (n, H, W) float, positive effect of each pixel; needed for ``near`` above 0
    near : in [0, 1].  0: whole segments, the paper's mask.  Above, of each
        segment only the pixels that hold at least this share of its greatest
        evidence, widened by ``MARGIN`` within the segments judged spurious

    Returns
    -------
    Tensor, (n, H, W), bool

    Raises
    ------
    ValueError : ``near`` outside [0, 1], or above 0 without evidence
    """
    if not 0 <= near <= 1:
        raise ValueError(f"near must lie between 0 and 1, got {near}")
    n, height, width = labels.shape
    judged = torch.cat([spurious, spurious.new_zeros(n, 1)], 1)
    # Index -1 finds the appended column, which is never spurious.
    segment = labels.reshape(n, -1) % judged.shape[1]
    masks = judged.gather(1, segment).view(n, height, width)
    if near == 0:
        return masks
    if evidence is None:
        raise ValueError("masks near the evidence need the evidence; give it, or near=0")
    held = evidence.clamp_min(0).reshape(n, -1)
    peaks = held.new_zeros(n, judged.shape[1]).scatter_reduce(1, segment, held, "amax")
    strong = (held >= near * peaks.gather(1, segment)).view(n, height, width) & masks
    margin = round(MARGIN * max(height, width))
    widened = nn.functional.max_pool2d(strong[:, None].float(), 2 * margin + 1, 1, margin)[:, 0]
    return masks & (widened > 0)


def _masks_like(images: Tensor, masks: Tensor, reduction: str) -> Tensor:
    """The masks with an axis of channels where they have none; refuses what does not fit."""
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
    if masks.shape == images.shape:
        return masks
    if masks.shape != images.shape[:1] + images.shape[2:]:
        raise ValueError(
            f"masks must be (n, H, W) = {(len(images), *images.shape[2:])}, got {tuple(masks.shape)}"
        )
    return masks.unsqueeze(1)


@PENALTIES.register("rrr")
@threads()
def rrr_penalty(model: nn.Module, images: Tensor, masks: Tensor, *, reduction: str = "sum") -> Tensor:
    """sum_n sum_i (A_ni d/dx_ni sum_k log yhat_nk)^2, differentiable in the weights.

    The log-probabilities are summed over *all* classes: that gradient does
    not die when the network is sure of its answer, as the true class's does.
    Of more than two classes it sees one direction only, and can cancel; see
    :func:`jacobian_penalty`. Derived in chapter 6.

    Parameters
    ----------
    model : maps images to logits, without coupling between samples (keep
        BatchNorm in eval mode)
    images : (n, C, H, W) float, or any other (n, ...)
    masks : (n, H, W) bool or float, broadcast over channels, or of the shape of ``images``
    reduction : "sum" (the formula) or "mean" over the masks' entries (n H W).
        With the mean, the matching lambda does not depend on the batch size.
        It still depends on the scale of the inputs, whose gradient is 255
        times smaller for 0-255 pixels than for 0-1, and on the resolution: of
        the same picture with r times as many pixels a side, the sum is r^2
        and the mean r^4 times smaller.  See ``penalty_scale`` of :func:`align`.

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    ValueError : masks do not fit the images, or unknown ``reduction``
    """
    masks = _masks_like(images, masks, reduction)
    images = images.detach().requires_grad_()
    log_probabilities = twice_differentiable(model, images).log_softmax(1)
    (gradient,) = torch.autograd.grad(log_probabilities.sum(), images, create_graph=True)
    total = (masks * gradient).square().sum()
    return total if reduction == "sum" else total / masks.numel()


@PENALTIES.register("jacobian")
@threads()
def jacobian_penalty(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    *,
    reduction: str = "sum",
    generator: torch.Generator | None = None,
) -> Tensor:
    """sum_n sum_k sum_i (A_ni d/dx_ni (l_nk - mean_j l_nj))^2, differentiable in the weights.

    The whole masked Jacobian of the logits l, but for what they have in
    common, which moves no probability.  It is zero if and only if every
    probability has slope zero in every masked pixel, whereas
    :func:`rrr_penalty` sees the one direction 1 - K p of the K classes and is
    zero wherever that cancels.  It does not depend on how sure the network is. Derived in chapter 6.

    Parameters
    ----------
    model, images, masks, reduction : as in :func:`rrr_penalty`
    generator : None takes one backward pass for each class.  A generator draws
        one random direction v ~ N(0, I_K) for each image in their place: as
        ``E |v^T J|^2 = |J|^2``, the mean over draws is the same (Hutchinson, 1990),
        for the price of :func:`rrr_penalty`.

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    ValueError : masks do not fit the images, or unknown ``reduction``
    """
    masks = _masks_like(images, masks, reduction)
    images = images.detach().requires_grad_()
    logits = twice_differentiable(model, images)
    logits = logits - logits.mean(1, keepdim=True)
    if generator is None:
        outputs = [logit.sum() for logit in logits.T]
    else:
        direction = torch.randn(logits.shape, generator=generator, dtype=logits.dtype)
        outputs = [(direction.to(logits.device) * logits).sum()]
    total = sum(
        (masks * torch.autograd.grad(output, images, create_graph=True)[0]).square().sum()
        for output in outputs
    )
    return total if reduction == "sum" else total / masks.numel()


@PENALTIES.register("finite-difference")
@threads()
def finite_difference_penalty(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    *,
    reduction: str = "sum",
    variant: str = "surroundings",
    others: Tensor | None = None,
    generator: torch.Generator | None = None,
    filled: Tensor | None = None,
) -> Tensor:
    """sum_n sum_k (c_k(x_n) - c_k(x'_n))^2, differentiable in the weights, x' being x with its mask filled.

    c are the logits less their mean over classes; of two classes the sum is
    half the square of the change of their difference.  To first order in
    x' - x the change of c is the masked gradient times x' - x: what
    :func:`jacobian_penalty` and :func:`rrr_penalty` bound.  They speak of slopes at x and
    are met where these die; this one is not, as long as the answer hangs on
    what lies under the mask.

    Not the log-probabilities: their sum over two classes is the same at logit
    differences z and -z, so that a shortcut that turns the answer round would
    cost nothing, and the true class's changes little where the network is sure. Derived in chapter 6.

    Parameters
    ----------
    model : as in :func:`rrr_penalty`, but a first derivative is enough
    images : (n, C, H, W) float
    masks : (n, H, W) bool
    reduction : "sum" (the formula), or "mean" over the masks' entries (n H W), as every
        penalty has it.  The sum does not depend on the scale of the inputs, nor,
        of the same picture, on the resolution.
    variant, others, generator : of :func:`fills.fill`
    filled : as ``images``, the images filled before; None: filled here, by those three

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    ValueError : as :func:`fills.fill`, or unknown ``reduction``
    """
    _masks_like(images, masks, reduction)
    images = images.detach()
    if filled is None:
        filled = fill(images, masks, variant, others=others, generator=generator)
    logits = as_classifier(model)(torch.cat([images, filled]))
    change = torch.sub(*(logits - logits.mean(1, keepdim=True)).chunk(2))
    total = change.square().sum()
    return total if reduction == "sum" else total / masks.numel()


class _FilledOnce(partial):
    """A finite-difference penalty whose fill draws nothing, so that it is made once, not at each step."""

    def prepare(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        return {"filled": fill(images, masks, **self.keywords)}


def penalty_of(config: Config, others: Tensor) -> Callable[..., Tensor]:
    """The penalty that ``config`` names, with its fill if it has one.

    Parameters
    ----------
    others : (m, C, H, W), from which patches of another image are cut
    """
    penalty = PENALTIES.get(config.penalty)
    if config.penalty != "finite-difference":
        return penalty
    generator = stream(config.seed, "penalty fill")
    kind = partial if config.penalty_fill in DRAWING else _FilledOnce
    return kind(penalty, variant=config.penalty_fill, others=others, generator=generator)


@threads()
def align(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    align_images: Tensor,
    align_labels: Tensor,
    masks: Tensor,
    *,
    penalty_weight: float,
    penalty: Callable[..., Tensor] = rrr_penalty,
    penalty_scale: str = "none",
    epochs: int = 5,
    batch_size: int = 256,
    align_fraction: float = 0.5,
    learning_rate: float = 1e-3,
    decay: bool = False,
    random_state: int = 0,
    progress: bool = False,
) -> list[dict[str, float]]:
    """Fine-tune ``model`` in place so that it stops looking where the masks are.

    Each batch holds ``align_fraction`` samples of the alignment set
    (repeated when there are few), the rest plain training samples, so that
    what the model knows is not forgotten.  The loss is the mean cross-entropy
    of the batch plus ``penalty_weight`` times the penalty of its alignment
    samples, averaged over samples and pixels. Derived in chapter 6.

    Parameters
    ----------
    model : left in eval mode; in eval mode during the work too
    images, labels : (N, C, H, W) float32 and (N,) int64, the training data
    align_images, align_labels, masks : (n, C, H, W), (n,), (n, H, W) bool
    penalty_weight : lambda >= 0
    penalty : function with the signature of :func:`rrr_penalty`.  The logits of the images that it
        sends through ``model`` serve the cross-entropy, too.  It may have a method ``prepare``: of
        all (align_images, masks) it makes tensors by name, called once; each step hands over
        those of its images
    penalty_scale : "none", or "initial": the penalty is divided by its mean
        over the alignment set before the first step.  Then lambda is in nats,
        what it is worth to ``model`` to lose the penalty altogether,
        and depends neither on the scale of the inputs nor on the resolution.
        It is relative to this model: one that hardly looks at the masks any
        more is pushed as hard as one that looks nowhere else.
    epochs : passes over the plain training samples
    batch_size, align_fraction, learning_rate : see above
    decay : lower the learning rate to 0 in equal steps; at a constant rate the last
        few batches decide which of two groups a convolutional network favours
    random_state : int, draws the batches

    Returns
    -------
    list of dict
        per epoch: "cross_entropy" and "penalty" (not scaled, without lambda),
        both means over batches

    Raises
    ------
    ValueError : negative ``penalty_weight``, unknown ``penalty_scale``, empty
        alignment set, ``align_fraction`` not strictly between 0 and 1 or leaving a batch
        without a plain or without an alignment sample, or
        "initial" with masks under which ``model`` has no penalty at all; a
        NetworkError: each weight is frozen, one is of half precision, or a function has no
        second derivative
    """
    if penalty_weight < 0:
        raise ValueError(f"penalty_weight (lambda) must not be negative, got {penalty_weight}")
    if penalty_scale not in ("none", "initial"):
        raise ValueError(f"penalty_scale must be 'none' or 'initial', got {penalty_scale!r}")
    if not 0 < align_fraction < 1:
        raise ValueError(f"align_fraction must lie strictly between 0 and 1, got {align_fraction}")
    if not len(align_images):
        raise ValueError("the alignment set is empty; nothing can be learnt from it")
    n_align = round(align_fraction * batch_size)
    if not 1 <= n_align < batch_size:
        raise ValueError(
            f"align_fraction {align_fraction} of batch_size {batch_size} leaves no "
            f"{'plain' if n_align else 'alignment'} sample in a batch; change one of the two"
        )
    model = as_classifier(model)
    check_trainable(model)
    generator = stream(random_state, "alignment batches")
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=one_kernel(model))
    n_steps = epochs * math.ceil(len(images) / (batch_size - n_align))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=n_steps)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    history = []
    model.eval()
    # Empty masks cost nothing at any scale: plain fine-tuning.
    empty = not masks.any()
    prepare = getattr(penalty, "prepare", None)
    prepared = prepare(align_images, masks) if prepare and not empty else {}

    def penalty_at(chosen: Tensor, images: Tensor, **options: Any) -> Tensor:
        options |= {name: values[chosen] for name, values in prepared.items()}
        return penalty(model, images, masks[chosen], **options)

    if penalty_scale == "initial" and not empty:
        initial = sum(
            penalty_at(chosen, align_images[chosen]).item()
            for chosen in torch.arange(len(align_images)).split(batch_size)
        )
        if not initial:
            raise ValueError(
                "the model's penalty is 0 under all masks, so that it cannot be the unit; "
                "use penalty_scale='none'"
            )
        penalty_weight = penalty_weight / (initial / masks.numel())
    for _ in tqdm(range(epochs), desc="aligning", unit="epoch", disable=not progress):
        totals = torch.zeros(2)
        batches = torch.randperm(len(images), generator=generator).split(batch_size - n_align)
        for batch in batches:
            chosen = torch.randint(len(align_images), (n_align,), generator=generator)
            asked = KeptLogits(rows_of(align_images, chosen))
            penalised = torch.zeros((), device=labels.device)
            if not empty:
                with model.register_forward_hook(asked):
                    penalised = penalty_at(chosen, asked.images, reduction="mean")
            if asked.logits is None:
                logits = model(torch.cat([rows_of(images, batch), asked.images]))
            else:
                logits = torch.cat([model(rows_of(images, batch)), asked.logits])
            batch_labels = torch.cat([labels[batch], align_labels[chosen]])
            cross_entropy = nn.functional.cross_entropy(logits, batch_labels)
            optimizer.zero_grad()
            try:
                (cross_entropy + penalty_weight * penalised).backward(inputs=trained)
            except RuntimeError as error:
                if "is not implemented" not in str(error):
                    raise
                raise NetworkError(
                    f"the penalty needs a second derivative that PyTorch lacks ({one_line(error)}); put another "
                    "function in the place of the one named"
                ) from error
            optimizer.step()
            if decay:
                schedule.step()
            totals += torch.stack([cross_entropy.detach(), penalised.detach()]).cpu()
        cross_entropy, penalised = (totals / len(batches)).tolist()
        history.append({"cross_entropy": cross_entropy, "penalty": penalised})
    return history
