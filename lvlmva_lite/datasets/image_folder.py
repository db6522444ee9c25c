"""A reader's own images: a folder for each class, or a table.

Folders: ``DIR/{train,val,test}/<class>/...``, or ``DIR/<class>/...`` without
splits.  Masks of the spurious feature, where there are any, lie in
``DIR/masks`` under the same names, with any image's end.

Table: ``DIR/images.csv``, or any CSV file by its path, with the columns
``path`` (below the table's folder, forward slashes) and ``class``, and
optionally ``split`` (train, val, test; empty counts as train), ``group`` (what is spurious: "sticker",
"no sticker") and ``mask``.

What is spurious, and where, may also be said by an annotation file.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lvlmva_lite.datasets.annotations import box_mask, read_mask
from lvlmva_lite.datasets.decoding import ImageDataError, is_grey, is_turned, read_image, read_marked
from lvlmva_lite.datasets.decoding import image_size as file_size
from lvlmva_lite.datasets.image_files import (
    SPLIT_SHARES,
    SPLITS,
    ImageFileDataset,
    apart,
    data_folder,
    draw_splits,
    equal_files,
    read_images,
    read_splits,
    report_skipped,
)
from lvlmva_lite.datasets.image_listing import (
    TABLE,
    Item,
    annotated,
    from_folders,
    from_table,
    grouped,
    ordered_classes,
)
from lvlmva_lite.datasets.image_store import ImageStore, kept_rows
from lvlmva_lite.threads import threads

IN_MEMORY = 4 * 2**30
"""Bytes of float32 images up to which a split is read into memory."""

OWN_SIZE = 256
"""Largest side that images keep where no size is asked for."""


class ImageFolder:
    """A user's own labelled images, listed and checked; :meth:`load` reads a split.

    Parameters
    ----------
    root : the data folder, or a CSV file; see the module's own text
    image_size : side of the images handed back, in pixels, or None for that of the files where all are
        squares of one size up to ``OWN_SIZE``, else 64, with a warning; each pixel is the
        mean of the area that it covers.  The aspect is not kept: an image is
        squashed to a square, since cropping could cut off what matters.
    channels : 1 or 3, or None for 1 where every file is grey, else 3
    classes : the classes in the order of the labels, as your own network has
        them; None takes them sorted as text, as torchvision's ``ImageFolder`` does
    splits : CSV file with the columns image and split, which names every
        image, or None.  It goes before folders and table.
    annotations : annotation file, or None
        Which images show the spurious feature, and where (by a box or a mask, which goes
        before one in ``masks``); see :func:`lvlmva_lite.datasets.annotations.read_annotations`.
        Groups are then class x {unmarked, marked}, where no others are named.
    unannotated : "error", "drop" or "clean"
        What to do with images that the annotation file does not decide:
        refuse, leave them out, or take them as free of the spurious feature.
    groups : CSV file with the columns image and group, which names every
        image, or None.  It goes before the table's column.
    shared_images : "error", "drop" or "warn", where one image, byte for byte,
        is in two splits: refuse, keep it in the later split alone, or keep both
    random_state : int
        Draws the splits that are missing, out of train.  Every class is divided by
        ``SPLIT_SHARES``, rounded to whole images; frames of one film or images
        of one patient are not known to belong together, so give ``splits``.

    Attributes
    ----------
    root : Path, the folder that names start from
    class_names : tuple of str
    names : dict of "train", "validation" and "test" to names, in the order of the data set
    notes : list of str
        What a run should say first: splits that were drawn, files passed over,
        classes that a split lacks.

    Raises
    ------
    ValueError : a parameter that cannot be
    ImageDataError : the folder or the table is not as described; the message
        names the file and line, and the mend
    """

    def __init__(
        self,
        root: str | Path,
        *,
        image_size: int | None = 224,
        channels: int | None = None,
        classes: Sequence[str] | None = None,
        splits: str | Path | None = None,
        annotations: str | Path | None = None,
        unannotated: str = "error",
        groups: str | Path | None = None,
        shared_images: str = "error",
        random_state: int = 0,
    ) -> None:
        if image_size is not None and (not isinstance(image_size, int) or image_size < 16):
            raise ValueError(
                f"image_size must be an int of at least 16 pixels, or None, got {image_size!r}"
            )
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1, 3 or None, got {channels!r}")
        if shared_images not in ("error", "drop", "warn"):
            raise ValueError(f"shared_images must be 'error', 'drop' or 'warn', got {shared_images!r}")
        if unannotated not in ("error", "drop", "clean"):
            raise ValueError(f"unannotated must be 'error', 'drop' or 'clean', got {unannotated!r}")
        if annotations is None and unannotated != "error":
            raise ValueError("unannotated is about an annotation file; give annotations, or leave it out")
        if not isinstance(random_state, int | np.integer):
            raise ValueError(f"random_state must be an int, got {random_state!r}")
        root = Path(root)
        if not root.exists():
            raise ImageDataError(f"there is no folder or CSV file {root}")
        table = root if root.is_file() else root / TABLE
        self.root = root.parent if root.is_file() else data_folder(root)
        self.notes: list[str] = []
        if table.is_file():
            items = from_table(table, self.root)
        else:
            items, skipped = from_folders(self.root)
            tables = {Path(one).resolve() for one in (splits, annotations, groups) if one is not None}
            skipped = [(path, reason) for path, reason in skipped if path.resolve() not in tables]
            if note := report_skipped(skipped, self.root):
                self.notes.append(note)
        if not items:
            raise ImageDataError(f"there is no image in {table if table.is_file() else self.root}")
        if annotations is not None:
            items = annotated(items, annotations, self.root, unannotated)
            if unplaced := [item.name for item in items if item.unplaced]:
                self._note(
                    f"{annotations} says of {len(unplaced)} image(s), such as {unplaced[0]!r}, that they show the "
                    "spurious feature, and not where; nothing is measured by masks in their splits"
                )
        if groups is not None:
            items = grouped(items, groups)
        self.class_names = ordered_classes(items, classes, self.root)
        if splits is not None:
            split_of = read_splits(Path(splits), [item.name for item in items])
            items = [replace(item, split=split_of[item.name]) for item in items]
        items = self._with_all_splits(items, random_state)
        files = {
            split: [self.root / item.name for item in items if item.split == split] for split in SPLITS
        }
        kept = {path for paths in apart(files, shared_images).values() for path in paths}
        self._items = [item for item in items if self.root / item.name in kept]
        self.names = {
            split: tuple(item.name for item in self._items if item.split == split) for split in SPLITS
        }
        self._check_classes()
        self._tell_repeated()
        self.image_size = image_size or self._own_size()
        if turned := [item.name for item in self._items if is_turned(self.root / item.name)]:
            self._note(
                f"{len(turned)} image(s), such as {turned[0]!r}, are turned upright by their EXIF orientation; was your "
                "network trained on them so? torchvision's ImageFolder leaves them as they lie"
            )
        grey = channels is None and all(is_grey(self.root / item.name) for item in self._items)
        self.channels = channels or (1 if grey else 3)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.names[split])} {split}" for split in SPLITS)
        lines = [f"ImageFolder {self.root}: {counts}; classes {', '.join(self.class_names)}", *self.notes]
        return "\n  ".join(lines)

    @threads(1)
    def load(
        self, split: str, *, store: str | Path | None = None, progress: bool = False
    ) -> ImageFileDataset:
        """Read one split.

        Parameters
        ----------
        split : "train", "validation" or "test"
        store : folder in which the images are kept as bytes, of which each
            batch is read when it is its turn (an :class:`ImageStore`), and beside
            them the masks, which are read from there as they are indexed; or None
            for tensors in memory.  A second call takes up what is there.

        Returns
        -------
        ImageFileDataset
            images (N, channels, image_size, image_size), in the order of
            ``names``.  Masks where the split has any: an image without a mask
            file counts as free of the spurious feature.  Groups are class x
            the table's ``group``, or else class x {unmarked, marked} where
            there are masks, or None.

        Raises
        ------
        ValueError : no such split
        ImageDataError : an image or mask that cannot be read, a mask of
            another aspect; too many images for memory, and no ``store``; no
            room on the disk
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {list(SPLITS)}, got {split!r}")
        items = [item for item in self._items if item.split == split]
        n, size = len(items), self.image_size
        if store is None and 4 * n * self.channels * size**2 > IN_MEMORY:
            raise ImageDataError(
                f"{n} images of {self.channels} x {size} x {size} take "
                f"{4 * n * self.channels * size**2 / 2**30:.1f} GB of memory; give a folder as store (--image-store) to keep them on "
                "disk, or a smaller image_size"
            )
        labels = torch.tensor([self.class_names.index(item.label) for item in items], dtype=torch.int64)
        masks, kinds = self._masks(items, split, None if store is None else Path(store), progress)
        groups, group_names = self._groups(items, labels, kinds)
        paths = [self.root / item.name for item in items]
        if store is None:
            images: Tensor | ImageStore = torch.from_numpy(read_images(paths, self._mode, size, progress))
            images = images.unsqueeze(1) if self.channels == 1 else images.permute(0, 3, 1, 2).contiguous()
        else:
            images = ImageStore(self._stored_images(split, paths, Path(store), progress))
        return ImageFileDataset(
            images=images,
            labels=labels,
            groups=groups,
            spurious_masks=masks,
            class_names=self.class_names,
            group_names=group_names,
            name=self.root.resolve().name or "images",
            names=tuple(item.name for item in items),
            mask_kinds=kinds,
        )

    @property
    def _mode(self) -> str:
        return "L" if self.channels == 1 else "RGB"

    def _own_size(self) -> int:
        sizes = Counter(file_size(self.root / item.name) for item in self._items)
        (width, height), _ = sizes.most_common(1)[0]
        if len(sizes) == 1 and width == height and 16 <= width <= OWN_SIZE:
            return width
        others = f" (and {len(sizes) - 1} other sizes)" if len(sizes) > 1 else ""
        self._note(
            f"images are {width} x {height} pixels{others} and brought to 64 x 64; give image_size where your "
            "network was trained at another size"
        )
        return 64

    def _with_all_splits(self, items: list[Item], random_state: int) -> list[Item]:
        """Splits that nobody named, drawn out of train."""
        given = {item.split for item in items}
        items = [replace(item, split=item.split or "train") for item in items]
        missing = [split for split in SPLITS[1:] if split not in given]
        if "train" not in {item.split for item in items}:
            raise ImageDataError(f"{self.root} has no images of the split train; name some")
        if not missing:
            return items
        total = sum(SPLIT_SHARES[split] for split in ("train", *missing))
        rng = np.random.default_rng(random_state)
        drawn: dict[str, str] = {}
        for label in self.class_names:
            names = sorted(item.name for item in items if item.split == "train" and item.label == label)
            drawn |= {names[i]: split for i, split in draw_splits(len(names), missing, rng).items()}
        shares = ", ".join(f"{SPLIT_SHARES[split] / total:.1%} {split}" for split in ("train", *missing))
        self._note(
            f"{' and '.join(missing)} drawn out of train: {shares} of each class, seed {random_state}; a "
            "network that was trained on all of these has seen them, and looks better than it is"
        )
        return [replace(item, split=drawn.get(item.name, item.split)) for item in items]

    def _check_classes(self) -> None:
        for split in SPLITS:
            counts = Counter(item.label for item in self._items if item.split == split)
            lacking = [name for name in self.class_names if not counts[name]]
            if (split == "train" and lacking) or not counts:
                raise ImageDataError(
                    f"{split} of {self.root} has no image of the class {lacking[0]!r}; give it some, "
                    "or leave the class out"
                )
            if lacking:
                self._note(f"{split} has no image of the class(es) {', '.join(lacking)}")

    def _tell_repeated(self) -> None:
        """Note images that are in a split more than once; ``apart`` looks after those of two splits."""
        label_of = {item.name: item.label for item in self._items}
        found = [
            [path.relative_to(self.root).as_posix() for _, path in same]
            for split in SPLITS
            for same in equal_files((split, self.root / name) for name in self.names[split])
        ]
        of_classes = [same for same in found if len({label_of[name] for name in same}) > 1]
        classes = f", {len(of_classes)} of them under two classes" if of_classes else ""
        for first, second, *_ in (of_classes or found)[:1]:
            self._note(
                f"{len(found)} image(s) are more than once in their split, byte for byte{classes}, such as {first!r} "
                f"and {second!r}; each counts as often, so remove what is one too many"
            )

    def _note(self, text: str) -> None:
        self.notes.append(text)
        warnings.warn(text, stacklevel=4)

    @property
    def has_masks(self) -> bool:
        """Whether anybody marked the place of the spurious feature on an image."""
        return any(item.mask or item.box for item in self._items)

    def _masks(
        self, items: list[Item], split: str, store: Path | None, progress: bool
    ) -> tuple[Tensor | None, tuple[str, ...]]:
        """Masks and their kinds; none where nobody drew one, or a place is missing.  With a ``store`` they lie there."""
        if not any(item.mask or item.box for item in items) or any(item.unplaced for item in items):
            return None, ()
        kinds = tuple(_kind_of_mask(item) for item in items)
        shape = (len(items), self.image_size, self.image_size)

        def draw(i: int) -> np.ndarray:
            item, path = items[i], self.root / items[i].name
            if kinds[i] == "none":
                return np.zeros(shape[1:], bool)
            if kinds[i] == "box":
                return box_mask(item.box, path, self.image_size)
            return read_mask(item.mask, self.image_size, path)

        if store is None:
            return torch.from_numpy(np.stack([draw(i) for i in range(len(items))])), kinds
        key = [
            (item.name, item.box, item.mask and (str(item.mask), _state(item.mask)), kind)
            for item, kind in zip(items, kinds, strict=True)
        ]
        file = kept_rows(
            store, f"{split}-masks-{self.image_size}", shape, bool, key, draw, progress=progress
        )
        return torch.from_numpy(np.load(file, mmap_mode="c")), kinds

    def _kind_of_mask(self, item: Item) -> str:
        if item.box is not None:
            return "box"
        # All black, as drawing programs write for an image with nothing on it.
        return (
            "drawn" if item.mask is not None and (item.spurious or read_marked(item.mask).any()) else "none"
        )

    def _groups(
        self, items: list[Item], labels: Tensor, mask_kinds: tuple[str, ...]
    ) -> tuple[Tensor | None, tuple[str, ...]]:
        kinds = sorted({item.group for item in self._items if item.group is not None})
        if kinds:
            of = torch.tensor([kinds.index(item.group) for item in items], dtype=torch.int64)
        elif any(item.spurious is not None for item in items):
            kinds, of = ["unmarked", "marked"], torch.tensor([int(bool(item.spurious)) for item in items])
        elif mask_kinds:
            kinds, of = ["unmarked", "marked"], torch.tensor([int(kind != "none") for kind in mask_kinds])
        else:
            return None, ()
        return labels * len(kinds) + of, tuple(f"{c}, {k}" for c in self.class_names for k in kinds)

    def _stored_images(self, split: str, paths: list[Path], store: Path, progress: bool) -> Path:
        """The .npy file of a split's images, (n, C, H, W) uint8."""
        shape = (len(paths), self.channels, self.image_size, self.image_size)

        def decode(i: int) -> np.ndarray:
            image = read_image(paths[i], self._mode, self.image_size)
            return image if self.channels == 1 else image.transpose(2, 0, 1)

        files = [(path.relative_to(self.root).as_posix(), *_state(path)) for path in paths]
        name = f"{split}-{self.image_size}"
        return kept_rows(store, name, shape, np.uint8, (self.channels, files), decode, progress=progress)


def _kind_of_mask(item: Item) -> str:
    if item.box is not None:
        return "box"
    # All black, as drawing programs write for an image with nothing on it.
    return "drawn" if item.mask is not None and (item.spurious or read_marked(item.mask).any()) else "none"


def _state(path: Path) -> tuple[int, int]:
    """What changes with a file's contents."""
    return path.stat().st_size, path.stat().st_mtime_ns
