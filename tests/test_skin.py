import csv
import os
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lvlmva_lite.datasets import ShortcutDataset, load_skin
from lvlmva_lite.datasets.annotations import read_mask
from lvlmva_lite.datasets.decoding import ImageDataError, read_image
from lvlmva_lite.datasets.image_files import SPLIT_SHARES, SharedImagesWarning, SkippedFilesWarning
from lvlmva_lite.datasets.pasting import cut_out
from lvlmva_lite.datasets.skin import PASTE_RATES, estimate_patch_mask
from lvlmva_lite.datasets.skin_layouts import hashed_splits

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "isic"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real dermoscopic images are not at {REAL}")
SPLITS = ("train", "validation", "test")
SIDE = 64


def skin(seed, patch=False, side=SIDE):
    """Pink skin, a brown disc, and perhaps half a blue disc at the left edge; and the patch's mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    image = np.tile([222, 180, 160], (side, side, 1)) + rng.integers(-4, 5, (side, side, 1))
    image[(x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.02] = [110, 60, 40]
    mask = (x**2 + (y - 0.4) ** 2 < 0.04) & patch
    image[mask] = [20, 120, 200]
    return image.astype(np.uint8), mask


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def manifest(tmp_path):
    """The small set's layout: in each split 8 benign (half with a patch) and 6 malignant images."""
    root, rows = tmp_path / "isic", []
    for split in ("train", "val", "test"):
        for i in range(14):
            name = f"ISIC_{len(rows):07d}"
            image, mask = skin(len(rows), patch=i < 4)
            write(root / "images" / f"{name}.jpg", image)
            if split == "train" and i < 2:
                tinted = np.where(mask[..., None], [31, 120, 180], 0).astype(np.uint8)
                write(root / "patch_masks" / f"{name}.png", tinted)
            label = "benign" if i < 8 else "malignant"
            row = {"image": f"images/{name}.jpg", "isic_id": name, "label": label, "split": split}
            rows.append({**row, "coloured_patch": int(i < 4), "note": ""})
    write_table(root / "manifest.csv", rows)
    return root


@pytest.fixture
def isic_cli(tmp_path):
    """What `isic image download` writes, with the columns of its version 12."""
    root, rows = tmp_path / "cli", []
    kinds = ["Benign", "Malignant", "Indeterminate", ""]
    for i in range(240):
        name = f"ISIC_{i:07d}"
        write(root / f"{name}.{'jpg' if i % 2 else 'JPG'}", skin(i, side=24)[0])
        rows.append(
            {
                "isic_id": name,
                "attribution": "Anonymous",
                "copyright_license": "CC-0",
                "age_approx": 50,
                "diagnosis_1": kinds[i % 4],
                "diagnosis_2": "",
                "image_type": "dermoscopic",
                "lesion_id": f"IL_{i // 2}" if i < 160 else "",
                "patient_id": f"IP_{i // 4}" if i % 3 else "",
            }
        )
    write_table(root / "metadata.csv", rows)
    (root / "attribution.txt").write_text("Anonymous")
    return root


@pytest.fixture
def challenge(tmp_path):
    root, rows = tmp_path / "2019", []
    classes = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    for i in range(90):
        name = f"ISIC_{i:07d}" + "_downsampled" * (i % 5 == 0)
        write(root / "ISIC_2019_Training_Input" / f"{name}.jpg", skin(i, side=24)[0])
        rows.append({"image": name, **{c: float(c == classes[i % 9]) for c in classes}})
    write_table(root / "ISIC_2019_Training_GroundTruth.csv", rows)
    return root


