"""Which images a folder or a table of a reader's own holds, of which class, split and group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lvlmva_lite.datasets.annotations import Annotation, read_annotations
from lvlmva_lite.datasets.decoding import ImageDataError, check_readable, read_marked
from lvlmva_lite.datasets.image_files import (
    SPLIT_NAMES,
    check_masks_fit,
    check_stems,
    image_files,
    images_below,
    named_file,
    normalised,
    read_table,
)

TABLE = "images.csv"
MASKS = "masks"


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes
    ----------
    name : below the root
    label : its class
    split : None: to be drawn
    group : what is spurious about it, in a word
    mask : its mask file
    spurious : whether somebody says that it shows the spurious feature
    box : where, if that is so; see :class:`datasets.annotations.Annotation`
    """

    name: str
    label: str
    split: str | None
    group: str | None = None
    mask: Path | None = None
    spurious: bool | None = None
    box: tuple[float, float, float, float] | None = None

    @property
    def unplaced(self) -> bool:
        """Whether it shows the spurious feature and nobody says where."""
        return bool(self.spurious) and self.mask is None and self.box is None


def from_folders(root: Path) -> tuple[list[Item], list[tuple[Path, str]]]:
    skipped: list[tuple[Path, str]] = []
    folders = [
        child
        for child in sorted(root.iterdir())
        if child.is_dir() and not child.name.startswith(".") and child.name != MASKS
    ]
    of_splits = [child for child in folders if child.name.lower() in SPLIT_NAMES]
    names = [SPLIT_NAMES[child.name.lower()] for child in of_splits]
    for child, split in zip(of_splits, names, strict=True):
        if names.count(split) > 1:
            raise ImageDataError(
                f"{root} has two folders of the split {split}, {child.name} is one; keep one"
            )
    if of_splits and "train" not in names:
        raise ImageDataError(f"{root} has the folder {of_splits[0].name}, but no folder train; name one")
    if (
        not of_splits
        and len(folders) == 1
        and any(one.name.lower() in SPLIT_NAMES for one in folders[0].iterdir())
    ):
        raise ImageDataError(f"the folders of the splits are in {folders[0]}; give that as the data folder")
    if not of_splits and len(folders) > 1:
        inner = [{one.name for one in child.iterdir() if one.is_dir()} for child in folders]
        if len(inner[0]) > 1 and all(one == inner[0] for one in inner):
            raise ImageDataError(
                f"the folders {folders[0].name} and {folders[1].name} of {root} hold the same folders; if they are splits, "
                "name them train, val and test"
            )
    loose = [path for parent in (root, *of_splits) for path in image_files(parent, skipped)]
    if loose:
        raise ImageDataError(f"{loose[0]} is in no folder of a class; put it into one")
    skipped += [
        (child, "a folder of no split") for child in folders if of_splits and child not in of_splits
    ]
    items = []
    for parent, split in zip(of_splits, names, strict=True) if of_splits else [(root, None)]:
        for child in sorted(parent.iterdir()):
            if not child.is_dir() or child.name.startswith(".") or (parent == root and child.name == MASKS):
                continue
            before = len(skipped)
            paths = images_below(child, skipped)
            if not paths:
                reason = (
                    f"; {skipped[before][0].name}: {skipped[before][1]}" if len(skipped) > before else ""
                )
                raise ImageDataError(
                    f"the folder of a class {child} holds no image{reason}; give it some, or remove it"
                )
            check_stems(paths)
            items += [Item(path.relative_to(root).as_posix(), child.name, split) for path in paths]
    return _with_masks(root, items, skipped), skipped


def _with_masks(root: Path, items: list[Item], skipped: list[tuple[Path, str]]) -> list[Item]:
    if not (root / MASKS).is_dir():
        return items
    paths = images_below(root / MASKS, skipped)
    check_stems(paths)
    masks = {path.relative_to(root / MASKS).with_suffix("").as_posix(): path for path in paths}
    stem_of = {item.name: Path(item.name).with_suffix("").as_posix() for item in items}
    skipped += check_masks_fit(masks, stem_of.values())
    return [replace(item, mask=masks.get(stem_of[item.name])) for item in items]


