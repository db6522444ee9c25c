import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lvlmva_lite.datasets import ShortcutDataset, load_knee
from lvlmva_lite.datasets.decoding import ImageDataError
from lvlmva_lite.datasets.image_files import SkippedFilesWarning
from lvlmva_lite.datasets.knee import FOLDERS, MARKER_RATES
from lvlmva_lite.datasets.pasting import JOINT, MARGIN

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "knee"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real radiographs are not at {REAL}")
SPLITS = ("train", "validation", "test")


def first_knee(root):
    return sorted((root / "train" / "0").iterdir())[0]


def write(path, seed, side=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(40, 200, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def root(tmp_path):
    """Chen's layout: 20 knees of grades 0 and 3 in train, 4 elsewhere; other grades and folders too."""
    number = 9000000
    for folder, n in (("train", 20), ("val", 4), ("test", 4), ("auto_test", 2)):
        for grade in range(5):
            for i in range(n if grade in (0, 3) else 1):
                number += 1
                write(tmp_path / "knee" / folder / str(grade) / f"{number}{'LR'[i % 2]}.png", number)
    return tmp_path / "knee"


def test_reads_the_layout(root):
    data = load_knee(root, "train", size=24)
    assert isinstance(data, ShortcutDataset)
    assert data.images.shape == (40, 1, 24, 24)
    assert data.images.dtype == torch.float32
    assert 0 <= data.images.min() <= data.images.max() <= 1
    assert data.spurious_masks.shape == (40, 24, 24)
    assert data.labels.tolist() == [0] * 20 + [1] * 20
    assert data.class_names == ("no osteoarthritis", "moderate osteoarthritis")
    assert data.group_names[3] == "moderate osteoarthritis, marker"
    assert all(name.startswith(("train/0/", "train/3/")) for name in data.names)


def test_pixels_are_means_of_areas(root):
    data = load_knee(root, "validation", size=24, marker_rate=(0, 0))
    pixels = np.asarray(Image.open(root / data.names[3]), float)
    means = pixels.reshape(24, 2, 24, 2).mean((1, 3)) / 255
    # Pillow averages rows, then columns, and rounds to a grey level after each.
    assert np.abs(data.images[3, 0].numpy() - means).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("split", SPLITS)
def test_rates_are_met_exactly_and_groups_tell_the_letters(root, split):
    data = load_knee(root, split, size=24)
    for label in (0, 1):
        marked = data.groups[data.labels == label] % 2
        assert marked.sum() == round(MARKER_RATES[split][label] * len(marked))
    assert torch.equal(data.groups // 2, data.labels)
    assert torch.equal(data.groups % 2 == 1, data.spurious_masks.any(2).any(1))
    assert [kind == "pasted" for kind in data.mask_kinds] == (data.groups % 2 == 1).tolist()


def test_outside_the_letter_nothing_changes_and_inside_it_does(root):
    with_letters, without = (load_knee(root, "test", size=48, marker_rate=(r, r)) for r in (1, 0))
    changed = with_letters.images[:, 0] != without.images[:, 0]
    assert not (changed & ~with_letters.spurious_masks).any()
    assert (changed.sum((1, 2)) > 0.5 * with_letters.spurious_masks.sum((1, 2))).all()
    assert not without.spurious_masks.any()


def test_letters_keep_off_the_joint_and_near_the_sides(root):
    data = load_knee(root, "train", size=96, marker_rate=(1, 1))
    low, high = int(JOINT[0] * 96), int(np.ceil(JOINT[1] * 96))
    assert not data.spurious_masks[:, low:high].any()
    columns = data.spurious_masks.any(1)
    centre = (columns * torch.arange(96)).sum(1) / columns.sum(1) / 96
    assert (torch.minimum(centre, 1 - centre) < MARGIN + 0.02).all()
    tops = data.spurious_masks.any(2).int().argmax(1)
    assert len(set(tops.tolist())) > 10  # places vary


def test_letter_is_the_side_of_the_knee(root):
    """An L is open at the upper right of its box, an R is not."""
    data = load_knee(root, "train", size=96, marker_rate=(1, 1))
    filled = {"L": [], "R": []}
    for name, mask in zip(data.names, data.spurious_masks, strict=True):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
        filled[Path(name).stem[-1]].append(float(box.mean()))
    assert len(filled["L"]) == len(filled["R"]) == 20
    assert np.mean(filled["L"]) < np.mean(filled["R"]) - 0.1


def test_seed_and_rate(root):
    def marked(rate, seed):
        data = load_knee(root, "train", size=24, marker_rate=(rate, 0), random_state=seed)
        return set(np.flatnonzero(data.groups % 2 == 1)), data.images

    half, images = marked(0.5, 0)
    assert torch.equal(images, marked(0.5, 0)[1])
    assert not torch.equal(images, marked(0.5, 1)[1])
    more, more_images = marked(0.8, 0)
    assert half < more
    assert torch.equal(more_images[sorted(half)], images[sorted(half)])


def test_a_subset_keeps_names_and_kinds(root):
    data = load_knee(root, "train", size=24)
    part = data.subset(torch.tensor([3, 21, 3]))
    assert part.names == (data.names[3], data.names[21], data.names[3])
    assert part.mask_kinds == (data.mask_kinds[3], data.mask_kinds[21], data.mask_kinds[3])
    assert torch.equal(part.groups, data.groups[[3, 21, 3]])
    assert len(data.subset(data.labels == 1)) == 20


def test_other_grades(root):
    data = load_knee(root, "train", size=24, grades=(1, 4))
    assert len(data) == 2
    assert data.class_names[1] == "severe osteoarthritis"


def test_own_letters_come_from_annotations(root):
    names = load_knee(root, "train", size=24).names
    rows = [f"{name},{int(i == 5)},{'0,0,24,12' if i == 5 else ',,,'}" for i, name in enumerate(names)]
    table = root / "letters.csv"
    table.write_text("image,spurious,x0,y0,x1,y1\n" + "\n".join(rows))
    data = load_knee(root, "train", size=24, annotations=table)
    assert data.mask_kinds[5] == "box"
    assert data.mask_kinds.count("none") == 39
    assert data.spurious_masks[5, :6, :12].all()
    assert data.spurious_masks.sum() == 6 * 12  # 48 pixels shrink to 24
    both = load_knee(root, "train", size=24, annotations=table, marker_rate=(1, 0))
    assert both.mask_kinds.count("pasted") == 19

    table.write_text(
        "image,spurious\n" + "\n".join(f"{name},0" for name in names[:30]) + f"\n{names[30]},\n"
    )
    with pytest.raises(
        ImageDataError, match=f"does not decide 10 of 40 images of train, such as '{names[30]}'"
    ):
        load_knee(root, "train", size=24, annotations=table)
    assert load_knee(root, "train", size=24, annotations=table, unannotated="drop").names == names[:30]
    assert len(load_knee(root, "train", size=24, annotations=table, unannotated="clean")) == 40


def test_a_patient_in_two_splits_is_named(root):
    first = sorted((root / "train" / "0").iterdir())[0]
    shutil.copy(first, root / "test" / "3" / f"{first.stem[:-1]}R.png")
    with pytest.raises(ImageDataError, match=rf"1 patient\(s\).*{first.stem[:-1]} \(train and test\)"):
        load_knee(root, "test", size=24)
    assert len(load_knee(root, "test", size=24, shared_patients="drop")) == 9
    train = load_knee(root, "train", size=24, shared_patients="drop")
    assert len(train) == 39
    assert not any(first.stem[:-1] in name for name in train.names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root), "there is no folder"),
        (
            lambda root: shutil.rmtree(root / "train"),
            r"there is no folder .*train; the knee data is laid out",
        ),
        (lambda root: shutil.rmtree(root / "train" / "3"), "there is no folder of grade 3"),
        (lambda root: (root / "train" / "KL7").mkdir(), "KL7 is no folder of a grade"),
        (
            lambda root: write(root / "train" / "0" / "knee.png", 0),
            "knee.png is not named <patient number>",
        ),
        (
            lambda root: (root / "train" / "0" / "9123456L.png").write_bytes(b"no"),
            "cannot read.*9123456L.png",
        ),
        (
            lambda root: [os.truncate(path, 300) for path in (root / "train" / "3").iterdir()],
            r"cannot read the image .*train/3/\d+[LR].png",
        ),
        (
            lambda root: [path.unlink() for path in (root / "train" / "3").iterdir()],
            "no image of the class 'moderate osteoarthritis' in train",
        ),
        (lambda root: (root / "train" / "12").mkdir(), "12 is no folder of a grade"),
        (
            lambda root: write(root / "train" / "0" / "more" / "9123456L.png", 1),
            "9123456L.png lies one folder too deep, as do 0 more; move them up",
        ),
        (lambda root: write(root / "train" / "9123456L.png", 1), "9123456L.png is in no folder of a grade"),
        (
            lambda root: shutil.copy(first_knee(root), first_knee(root).with_suffix(".bmp")),
            r"are one knee twice; keep one",
        ),
        (
            lambda root: shutil.copy(first_knee(root), root / "train" / "3" / first_knee(root).name),
            r"are one knee twice; keep one",
        ),
        (
            lambda root: shutil.copy(first_knee(root), root / "test" / "0" / "9123456L.png"),
            r"1 image\(s\) are in more than one split, such as .* \(train\) and .*9123456L.png \(test\)",
        ),
        (
            lambda root: (
                shutil.move(root, root.parent / "x") and shutil.move(root.parent / "x", root / "knee")
            ),
            r"there is one in .*knee/knee, so give that",
        ),
    ],
)
def test_one_clear_error_each(root, change, message):
    change(root)
    with pytest.raises(ImageDataError, match=message):
        load_knee(root, "train", size=24)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "val"}, "split must be one of"),
        ({"size": 8}, "size must be an int of at least 16"),
        ({"grades": (3, 3)}, "grades must be two different"),
        ({"grades": (0, 5)}, "grades must be two different"),
        ({"marker_rate": (0.5, 1.5)}, "marker_rate must be two numbers"),
        ({"unannotated": "skip"}, "unannotated must be"),
        ({"shared_patients": "keep"}, "shared_patients must be"),
        ({"random_state": None}, "random_state must be an int"),
    ],
)
def test_parameters_are_checked_before_any_file(wrong, message):
    with pytest.raises(ValueError, match=message):
        load_knee("nowhere", **{"split": "train", **wrong})