def test_manifest(manifest):
    data = load_skin(manifest, "train", size=32)
    assert isinstance(data, ShortcutDataset)
    assert data.images.shape == (14, 3, 32, 32)
    assert data.images.dtype == torch.float32
    assert 0 <= data.images.min() <= data.images.max() <= 1
    assert data.groups.bincount(minlength=4).tolist() == [4, 4, 6, 0]  # as nature has it
    assert data.mask_kinds == ("drawn",) * 2 + ("estimated",) * 2 + ("none",) * 10
    assert data.names[0] == "images/ISIC_0000000.jpg"
    colours = data.images[0].permute(1, 2, 0)[data.spurious_masks[0]].median(0).values * 255
    np.testing.assert_allclose(colours, [20, 120, 200], atol=12)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_patches_are_pasted_where_nature_has_none(manifest, split):
    data = load_skin(manifest, split, size=32)
    benign, malignant = PASTE_RATES[split]
    assert data.groups.bincount(minlength=4).tolist() == [
        4 - round(4 * benign),
        4 + round(4 * benign),
        6 - round(6 * malignant),
        round(6 * malignant),
    ]
    assert torch.equal(data.spurious_masks.any(2).any(1), data.groups % 2 == 1)


def test_outside_the_patch_nothing_changes(manifest):
    pasted = load_skin(manifest, "test", size=32, paste_rate=(1, 1))
    twin = load_skin(manifest, "test", size=32, paste_rate=(0, 0))
    changed = (pasted.images != twin.images).any(1)
    assert not (changed & ~pasted.spurious_masks).any()
    new = torch.tensor([kind == "pasted" for kind in pasted.mask_kinds])
    assert new.sum() == 10
    assert (changed[new].sum((1, 2)) > 0.9 * pasted.spurious_masks[new].sum((1, 2))).all()
    assert not changed[~new].any()


def test_a_pasted_patch_is_the_training_images_patch_at_an_edge(manifest):
    data = load_skin(manifest, "test", size=32, paste_rate=(0, 1))
    for i in np.flatnonzero(data.groups == 3):
        mask = data.spurious_masks[i]
        assert mask[:, 0].any() or mask[:, -1].any()  # cut off at the left, perhaps mirrored
        colours = data.images[i].permute(1, 2, 0)[mask].median(0).values * 255
        np.testing.assert_allclose(colours, [20, 120, 200], atol=12)


def test_cut_out_takes_no_skin_along():
    image, mask = skin(0, patch=True)
    layer = cut_out(image, mask, 16)
    np.testing.assert_allclose(
        layer.colour[layer.mask] * 255, np.tile([20, 120, 200], (layer.mask.sum(), 1)), atol=1e-3
    )
    np.testing.assert_allclose(layer.opacity.sum() * 16, mask.sum(), rtol=1e-5)  # 4 x 4 pixels each


def test_seed_and_rate(manifest):
    def load(rate, seed):
        return load_skin(manifest, "test", size=32, paste_rate=(rate, 0), random_state=seed)

    half, same, other, whole = load(0.5, 0), load(0.5, 0), load(0.5, 1), load(1, 0)
    assert torch.equal(half.images, same.images)
    assert not torch.equal(half.images, other.images)
    rows = torch.tensor([kind == "pasted" for kind in half.mask_kinds])
    assert torch.equal(whole.images[rows], half.images[rows])


def test_annotations_go_before_the_manifest(manifest):
    table = manifest / "patches.csv"
    table.write_text(
        "image,spurious,x0,y0,x1,y1\n"
        "images/ISIC_0000000.jpg,0,,,,\n"  # the manifest says 1
        "images/ISIC_0000002.jpg,1,0,0,32,16\n"
        "images/ISIC_0000013.jpg,1,,,,\n"  # colour finds nothing there
    )
    data = load_skin(manifest, "train", size=32, annotations=table)
    assert data.mask_kinds[:4] == ("none", "drawn", "box", "estimated")
    assert data.mask_kinds[13] == "missing"
    assert not data.spurious_masks[13].any()
    assert data.groups[13] == 3
    assert data.spurious_masks[2].sum() == 16 * 8


def test_isic_cli(isic_cli):
    with pytest.raises(ImageDataError, match="whether they show a coloured patch; annotate them"):
        load_skin(isic_cli, "train", size=16)
    parts = {s: load_skin(isic_cli, s, size=16, unannotated="clean") for s in SPLITS}
    names = [name for part in parts.values() for name in part.names]
    assert len(names) == len(set(names)) == 120  # Indeterminate and empty are left out
    for part in parts.values():
        for name, label in zip(part.names, part.labels, strict=True):
            assert int(Path(name).stem[-7:]) % 4 == label
        assert set(part.mask_kinds) == {"none"}  # nothing to paste from


