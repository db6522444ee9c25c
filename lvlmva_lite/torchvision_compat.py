"""Import torchvision where its compiled operators do not load.

A torchvision wheel built against another torch (a CPU build of torch beside
the registry's torchvision, say) cannot load its compiled operators, and
``import torchvision`` then fails while it registers the shapes of two of
them.  Defining the two schemas first lets the import pass; everything but the
operators themselves (non-maximum suppression, region pooling) then works.
Nothing in this package needs those.
"""

from __future__ import annotations

from types import ModuleType

import torch


def import_torchvision() -> ModuleType:
    """``torchvision``, with or without its compiled operators.

    Raises
    ------
    ImportError : torchvision is not installed
    """
    try:
        import torchvision
    except RuntimeError:
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        import torchvision
    return torchvision
