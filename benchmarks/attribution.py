"""Time of DeepLIFT-SHAP against captum's, and its memory on a ResNet-50 of 224 pixels.

``python benchmarks/attribution.py``.  captum gets as many images at a time as it is fastest with;
each network has random weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from captum import __version__
from captum.attr import DeepLiftShap
from timing import ROOT, compare, scaling, write
from torch import Tensor, nn

from lvlmva_lite.attribution import deeplift_shap
from lvlmva_lite.models import mlp, resnet50, small_resnet
from lvlmva_lite.threads import threads

sys.path.insert(0, str(ROOT / "tests"))
from captum_peers import resnet18

CASES = {
    "MLP, 256 images of 28 x 28, 50 references": (lambda: mlp((1, 28, 28), 10), (1, 28, 28), 256, 50),
    "small residual network, 32 images of 64 x 64, 20 references": (
        lambda: small_resnet((1, 64, 64), 2), (1, 64, 64), 32, 20,
    ),
    "ResNet-18, 8 images of 3 x 64 x 64, 20 references": (lambda: resnet18(2), (3, 64, 64), 8, 20),
}  # fmt: skip


def case(
    build: object, shape: tuple[int, ...], n: int, n_references: int
) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The network, images, targets and references of a row."""
    torch.manual_seed(0)
    return build().eval(), torch.rand(n, *shape), torch.arange(n) % 2, torch.rand(n_references, *shape)


def ours(*arguments: Tensor | nn.Module) -> Tensor:
    """On as many threads as PyTorch has been given."""
    with threads(torch.get_num_threads()):
        return deeplift_shap(*arguments)


def captums(model: nn.Module, images: Tensor, targets: Tensor, references: Tensor, at_once: int) -> Tensor:
    """The peer, ``at_once`` images at a time."""
    explain = DeepLiftShap(model).attribute
    return torch.cat([
        explain(part, references, target=target).detach().sum(1)
        for part, target in zip(images.split(at_once), targets.split(at_once), strict=True)
    ])  # fmt: skip


def row(what: str) -> dict:
    """Ours against captum, on one network."""
    arguments = case(*CASES[what])
    model, images, targets, references = arguments

    def took(at_once: int) -> float:
        start = time.process_time()
        captums(*arguments, at_once)
        return time.process_time() - start

    at_once = min((1, 4, 16), key=took)
    maps, peers = ours(*arguments), captums(*arguments, at_once)
    with torch.no_grad():
        change = (model(images) - model(references).mean(0)).gather(1, targets[:, None])[:, 0]

    def incomplete(values: Tensor) -> float:
        sums = values.sum((1, 2))
        return float(((sums - change).abs() / values.abs().sum((1, 2))).max())

    quality = {
        "completeness error, as a share of the sum of absolute values, less is better": (
            incomplete(maps), incomplete(peers)
        ),
        "largest difference from captum's values, as a share of their largest, less is better": (
            float((maps - peers).abs().max() / peers.abs().max()), 0.0
        ),
    }  # fmt: skip
    peer = f"captum {__version__}, {at_once} images at a time"
    return compare(what, peer, lambda: ours(*arguments), lambda: captums(*arguments, at_once), quality)


def with_references(n: int) -> object:
    """The work of 256 digits against ``n`` references."""
    arguments = case(lambda: mlp((1, 28, 28), 10), (1, 28, 28), 256, n)
    return lambda: ours(*arguments)


def with_images(n: int) -> object:
    """The work of ``n`` digits against 20 references."""
    arguments = case(lambda: mlp((1, 28, 28), 10), (1, 28, 28), n, 20)
    return lambda: ours(*arguments)


def with_side(side: int) -> object:
    """The work of 4 images of ``side`` x ``side`` against 4 references."""
    arguments = case(lambda: small_resnet((1, side, side), 2), (1, side, side), 4, 4)
    return lambda: ours(*arguments)


def memory(max_rows: int) -> dict[str, float]:
    """Peak of this process: a batch of images of 224 pixels, 20 references, a ResNet-50."""
    n = max_rows // 2  # as many as there are at once
    arguments = case(lambda: resnet50((3, 224, 224), 2, weights="none"), (3, 224, 224), n, 20)
    deeplift_shap(*arguments, max_rows=max_rows)
    # Not getrusage's, which hands the parent's peak down (Linux).
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    return {"images": n, "references": 20, "max_rows": max_rows, "peak_gb": round(peak, 2)}


def main() -> None:
    """Measure and write."""
    warnings.filterwarnings("ignore", message="Setting forward, backward hooks|resnet50 starts from")
    if sys.argv[1:]:
        print(json.dumps(memory(int(sys.argv[1]))))
        return
    rows = [row(what) for what in CASES]
    curves = [
        scaling("MLP, 256 digits", "references", (5, 10, 20, 50, 100, 200), with_references),
        scaling("MLP, 20 references", "images", (100, 300, 1000, 3000, 10_000), with_images),
        scaling(
            "small residual network, 4 images, 4 references",
            "side of the image",
            (28, 56, 112, 224),
            with_side,
        ),
    ]
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, str(Path(__file__)), str(max_rows)], check=True, capture_output=True
            ).stdout
        )
        for max_rows in (8, 20)
    ]  # fmt: skip
    print(found)
    write("attribution", rows, curves, memory={"network": "ResNet-50, 3 x 224 x 224", "runs": found})


if __name__ == "__main__":
    main()