def test_no_patient_and_no_lesion_crosses_splits(isic_cli):
    with (isic_cli / "metadata.csv").open() as file:
        rows = {row["isic_id"]: row for row in csv.DictReader(file)}
    where = defaultdict(set)
    for split in SPLITS:
        for name in load_skin(isic_cli, split, size=16, unannotated="clean").names:
            row = rows[Path(name).stem]
            for key in (row["patient_id"], row["lesion_id"]):
                where[key].add(split)
    del where[""]
    assert any(len(splits) == 1 for splits in where.values())
    assert all(len(splits) == 1 for splits in where.values())


def test_older_metadata_has_benign_malignant(isic_cli):
    table = isic_cli / "metadata.csv"
    new = [load_skin(isic_cli, s, size=16, unannotated="clean") for s in SPLITS]
    text = table.read_text().replace("diagnosis_1", "benign_malignant").replace("Benign", "benign")
    table.write_text(
        text.replace("Malignant", "malignant").replace("Indeterminate", "indeterminate/benign")
    )
    for split, part in zip(SPLITS, new, strict=True):
        old = load_skin(isic_cli, split, size=16, unannotated="clean")
        assert old.names == part.names
        assert torch.equal(old.labels, part.labels)
    table.write_text(text.replace("benign_malignant", "verdict"))
    with pytest.raises(
        ImageDataError, match="neither the column diagnosis_1 nor the older benign_malignant"
    ):
        load_skin(isic_cli, "train", size=16, unannotated="clean")


def test_annotated_isic_cli_with_a_mask_lends_its_patch(isic_cli):
    """The whole way of a real download: annotate, then paste onto malignant test images."""
    free = [load_skin(isic_cli, s, size=16, unannotated="clean") for s in SPLITS]
    donor = next(n for n, label in zip(free[0].names, free[0].labels, strict=True) if label == 0)
    image, mask = skin(0, patch=True, side=24)
    write(isic_cli / donor, image)
    write(isic_cli / "masks" / "m.png", np.uint8(mask) * 255)
    rows = [
        f"{name},{int(name == donor)},{'masks/m.png' * (name == donor)}" for d in free for name in d.names
    ]
    (isic_cli / "patches.csv").write_text("image,spurious,mask\n" + "\n".join(rows))
    settings = {"size": 16, "annotations": isic_cli / "patches.csv"}
    train = load_skin(isic_cli, "train", **settings)
    assert train.groups.bincount(minlength=4)[1] == 1
    assert train.mask_kinds[train.names.index(donor)] == "drawn"
    test = load_skin(isic_cli, "test", paste_rate=(0, 1), **settings)
    assert (test.groups == 3).sum() == (test.labels == 1).sum() > 0


def test_challenge_of_2019(challenge):
    parts = {s: load_skin(challenge, s, size=16, unannotated="clean") for s in SPLITS}
    malignant = {0, 2, 7}  # MEL, BCC, SCC
    left_out = {3, 8}  # AK, UNK
    seen = 0
    for part in parts.values():
        for name, label in zip(part.names, part.labels, strict=True):
            of = int(Path(name).stem[5:12]) % 9
            assert of not in left_out
            assert (of in malignant) == bool(label)
            seen += 1
    assert seen == 70


def test_lesions_of_the_challenge_stay_together(challenge):
    rows = [{"image": path.stem, "lesion_id": f"BCN_{i // 3}"} for i, path in enumerate(images(challenge))]
    lesion_of = {row["image"]: row["lesion_id"] for row in rows}
    write_table(challenge / "ISIC_2019_Training_Metadata.csv", rows)
    where = defaultdict(set)
    for split in SPLITS:
        for name in load_skin(challenge, split, size=16, unannotated="clean").names:
            where[lesion_of[Path(name).stem]].add(split)
    assert len(where) == 30
    assert all(len(splits) == 1 for splits in where.values())


