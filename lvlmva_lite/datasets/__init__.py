"""Data sets with a known shortcut."""

from lvlmva_lite.datasets.decoy_mnist import load_decoy_mnist
from lvlmva_lite.datasets.foreign_objects import foreign_object_masks
from lvlmva_lite.datasets.image_folder import ImageFolder
from lvlmva_lite.datasets.image_store import ImageStore
from lvlmva_lite.datasets.knee import load_knee
from lvlmva_lite.datasets.phantoms import knee_phantom, skin_phantom
from lvlmva_lite.datasets.shortcut_dataset import ShortcutDataset
from lvlmva_lite.datasets.skin import load_skin

__all__ = [
    "ImageFolder",
    "ImageStore",
    "ShortcutDataset",
    "foreign_object_masks",
    "knee_phantom",
    "load_decoy_mnist",
    "load_knee",
    "load_skin",
    "skin_phantom",
]
