"""The command line on a twentieth of the decoys: for tests of how runs go, not of what they find.

python tests/few_decoys.py run decoy-mnist --out OUT ...
"""

from collections.abc import Callable
from typing import Any

import torch

from lvlmva_lite.datasets import load_decoy_mnist
from lvlmva_lite.tasks import DecoyMNIST, decoy_mnist


def load_few(*arguments: Any, **keywords: Any):
    """The first 2 500 images of a split, which ``decoy_mnist.load_decoy_mnist`` is replaced by."""
    return load_decoy_mnist(*arguments, **keywords).subset(torch.arange(2500))


def take_few(setattr: Callable = setattr) -> None:
    """Have every run in this process take few decoys, and explain 50 of them; give monkeypatch's to undo it."""
    setattr(decoy_mnist, "load_decoy_mnist", load_few)
    setattr(DecoyMNIST, "defaults", {"n_explained": 50})


class FewDecoys(DecoyMNIST):
    """The same, as a task of its own."""

    def load(self, split: str, *, seed: int, clean: bool = False):
        """The first 2 500 images."""
        return super().load(split, seed=seed, clean=clean).subset(torch.arange(2500))


if __name__ == "__main__":
    from lvlmva_lite.cli import main

    take_few()
    main()
