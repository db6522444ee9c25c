"""A reader's own images, by folders and by a table."""

import csv
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lvlmva_lite.datasets import ImageFolder, ImageStore
from lvlmva_lite.datasets.decoding import ImageDataError
from lvlmva_lite.datasets.image_files import SharedImagesWarning, SkippedFilesWarning

CLASSES = ("bolt", "nut", "washer")


def write(path, seed, shape=(24, 32, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def root(tmp_path):
    """Three classes, 10 images each in train, 2 each in val and test."""
    seed = 0
    for split, n in (("train", 10), ("val", 2), ("test", 2)):
        for name in CLASSES:
            for i in range(n):
                write(tmp_path / "parts" / split / name / f"{i}.png", seed)
                seed += 1
    return tmp_path / "parts"


def load(root, split="train", **settings):
    return ImageFolder(root, image_size=16, **settings).load(split)


def test_folders_are_read_in_order(root):
    data = load(root)
    assert data.class_names == CLASSES
    assert data.images.shape == (30, 3, 16, 16)
    assert data.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert data.groups is None
    assert data.spurious_masks is None
    assert data.core_masks is None
    assert data.names[10] == "train/nut/0.png"
    pixels = np.asarray(Image.open(root / data.names[10]).resize((16, 16), Image.Resampling.BOX))
    assert torch.equal(data.images[10], torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255)
    part = data.subset(torch.tensor([11, 0]))
    assert part.names == ("train/nut/1.png", "train/bolt/0.png")
    assert part.spurious_masks is None


def test_grey_files_make_one_channel_and_any_colour_three(root):
    for path in root.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert load(root).images.shape[1] == 1
    assert load(root, channels=3).images.shape[1] == 3
    write(root / "test" / "nut" / "0.png", 77)
    assert load(root).images.shape[1] == 3


def test_the_order_of_the_classes_is_the_networks(root):
    data = load(root, classes=["washer", "bolt", "nut"])
    assert data.class_names == ("washer", "bolt", "nut")
    assert [data.class_names[label] for label in data.labels] == [Path(n).parts[1] for n in data.names]
    with pytest.raises(ValueError, match=r"classes must be those of .* got \['bolt', 'nut'\]"):
        load(root, classes=["bolt", "nut"])


@pytest.mark.parametrize(
    ("missing", "shares"),
    [
        (("val", "test"), {"train": 7, "validation": 1, "test": 2}),
        (("val",), {"train": 9, "validation": 1, "test": 2}),
        (("test",), {"train": 8, "validation": 2, "test": 2}),
    ],
)
def test_missing_splits_are_drawn_by_the_shares_and_said(root, missing, shares):
    for split in missing:
        shutil.rmtree(root / split)
    folder = ImageFolder(root, image_size=16)
    for split, n in shares.items():
        assert Counter(Path(name).parts[1] for name in folder.names[split]) == dict.fromkeys(CLASSES, n)
    names = [name for split in folder.names.values() for name in split]
    assert len(names) == len(set(names)) == 30 + 6 * (2 - len(missing))
    assert "drawn out of train" in str(folder)
    assert "seed 0" in folder.notes[0]
    assert ImageFolder(root, image_size=16).names == folder.names
    assert ImageFolder(root, image_size=16, random_state=1).names != folder.names


def test_folders_of_classes_alone(root):
    names = ImageFolder(root / "train", image_size=16).names
    assert [len(names[split]) for split in ("train", "validation", "test")] == [21, 3, 6]


def test_masks_make_groups(root):
    for i in range(4):
        mask = np.zeros((24, 32), np.uint8)
        mask[:12, :16] = 255 * (i < 3)  # the fourth is all black: nothing there
        path = root / "masks" / "train" / "bolt" / f"{i}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    data = load(root)
    assert data.mask_kinds == ("drawn",) * 3 + ("none",) * 27
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:8, :8] = True
    assert torch.equal(data.spurious_masks[0], expected)
    assert data.group_names[:2] == ("bolt, unmarked", "bolt, marked")
    assert data.groups.bincount(minlength=6).tolist() == [7, 3, 10, 0, 10, 0]
    assert load(root, "test").groups is None
    shutil.copy(root / "masks/train/bolt/0.tif", root / "masks/train/bolt/77.tif")
    with pytest.warns(SkippedFilesWarning, match=r"1 file.* masks/train/bolt/77.tif \(a mask that fits no"):
        load(root)


def table_of(root, change=lambda row: row, columns=("path", "class", "split", "group")):
    rows = []
    for path in sorted(root.rglob("*.png")):
        split, name, _ = path.relative_to(root).parts
        row = {"path": path.relative_to(root).as_posix(), "class": name, "split": split}
        rows.append(change({**row, "group": "sticker" if path.stem == "0" else "none"}))
    with (root / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return root / "images.csv"


def test_a_table_is_read_and_goes_before_the_folders(root):
    table = table_of(root, lambda row: {**row, "class": "x" if row["class"] == "bolt" else "y"})
    for place in (root, table):
        data = load(place)
        assert data.class_names == ("x", "y")
        assert data.labels.bincount().tolist() == [10, 20]
        assert data.group_names == ("x, none", "x, sticker", "y, none", "y, sticker")
        assert data.groups.bincount().tolist() == [9, 1, 18, 2]


def test_a_table_without_splits(root):
    table_of(root, columns=("path", "class"))
    folder = ImageFolder(root, image_size=16)
    assert [len(names) for names in folder.names.values()] == [30, 3, 9]  # of 14: 1.4 and 2.8, rounded
    assert folder.load("train").groups is None


def first(change):
    """Changes the row of the first image alone, which is in line 2."""
    return lambda row: {**row, **change} if row["path"] == "test/bolt/0.png" else row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"path": "test/bolt/99.png"},
            "line 2 names the image 'test/bolt/99.png', but there is no such file",
        ),
        ({"path": "./test/bolt/1.png"}, "line 3: 'test/bolt/1.png' has a row already, line 2; keep one"),
        ({"path": "../x.png"}, "line 2: image '../x.png' is no name of a file below"),
        ({"path": "/etc/x.png"}, "line 2: image '/etc/x.png' is no name of a file below"),
        ({"path": ""}, "line 2: image '' is no name"),
        ({"class": ""}, "line 2: class is empty"),
        ({"split": "dev"}, "line 2: split must be one of .* got 'dev'"),
        ({"group": ""}, "line 2: group is empty"),
    ],
)
def test_a_wrong_row_is_named(root, change, message):
    table_of(root, first(change))
    with pytest.raises(ImageDataError, match=message):
        load(root)