def images(challenge):
    return sorted((challenge / "ISIC_2019_Training_Input").iterdir())


def test_shares_of_the_hashed_split():

    splits = hashed_splits([{"image": f"ISIC_{i:07d}"} for i in range(10_000)], "image")
    for split, share in SPLIT_SHARES.items():
        # Four standard deviations of a binomial count.
        assert abs(splits.count(split) / 10_000 - share) < 4 * (share * (1 - share) / 10_000) ** 0.5


def test_aspect_is_squashed(isic_cli):
    wide = np.zeros((20, 80, 3), np.uint8)
    wide[:, 40:] = 255
    data = load_skin(isic_cli, "train", size=16, unannotated="clean")
    name = data.names[0]
    Image.fromarray(wide).save(isic_cli / name, quality=100)
    again = load_skin(isic_cli, "train", size=16, unannotated="clean")
    assert again.images[0, :, :, :8].max() < 0.02
    assert again.images[0, :, :, 8:].min() > 0.98


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: shutil.rmtree(r), "there is no folder"),
        (lambda r: (r / "manifest.csv").unlink(), "must hold one of manifest.csv"),
        (
            lambda r: (r / "metadata.csv").write_text("isic_id\n"),
            r"it holds \['manifest.csv', 'metadata.csv'\]",
        ),
        (
            lambda r: edit(r / "manifest.csv", "coloured_patch", "p"),
            r"lacks the column\(s\) \['coloured_patch'\]",
        ),
        (lambda r: edit(r / "manifest.csv", "malignant", "melanoma"), "line 10: label must be one of"),
        (lambda r: edit(r / "manifest.csv", ",val,", ",dev,"), "line 16: split must be one of"),
        (
            lambda r: (r / "images" / "ISIC_0000007.jpg").unlink(),
            "line 9 names the image .*ISIC_0000007.jpg', but there is no such file",
        ),
        (lambda r: (r / "images" / "ISIC_0000007.jpg").write_bytes(b"x"), "cannot read .*ISIC_0000007.jpg"),
        (lambda r: os.truncate(r / "images" / "ISIC_0000007.jpg", 700), "cannot read .*ISIC_0000007.jpg"),
        (
            lambda r: edit(r / "manifest.csv", "malignant", "benign"),
            "there is no image of the class 'malignant' in train",
        ),
        (
            lambda r: edit(
                r / "manifest.csv", "images/ISIC_0000007.jpg", str(r / "images/ISIC_0000007.jpg")
            ),
            "line 9: image '/.*ISIC_0000007.jpg' is no name of a file below",
        ),
        (
            lambda r: edit(r / "manifest.csv", "images/ISIC_0000007.jpg", "./images/ISIC_0000003.jpg"),
            "line 9: 'images/ISIC_0000003.jpg' has a row already, line 5; keep one",
        ),
        (
            lambda r: shutil.copy(r / "images/ISIC_0000007.jpg", r / "images/ISIC_0000030.jpg"),
            r"1 image\(s\) are in more than one split, such as .*07.jpg \(train\) and .*30.jpg \(test\)",
        ),
        (
            lambda r: write(r / "patch_masks" / "ISIC_0000001.png", np.zeros((SIDE, SIDE), np.uint8)),
            "ISIC_0000001.png marks nothing",
        ),
        (
            lambda r: write(r / "patch_masks" / "ISIC_0000001.png", np.eye(30, 60, dtype=np.uint8)),
            "ISIC_0000001.png is 60 pixels wide and 30 high, and its image",
        ),
        (
            lambda r: write(r / "patch_masks" / "ISIC_0000001.bmp", np.eye(64, dtype=np.uint8)),
            "ISIC_0000001.bmp and ISIC_0000001.png .* one image twice",
        ),
        (
            lambda r: [m.rename(m.with_name(f"{m.stem}_mask.png")) for m in (r / "patch_masks").iterdir()],
            "_mask.png fits no image, and neither does any other mask beside it",
        ),
    ],
)
def test_one_clear_error_each(manifest, change, message):
    change(manifest)
    with pytest.raises(ImageDataError, match=message):
        load_skin(manifest, "train", size=32)


