"""Memory of training and aligning on images that lie on disk, and their speed against tensors.

``python benchmarks/bigger_than_memory.py [--images N] [--size S] [--folder DIR]`` writes N
colour images of S x S as bytes (3.8 GB by default, deleted at the end), trains a small network on
them for an epoch, aligns it for one, and prints the peak of this process's memory.  Then it
trains on MNIST from a tensor, from bytes in memory and from bytes on disk in turns, prints the
ratios of the times, and checks that the weights are equal to the bit.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import nn

from lvlmva_lite.alignment import align
from lvlmva_lite.datasets import ImageStore, ShortcutDataset, load_decoy_mnist
from lvlmva_lite.models import fit, mlp, predict_proba
from lvlmva_lite.sampling import sample_alignment_set


def peak() -> float:
    """Largest resident memory of this process so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def write_images(path: Path, n: int, size: int) -> torch.Tensor:
    """Noise with a bright corner in class 1, in pieces; gives the labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    piece = rng.integers(0, 200, (256, 3, size, size), dtype=np.uint8)
    values = open_memmap(path, "w+", np.uint8, (n, 3, size, size))
    for start in range(0, n, len(piece)):
        part = values[start : start + len(piece)]
        part[:] = np.roll(piece, start // len(piece), axis=3)[: len(part)]
        part[labels[start : start + len(piece)] == 1, :, : size // 8, : size // 8] = 255
        del values  # a mapping holds on to the pages that it wrote
        values = np.load(path, mmap_mode="r+")
    del values
    return torch.from_numpy(labels)


def larger_than_memory(folder: Path, n: int, size: int) -> None:
    """Steps 1 and 6 on images that are never all in memory."""
    path = folder / "images.npy"
    labels = write_images(path, n, size)
    print(f"{n} x 3 x {size} x {size}: {path.stat().st_size / 1e9:.2f} GB on disk, peak {peak():.2f} GB")
    data = ShortcutDataset(ImageStore(path), labels, class_names=("plain", "corner"), name="generated")
    torch.manual_seed(0)
    side = size // 16
    model = nn.Sequential(
        nn.AvgPool2d(16), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * side**2, 2)
    )
    start = time.perf_counter()
    loss = fit(model, data.images, data.labels, epochs=1, batch_size=128)[-1]
    print(f"trained in {time.perf_counter() - start:.0f} s, loss {loss:.3f}, peak {peak():.2f} GB")
    start = time.perf_counter()
    probabilities = predict_proba(model, data.images)
    chosen = data.subset(sample_alignment_set(probabilities, data.labels, 100)).in_memory()
    masks = torch.zeros(len(chosen), size, size, dtype=torch.bool)
    masks[:, : size // 8, : size // 8] = True
    align(
        model, data.images, data.labels, chosen.images, chosen.labels, masks,
        penalty_weight=1.0, penalty_scale="initial", epochs=1, batch_size=128,
    )  # fmt: skip
    print(f"asked and aligned in {time.perf_counter() - start:.0f} s, peak {peak():.2f} GB")


def against_tensors(folder: Path, repeats: int) -> None:
    """Seconds of an epoch on MNIST from each kind of storage, best of ``repeats`` taken in turns."""
    data = load_decoy_mnist("train")
    values = (data.images * 255).round().byte().numpy()
    np.save(folder / "mnist.npy", values)
    kinds = {"tensor": data.images, "bytes": ImageStore(values), "disk": ImageStore(folder / "mnist.npy")}
    seconds = {kind: [] for kind in kinds}
    weights = {}
    for _ in range(repeats):
        for kind, images in kinds.items():
            model = mlp((1, 28, 28), 10, random_state=0)
            start = time.perf_counter()
            fit(model, images, data.labels, epochs=1)
            seconds[kind].append(time.perf_counter() - start)
            weights[kind] = nn.utils.parameters_to_vector(model.parameters()).detach()
    best = {kind: min(times) for kind, times in seconds.items()}
    for kind, time_ in best.items():
        same = torch.equal(weights[kind], weights["tensor"])
        ratio = time_ / best["tensor"]
        print(f"MNIST from {kind}: {time_:.2f} s an epoch, {ratio:.2f} of a tensor's; same weights: {same}")


def main() -> None:
    """Run both and print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=25_000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write; default: the system's own"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        larger_than_memory(Path(folder), options.images, options.size)
        against_tensors(Path(folder), options.repeats)


if __name__ == "__main__":
    main()