def test_a_line_is_the_files_own_line(root):
    table = table_of(root)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], "", "", *lines[1:], "nowhere.png,bolt,train,none"]))
    with pytest.raises(ImageDataError, match=f"line {len(lines) + 3} names"):
        load(root)
    table.write_text("\n".join([*lines, "train/nut/0,5.png,nut,train,none"]))
    with pytest.raises(ImageDataError, match=f"line {len(lines) + 1} has more values than the 4 columns"):
        load(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: shutil.rmtree(r), "there is no folder"),
        (lambda r: shutil.rmtree(r / "train"), "has the folder test, but no folder train"),
        (
            lambda r: [shutil.rmtree(r / s / c) for s in ("train", "val", "test") for c in CLASSES[:2]],
            "one class",
        ),
        (lambda r: shutil.copytree(r / "val", r / "validation"), "two folders of the split validation"),
        (lambda r: write(r / "train" / "9.png", 900), "9.png is in no folder of a class"),
        (
            lambda r: (r / "train" / "bolt" / "0.png").write_bytes(b"x"),
            "cannot read the image .*bolt/0.png",
        ),
        (lambda r: os.truncate(r / "train" / "bolt" / "0.png", 200), "cannot read the image .*bolt/0.png"),
        (lambda r: write(r / "train" / "bolt" / "0.jpg", 901), "0.jpg and 0.png .* one image twice"),
        (
            lambda r: shutil.copy(r / "train/bolt/0.png", r / "test/bolt/new.png"),
            r"1 image\(s\) are in more than one split, such as .*0.png \(train\) and .*new.png \(test\)",
        ),
        (
            lambda r: [p.rename(p.with_suffix(".gif")) for p in (r / "train" / "bolt").iterdir()],
            r"train/bolt holds no image; 0.gif: .gif is no image that is read here",
        ),
        (
            lambda r: write(r / "masks" / "bolt" / "0.png", 902, (24, 32)),
            "fits no image, and neither does any",
        ),
        (
            lambda r: write(r / "masks" / "train" / "bolt" / "0.png", 903, (24, 24)),
            "0.png is 24 pixels wide and 24 high, and its image .* 32 and 24; draw the mask",
        ),
        (
            lambda r: shutil.move(r, r.parent / "in") and shutil.move(r.parent / "in", r / "in"),
            "are in .*/in; give",
        ),
    ],
)
def test_one_clear_error_each(root, change, message):
    change(root)
    with pytest.raises(ImageDataError, match=message):
        load(root)


