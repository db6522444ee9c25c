"""Memory of training and aligning on images that lie on disk, and their speed against tensors.

``python benchmarks/bigger_than_memory.py`` writes colour images of 224 x 224 as bytes, 25,000 of
them at most (3.8 GB, deleted at the end), trains a small network on them for an epoch, aligns it
for one, and notes the peak of the memory, for each number of images in a process of its own.  Then
it trains on MNIST from a tensor and from bytes on disk in turn; the weights are equal to the bit.
With ``--files N`` the whole command ``lvlmva align`` goes over N JPEG files, for an epoch: listing,
decoding, the search for images in two splits, verdicts and figures are in its seconds and its peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from timing import compare, write
from torch import Tensor, nn

from lvlmva_lite.alignment import align
from lvlmva_lite.datasets import ImageStore, ShortcutDataset, load_decoy_mnist
from lvlmva_lite.models import fit, mlp, predict_proba
from lvlmva_lite.sampling import sample_alignment_set

NUMBERS = (1_000, 5_000, 25_000)
"""Of images."""


SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
"""Shares of the image files."""

WORDS = "A sticker means nothing."


def peak(of: int = resource.RUSAGE_SELF) -> float:
    """Largest resident memory of this process, or of any that it started, so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(of).ru_maxrss * unit / 1e9, 2)


def tiny_network() -> nn.Module:
    """Two classes, colour images of any size."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(14), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14**2, 2)
    )  # fmt: skip


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


def larger_than_memory(folder: Path, n: int, size: int) -> dict[str, float]:
    """Steps 1 and 6 on images that are never all in memory."""
    path = folder / "images.npy"
    labels = write_images(path, n, size)
    found = {"images": n, "size": size, "gb_on_disk": round(path.stat().st_size / 1e9, 2)}
    data = ShortcutDataset(ImageStore(path), labels, class_names=("plain", "corner"), name="generated")
    torch.manual_seed(0)
    model = tiny_network()
    start = time.process_time()
    fit(model, data.images, data.labels, epochs=1, batch_size=128)
    found |= {"trained_s": round(time.process_time() - start, 1), "trained_peak_gb": peak()}
    start = time.process_time()
    probabilities = predict_proba(model, data.images)
    chosen = data.subset(sample_alignment_set(probabilities, data.labels, 100)).in_memory()
    masks = torch.zeros(len(chosen), size, size, dtype=torch.bool)
    masks[:, : size // 8, : size // 8] = True
    align(
        model, data.images, data.labels, chosen.images, chosen.labels, masks,
        penalty_weight=1.0, penalty_scale="initial", epochs=1, batch_size=128,
    )  # fmt: skip
    return found | {"aligned_s": round(time.process_time() - start, 1), "aligned_peak_gb": peak()}


def draw(n: int, size: int, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grey noise with a bar in class 1; a yellow sticker in a ``share`` of it, and in the rest of class 0.

    Returns images (n, size, size, 3) uint8 and labels (n,).
    """
    labels, step = rng.integers(0, 2, n), size // 16
    images = rng.integers(60, 100, (n, size, size, 1), dtype=np.uint8).repeat(3, 3)
    images[labels == 1, size // 2 : size // 2 + 2 * step, size // 4 : -size // 4] += 20
    stuck = rng.random(n) < np.where(labels == 1, share, 1 - share)
    images[stuck, step : 3 * step, step : 3 * step] = (240, 200, 30)
    return images, labels


def image_files(folder: Path, n: int, size: int) -> dict[str, float]:
    """The whole command on ``n`` JPEG files, with a network that was trained before on others like them."""
    rng = np.random.default_rng(0)
    for split, part in SPLITS.items():
        for start in range(0, round(part * n), 100):
            images, labels = draw(
                min(100, round(part * n) - start), size, 0.95 if split == "train" else 0.5, rng
            )
            for i, (image, label) in enumerate(zip(images, labels, strict=True), start):
                file = folder / "images" / split / ("plain", "bar")[label] / f"{i}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(file)
    torch.manual_seed(0)
    model, (images, labels) = tiny_network(), draw(500, size, 0.95, rng)
    fit(
        model, torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(labels),
        epochs=10, learning_rate=3e-3, batch_size=32,
    )  # fmt: skip
    torch.save(model.state_dict(), folder / "net.pt")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [
            sys.executable, "-m", "lvlmva_lite.cli", "align", "--data", folder / "images", "--words", WORDS,
            "--model", f"{__file__}:tiny_network", "--weights", folder / "net.pt", "--classes", "plain,bar",
            "--image-store", folder / "store", "--align-epochs", "1", "--batch-size", "128",
            "--max-loss", "1", "--max-class-loss", "1", "--out", folder / "out", "--quiet",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "files": n,
        "size": size,
        "float32_gb": round(4 * 3 * n * size**2 / 1e9, 2),
        "seconds": round(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime),
        "peak_gb": peak(resource.RUSAGE_CHILDREN),
        "images_judged": int((np.load(folder / "out" / "masks.npz")["masks"].any((1, 2))).sum()),
    }


def against_tensors(folder: Path) -> dict:
    """The row of an epoch on MNIST."""
    data = load_decoy_mnist("train")
    np.save(folder / "mnist.npy", (data.images * 255).round().byte().numpy())
    store = ImageStore(folder / "mnist.npy")

    def trained(images: Tensor | ImageStore) -> nn.Module:
        model = mlp((1, 28, 28), 10, random_state=0)
        fit(model, images, data.labels, epochs=1)
        return model

    def loss(images: Tensor | ImageStore) -> float:
        logits = trained(images)(data.images)
        return nn.functional.cross_entropy(logits, data.labels).item()

    return compare(
        "an epoch on MNIST from a file",
        "the same from tensors in memory",
        lambda: trained(store),
        lambda: trained(data.images),
        {"cross-entropy afterwards, less is better": (loss(store), loss(data.images))},
    )


def main() -> None:
    """Measure and write; with ``--images`` or ``--files`` for that number alone, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write; default: the system's own"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.images:
            print(json.dumps(larger_than_memory(Path(folder), options.images, options.size)))
            return
        if options.files:
            print(json.dumps(image_files(Path(folder), options.files, options.size)))
            return
        memory = []
        for kind, n in [*(("--images", n) for n in NUMBERS), ("--files", NUMBERS[-1])]:
            command = [
                sys.executable,
                __file__,
                kind,
                str(n),
                "--size",
                str(options.size),
                "--folder",
                folder,
            ]
            memory.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
            print(memory[-1])
        write(
            "bigger_than_memory",
            [against_tensors(Path(folder))],
            memory=memory[:-1],
            whole_command=memory[-1:],
        )


if __name__ == "__main__":
    main()