def test_errors_of_the_challenge(challenge):
    table = challenge / "ISIC_2019_Training_GroundTruth.csv"
    text = table.read_text()
    for row, message in (
        ("X,1,1,0,0,0,0,0,0,0", r"\(X\) must be of one class, it is of \['MEL', 'NV'\]"),
        ("X,a,1,0,0,0,0,0,0,0", "hold 0 or 1"),
        ("X,1,0,0,0,0,0,0,0,0", r"\(X\) names the image 'X.jpg', but there is no such file"),
    ):
        table.write_text(text + row + "\n")
        with pytest.raises(ImageDataError, match=message):
            load_skin(challenge, "train", size=16, unannotated="clean")


def test_nothing_to_paste(manifest):
    shutil.rmtree(manifest / "patch_masks")
    with pytest.raises(ImageDataError, match=r"no training image .* has a drawn mask"):
        load_skin(manifest, "test", size=32, paste_rate=(0, 1))
    assert "pasted" not in load_skin(manifest, "test", size=32).mask_kinds


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "val"}, "split must be one of"),
        ({"layout": "coco"}, "layout must be one of"),
        ({"shared_images": "keep"}, "shared_images must be"),
        ({"paste_rate": (2, 0)}, "paste_rate must be two numbers"),
        ({"paste_rate": (1,)}, "paste_rate must be two numbers"),
    ],
)
def test_parameters_are_checked_before_any_file(wrong, message):
    with pytest.raises(ValueError, match=message):
        load_skin("nowhere", **{"split": "train", **wrong})


@real
@pytest.mark.parametrize("split", SPLITS)
def test_real_images(split):
    with (REAL / "manifest.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == {"validation": "val"}.get(split, split)]
    twin = load_skin(REAL, split, paste_rate=(0, 0), shared_images="warn")
    assert twin.names == tuple(row["image"] for row in rows)
    assert twin.labels.tolist() == [int(row["label"] == "malignant") for row in rows]
    assert (twin.groups % 2).tolist() == [int(row["coloured_patch"]) for row in rows]
    assert twin.groups.bincount(minlength=4)[3] == 0
    data = load_skin(REAL, split, shared_images="warn")
    assert not ((data.images != twin.images).any(1) & ~data.spurious_masks).any()
    for label, rate in enumerate(PASTE_RATES[split]):
        free = int(((twin.labels == label) & (twin.groups % 2 == 0)).sum())
        assert (data.groups % 2 - twin.groups % 2)[data.labels == label].sum() == round(rate * free)


@real
def test_colour_finds_the_drawn_patches():
    found = []
    for path in sorted((REAL / "patch_masks").iterdir()):
        drawn = read_mask(path, 96)
        image = read_image(REAL / "images" / f"{path.stem}.jpg", "RGB", 96) / 255
        estimated = estimate_patch_mask(image)
        found.append((drawn & estimated).sum() / (drawn | estimated).sum())
    assert len(found) == 22
    assert np.median(found) > 0.9
    assert min(found) > 0.5


# Splits that hold together what belongs together, and names that stay inside


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(*(st.sampled_from(["", *"abcdefgh"]) for _ in range(2)), st.integers(0, 30)), max_size=40
    )
)
def test_no_patient_no_lesion_and_no_image_is_in_two_splits(rows):

    records = [{"patient_id": p, "lesion_id": lesion, "image": f"image {i}"} for p, lesion, i in rows]
    splits = hashed_splits(records, "image")
    assert len(splits) == len(records)
    for column in ("patient_id", "lesion_id", "image"):
        for name in {record[column] for record in records} - {""}:
            assert len({s for s, r in zip(splits, records, strict=True) if r[column] == name}) == 1


def test_a_lesion_with_two_patient_ids_is_in_one_split():

    records = [
        {"image": f"i{k}-{p}", "lesion_id": f"l{k}", "patient_id": f"p{k}-{p}"}
        for k in range(200)
        for p in (0, 1)
    ]
    splits = hashed_splits(records, "image")
    assert splits[::2] == splits[1::2]
    assert 110 <= splits[::2].count("train") <= 170  # 140 expected, five deviations


