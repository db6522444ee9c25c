"""A user's own images and network, drawn and trained by nothing of the package."""

import csv

import numpy as np
import torch
from PIL import Image
from torch import nn

NETWORKS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """As many write it: BatchNorm, F.relu, F.max_pool2d."""

    def __init__(self, num_classes=2, in_channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 8 * 8, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 4)
        return self.fc(x.flatten(1))


class Deeper(nn.Module):
    """The same, for harder images."""

    def __init__(self, num_classes=2, in_channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 5, stride=2, padding=2)
        self.conv2, self.conv3 = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(16), nn.BatchNorm2d(32), nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc(F.relu(self.bn3(self.conv3(x))).mean((2, 3)))


class OneLogit(Net):
    def __init__(self):
        super().__init__(num_classes=1)


class Dict(Net):
    def forward(self, x):
        return {"logits": super().forward(x), "loss": None}


class Chain(nn.Sequential):
    """One that DeepLIFT follows."""

    def __init__(self, n_classes, in_channels):
        super().__init__(
            nn.Conv2d(in_channels, 8, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(8 * 8 * 8, n_classes),
        )


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Softmax(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


def failing():
    raise OSError("no such disk")
'''


def draw(label, marked, rng, n_channels=3, side=32):
    """A dim bar whose height tells the class, and perhaps a square in a corner: (side, side[, 3]) uint8."""
    image = rng.integers(0, 12, (side, side, n_channels))
    row = 7 + 5 * label
    image[row : row + 3, 8:28] += rng.integers(0, 70, (3, 20, 1))
    if marked:
        image[1:6, 1:6] = 200
    image = image.astype(np.uint8)
    return image[:, :, 0] if n_channels == 1 else image


def write(root, classes=("bolt", "nut"), n=(30, 6, 12), n_channels=3, seed=0):
    """``root/{train,val,test}/CLASS``; the first class has the square, in train nearly always.

    Returns the rows of a table: name, class, split, whether marked.
    """
    rng, rows = np.random.default_rng(seed), []
    for split, count in zip(("train", "val", "test"), n, strict=True):
        for label, name in enumerate(classes):
            folder = root / split / name
            for i in range(count):
                rate = ((label == 0) * 0.9 + 0.05) if split == "train" else 0.5
                marked = rng.random() < rate
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw(label, marked, rng, n_channels)).save(folder / f"{i}.png")
                rows.append((f"{split}/{name}/{i}.png", name, split, int(marked)))
    return rows


def write_table(path, columns, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def read(root, split, classes):
    """Images (n, C, H, W) and labels, by Pillow alone."""
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((root / split / name).iterdir())
    ]
    images = torch.stack(
        [torch.from_numpy(np.array(Image.open(path), np.float32)) / 255 for path, _ in files]
    )
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.tensor([label for _, label in files])


def logits(output):
    output = output["logits"] if isinstance(output, dict) else output
    return torch.cat([torch.zeros_like(output), output], 1) if output.shape[1] == 1 else output


def train(network, images, labels, epochs=12):
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits(network(images[rows])), labels[rows]).backward()
            optimizer.step()
    return network.eval()


def accuracy(network, images, labels):
    with torch.no_grad():
        return (logits(network(images)).argmax(1) == labels).double().mean().item()