@pytest.mark.parametrize("end", [".tif", ".bmp", ".webp"])
def test_other_formats_are_read(root, end):
    expected = load_knee(root, "train", size=24, marker_rate=(0, 0))
    for path in (root / "train").rglob("*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(end), **({"lossless": True} if end == ".webp" else {}))
        path.unlink()
    found = load_knee(root, "train", size=24, marker_rate=(0, 0))
    assert [Path(name).stem for name in found.names] == [Path(name).stem for name in expected.names]
    assert torch.equal(found.images, expected.images)


def test_other_files_are_counted_and_named(root):
    (root / "train" / "0" / "9123456L.gif").write_bytes(b"")
    (root / "train" / "3" / "readme").write_text("")
    with pytest.warns(SkippedFilesWarning, match=r"2 file\(s\) .*train/0/9123456L.gif \(.gif is no image"):
        load_knee(root, "train", size=24)


@real
@pytest.mark.parametrize("split", SPLITS)
def test_real_radiographs(split):
    data = load_knee(REAL, split)
    for label, grade in enumerate((0, 3)):
        n = len(list((REAL / FOLDERS[split] / str(grade)).glob("*.png")))
        assert (data.labels == label).sum() == n > 0
        assert ((data.groups % 2 == 1) & (data.labels == label)).sum() == round(
            MARKER_RATES[split][label] * n
        )
    clean = load_knee(REAL, split, marker_rate=(0, 0))
    changed = data.images != clean.images
    assert not (changed[:, 0] & ~data.spurious_masks).any()
    marked = data.groups % 2 == 1
    assert (changed[marked, 0].sum((1, 2)) > 0.8 * data.spurious_masks[marked].sum((1, 2))).all()
    # Legible: under a letter the image changes by a tenth of its range or more.
    amount = (data.images - clean.images)[marked, 0].abs()
    inside = data.spurious_masks[marked]
    assert ((amount * inside).sum((1, 2)) / inside.sum((1, 2)) > 0.1).all()


@real
def test_real_patients_are_in_one_split_each():
    patients = [{Path(n).stem[:-1] for n in load_knee(REAL, s, size=16).names} for s in SPLITS]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 549


def test_the_tasks_options_reach_the_reader(root, tmp_path):
    from lvlmva_lite.config import ConfigError
    from lvlmva_lite.tasks import Knee

    shutil.copy(first_knee(root), root / "val" / "0" / first_knee(root).name)
    with pytest.raises(ImageDataError, match="in more than one split"):
        Knee(data_root=str(root), image_size=32).load("train", seed=0)
    one = sorted((root / "train" / "3").iterdir())[0].relative_to(root).as_posix()
    table = tmp_path / "letters.csv"
    table.write_text(f"image,spurious,x0,y0,x1,y1\n{one},1,0,0,12,6\n")
    options = {
        "data_root": str(root),
        "image_size": 32,
        "shared_patients": "drop",
        "annotations": str(table),
    }
    with pytest.raises(ImageDataError, match="does not decide"):
        Knee(**options).load("train", seed=0)
    data = Knee(**options, unannotated="clean").load("train", seed=0)
    assert len(data) == 39
    assert data.mask_kinds.count("box") == 1
    assert data.spurious_masks[data.names.index(one)].nonzero().max(0).values.tolist() == [3, 7]
    assert Knee(**options, unannotated="clean").load("train", seed=0, clean=True) is None
    with pytest.raises(ConfigError, match="unannotated is about an annotation file"):
        Knee(data_root=str(root), unannotated="drop")
    with pytest.raises(ConfigError, match="shared_patients is for real images"):
        Knee(shared_patients="drop")
    with pytest.raises(ConfigError, match="annotations is for real images"):
        Knee(annotations=str(table))
