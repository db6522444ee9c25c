"""Write ``book/which_networks.md``: which networks work, by what they are explained, and the mend.

Each network has random weights and takes images of 3 x 64 x 64.  It is loaded as a user's own,
explained by ``auto``, and aligned for one epoch with random masks.

``--check`` writes nothing and exits 1 where the page is not what the code gives.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lvlmva_lite.alignment import align
from lvlmva_lite.attribution import EXPLAINERS, CompletenessError, choose_explainer
from lvlmva_lite.files import write_whole
from lvlmva_lite.models import NetworkError, as_classifier, check_network, predict_proba
from lvlmva_lite.models.own import is_half
from lvlmva_lite.torchvision_compat import import_torchvision

PAGE = Path(__file__).resolve().parent.parent / "book" / "which_networks.md"
N_CLASSES = 4


class Functional(nn.Module):
    """BatchNorm and F.relu, as many write it."""

    def __init__(self, n_outputs: int = N_CLASSES) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * 4 * 4, n_outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 4)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 4)
        return self.fc(x.flatten(1))


class Shared(nn.Module):
    """One nn.ReLU for two places."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, stride=4), nn.Conv2d(8, 16, 3, stride=4)
        self.fc = nn.Linear(16 * 4 * 4, N_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv2(self.relu(self.conv1(images)))).flatten(1))