def from_table(table: Path, root: Path) -> list[Item]:
    rows = read_table(table, ("path", "class"))
    lines: dict[str, int] = {}
    items = []
    for line, row in rows:
        where = f"{table}, line {line}"
        check_readable(named_file(root, row["path"], where))
        name, split = normalised(row["path"]), row.get("split", "").lower()
        if name in lines:
            raise ImageDataError(f"{where}: {name!r} has a row already, line {lines[name]}; keep one")
        lines[name] = line
        if not row["class"]:
            raise ImageDataError(f"{where}: class is empty; give the class of {name!r}, or remove the row")
        if split and split not in SPLIT_NAMES:
            raise ImageDataError(
                f"{where}: split must be one of {list(SPLIT_NAMES)} or empty, got {row['split']!r}"
            )
        if "group" in row and not row["group"]:
            raise ImageDataError(f"{where}: group is empty; give it in every row, or leave the column out")
        mask = named_file(root, row["mask"], where, "mask") if row.get("mask") else None
        items.append(Item(name, row["class"], SPLIT_NAMES.get(split), row.get("group"), mask))
    check_stems([root / name for name in sorted(lines)])
    return items


def annotated(items: list[Item], path: str | Path, root: Path, unannotated: str) -> list[Item]:
    """The images with what an annotation file says of them; see ``annotations`` of :class:`ImageFolder`."""
    known = read_annotations(path, root)
    decided = [item for item in items if item.name in known and known[item.name].spurious is not None]
    if unannotated == "error" and len(decided) < len(items):
        lacking = {item.name for item in items} - {item.name for item in decided}
        raise ImageDataError(
            f"{path} does not decide {len(lacking)} of {len(items)} images, such as {min(lacking)!r}; annotate them, "
            "or set unannotated to 'drop' to leave them out or to 'clean' to take them as free of the spurious feature"
        )
    made = []
    for item in decided if unannotated == "drop" else items:
        one = known.get(item.name, Annotation(None))
        spurious = bool(one.spurious)
        if item.mask is not None and not spurious:
            if read_marked(item.mask).any():
                raise ImageDataError(
                    f"the mask {item.mask} marks something on {item.name!r}, which {path} does not call spurious; mend one of them"
                )
            item = replace(item, mask=None)
        made.append(
            replace(item, spurious=spurious, box=one.box, mask=one.mask or (None if one.box else item.mask))
        )
    return made


def grouped(items: list[Item], path: str | Path) -> list[Item]:
    """The images with the groups of a CSV file with the columns image and group, which must name each."""
    groups: dict[str, str] = {}
    for line, row in read_table(Path(path), ("image", "group")):
        name = normalised(row["image"])
        if not row["group"]:
            raise ImageDataError(f"{path}, line {line}: group is empty; give that of {name!r}")
        if name in groups:
            raise ImageDataError(f"{path}, line {line}: {name!r} has a row already; keep one")
        groups[name] = row["group"]
    if lacking := [item.name for item in items if item.name not in groups]:
        raise ImageDataError(
            f"{path} has no row for {len(lacking)} image(s), such as {lacking[0]!r}; give each its group"
        )
    return [replace(item, group=groups[item.name]) for item in items]


def ordered_classes(items: list[Item], given: Sequence[str] | None, root: Path) -> tuple[str, ...]:
    """The classes of images, sorted as text, or in the order ``given``, which must name each once."""
    found = sorted({item.label for item in items})
    if len(found) < 2:
        raise ImageDataError(
            f"{root} has one class only, {found[0]!r}; there must be two or more, a folder or a value of the "
            "column class each"
        )
    if given is None:
        return tuple(found)
    if isinstance(given, str) or len(set(given)) != len(given) or set(given) != set(found):
        raise ValueError(f"classes must be those of {root} in any order, {found}; got {given!r}")
    return tuple(given)
