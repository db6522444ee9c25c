"""What a step of alignment costs, in plain training steps on as many images.

``python benchmarks/alignment.py``.  Half of each batch is penalised.  The peer is PyTorch itself: a
loop of forward, backward and Adam on batches drawn in the same way.  A ratio of .5 says that a step of ours costs two
of its.

The floor.  Count a pass through all layers by its multiplications: forward 1, gradients of the
weights 1, gradients of the activations 1, that of the image 1 / depth or so of it, the more
the fewer layers.  A plain step takes 3 (MLP: 2, for its first layer, which is nearly all of it,
hands no gradient to the image).  Penalising the slopes of half the batch adds, on that half, the gradient of the image
(1) and its derivative with respect to the weights, which goes through that gradient's graph (2: to the weights, and to the
gradients) and, where the network bends smoothly or at the softmax, through the forward pass, which the cross-entropy goes
through anyway.  So the floor is (3 + 3 / 2) / 3 = 1.5 plain steps for a deep network, (2 + 3 / 2) / 2 = 1.75
for the MLP.  A finite difference sends half as many images more through a plain step: 1.5.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from timing import ROOT, compare, scaling, write
from torch import Tensor, nn

from lvlmva_lite.alignment import align, penalty_of, rrr_penalty
from lvlmva_lite.config import Config
from lvlmva_lite.models import mlp, small_resnet
from lvlmva_lite.threads import threads

sys.path.insert(0, str(ROOT / "tests"))
from captum_peers import resnet18

NETWORKS = {
    "MLP, batches of 256 digits": (lambda: mlp((1, 28, 28), 10), (1, 28, 28), 256, 40),
    "small residual network, batches of 64 images of 64 x 64": (
        lambda: small_resnet((1, 64, 64), 2), (1, 64, 64), 64, 4,
    ),
    "ResNet-18, batches of 32 images of 3 x 64 x 64": (
        lambda: resnet18(2, lambda: nn.MaxPool2d(3, 2, 1)), (3, 64, 64), 32, 1,
    ),
}  # fmt: skip
"""What -> network, shape of an image, images in a batch, steps."""


class Task:
    """Random images of two classes, half of them to align on, and masks over a corner, on which the class depends."""

    def __init__(self, shape: tuple[int, ...], n: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.images, self.labels = torch.rand(n, *shape, generator=draw), torch.arange(n) % 2
        side = shape[-1] // 4
        self.images[self.labels == 1, :, :side, :side] += 1
        self.masks = torch.zeros(n, *shape[1:], dtype=torch.bool)
        self.masks[:, :side, :side] = True


def plain(model: nn.Module, task: Task, batch_size: int, steps: int) -> None:
    """So many steps as PyTorch's tutorials write them, in eval mode as ours."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    model.eval()
    for _ in range(steps):
        batch = torch.randint(len(task.images), (batch_size,))
        loss = nn.functional.cross_entropy(model(task.images[batch]), task.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def aligned(
    model: nn.Module, task: Task, batch_size: int, steps: int, penalty: Callable[..., Tensor]
) -> None:
    """So many steps of ours."""
    n, few = steps * batch_size // 2, slice(256)  # an alignment set of a usual size
    with threads(torch.get_num_threads()):
        align(
            model, task.images[:n], task.labels[:n], task.images[few], task.labels[few], task.masks[few],
            penalty=penalty, penalty_weight=1.0, epochs=1, batch_size=batch_size, learning_rate=1e-4,
        )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Each penalty on each network."""
    found = []
    for what, (build, shape, batch_size, steps) in NETWORKS.items():
        task = Task(shape, steps * batch_size)
        penalties = {
            "RRR": rrr_penalty,
            "finite difference": penalty_of(Config(penalty="finite-difference"), task.images),
        }
        for name, penalty in penalties.items():
            torch.manual_seed(0)
            model, peer = build(), build()
            peer.load_state_dict(model.state_dict())
            few = task.images[:batch_size], task.masks[:batch_size]

            def left(network: nn.Module, penalty: Callable[..., Tensor] = penalty, few: Any = few) -> float:
                return penalty(network.eval(), *few, reduction="mean").item()

            before = left(model)
            work = (
                lambda m=model, t=task, b=batch_size, s=steps, p=penalty: aligned(m, t, b, s, p),
                lambda m=peer, t=task, b=batch_size, s=steps: plain(m, t, b, s),
            )
            for do in work:
                do()
            quality = {
                "penalty afterwards, as a share of that before, less is better": (
                    left(model) / before, left(peer) / before
                )
            }  # fmt: skip
            row = compare(
                f"{steps} step{'s' * (steps > 1)} with {name}, {what}",
                "as many plain steps of PyTorch",
                *work,
                quality,
                repeats=3,
            )
            row["plain_steps"] = round(1 / row["cpu"]["ratio"], 2)
            found.append(row)
    return found


def curve_of_images(n: int) -> Callable[[], None]:
    """An epoch of RRR over ``n`` digits, MLP."""
    model, task = mlp((1, 28, 28), 10), Task((1, 28, 28), 2 * n)
    return lambda: aligned(model, task, 256, n // 128, rrr_penalty)


def curve_of_sides(side: int) -> Callable[[], None]:
    """A step of RRR on 16 images of ``side`` x ``side``, small residual network."""
    model, task = small_resnet((1, side, side), 2), Task((1, side, side), 16)
    return lambda: aligned(model, task, 16, 1, rrr_penalty)


def main() -> None:
    """Measure and write."""
    measured = rows()
    curves = [
        scaling(
            "an epoch of RRR, MLP", "training images", (256, 512, 1024, 2048, 4096, 8192), curve_of_images
        ),
        scaling(
            "a step of RRR, small residual network, 16 images", "side of the image", (28, 56, 112, 224),
            curve_of_sides,
        ),
    ]  # fmt: skip
    write(
        "alignment", measured, curves,
        floor="in plain steps: RRR 1.5 (deep networks) to 1.75 (MLP), a finite difference 1.5",
    )  # fmt: skip


if __name__ == "__main__":
    main()