class Normalised(nn.Module):
    """Normalises inside."""

    def __init__(self) -> None:
        super().__init__()
        self.body = chain(nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.body((images - 0.45) / 0.22)


class Dict(nn.Module):
    """Gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.body = chain(nn.ReLU())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.body(images)
        return {"logits": logits, "probabilities": logits.softmax(1)}


class Tuple(Dict):
    """Gives a tuple."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(super().forward(images).values())


def chain(
    activation: nn.Module, *tail: nn.Module, pool: nn.Module | None = None, n_outputs: int = N_CLASSES
) -> nn.Module:
    """A convolution, BatchNorm, the activation, a pooling, a linear head."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        activation,
        pool or nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(8 * 8 * 8, n_outputs),
        *tail,
    )


def frozen_but_head() -> nn.Module:
    network = chain(nn.ReLU()).requires_grad_(False)
    network[-1].requires_grad_()
    return network


def torchvision(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: import_torchvision().models.get_model(
        name, weights=None, num_classes=N_CLASSES, **options
    )


def small_vit() -> nn.Module:
    return import_torchvision().models.VisionTransformer(
        image_size=64,
        patch_size=16,
        num_layers=2,
        num_heads=4,
        hidden_dim=32,
        mlp_dim=64,
        num_classes=N_CLASSES,
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "`nn.ReLU` modules, average pooling": lambda: chain(nn.ReLU()),
    "`nn.ReLU(inplace=True)`": lambda: chain(nn.ReLU(inplace=True)),
    "`nn.LeakyReLU`": lambda: chain(nn.LeakyReLU()),
    "`nn.ELU`": lambda: chain(nn.ELU()),
    "`nn.Tanh`": lambda: chain(nn.Tanh()),
    "`nn.ReLU6`": lambda: chain(nn.ReLU6()),
    "`nn.GELU`": lambda: chain(nn.GELU()),
    "`nn.SiLU`": lambda: chain(nn.SiLU()),
    "`nn.Hardswish`": lambda: chain(nn.Hardswish()),
    "BatchNorm, `F.relu`, `F.max_pool2d`": Functional,
    "one `nn.ReLU` used twice": Shared,
    "`nn.ReLU`, then `nn.MaxPool2d`": lambda: chain(nn.ReLU(), pool=nn.MaxPool2d(4)),
    "dropout": lambda: chain(nn.Sequential(nn.ReLU(), nn.Dropout())),
    "normalisation inside": Normalised,
    "one logit": lambda: chain(nn.ReLU(), n_outputs=1),
    "one logit, flattened to (n,)": lambda: chain(nn.ReLU(), nn.Flatten(0), n_outputs=1),
    "a dict or an object with `logits`": Dict,
    "a tuple": Tuple,
    "softmax at the end": lambda: chain(nn.ReLU(), nn.Softmax(1)),
    "log-softmax at the end": lambda: chain(nn.ReLU(), nn.LogSoftmax(1)),
    "sigmoid at the end, one output": lambda: chain(nn.ReLU(), nn.Sigmoid(), n_outputs=1),
    "BatchNorm without running statistics": lambda: nn.Sequential(
        nn.BatchNorm2d(3, track_running_stats=False), chain(nn.ReLU())
    ),
    "float64": lambda: chain(nn.ReLU()).double(),
    "bfloat16": lambda: chain(nn.ReLU()).bfloat16(),
    "float16": lambda: chain(nn.ReLU()).half(),
    "`torch.compile`": lambda: torch.compile(chain(nn.ReLU()), backend="eager"),
    "frozen but for the head": frozen_but_head,
    "frozen": lambda: chain(nn.ReLU()).requires_grad_(False),
    "a small vision transformer": small_vit,
    "`torchvision:resnet18`": torchvision("resnet18"),
    "`torchvision:resnet50`": torchvision("resnet50"),
    "`torchvision:mobilenet_v2`": torchvision("mobilenet_v2"),
    "`torchvision:mobilenet_v3_small`": torchvision("mobilenet_v3_small"),
    "`torchvision:densenet121`": torchvision("densenet121"),
    "`torchvision:efficientnet_b0`": torchvision("efficientnet_b0"),
    "`torchvision:convnext_tiny`": torchvision("convnext_tiny"),
    "`torchvision:vgg11_bn`": torchvision("vgg11_bn"),
}
"""What stands in the first column -> what builds it."""


@dataclass(frozen=True)
class Row:
    """What became of one network.

    Attributes
    ----------
    explained : by what, or "refused"
    error : largest completeness error, as a share of the sum of absolute values; NaN where refused
    aligned : "yes", or "refused"
    remark : what DeepLIFT stumbled over, or why it was refused, with the mend
    """

    explained: str
    error: float
    aligned: str
    remark: str


def smooth(n: int) -> Tensor:
    """Images (n, 3, 64, 64) of soft spots: of pixelwise noise, the effects on an output nearly cancel."""
    return F.interpolate(torch.rand(n, 3, 6, 6), 64, mode="bilinear", align_corners=False)


def unsettle(network: nn.Module) -> nn.Module:
    """BatchNorm statistics and heads as after training; the initial ones are too kind to be a test.

    Deep networks with statistics that are not those of their images answer all
    images alike, and then there is nothing to explain.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats and module.momentum is not None
    ]
    for module in network.modules():
        # torchvision's vision transformers start from a head of zeros, and thus explain nothing.
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, 0, 0.1)
    if norms:
        momenta = [module.momentum for module in norms]
        for module in norms:
            module.momentum = 1.0
        network.train()
        with torch.no_grad():
            network(smooth(16).to(next(network.parameters()).dtype))
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum
    return network.eval()


def worst_error(
    network: nn.Module, images: Tensor, targets: Tensor, baselines: Tensor, explained: str
) -> float:
    """Completeness, reckoned here anew: what is missing, as a share of the sum of absolute values."""
    model = as_classifier(network)
    if is_half(model):
        model = copy.deepcopy(model).float()
    maps = EXPLAINERS.get(explained)(network, images, targets, baselines, max_rows=64)
    with torch.no_grad():
        change = (model(images) - model(baselines).mean(0)).gather(1, targets[:, None])[:, 0]
    return ((maps.sum((1, 2)) - change).abs() / maps.abs().sum((1, 2))).max().item()


