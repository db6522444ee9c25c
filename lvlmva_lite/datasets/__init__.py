"""Data sets with a known shortcut."""

from lvlmva_lite.datasets.decoy_mnist import load_decoy_mnist
from lvlmva_lite.datasets.shortcut_dataset import ShortcutDataset

__all__ = ["ShortcutDataset", "load_decoy_mnist"]