def test_what_is_passed_over_is_counted_and_named(root):
    (root / "train" / "bolt" / "notes.txt").write_text("x")
    (root / "train" / "nut" / "1.heic").write_text("x")
    with pytest.warns(SkippedFilesWarning, match=r"2 file\(s\) .* train/bolt/notes.txt \(.txt is no image"):
        folder = ImageFolder(root, image_size=16)
    assert "1.heic" in folder.notes[0]


def test_images_one_folder_deeper_belong_to_their_class(root):
    shutil.move(root / "train" / "bolt", root / "bolt")
    shutil.move(root / "bolt", root / "train" / "bolt" / "monday")
    assert Counter(load(root).labels.tolist()) == {0: 10, 1: 10, 2: 10}


def test_a_shared_image_may_be_dropped_or_kept(root):
    shutil.copy(root / "train/bolt/0.png", root / "test/bolt/new.png")
    names = ImageFolder(root, image_size=16, shared_images="drop").names
    assert "train/bolt/0.png" not in names["train"]
    assert "test/bolt/new.png" in names["test"]
    with pytest.warns(SharedImagesWarning, match="equal byte for byte"):
        assert len(ImageFolder(root, image_size=16, shared_images="warn").names["train"]) == 30


def test_splits_of_a_file_go_before_the_folders(root, tmp_path):
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    parts = ["train", "val", "test"]
    table = tmp_path / "splits.csv"
    rows = [f"./{name},{parts[i % 3]}" for i, name in enumerate(names)]
    table.write_text("image,split\n" + "\n".join(rows))
    found = ImageFolder(root, image_size=16, splits=table).names
    assert set(found["validation"]) == set(names[1::3])
    table.write_text("image,split\n" + "\n".join(rows[1:]))
    with pytest.raises(ImageDataError, match=rf"has no row for 1 image\(s\), such as '{names[0]}'"):
        ImageFolder(root, image_size=16, splits=table)


def test_on_disk_the_images_are_the_same_and_are_made_once(root, tmp_path):
    folder = ImageFolder(root, image_size=16)
    held, stored = folder.load("train"), folder.load("train", store=tmp_path / "store")
    assert isinstance(stored.images, ImageStore)
    assert torch.equal(stored.images[:], held.images)
    assert stored.names == held.names
    (file,) = (tmp_path / "store").iterdir()
    before = file.stat().st_mtime_ns
    folder.load("train", store=tmp_path / "store")
    assert file.stat().st_mtime_ns == before
    write(root / "train/bolt/0.png", 999)
    again = folder.load("train", store=tmp_path / "store")
    assert not torch.equal(again.images[0], held.images[0])
    assert torch.equal(again.images[1:], held.images[1:])


