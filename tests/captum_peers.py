"""captum's DeepLIFT-SHAP as the peer, and a ResNet-18 that it can follow."""

import warnings

import torch
from captum.attr import DeepLiftShap
from torch import nn

from lvlmva_lite.models.networks import Classifier, Residual
from lvlmva_lite.torchvision_compat import import_torchvision


def captums(model, images, targets, baselines):
    """Its maps, summed over channels, image by image: it has no batch size of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")
        explain = DeepLiftShap(model).attribute
        parts = [
            explain(image[None], baselines, target=int(target)).detach()
            for image, target in zip(images, targets, strict=True)
        ]
    return torch.cat(parts).sum(1)


class WindowsApart(nn.Module):
    """``nn.MaxPool2d(3, stride=2, padding=1)`` of values >= 0, as captum can follow it.

    Its rule goes wrong, without a word, where windows overlap and right behind a ReLU.
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(3)

    def forward(self, images):
        windows = nn.functional.pad(images, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2)
        n, channels, rows, columns, _, _ = windows.shape
        return self.pool(windows.transpose(3, 4).reshape(n, channels, 3 * rows, 3 * columns))


def resnet18(n_classes, pool=WindowsApart):
    """torchvision's ResNet-18 with random weights, each ReLU a module of its own."""
    net = import_torchvision().models.resnet18(weights=None)
    blocks = [
        Residual(
            nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2),
            block.downsample or nn.Identity(),
            nn.ReLU(),
        )
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4)
        for block in stage
    ]
    return Classifier(
        net.conv1, net.bn1, nn.ReLU(), pool(), *blocks, net.avgpool, nn.Flatten(), nn.Linear(512, n_classes)
    ).to(memory_format=torch.channels_last)
