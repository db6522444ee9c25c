"""Dermoscopic images, benign against malignant, with coloured patches beside benign lesions.

Images of the ISIC Archive.  Nearly all patches come from one study of benign
lesions (SONIC), so beside a malignant one there is next to none; for
validation and test they are cut out of training images and pasted in.  N. Codella et al., "Skin
lesion analysis toward melanoma detection" (ISIC 2017); the challenge of 2019:
M. Combalia et al., "BCN20000"; P. Tschandl et al., "The HAM10000 dataset".
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy
import skimage
import torch

from lvlmva_lite.datasets.annotations import Annotation, box_mask, read_annotations, read_mask
from lvlmva_lite.datasets.decoding import ImageDataError, read_image
from lvlmva_lite.datasets.image_files import (
    SPLITS,
    ImageFileDataset,
    apart,
    check_classes,
    check_request,
    check_stems,
    data_folder,
    read_images,
    read_splits,
)
from lvlmva_lite.datasets.pasting import Layer, cut_out, patch_layer
from lvlmva_lite.datasets.skin_layouts import CLASS_NAMES, READERS, SkinRow, found_layout, with_masks
from lvlmva_lite.threads import threads

GROUP_NAMES = tuple(f"{name}, {kind}" for name in CLASS_NAMES for kind in ("no patch", "patch"))

PASTE_RATES = {"train": (0.0, 0.0), "validation": (0.5, 0.5), "test": (0.5, 0.5)}
"""Share of the patch-free benign and malignant images that get a patch."""

PATCH_COLOUR_DISTANCE = 16
"""CIELAB distance in (a, b) from the image's median beyond which a pixel is no skin.

