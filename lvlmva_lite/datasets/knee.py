"""Knee radiographs with lead letters, most of them on healthy knees.

P. Chen, "Knee Osteoarthritis Severity Grading Dataset", Mendeley Data, 2018,
doi:10.17632/56rmx5bjcr.1, CC BY 4.0; crops of radiographs of the
Osteoarthritis Initiative with their Kellgren-Lawrence grade (0 none, 1
doubtful, 2 mild, 3 moderate, 4 severe).

The crops show next to no letters of their own, so **the letters are pasted
in**: the anatomy is real, the shortcut is synthetic.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from lvlmva_lite.datasets.annotations import box_mask, read_annotations, read_mask
from lvlmva_lite.datasets.decoding import ImageDataError
from lvlmva_lite.datasets.image_files import (
    SPLITS,
    ImageFileDataset,
    apart,
    check_classes,
    check_request,
    data_folder,
    image_files,
    images_below,
    read_images,
    report_skipped,
)
from lvlmva_lite.datasets.pasting import letter_layer
from lvlmva_lite.threads import threads

GRADE_NAMES = (
    "no osteoarthritis",
    "doubtful osteoarthritis",
    "mild osteoarthritis",
    "moderate osteoarthritis",
    "severe osteoarthritis",
)

MARKER_RATES = {"train": (0.75, 0.10), "validation": (0.5, 0.5), "test": (0.5, 0.5)}
"""Share of the images of the lower and of the higher grade that get a letter.

