import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lvlmva_lite.datasets import foreign_object_masks, load_skin
from lvlmva_lite.datasets.annotations import read_mask
from lvlmva_lite.datasets.foreign_objects import KINDS, ForeignObject, read_foreign_objects
from lvlmva_lite.datasets.image_files import ImageDataError, read_image

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "isic"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real dermoscopic images are not at {REAL}")
HEAD = "# by hand\nimage,kind,shape,numbers\n"


def marked(shape, *numbers, kind="ink"):
    return ForeignObject("images/a.jpg", kind, shape, numbers)


@settings(deadline=None, max_examples=40)
@given(
    centre=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
    half=st.tuples(st.floats(0.1, 0.3), st.floats(0.1, 0.3)),
    size=st.sampled_from([96, 224]),
)
def test_areas_agree_with_closed_forms(centre, half, size):
    (x, y), (a, b) = centre, half
    slack = 4 * (a + b) / size  # a pixel's half along the rim
    ellipse = marked("ellipse", x, y, a, b).mask(size)
    assert abs(ellipse.mean() - np.pi * a * b) < slack
    outside = marked("outside ellipse", x, y, a, b).mask(size)
    assert (ellipse | outside).all()
    assert (ellipse & outside).mean() < slack / 4  # pixels of which just one half is covered
    rectangle = marked("rectangle", x - a, y - b, x + a, y + b).mask(size)
    assert abs(rectangle.mean() - 4 * a * b) < slack
    diamond = marked("polygon", x - a, y, x, y - b, x + a, y, x, y + b).mask(size)
    assert abs(diamond.mean() - 2 * a * b) < slack
    assert not (diamond & ~ellipse).any()
    assert not (ellipse & ~rectangle).any()


def test_x_goes_right_and_y_down():
    mask = marked("rectangle", 0.5, 0, 1, 0.25).mask(16)
    expected = np.zeros((16, 16), bool)
    expected[:4, 8:] = True
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(marked("polygon", 0.5, 0, 1, 0, 1, 0.25, 0.5, 0.25).mask(16), expected)


def test_a_shape_may_reach_beyond_the_image():
    quarter = marked("ellipse", 0, 0, 0.4, 0.4).mask(200)
    assert quarter.mean() == pytest.approx(np.pi * 0.4**2 / 4, abs=0.004)


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_masks_lie_where_the_loader_squashes_the_image(tmp_path, shape):
    """A white rectangle drawn into an oblong image, read as the loader reads it."""
    width, height = (320, 240) if shape == "wide" else (96, 256)
    image = np.zeros((height, width), np.uint8)
    image[height // 4 : height // 2, width // 8 : width // 4] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    squashed = read_image(tmp_path / "a.png", "L", 64) >= 128
    np.testing.assert_array_equal(marked("rectangle", 0.125, 0.25, 0.25, 0.5).mask(64), squashed)


def test_masks_of_a_file(tmp_path):
    path = tmp_path / "objects.csv"
    path.write_text(
        HEAD + "images/a.jpg,ink,rectangle,0 0 .5 1\nimages/a.jpg,ruler,rectangle,.5 0 1 .5\n"
        "images/c.jpg,patch,rectangle,0 0 1 1\n"
    )
    names = ["images/b.jpg", "images/a.jpg"]
    masks = foreign_object_masks(names, 20, path=path)
    assert masks.shape == (2, 20, 20)
    assert masks.dtype == bool
    assert [mask.mean() for mask in masks] == [0, 0.75]
    assert foreign_object_masks(names, 20, kinds=["ruler"], path=path)[1].mean() == 0.25
    assert foreign_object_masks([], 20, path=path).shape == (0, 20, 20)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,tattoo,ellipse,.5 .5 .1 .1", "line 3: kind must be one of .*'tattoo'"),
        ("a.jpg,ink,star,.5 .5 .1 .1", "line 3: shape must be one of .*'star'"),
        ("a.jpg,ink,ellipse,.5 .5 .1", "takes 4 numbers, got 3"),
        ("a.jpg,ink,polygon,0 0 1 1", "at least three corners, got 4"),
        ("a.jpg,ink,polygon,0 0 1 1 1", "at least three corners, got 5"),
        ("a.jpg,ink,rectangle,.5 0 .5 1", "x0 < x1"),
        ("a.jpg,ink,ellipse,.5 .5 0 .1", "above 0"),
        ("a.jpg,ink,ellipse,.5 .5 nan .1", "finite"),
        ("a.jpg,ink,ellipse,.5 .5 wide .1", "line 3: could not convert"),
        ("a.jpg,ink,ellipse", "4 values, got 3"),
    ],
)
def test_rows_that_are_no_object_are_refused(tmp_path, row, message):
    path = tmp_path / "objects.csv"
    path.write_text(HEAD + row + "\n")
    with pytest.raises(ImageDataError, match=message):
        read_foreign_objects(path)


def test_files_and_requests_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ImageDataError, match="no file"):
        read_foreign_objects(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("image,spurious\na.jpg,1\n")
    with pytest.raises(ImageDataError, match="must start with the columns"):
        read_foreign_objects(tmp_path / "other.csv")
    for kinds in ("ink", ["ink", "hair"]):
        with pytest.raises(ValueError, match="kinds must be a sequence"):
            foreign_object_masks([], 32, kinds=kinds)
    with pytest.raises(ValueError, match="size must be an int"):
        foreign_object_masks([], 0)


def test_what_ships_says_by_whom_and_shows_on_the_image():
    objects = read_foreign_objects()
    assert {item.kind for item in objects} == set(KINDS)
    assert all(item.mask(96).any() or item.mask(512).any() for item in objects)
    assert len(set(objects)) == len(objects)


@real
def test_every_marked_image_is_in_the_manifest():
    with (REAL / "manifest.csv").open(newline="") as file:
        known = {row["image"] for row in csv.DictReader(file)}
    assert {item.image for item in read_foreign_objects()} <= known


@real
def test_marked_patches_lie_on_the_drawn_ones():
    """The drawn masks were not seen while the objects were marked."""
    drawn = sorted((REAL / "patch_masks").glob("*.png"))
    names = [f"images/{path.stem}.jpg" for path in drawn]
    masks = foreign_object_masks(names, 96, kinds=["patch"])
    covered = [mask[read_mask(path, 96)].mean() for mask, path in zip(masks, drawn, strict=True)]
    assert np.median(covered) > 0.9  # of a drawn mask; it may mark one patch of several


@real
def test_masks_of_a_loaded_split():
    data = load_skin(REAL, "test", size=32, paste_rate=(0, 0), shared_images="warn")
    masks = foreign_object_masks(data.names, 32)
    assert masks.shape == data.spurious_masks.shape
    frames = foreign_object_masks(data.names, 32, kinds=["frame"])
    assert data.images.mean(1)[frames].median() < data.images.mean(1)[~masks].median() / 2
