"""Plain training, and predictions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lvlmva_lite.models.own import as_classifier, check_trainable, refuse_probabilities
from lvlmva_lite.threads import threads


@threads()
def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    weight_decay: float = 0.0,
    decay: bool = False,
    indices: Tensor | None = None,
    on_batch: Callable[[Tensor, Tensor], None] | None = None,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    random_state: int = 0,
    progress: bool = False,
) -> list[float]:
    """Train with AdamW (Adam, where ``weight_decay`` is 0) on the cross-entropy, or another loss, in place.

    Parameters
    ----------
    model : maps images to logits; left in eval mode
    images : (N, C, H, W) float32
    labels : (N,) int64
    epochs, learning_rate, batch_size : as usual; where the network normalises over batches, a
        last batch of one sample, which has no variance, joins the one before
    weight_decay : each step shrinks the weights by ``learning_rate * weight_decay``
    indices : (m,) int64, the samples of an epoch, repeats allowed; None: each once
    on_batch : called with the batch's indices and logits, before the step
    loss : of (logits, labels, indices) of a batch, a scalar; None: the mean cross-entropy
    decay : lower the learning rate to 0 in equal steps; at a constant rate BatchNorm
        makes single epochs jump
    random_state : int, shuffles the samples
    progress : show a progress bar

    Returns
    -------
    list of float : mean training loss of each epoch

    Raises
    ------
    NetworkError : each weight is frozen, or one is of half precision
    """
    model = as_classifier(model)
    check_trainable(model)
    generator = torch.Generator().manual_seed(random_state)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=one_kernel(model)
    )
    if indices is None:
        indices = torch.arange(len(images))
    normalises = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())

    def batches(order: Tensor) -> list[Tensor]:
        parts = list(order.split(batch_size))
        if normalises and len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    schedule = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, 0.0, total_iters=epochs * len(batches(indices))
    )
    history = []
    model.train()
    for _ in tqdm(range(epochs), desc="training", unit="epoch", disable=not progress):
        total = 0.0
        order = indices[torch.randperm(len(indices), generator=generator)]
        for batch in batches(order):
            logits = model(rows_of(images, batch))
            if on_batch is not None:
                on_batch(batch, logits.detach())
            value = (
                nn.functional.cross_entropy(logits, labels[batch])
                if loss is None
                else loss(logits, labels[batch], batch)
            )
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if decay:
                schedule.step()
            total += value.item() * len(batch)
        history.append(total / len(indices))
    model.eval()
    return history


def one_kernel(model: nn.Module) -> bool:
    """Whether an optimiser may take its step in one kernel, which for small networks takes a third of the time."""
    return all(weight.device.type in ("cpu", "cuda") for weight in model.parameters())


def rows_of(images: Tensor, indices: Tensor) -> Tensor:
    """``images[indices]``; of a tensor in a third of the time."""
    if not isinstance(images, Tensor):  # an ImageStore
        return images[indices]
    return images.index_select(0, indices.to(images.device))


@threads()
@torch.no_grad()
def predict_logits(model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Logits of the classes, in eval mode.

    Parameters
    ----------
    model : maps images to logits
    images : (n, C, H, W) float32
    batch_size : images at once; None takes as many as hold the values of 1024 MNIST digits
        (5 colour images of 224 pixels), whose activations a processor keeps close by; on a
        GPU four times as many

    Returns
    -------
    Tensor, (n, n_classes), float32; of one logit z (-z / 2, z / 2)

    Raises
    ------
    NetworkError : the model gives no logits, see ``models.OwnNetwork``
    """
    model = as_classifier(model).eval()
    if batch_size is None:
        digits = 4096 if any(weight.is_cuda for weight in model.parameters()) else 1024
        batch_size = max(1, digits * 28 * 28 // images[0].numel())
    refuse_probabilities(model, images[:1])
    return torch.cat([model(batch) for batch in images.split(batch_size)])


@threads()
def predict_proba(model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Softmax probabilities (n, n_classes) float32 of ``images`` (n, C, H, W); see :func:`predict_logits`.

    Of one logit z they are (1 - sigmoid(z), sigmoid(z)).
    """
    return predict_logits(model, images, batch_size).softmax(1)


def predict(model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Predicted classes (n,) int64 of ``images`` (n, C, H, W); see :func:`predict_proba`."""
    return predict_proba(model, images, batch_size).argmax(1)