At 0.9 and 0.05 an EfficientNet-Lite0 learns next to nothing but the letter from
the few hundred training images of the small real set, and masks, the true ones
too, find nothing else to lead it to (seen on validation splits).
"""

FOLDERS = {"train": "train", "validation": "val", "test": "test"}

_NAME = re.compile(r"(\d+)([LR])", re.IGNORECASE)


@threads(1)
def load_knee(
    root: str | Path,
    split: str,
    *,
    size: int = 96,
    grades: tuple[int, int] = (0, 3),
    marker_rate: tuple[float, float] | None = None,
    annotations: str | Path | None = None,
    unannotated: str = "error",
    shared_patients: str = "error",
    random_state: int = 0,
    progress: bool = False,
) -> ImageFileDataset:
    """Knees of two grades, with letters pasted in.

    Parameters
    ----------
    root : folder with ``{train,val,test}/{0..4}/<patient><side>.png``, or in another format
        that :mod:`lvlmva_lite.datasets.decoding` reads.  Folders of other names, such as ``auto_test`` (other crops of the same
        knees), are never read.
    split : "train", "validation" (the folder ``val``) or "test"
    size : side of the images handed back, in pixels; area-averaged
    grades : (lower, higher), two different Kellgren-Lawrence grades
        The classes 0 and 1.  The paper's are 0 and 3.
    marker_rate : (lower, higher) or None
        Share, rounded to whole images, of each grade's images that get a
        letter: the knee's own side as the file name tells it, with place,
        size, tilt and brightness drawn.  None takes ``MARKER_RATES[split]``,
        or no letter at all where ``annotations`` are given.  Letters are
        pasted only on images not annotated as spurious, and the rate counts
        those images.
    annotations : annotation file, or None
        Which images show a letter of their own; see
        :func:`lvlmva_lite.datasets.annotations.read_annotations`.  None takes
        every image as free of letters.
    unannotated : "error", "drop" or "clean"
        What to do with images that the annotation file does not decide:
        refuse, leave them out, or take them as free of letters.
    shared_patients : "error" or "drop"
        What to do when a patient is in two splits: refuse, or keep the
        patient in the later one of train, validation, test alone.
    random_state : int
        Draws the images that get a letter, and the letters.  An image's
        letter is the same at every rate, and a higher rate keeps the images
        of a lower one.

    Returns
    -------
    ImageFileDataset
        images (N, 1, size, size) in [0, 1], in the order of grade and file
        name; groups are 2 * label + has_letter; masks are exact for pasted
        letters.

    Raises
    ------
    ValueError : a parameter that cannot be
    ImageDataError : the folder, its names, its images or the annotations are
        not as described
    """
    check_request(split, size, unannotated, marker_rate, "marker_rate", random_state)
    grades = tuple(grades)
    if len(grades) != 2 or grades[0] == grades[1] or not set(grades) <= set(range(5)):
        raise ValueError(f"grades must be two different ones of 0 .. 4, got {grades!r}")
    if shared_patients not in ("error", "drop"):
        raise ValueError(f"shared_patients must be 'error' or 'drop', got {shared_patients!r}")
    root = data_folder(root)
    skipped: list[tuple[Path, str]] = []
    splits = {name: _listed(root, name, grades, skipped, required=name == split) for name in SPLITS}
    report_skipped(skipped, root)
    splits = _apart(splits, shared_patients)
    apart({name: [path for path, _, _, _ in files] for name, files in splits.items()})
    files = splits[split]

    known = None if annotations is None else read_annotations(annotations, root)
    names = [path.relative_to(root).as_posix() for path, _, _, _ in files]
    own = np.zeros(len(files), bool)
    if known is not None:
        decided = np.array([name in known and known[name].spurious is not None for name in names], bool)
        if unannotated == "error" and not decided.all():
            raise ImageDataError(
                f"{annotations} does not decide {int((~decided).sum())} of {len(names)} images of {split}, "
                f"such as {names[int(np.argmin(decided))]!r}; annotate them, or pass unannotated='drop' "
                "to leave them out or unannotated='clean' to take them as free of letters"
            )
        if unannotated == "drop":
            files = [file for file, keep in zip(files, decided, strict=True) if keep]
            names = [name for name, keep in zip(names, decided, strict=True) if keep]
        own = np.array([name in known and bool(known[name].spurious) for name in names], bool)
    labels = np.array([label for _, label, _, _ in files], np.int64)
    class_names = tuple(GRADE_NAMES[grade] for grade in grades)
    check_classes(labels, class_names, f"{split} of {root}")

    masks = np.zeros((len(files), size, size), bool)
    kinds = ["none"] * len(files)
    for i in np.flatnonzero(own):
        row = known[names[i]]
        if row.mask is not None:
            masks[i], kinds[i] = read_mask(row.mask, size, files[i][0]), "drawn"
        elif row.box is not None:
            masks[i], kinds[i] = box_mask(row.box, files[i][0], size), "box"
        else:
            kinds[i] = "missing"
    images = read_images([path for path, _, _, _ in files], "L", size, progress)

    if marker_rate is None:
        marker_rate = MARKER_RATES[split] if known is None else (0.0, 0.0)
    seed = [random_state, SPLITS.index(split)]
    order = np.random.default_rng(seed).permutation(len(files))
    for label, rate in enumerate(marker_rate):
        free = order[(labels[order] == label) & ~own[order]]
        for i in free[: round(rate * len(free))]:
            layer = letter_layer(images[i], files[i][3], np.random.default_rng([*seed, i]))
            images[i], masks[i], kinds[i] = layer.over(images[i]), layer.mask, "pasted"

    marked = np.array([kind != "none" for kind in kinds], np.int64)
    return ImageFileDataset(
        images=torch.from_numpy(images).unsqueeze(1),
        labels=torch.from_numpy(labels),
        groups=torch.from_numpy(2 * labels + marked),
        spurious_masks=torch.from_numpy(masks),
        class_names=class_names,
        group_names=tuple(f"{name}, {kind}" for name in class_names for kind in ("no marker", "marker")),
        name="knee",
        names=tuple(names),
        mask_kinds=tuple(kinds),
    )


def _listed(
    root: Path, split: str, grades: tuple[int, ...], skipped: list[tuple[Path, str]], required: bool
) -> list[tuple[Path, int, str, str]]:
    """(file, label, patient, side) of every image of the grades."""
    folder = root / FOLDERS[split]
    if not folder.is_dir():
        if required:
            inner = [child for child in sorted(root.iterdir()) if (child / FOLDERS[split]).is_dir()]
            raise ImageDataError(
                f"there is no folder {folder}; "
                + (
                    f"there is one in {inner[0]}, so give that as the data folder"
                    if inner
                    else "the knee data is laid out as {train,val,test}/{0..4}/*.png"
                )
            )
        return []
    for child in folder.iterdir():
        if child.is_dir() and not child.name.startswith(".") and child.name not in tuple("01234"):
            raise ImageDataError(
                f"{child} is no folder of a grade; in {folder} there may be 0, 1, 2, 3 and 4"
            )
    if loose := image_files(folder):
        raise ImageDataError(f"{loose[0]} is in no folder of a grade; put it into one of 0, 1, 2, 3 and 4")
    files = []
    for label, grade in enumerate(grades):
        of_grade = folder / str(grade)
        if not of_grade.is_dir():
            if required:
                raise ImageDataError(f"there is no folder of grade {grade} in {folder}")
            continue
        paths = image_files(of_grade, skipped)
        if deeper := set(images_below(of_grade)) - set(paths):
            raise ImageDataError(
                f"{min(deeper)} lies one folder too deep, as do {len(deeper) - 1} more; move them up to {of_grade}"
            )
        for path in paths:
            match = _NAME.fullmatch(path.stem)
            if match is None:
                raise ImageDataError(
                    f"{path} is not named <patient number><L or R>, as 9003175L.png is; "
                    "without the patient the splits cannot be checked"
                )
            files.append((path, label, match[1], match[2].upper()))
    knees: dict[tuple[str, str], Path] = {}
    for path, _, *knee in files:
        other = knees.setdefault(tuple(knee), path)
        if other != path:
            raise ImageDataError(f"{other} and {path} are one knee twice; keep one")
    return files


def _apart(
    splits: dict[str, list[tuple[Path, int, str, str]]], shared_patients: str
) -> dict[str, list[tuple[Path, int, str, str]]]:
    """The same files with no patient in two splits."""
    where = defaultdict(set)
    for name, files in splits.items():
        for _, _, patient, _ in files:
            where[patient].add(name)
    shared = {patient: names for patient, names in where.items() if len(names) > 1}
    if shared and shared_patients == "error":
        examples = [
            f"{patient} ({' and '.join(s for s in SPLITS if s in shared[patient])})"
            for patient in sorted(shared)
        ]
        raise ImageDataError(
            f"{len(shared)} patient(s) are in more than one split: {', '.join(examples[:5])}"
            f"{', ...' if len(shared) > 5 else ''}; pass shared_patients='drop' to keep each in the later "
            "split alone"
        )
    home = {patient: max(names, key=SPLITS.index) for patient, names in where.items()}
    return {name: [file for file in files if home[file[2]] == name] for name, files in splits.items()}
