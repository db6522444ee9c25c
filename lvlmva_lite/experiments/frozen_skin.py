"""Real moles on frozen features: twins by patches put in, patches of the images' own, and other foreign objects.

Natural patches cannot be taken off, and lie on benign images alone.  Heads are trained on the images as they are.
They are tested on twins: an image without a patch, and the same with one that was cut out of another image.
What stands in the table beside the twins says how far that may be read:

- all patches inserted into a fold are cut out of images of that fold, so that no head meets one that it was fitted on;
- a piece of another image's *skin*, cut out alike, tells what cut edges and a change of tone do by themselves;
- natural and inserted patches are both set against the same benign image with the patch filled from its surroundings,
  the one way in which a natural patch can be taken off;
- in the small real set the images with a patch are one study's with its own camera, and no benign image of that study
  lacks one, so that what the patch does *between* images cannot be told from what the camera does;
- patch and class are never crossed in nature, so that nobody knows how a natural patch acts on a melanoma.

Nobody says which images are of one lesion or patient.  Images that look the same are kept in one fold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import scipy
import torch
from torch import Tensor

from lvlmva_lite.crossed import conflict_auc
from lvlmva_lite.datasets import ShortcutDataset, foreign_object_masks, load_skin
from lvlmva_lite.datasets.annotations import read_mask
from lvlmva_lite.datasets.decoding import read_image
from lvlmva_lite.datasets.foreign_objects import KINDS
from lvlmva_lite.datasets.image_files import SPLITS, ImageFileDataset
from lvlmva_lite.datasets.pasting import Layer, cut_out, patch_layer
from lvlmva_lite.experiments.frozen_arms import Frozen, Row, Study, frozen_rows
from lvlmva_lite.experiments.frozen_heads import Head
from lvlmva_lite.experiments.frozen_masks import OfFold
from lvlmva_lite.experiments.twin_readouts import Twins, folds, readouts
from lvlmva_lite.fills import fill
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.tasks.skin import Skin

ALIKE = 0.97
"""Correlation of 16 x 16 pixels from which two images count as one lesion."""

OBJECTS = tuple(kind for kind in KINDS if kind != "patch")


@dataclass(frozen=True)
class SkinTwins(Twins):
    """Every image, and those without a patch of their own with one of another image.

    Attributes
    ----------
    edged : Tensor, (N, 3, H, W), float32, with another image's skin where ``marked`` has a patch
    donors : Tensor, (N,), bool, images that patches are cut out of
    objects : Tensor, (N,), bool, whether the image shows a foreign object that is no patch
    """

    edged: Tensor | None = None
    donors: Tensor | None = None
    objects: Tensor | None = None

    @property
    def strata(self) -> Tensor:
        """The group, with donors apart, so that every fold has some."""
        return self.groups + 4 * self.donors.long()


def true_masks(images: ImageFileDataset) -> Tensor:
    """Where the images' own patches are, (N, H, W) bool, marked by people or by eye.

    The drawn mask where there is one, and the patches of :mod:`datasets.foreign_objects`.  Only of an image
    that has neither is the loader's estimate by colour taken, since the lexicon's rule is nearly the same.
    """
    by_eye = torch.from_numpy(foreign_object_masks(images.names, images.images.shape[-1], kinds=("patch",)))
    drawn = torch.tensor([kind == "drawn" for kind in images.mask_kinds])
    kept = drawn | ~by_eye.flatten(1).any(1)
    has = images.groups % 2 == 1
    return (images.spurious_masks & kept[:, None, None] | by_eye) & has[:, None, None]


def lesions(images: Tensor) -> np.ndarray:
    """A number for each of the images (n, C, H, W), the same for those that look the same, (n,) int64."""
    small = torch.nn.functional.adaptive_avg_pool2d(images, 16).flatten(1).double()
    alike = np.corrcoef(small.numpy()) > ALIKE
    return scipy.sparse.csgraph.connected_components(alike, directed=False)[1].astype(np.int64)


def skin_twins(data_root: str, repeat: int, size: int) -> SkinTwins:
    """All images of a folder, whatever split they lie in; ``repeat`` draws folds, patches and their places.

    Raises
    ------
    ValueError : a fold has no image with a drawn mask of its patch
    """
    parts = [
        load_skin(data_root, split, size=size, paste_rate=(0.0, 0.0), shared_images="warn")
        for split in SPLITS
    ]
    images, labels = (torch.cat([getattr(part, field) for part in parts]) for field in ("images", "labels"))
    shows = torch.cat([part.groups for part in parts]) % 2 == 1
    names = [name for part in parts for name in part.names]
    donors = torch.tensor([kind == "drawn" for part in parts for kind in part.mask_kinds])
    objects = torch.from_numpy(foreign_object_masks(names, size, kinds=OBJECTS)).flatten(1).any(1)
    both = SkinTwins(
        bare=images, marked=images.clone(), masks=torch.cat(list(map(true_masks, parts))), shows=shows,
        labels=labels, patients=lesions(images), template=parts[0].subset(torch.arange(1)), twinned=~shows,
        edged=images.clone(), donors=donors, objects=objects,
    )  # fmt: skip
    for held in map(torch.from_numpy, folds(both.strata, both.patients, repeat)):
        patches = [_patch(Path(data_root), names[i], size) for i in held[donors[held]].tolist()]
        if not patches:
            raise ValueError(
                f"a fold of repeat {repeat} has no image with a drawn mask of its patch to cut out, of "
                f"{int(donors.sum())} in {data_root}; put at least five into patch_masks/"
            )
        bare = both.with_twin(held)
        for i in bare.tolist():
            rng = np.random.default_rng([repeat, i])
            image = images[i].permute(1, 2, 0).numpy()
            layer = patch_layer(image, patches[rng.integers(len(patches))], rng)
            others = bare[bare != i]
            skin = images[others[rng.integers(len(others))]].permute(1, 2, 0).numpy()
            for to, one in ((both.marked, layer), (both.edged, Layer(layer.opacity, skin))):
                to[i] = torch.from_numpy(one.over(image)).permute(2, 0, 1)
            both.masks[i] = torch.from_numpy(layer.mask)
    return both


def _patch(root: Path, name: str, size: int) -> Layer:
    """The patch of an image, from its drawn mask, at twice the size that is asked for."""
    mask = read_mask(root / "patch_masks" / f"{Path(name).stem}.png", 2 * size, root / name)
    return cut_out(read_image(root / name, "RGB", 2 * size), mask, size)


def natural_readouts(fold: Frozen) -> Callable[[Head], Row]:
    """What is told of a head beyond the twins, on the images of the fold that is tested.

    Effects are differences of means of the score for benign, in standard deviations of that score over the
    images without a patch; above 0 speaks for benign.

    Returns
    -------
    function from a head to a dict
        "inserted_effect", what an inserted patch adds, on benign images;
        "natural_effect", benign images with a patch of their own against those without: patch and camera in one;
        "inserted_filled_effect" and "natural_filled_effect", what patches add to the same benign image with the
        patch filled from its surroundings; "camera_effect", images with a patch of their own, filled, against the
        benign without: what is left of "natural_effect";
        "edge_effect", what a piece of skin adds, cut out and put in as patches are, on all twins;
        "bare_auc", of the classes, without patches;
        "natural_accuracy" of images with a patch of their own; "wga_natural" and "aga_natural" of the three groups
        there are in nature; "conflict_auc", "wga" and "aga", each with "_objects" and "_no_objects", of twins that
        show foreign objects, no patches, and of those that show none (nan where these are not of both classes)
    """
    both: SkinTwins = fold.twins
    bare, natural = fold.test, fold.tested[~both.twinned[fold.tested]]
    benign = bare[both.labels[bare] == 0]
    filled, filled_own = (fold.features(fill(both.marked[at], both.masks[at])) for at in (benign, natural))
    edged = fold.features(both.edged[bare])

    def told(head: Head) -> Row:
        plain, patched = -head.scores(fold.bare), -head.scores(fold.marked)
        spread = plain[bare].std()
        erased, erased_own = -head.scores(filled), -head.scores(filled_own)
        effects = {
            "inserted": patched[benign].mean() - plain[benign].mean(),
            "natural": patched[natural].mean() - plain[benign].mean(),
            "inserted_filled": patched[benign].mean() - erased.mean(),
            "natural_filled": patched[natural].mean() - erased_own.mean(),
            "camera": erased_own.mean() - plain[benign].mean(),
            "edge": -head.scores(edged).mean() - plain[bare].mean(),
        }
        right = (head.scores(fold.seen[fold.tested]) > 0).long() == both.labels[fold.tested]
        groups = both.groups[fold.tested]
        shares = [right[groups == group].double().mean().item() for group in range(3)]
        row = {f"{name}_effect": (effect / spread).item() for name, effect in effects.items()}
        row["bare_auc"] = conflict_auc(plain[bare], plain[bare], both.labels[bare] == 0)
        row |= {"natural_accuracy": shares[1], "wga_natural": min(shares), "aga_natural": sum(shares) / 3}
        for name, shown in (("objects", True), ("no_objects", False)):
            some = bare[both.objects[bare] == shown]
            known = len(both.labels[some].unique()) == 2
            of_some = readouts(*fold.twin_scores(head, some)) if known else {}
            for measure in ("conflict_auc", "wga", "aga"):
                row[f"{measure}_{name}"] = of_some.get(measure, math.nan)
        return row

    return told


@dataclass(frozen=True)
class SkinFold(OfFold, Skin):
    """Moles of a fold."""

    # At 128 pixels the 64 rows of the command line hold 9 GB.
    networks: ClassVar = {name: replace(one, max_rows=16) for name, one in Skin.networks.items()}


class Moles(Study):
    """Real moles; natural patches are the same in every repeat, and so are the recorded cases."""

    task = SkinFold
    redrawn = False

    def twins(self, data_root: str, repeat: int, size: int) -> SkinTwins:
        return skin_twins(data_root, repeat, size)

    def recorded_train(self, data_root: str) -> ShortcutDataset:
        train = Skin(data_root=data_root).load("train", seed=0)
        return replace(train, spurious_masks=true_masks(train))

    def further(self, fold: Frozen) -> Callable[[Head], Row]:
        return natural_readouts(fold)


@EXPERIMENTS.register("skin_frozen")
def skin_sweep(seed: int, *, data_root: str) -> list[Row]:
    """:func:`frozen_rows` of real moles; ten seeds are two repeats of five folds."""
    return frozen_rows(Moles(), data_root, seed)
