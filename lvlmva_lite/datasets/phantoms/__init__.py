"""Drawn stand-ins for knee radiographs and dermoscopy images, with a known shortcut.

Made from a seed, with nothing to download.  Results on phantoms are not
results on patients: see the modules' "where they fall short".
"""

from lvlmva_lite.datasets.phantoms.knee import knee_phantom
from lvlmva_lite.datasets.phantoms.skin import skin_phantom

__all__ = ["knee_phantom", "skin_phantom"]
