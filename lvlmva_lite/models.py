"""Small classifiers, their training and their predictions."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from tqdm import tqdm


def mlp(
    image_shape: tuple[int, int, int],
    n_classes: int,
    hidden: tuple[int, ...] = (50, 30),
    random_state: int = 0,
) -> nn.Sequential:
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
    nn.Sequential : maps (n, C, H, W) float32 to logits (n, n_classes)
    """
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        sizes = (math.prod(image_shape), *hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], n_classes))


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    random_state: int = 0,
    progress: bool = False,
) -> list[float]:
    """Train with Adam on the cross-entropy, in place.

    Parameters
    ----------
    model : maps images to logits; left in eval mode
    images : (N, C, H, W) float32
    labels : (N,) int64
    epochs, learning_rate, batch_size : as usual
    random_state : int, shuffles the samples
    progress : show a progress bar

    Returns
    -------
    list of float : mean training loss of each epoch
    """
    generator = torch.Generator().manual_seed(random_state)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history = []
    model.train()
    for _ in tqdm(range(epochs), desc="training", unit="epoch", disable=not progress):
        total = 0.0
        for batch in torch.randperm(len(images), generator=generator).split(batch_size):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        history.append(total / len(images))
    model.eval()
    return history


@torch.no_grad()
def predict_proba(model: nn.Module, images: Tensor, batch_size: int = 4096) -> Tensor:
    """Softmax probabilities (n, n_classes) of ``images`` (n, C, H, W), in eval mode."""
    model.eval()
    return torch.cat([model(batch).softmax(1) for batch in images.split(batch_size)])


def predict(model: nn.Module, images: Tensor, batch_size: int = 4096) -> Tensor:
    """Predicted classes (n,) int64 of ``images`` (n, C, H, W)."""
    return predict_proba(model, images, batch_size).argmax(1)