def test_on_disk_the_masks_are_the_same_and_are_read_as_they_are_asked_for(root, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(6):
        path = root / "masks" / "train" / "nut" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(255 * (rng.random((24, 32)) < 0.3 * (i > 0)))).save(path)
    held, stored = load(root), ImageFolder(root, image_size=16).load("train", store=tmp_path / "store")
    assert torch.equal(stored.spurious_masks, held.spurious_masks)
    assert stored.mask_kinds == held.mask_kinds == ("none",) * 11 + ("drawn",) * 5 + ("none",) * 14
    assert torch.equal(stored.groups, held.groups)
    indices = torch.tensor([12, 3])
    assert torch.equal(stored.subset(indices).spurious_masks, held.spurious_masks[indices])
    assert len(list((tmp_path / "store").iterdir())) == 2
    # The second time no mask is drawn; what changes in a file is seen.
    with monkeypatch.context() as patched:
        patched.setattr("lvlmva_lite.datasets.image_folder.read_mask", None)
        ImageFolder(root, image_size=16).load("train", store=tmp_path / "store")
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), ((0, 20), (0, 28)))).save(path)
    again = ImageFolder(root, image_size=16).load("train", store=tmp_path / "store")
    assert torch.equal(again.spurious_masks[15], load(root).spurious_masks[15])
    assert not torch.equal(again.spurious_masks[15], held.spurious_masks[15])


def test_an_image_that_is_twice_in_a_split_is_told_in_one_line(root):
    shutil.copy(root / "train/bolt/0.png", root / "train/bolt/again.png")
    with pytest.warns(
        UserWarning, match=r"1 image\(s\) are more than once in their split, byte for byte, such"
    ):
        folder = ImageFolder(root, image_size=16)
    assert "'train/bolt/0.png' and 'train/bolt/again.png'" in folder.notes[0]
    shutil.copy(root / "train/nut/3.png", root / "train/washer/nut.png")
    for i in range(3):  # a file of the same length is no copy
        data = (root / "val/nut/0.png").read_bytes()
        (root / f"val/nut/x{i}.png").write_bytes(data + bytes([i]))
    with pytest.warns(
        UserWarning, match=r"2 image\(s\) .*, 1 of them under two classes, such as 'train/nut/3.png'"
    ):
        notes = ImageFolder(root, image_size=16).notes
    assert len(notes) == 1
    shutil.copy(root / "train/bolt/0.png", root / "test/bolt/too.png")
    with pytest.raises(ImageDataError, match=r"1 image\(s\) are in more than one split, such as"):
        ImageFolder(root, image_size=16)