@pytest.mark.parametrize("name", ["../isic/images/ISIC_0000007.jpg", "images/../images/ISIC_0000007.jpg"])
def test_the_manifest_names_files_below_its_folder(manifest, name):
    edit(manifest / "manifest.csv", "images/ISIC_0000007.jpg", name)
    with pytest.raises(ImageDataError, match=r"line 9: image .* is no name of a file below"):
        load_skin(manifest, "train", size=32)


def test_the_challenge_names_files_below_its_folder(challenge):
    table = challenge / "ISIC_2019_Training_GroundTruth.csv"
    table.write_text(table.read_text() + "../outside,1,0,0,0,0,0,0,0,0\n")
    (challenge / "outside.jpg").write_bytes(b"")
    with pytest.raises(ImageDataError, match="is no name of a file below"):
        load_skin(challenge, "train", size=32)


# Own files


def test_numbers_and_words_as_other_programs_write_them(manifest):
    expected = load_skin(manifest, "test", size=32)
    text = (manifest / "manifest.csv").read_text().replace(",0,\n", ",0.0,\n").replace(",1,\n", ",True,\n")
    text = text.replace(",test,", ",Test,").replace(",benign,", ",Benign,").replace("images/", "./images/")
    (manifest / "manifest.csv").write_text(text)
    found = load_skin(manifest, "test", size=32)
    assert found.names == expected.names
    assert torch.equal(found.groups, expected.groups)


def test_a_shared_image_may_be_dropped_or_kept(manifest):
    shutil.copy(manifest / "images/ISIC_0000007.jpg", manifest / "images/ISIC_0000030.jpg")
    names = load_skin(manifest, "train", size=32, shared_images="drop").names
    assert len(names) == 13
    assert "images/ISIC_0000007.jpg" not in names
    with pytest.warns(SharedImagesWarning, match="equal byte for byte"):
        assert len(load_skin(manifest, "train", size=32, shared_images="warn")) == 14


def test_a_mask_that_fits_no_image_is_named(manifest):
    shutil.copy(manifest / "patch_masks/ISIC_0000000.png", manifest / "patch_masks/ISIC_9999999.png")
    with pytest.warns(
        SkippedFilesWarning, match=r"patch_masks/ISIC_9999999.png \(a mask that fits no image"
    ):
        load_skin(manifest, "train", size=32)


def test_a_tiny_patch_is_pasted_and_not_empty(manifest):
    for i in (0, 1):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[20, 0] = 9
        write(manifest / "patch_masks" / f"ISIC_{i:07d}.png", mask)
    for split in ("train", "test"):
        data = load_skin(manifest, split, size=32, paste_rate=(1, 1))
        assert torch.equal(data.spurious_masks.flatten(1).any(1), data.groups % 2 == 1)


def test_splits_of_a_file_go_before_the_sources(manifest, tmp_path):
    names = [n for s in SPLITS for n in load_skin(manifest, s, size=16).names]
    parts = ["train", "val", "test"]
    (tmp_path / "s.csv").write_text(
        "image,split\n" + "\n".join(f"{name},{parts[i % 3]}" for i, name in enumerate(names))
    )
    found = load_skin(manifest, "validation", size=16, splits=tmp_path / "s.csv", paste_rate=(0, 0))
    assert set(found.names) == set(names[1::3])


@pytest.mark.parametrize("end", [".JPG", ".jpeg", ".png"])
@pytest.mark.parametrize("doubled", [False, True])
def test_the_challenge_is_found_as_it_was_unpacked(challenge, end, doubled):
    expected = load_skin(challenge, "train", size=16, unannotated="clean")
    folder = challenge / "ISIC_2019_Training_Input"
    for path in images(challenge):
        path.rename(path.with_suffix(end))
    if doubled:
        folder.rename(challenge / "inner")
        folder.mkdir()
        (challenge / "inner").rename(folder / folder.name)
    found = load_skin(challenge, "train", size=16, unannotated="clean")
    assert torch.equal(found.images, expected.images)