def row(build: Callable[[], nn.Module]) -> Row:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = unsettle(build())
        images, baselines = smooth(2), smooth(2)
        masks = torch.rand(2, 64, 64) < 0.2
    remarks = []
    try:
        check_network(network, images)
        targets = predict_proba(network, images).argmax(1)
        explained, reason = choose_explainer(network, images, targets, baselines, max_rows=64)
        error = worst_error(network, images, targets, baselines, explained)
        if reason:
            remarks.append(reason.split(": ", 1)[1].removesuffix(", or explain by integrated gradients"))
    except (NetworkError, CompletenessError) as refusal:
        return Row("refused", math.nan, "refused", str(refusal))
    before = [weight.detach().clone() for weight in network.parameters()]
    try:
        align(network, images, targets, images, targets, masks, penalty_weight=1.0, epochs=1, batch_size=4)
        moved = any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
        aligned = "yes" if moved else "no"
    except NetworkError as refusal:
        aligned = "refused"
        remarks.append(str(refusal))
    return Row(explained, error, aligned, "; ".join(remarks))


HEADER = """\
# Which networks work

Most PyTorch networks that map images to logits and have a gradient can be explained and aligned; deep ones may need more steps than integrated gradients allow by default, and are then refused.
The table is made by `python tools/which_networks.py`, and a test holds every row against the code: networks with random weights, for images of 3 x 64 x 64, each explained against two baselines and aligned for one epoch with random masks.

The explainer `auto` takes {doc}`DeepLIFT-SHAP <../notebooks/03_explanations>` where it has a rule for each step that bends, and says why where it changes over to integrated gradients.
The mend in the last column is for those who want DeepLIFT-SHAP, which is exact in one pass and cheaper.
The *error* is that of completeness: what the values of a map miss of the change of output that they must add up to, as a share of the sum of their absolute values; of two images, the larger.
That of integrated gradients falls with the number of steps, which is raised until the error is below one twentieth of the change, the bound of its paper, or one two-hundredth of the sum.

Outputs may be logits (n, classes); one logit (n, 1) or (n,) for the second of two classes; or a dict or an object with `logits`.
What is refused is refused before any long work, in the words of the last column.

:::{table}
:class: networks

| network | explained by | error | aligned | remark, and the mend |
|---|---|---|---|---|
"""
FOOTER = ":::\n"


def lines(rows: dict[str, Row]) -> list[str]:
    """The rows of the table in Markdown."""
    return [
        f"| {name} | {row.explained} | {'' if math.isnan(row.error) else f'{row.error:.0e}'} | {row.aligned} | "
        f"{row.remark} |"
        for name, row in rows.items()
    ]


def differs(page: str, table: list[str]) -> list[str]:
    """Lines of ``table`` that ``page`` does not hold; errors may differ by rounding, as on another machine."""
    shown = {line.split(" | ")[0]: line.split(" | ") for line in page.splitlines() if line.startswith("| ")}
    wrong = []
    for line in table:
        cells = line.split(" | ")
        there = shown.get(cells[0])
        if there is None or len(there) != len(cells):
            wrong.append(line)
            continue
        errors = [float(row[2].strip() or "nan") for row in (cells, there)]
        close = math.isnan(errors[0]) == math.isnan(errors[1]) and not abs(errors[0] - errors[1]) > 1e-2
        if not close or cells[:2] + cells[3:] != there[:2] + there[3:]:
            wrong.append(line)
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where the page is not up to date"
    )
    options = parser.parse_args(arguments)
    rows = {}
    for name, build in NETWORKS.items():
        print(name, end=": ", flush=True)
        rows[name] = row(build)
        print(rows[name], flush=True)
    if options.check:
        wrong = differs(PAGE.read_text(), lines(rows))
        print("\n".join(f"{PAGE.name} lacks: {line}" for line in wrong))
        return int(bool(wrong))
    write_whole(PAGE, HEADER + "\n".join(lines(rows)) + "\n" + FOOTER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