Chosen among 12, 16, 20, 25 and 30 on the drawn masks of the small real set.
"""


@threads(1)
def load_skin(
    root: str | Path,
    split: str,
    *,
    size: int = 96,
    layout: str = "auto",
    splits: str | Path | None = None,
    paste_rate: tuple[float, float] | None = None,
    annotations: str | Path | None = None,
    unannotated: str = "error",
    shared_images: str = "error",
    random_state: int = 0,
    progress: bool = False,
) -> ImageFileDataset:
    """Benign and malignant lesions, some beside a coloured patch.

    Parameters
    ----------
    root : the data folder
    split : "train", "validation" or "test"
        Without splits of the source: 70, 10 and 20 % by a hash of the patient,
        else of the lesion, else of the image, the same for everyone.
    size : side of the images handed back, in pixels; area-averaged, the
        aspect is not kept
    layout : "auto" or one of
        "isic-cli": images beside or below the ``metadata.csv`` that ``isic image
        download`` writes; the class is ``diagnosis_1``, or the older
        ``benign_malignant`` where that is empty; all but benign and malignant
        are left out.
        "isic-2019": ``ISIC_2019_Training_Input/*.jpg`` (or doubled, as
        Kaggle's archive unpacks it, and with any image suffix) and
        ``ISIC_2019_Training_GroundTruth.csv``, classes by
        ``ISIC_2019_CLASSES``; lesions are kept in one split if
        ``ISIC_2019_Training_Metadata.csv`` is there.
        "manifest": ``manifest.csv`` with image, label, split (train, val,
        test) and coloured_patch.
        "auto" looks which of the three CSV files there is.
    splits : CSV file with the columns image and split (train, val, test), or None
        It goes before the source's own splits and must name every image.
    paste_rate : (benign, malignant) or None
        Share, rounded to whole images, of the images without a patch that get
        one, cut out of a *training* image that has a drawn mask.  None takes
        ``PASTE_RATES[split]``, or nothing where there is no such image.
    annotations : annotation file, or None
        Which images show a patch, and where; see
        :func:`lvlmva_lite.datasets.annotations.read_annotations`.  It goes
        before the manifest's own column.
    unannotated : "error", "drop" or "clean"
        What to do with images of which nobody says whether they show a patch:
        refuse, leave them out, or take them as free of patches.
    shared_images : "error", "drop" or "warn"
        What to do when one image, byte for byte, is in two splits under two
        names: refuse, keep it in the later of train, validation and test
        alone, or keep both and say so.
    random_state : int
        Draws the images that get a patch, and the patches.  An image's patch
        is the same at every rate, and a higher rate keeps the images of a
        lower one.

    Returns
    -------
    ImageFileDataset
        images (N, 3, size, size) in [0, 1], in the order of the CSV file;
        groups are 2 * label + has_patch.  ``mask_kinds`` tells the masks
        apart: exact for pasted patches; for natural ones drawn (file
        ``patch_masks/<image>.png`` or the annotation's), a box, estimated by
        colour, or missing where colour finds nothing.  A drawn mask may mark
        one patch of several.

    Raises
    ------
    ValueError : a parameter that cannot be
    ImageDataError : the folder, its CSV files, its images or the annotations
        are not as described
    """
    check_request(split, size, unannotated, paste_rate, "paste_rate", random_state)
    if layout not in ("auto", *READERS):
        raise ValueError(f"layout must be one of {['auto', *READERS]}, got {layout!r}")
    if shared_images not in ("error", "drop", "warn"):
        raise ValueError(f"shared_images must be 'error', 'drop' or 'warn', got {shared_images!r}")
    root = data_folder(root)
    every = READERS[found_layout(root) if layout == "auto" else layout](root)
    known = {} if annotations is None else read_annotations(annotations, root)

    def name(row: SkinRow) -> str:
        return row.path.relative_to(root).as_posix()

    if splits is not None:
        split_of = read_splits(Path(splits), map(name, every))
        every = [replace(row, split=split_of[name(row)]) for row in every]
    check_stems(sorted({row.path for row in every}))
    parts = apart(
        {part: [row.path for row in every if row.split == part] for part in SPLITS}, shared_images
    )
    kept = {path for paths in parts.values() for path in paths}
    every = [row for row in every if row.path in kept]
    every = with_masks(root, every)

    def shows_patch(row: SkinRow) -> bool | None:
        return known[name(row)].spurious if name(row) in known else row.patch

    rows = [row for row in every if row.split == split]
    undecided = [row for row in rows if shows_patch(row) is None]
    if undecided and unannotated == "error":
        raise ImageDataError(
            f"nothing says of {len(undecided)} of {len(rows)} images of {split}, such as "
            f"{name(undecided[0])!r}, whether they show a coloured patch; annotate them (annotations=...), "
            "or pass unannotated='drop' to leave them out or unannotated='clean' to take them as free of patches"
        )
    if unannotated == "drop":
        rows = [row for row in rows if shows_patch(row) is not None]
    labels = np.array([row.label for row in rows], np.int64)
    check_classes(labels, CLASS_NAMES, f"{split} of {root}")

    rates = PASTE_RATES[split] if paste_rate is None else paste_rate
    patches = []
    if any(rates):
        masked = [(row, _mask_file(row, known.get(name(row)))) for row in every if row.split == "train"]
        donors = [(row.path, mask) for row, mask in masked if mask is not None and shows_patch(row)]
        if paste_rate is not None and not donors:
            raise ImageDataError(
                f"no training image in {root} has a drawn mask of its patch, so there is none to paste; "
                "put masks into patch_masks/ or name them in the annotation file, or pass paste_rate=(0, 0)"
            )
        patches = [_donor(path, mask, size) for path, mask in donors]

    images = read_images([row.path for row in rows], "RGB", size, progress)
    natural = np.array([bool(shows_patch(row)) for row in rows], bool)
    masks = np.zeros(images.shape[:3], bool)
    kinds = ["none"] * len(rows)
    for i in np.flatnonzero(natural):
        masks[i], kinds[i] = _natural_mask(rows[i], known.get(name(rows[i])), images[i])

    seed = [random_state, SPLITS.index(split)]
    order = np.random.default_rng(seed).permutation(len(rows))
    for label, rate in enumerate(rates if patches else (0.0, 0.0)):
        free = order[(labels[order] == label) & ~natural[order]]
        for i in free[: round(rate * len(free))]:
            rng = np.random.default_rng([*seed, i])
            layer = patch_layer(images[i], patches[rng.integers(len(patches))], rng)
            images[i], masks[i], kinds[i] = layer.over(images[i]), layer.mask, "pasted"

    patched = np.array([kind != "none" for kind in kinds], np.int64)
    return ImageFileDataset(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        labels=torch.from_numpy(labels),
        groups=torch.from_numpy(2 * labels + patched),
        spurious_masks=torch.from_numpy(masks),
        class_names=CLASS_NAMES,
        group_names=GROUP_NAMES,
        name="skin",
        names=tuple(name(row) for row in rows),
        mask_kinds=tuple(kinds),
    )


def estimate_patch_mask(image: np.ndarray) -> np.ndarray:
    """Where a coloured patch is likely, by colour alone.

    Pixels whose hue is far from the image's median, in pieces that touch the
    edge of the image.

    Parameters
    ----------
    image : (S, S, 3) float in [0, 1]

    Returns
    -------
    ndarray, (S, S), bool : empty where nothing is found
    """
    lab = skimage.color.rgb2lab(image)
    lit = lab[..., 0] > 35
    if not lit.any():
        return np.zeros(lit.shape, bool)
    distance = np.linalg.norm(lab[..., 1:] - np.median(lab[lit][:, 1:], axis=0), axis=2)
    pieces, _ = scipy.ndimage.label(scipy.ndimage.binary_opening((distance > PATCH_COLOUR_DISTANCE) & lit))
    border = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
    large = np.flatnonzero(np.bincount(pieces.ravel()) > 0.01 * pieces.size)
    kept = np.isin(pieces, np.intersect1d(np.unique(border[border > 0]), large))
    return scipy.ndimage.binary_fill_holes(kept)


def _natural_mask(row: SkinRow, known: Annotation | None, image: np.ndarray) -> tuple[np.ndarray, str]:
    size = len(image)
    path = _mask_file(row, known)
    if path is not None:
        return read_mask(path, size, row.path), "drawn"
    if known is not None and known.box is not None:
        return box_mask(known.box, row.path, size), "box"
    mask = estimate_patch_mask(image)
    return mask, "estimated" if mask.any() else "missing"


def _mask_file(row: SkinRow, known: Annotation | None) -> Path | None:
    return known.mask if known is not None and known.mask is not None else row.mask


def _donor(path: Path, mask_path: Path, size: int) -> Layer:
    image = read_image(path, "RGB")
    if image.shape[0] != image.shape[1] or image.shape[0] > 4 * size:
        image = read_image(path, "RGB", 4 * size)
    return cut_out(image, read_mask(mask_path, len(image), path), size)