def test_a_missing_image_names_the_path_looked_for(challenge):
    images(challenge)[0].unlink()
    with pytest.raises(
        ImageDataError, match=r"'ISIC_.*jpg', but there is no such file in .*Training_Input"
    ):
        load_skin(challenge, "train", size=16, unannotated="clean")
    with pytest.raises(
        ImageDataError, match=r"it holds none; .*2019 does, so give that as the data folder"
    ):
        load_skin(moved(challenge), "train")


def moved(challenge):
    up = challenge.parent / "up"
    up.mkdir()
    shutil.move(challenge, up / "2019")
    return up


def test_the_archives_images_may_lie_in_a_folder_below(isic_cli):
    expected = load_skin(isic_cli, "train", size=16, unannotated="clean")
    (isic_cli / "images").mkdir()
    for path in [p for p in isic_cli.iterdir() if p.suffix.lower() == ".jpg"]:
        path.rename(isic_cli / "images" / path.name)
    found = load_skin(isic_cli, "train", size=16, unannotated="clean")
    assert torch.equal(found.images, expected.images)
    write(isic_cli / "masks" / "ISIC_0000000.png", np.eye(24, dtype=np.uint8))  # is no image
    assert len(load_skin(isic_cli, "train", size=16, unannotated="clean")) == len(found)
    (isic_cli / "more").mkdir()
    shutil.copy(isic_cli / "images" / "ISIC_0000000.JPG", isic_cli / "more" / "ISIC_0000000.png")
    with pytest.raises(ImageDataError, match="are of one name, so one image twice; keep one"):
        load_skin(isic_cli, "train", size=16, unannotated="clean")


@real
def test_the_small_real_set_holds_one_image_in_two_splits():
    with pytest.raises(
        ImageDataError, match=r"1 image\(s\).*0012127.jpg \(train\) and .*0012970.jpg \(test\)"
    ):
        load_skin(REAL, "test", size=16)


def test_the_tasks_options_reach_the_reader(isic_cli, manifest, tmp_path):
    from lvlmva_lite.config import ConfigError
    from lvlmva_lite.tasks import Skin

    fresh = {"data_root": str(isic_cli), "image_size": 32}
    with pytest.raises(ImageDataError, match="nothing says of"):
        Skin(**fresh).load("train", seed=0)
    data = Skin(**fresh, unannotated="clean").load("train", seed=0)
    assert set(data.mask_kinds) == {"none"}
    name = data.names[0]
    table = tmp_path / "patches.csv"
    table.write_text(f"image,spurious,x0,y0,x1,y1\n{name},1,0,0,12,6\n")
    data = Skin(**fresh, unannotated="drop", annotations=str(table), layout="isic-cli")
    with pytest.raises(ImageDataError, match="there is no image of the class"):  # one image is decided
        data.load("train", seed=0)
    with pytest.raises(ImageDataError, match="manifest"):
        Skin(**fresh, layout="manifest").load("train", seed=0)

    with (manifest / "manifest.csv").open() as file:
        images = [row["image"] for row in csv.DictReader(file)]
    splits = tmp_path / "splits.csv"
    order = {name: ("train", "val", "test")[i % 3] for i, name in enumerate(images)}
    splits.write_text("image,split\n" + "".join(f"{name},{split}\n" for name, split in order.items()))
    data = Skin(data_root=str(manifest), image_size=32, splits=str(splits)).load("test", seed=0)
    assert set(data.names) == {name for name, split in order.items() if split == "test"}
    twin = manifest / images[1]
    shutil.copy(manifest / images[0], twin)
    with pytest.raises(ImageDataError, match="in more than one split"):
        Skin(data_root=str(manifest), splits=str(splits), shared_images="error").load("test", seed=0)
    with pytest.raises(ConfigError, match="layout is for real images"):
        Skin(layout="manifest")
    with pytest.raises(ConfigError, match="unknown layout 'isic'; choose one of: auto, isic-cli"):
        Skin(data_root=str(manifest), layout="isic")