def test_too_many_images_for_memory_say_so_before_any_is_read(root):
    with pytest.raises(ImageDataError, match=r"GB of memory; give a folder as store"):
        ImageFolder(root, image_size=8192).load("train")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 8}, "image_size must be an int of at least 16"),
        ({"channels": 4}, "channels must be 1, 3 or None, got 4"),
        ({"shared_images": "keep"}, "shared_images must be"),
        ({"random_state": 0.5}, "random_state must be an int"),
    ],
)
def test_parameters_are_checked_before_any_file(wrong, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder("nowhere", **wrong)


def test_splits_by_other_names_are_splits_and_not_classes(root, tmp_path):
    for old, new in (("train", "Training"), ("val", "Valid"), ("test", "TEST")):
        (root / old).rename(root / new)
    assert [len(names) for names in ImageFolder(root, image_size=16).names.values()] == [30, 6, 6]
    (root / "Training").rename(root / "fold1")
    (root / "Valid").rename(root / "fold2")
    shutil.rmtree(root / "TEST")
    with pytest.raises(
        ImageDataError, match=r"fold1 and fold2 of .* hold the same folders; if they are splits"
    ):
        ImageFolder(root, image_size=16)


def test_images_keep_their_own_size_where_none_is_asked_for(root):
    with pytest.warns(UserWarning, match="images are 32 x 24 pixels and brought to 64 x 64"):
        assert ImageFolder(root, image_size=None).load("test").images.shape[-1] == 64
    for path in root.rglob("*.png"):
        Image.open(path).crop((0, 0, 20, 20)).save(path)
    data = ImageFolder(root, image_size=None).load("test")
    pixels = np.asarray(Image.open(root / data.names[2]))
    assert torch.equal(data.images[2], torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255)
    Image.open(root / "val" / "nut" / "0.png").resize((40, 40)).save(root / "val" / "nut" / "0.png")
    with pytest.warns(UserWarning, match=r"\(and 1 other sizes\) and brought"):
        ImageFolder(root, image_size=None)


def test_images_that_are_turned_upright_are_counted(root):
    image = Image.open(root / "train" / "nut" / "3.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "train" / "nut" / "3.png", exif=exif)
    with pytest.warns(UserWarning, match=r"1 image\(s\), such as 'train/nut/3.png', are turned upright"):
        ImageFolder(root, image_size=16)


def test_annotations_say_what_is_spurious_and_where(root, tmp_path):
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    rows = dict.fromkeys(names, "0,,,,")
    rows["train/nut/1.png"] = "1,8,0,32,12"  # of 32 x 24
    rows["./test/nut/0.png"] = rows.pop("test/nut/0.png")
    table = tmp_path / "boxes.csv"

    def write_rows():
        lines = "".join(f"{name},{row}\n" for name, row in rows.items())
        table.write_text("image,spurious,x0,y0,x1,y1\n" + lines)

    write_rows()
    data = load(root, annotations=table)
    index = data.names.index("train/nut/1.png")
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:8, 4:] = True
    assert torch.equal(data.spurious_masks[index], expected)
    assert int(data.spurious_masks.sum()) == int(expected.sum())
    assert data.group_names[data.groups[index]] == "nut, marked"
    assert (data.groups % 2).sum() == 1
    assert data.mask_kinds.count("box") == 1
    with pytest.raises(ValueError, match="unannotated is about an annotation file"):
        load(root, unannotated="drop")
    del rows["train/bolt/0.png"]
    write_rows()
    with pytest.raises(ImageDataError, match=r"does not decide 1 of 42 images, such as 'train/bolt/0.png'"):
        load(root, annotations=table)
    assert len(load(root, annotations=table, unannotated="drop")) == 29
    assert len(load(root, annotations=table, unannotated="clean")) == 30
    mask = root / "masks" / "train" / "bolt" / "2.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), ((0, 20), (0, 28)))).save(mask)
    with pytest.raises(ImageDataError, match=r"which .* does not call spurious; mend one"):
        load(root, annotations=table, unannotated="clean")
    rows["train/bolt/2.png"] = "1,,,,"
    write_rows()
    data = load(root, annotations=table, unannotated="clean")
    assert data.mask_kinds.count("drawn") == 1
    rows["train/bolt/3.png"] = "1,,,,"
    write_rows()
    with pytest.warns(
        UserWarning, match="'train/bolt/3.png', that they show the spurious feature, and not where"
    ):
        data = load(root, annotations=table, unannotated="clean")
    assert data.spurious_masks is None
    assert (data.groups % 2).sum() == 3


def test_groups_of_a_file_name_every_image(root, tmp_path):
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    table = tmp_path / "groups.csv"
    table.write_text("image,group\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)))
    data = load(root, groups=table)
    assert data.group_names == tuple(f"{name}, {kind}" for name in CLASSES for kind in "ab")
    for name, group in zip(data.names, data.groups.tolist(), strict=True):
        assert data.group_names[group] == f"{Path(name).parts[1]}, {'ab'[names.index(name) % 2]}"
    for line, message in (
        (f"{names[0]},a\n", "has a row already"),
        ("", "has no row for 1 image"),
        ("train/bolt/0.png,\n", "group is empty"),
    ):
        kept = "".join(f"{name},a\n" for name in names[line == "" :])
        table.write_text(f"image,group\n{kept}{line}")
        with pytest.raises(ImageDataError, match=message):
            load(root, groups=table)
