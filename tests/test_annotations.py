import multiprocessing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lvlmva_lite.datasets.annotations import (
    Annotation,
    append_annotation,
    box_mask,
    read_annotations,
    read_mask,
    shrunk,
)
from lvlmva_lite.datasets.decoding import ImageDataError


@pytest.fixture
def root(tmp_path):
    for name in ("a.png", "b.png", "sub/c.png", "mask.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / name)
    return tmp_path


def read(root, text):
    (root / "marks.csv").write_text(text)
    return read_annotations(root / "marks.csv", root)


def test_reads_flags_boxes_and_masks(root):
    found = read(
        root,
        "spurious, image ,x0,y0,x1,y1,mask,by\n"
        "0,a.png,,,,,,me\n"
        "1,b.png,1,2,3.5,4,,me\n"
        "1,sub/c.png,,,,,mask.png,me\n",
    )
    assert found == {
        "a.png": Annotation(False),
        "b.png": Annotation(True, (1, 2, 3.5, 4)),
        "sub/c.png": Annotation(True, None, root / "mask.png"),
    }


def test_columns_beyond_the_two_are_optional_and_blank_means_undecided(root):
    found = read(root, "\ufeffimage,spurious\na.png,\nb.png,1\n")
    assert found == {"a.png": Annotation(None), "b.png": Annotation(True)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,patch\na.png,1\n",
            r"marks.csv lacks the column\(s\) \['spurious'\]; it has \['image', 'patch'\]",
        ),
        ("", "lacks the column"),
        ("image,spurious\na.png,0\nz.png,1\n", "line 3 names the image 'z.png', but there is no such file"),
        ("image,spurious\na.png,yes\n", "line 2: spurious must be 0, 1 or empty, got 'yes'"),
        ("image,spurious\na.png,1\na.png,0\n", "line 3: 'a.png' has a row already"),
        ("image,spurious,mask\na.png,1,m.png\n", "line 2 names the mask 'm.png'"),
        ("image,spurious,x0,y0,x1,y1\na.png,1,1,2,3\n", "needs four numbers"),
        (
            "image,spurious,x0,y0,x1,y1\na.png,1,.1,.2,.5,.9\n",
            "line 2: the box .* within one pixel; .* multiply x",
        ),
        ("image,spurious,x0,y0,x1,y1\na.png,1,0,0,1,1\n", "within one pixel"),
        ("image,spurious\n./a.png,0\na.png,0\n", "line 3: 'a.png' has a row already"),
        ("image,spurious\n\n\na.png,2\n", "line 4: spurious must be 0, 1 or empty, got '2'"),
        ("image,spurious\nsub\\\\c.png,1\n", "write it with forward slashes"),
        ("image,spurious,x0,y0,x1,y1\na.png,1,5,2,3,9\n", "needs 0 <= x0 < x1"),
        ("image,spurious,x0,y0,x1,y1\na.png,0,1,2,3,9\n", "a box or a mask, but spurious is not 1"),
    ],
)
def test_errors_name_the_line(root, text, message):
    with pytest.raises(ImageDataError, match=message):
        read(root, text)


def test_no_file_and_no_text(root):
    with pytest.raises(ImageDataError, match="there is no file"):
        read_annotations(root / "none.csv", root)
    (root / "marks.csv").write_bytes(b"image,spurious\n\xff\xfe,1\n")
    with pytest.raises(ImageDataError, match="as a CSV file in UTF-8"):
        read_annotations(root / "marks.csv", root)


def _mark(file, name):
    for _ in range(40):
        append_annotation(file, name, True, (1, 2, 3, 4))


def test_processes_on_one_file_lose_no_row(root):
    append_annotation(root / "m.csv", "mask.png", False)
    context = multiprocessing.get_context("fork")
    names = ("a.png", "b.png", "sub/c.png")
    processes = [context.Process(target=_mark, args=(root / "m.csv", name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    rows = (root / "m.csv").read_text().splitlines()[2:]
    assert sorted(rows) == sorted(f"{name},1,1,2,3,4" for name in names for _ in range(40))


def test_what_is_appended_is_read_back(root):
    append_annotation(root / "m.csv", "a.png", True, (1, 2, 3, 4))
    append_annotation(root / "m.csv", "b.png", False)
    append_annotation(root / "m.csv", "sub/c.png", None)
    assert read_annotations(root / "m.csv", root) == {
        "a.png": Annotation(True, (1, 2, 3, 4)),
        "b.png": Annotation(False),
        "sub/c.png": Annotation(None),
    }
    (root / "other.csv").write_text("image,spurious\n")
    with pytest.raises(ImageDataError, match="rows can be added to"):
        append_annotation(root / "other.csv", "a.png", True)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 38), st.integers(0, 28), st.integers(1, 40), st.integers(1, 30), st.integers(16, 64))
def test_a_box_covers_what_it_touches_and_no_more(root, x0, y0, width, height, size):
    """Against a count of original pixels: image a.png is 40 wide and 30 high."""
    x1, y1 = min(x0 + width, 40), min(y0 + height, 30)
    mask = box_mask((x0, y0, x1, y1), root / "a.png", size)
    edges_x, edges_y = np.arange(size + 1) * 40 / size, np.arange(size + 1) * 30 / size
    touches_x = (edges_x[:-1] < x1 - 1e-9) & (edges_x[1:] > x0 + 1e-9)
    touches_y = (edges_y[:-1] < y1 - 1e-9) & (edges_y[1:] > y0 + 1e-9)
    np.testing.assert_array_equal(mask, touches_y[:, None] & touches_x)


def test_a_box_beyond_the_image(root):
    with pytest.raises(
        ImageDataError, match=r"reaches beyond .*a.png, which is 40 pixels wide and 30 high"
    ):
        box_mask((0, 0, 41, 30), root / "a.png", 16)


def test_a_mask_file_counts_where_half_is_covered(tmp_path):
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[:16, :17] = (0, 9, 0)  # any colour counts
    Image.fromarray(mask).save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png", 16)
    assert found[:8, :9].all()
    assert found.sum() == 8 * 9


# Rows added to files that people edit, and names that lead out of the folder


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("header", [b"", b"\xef\xbb\xbf"])
def test_a_row_is_added_to_a_hand_edited_file_as_a_row_of_its_own(root, end, header):
    (root / "m.csv").write_bytes(header + f"image,spurious,x0,y0,x1,y1\na.png,1,1,2,3,4{end}".encode())
    append_annotation(root / "m.csv", "b.png", False)
    append_annotation(root / "m.csv", "sub/c.png", None)
    assert list(read_annotations(root / "m.csv", root).items()) == [
        ("a.png", Annotation(True, (1, 2, 3, 4))),
        ("b.png", Annotation(False)),
        ("sub/c.png", Annotation(None)),
    ]


@pytest.mark.parametrize("damage", [b'"a.png,1,,,,', b"\xff\xfe,1,,,,"])
def test_a_row_that_would_be_swallowed_is_not_added(root, damage):
    before = b"image,spurious,x0,y0,x1,y1\n" + damage
    (root / "m.csv").write_bytes(before)
    with pytest.raises(ImageDataError, match="no row can be added"):
        append_annotation(root / "m.csv", "b.png", False)
    assert (root / "m.csv").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["../secret.png", "sub/../../secret.png", "ABSOLUTE", "sub\\..\\a.png", "C:a.png"]
)
def test_names_stay_in_the_data_folder(root, name):
    inner = root / "inner"
    (inner / "sub").mkdir(parents=True)
    for file in (root / "secret.png", inner / "a.png"):
        Image.fromarray(np.zeros((30, 40), np.uint8)).save(file)
    name = name.replace("ABSOLUTE", str(root / "secret.png"))
    for text in (f"image,spurious\n{name},1\n", f"image,spurious,mask\na.png,1,{name}\n"):
        (root / "marks.csv").write_text(text)
        with pytest.raises(ImageDataError, match=r"line 2: .* is no name of a file below"):
            read_annotations(root / "marks.csv", inner)


@pytest.mark.parametrize("name", ["./sub/c.png", "sub//c.png", "sub/./c.png", "././sub/c.png"])
def test_a_name_is_the_loaders_name_however_it_is_written(root, name):
    assert list(read(root, f"image,spurious\n{name},1\n")) == ["sub/c.png"]


@pytest.mark.parametrize(
    ("value", "means"), [("1.0", True), ("True", True), ("true", True), ("0.0", False), ("FALSE", False)]
)
def test_zero_and_one_as_other_programs_write_them(root, value, means):
    assert read(root, f"image,spurious\na.png,{value}\n")["a.png"].spurious is means


def mask_at(path, marked):
    Image.fromarray(np.uint8(marked) * 255).save(path)
    return path


def test_a_mask_that_marks_nothing_or_everything_is_refused(tmp_path):
    for value, word in ((0, "nothing"), (1, "everything")):
        path = mask_at(tmp_path / "m.png", np.full((9, 9), value))
        with pytest.raises(ImageDataError, match=f"m.png marks {word}"):
            read_mask(path, 16)


@pytest.mark.parametrize("shape", [(40, 30), (30, 30), (30, 80), (300, 420)])
def test_a_mask_of_another_aspect_is_refused(root, shape):
    marked = np.zeros(shape, bool)
    marked[:9] = True
    path = mask_at(root / "m.png", marked)
    with pytest.raises(ImageDataError, match=r"m.png is \d+ pixels wide .*a.png 40 and 30; draw the mask"):
        read_mask(path, 16, root / "a.png")


@pytest.mark.parametrize("shape", [(30, 40), (60, 80), (15, 20), (7, 10), (301, 400)])
def test_a_mask_of_another_size_serves(root, shape):
    marked = np.zeros(shape, bool)
    marked[:4] = True
    assert read_mask(mask_at(root / "m.png", marked), 16, root / "a.png").any()


@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 10**6), st.integers(16, 40))
def test_a_small_mark_never_vanishes_and_stays_in_its_place(height, width, at, size):
    marked = np.zeros((height, width), bool)
    marked[at % height, at % width] = True
    mask = shrunk(marked, size)
    rows, columns = mask.nonzero()
    assert len(rows) >= 1
    assert np.abs(rows / size - (at % height) / height).max() < 1 / size + 1 / height
    assert np.abs(columns / size - (at % width) / width).max() < 1 / size + 1 / width


def test_transparent_pixels_of_a_mask_do_not_count(tmp_path):
    values = np.full((8, 8, 4), 255, np.uint8)
    values[:, 4:, 3] = 0
    Image.fromarray(values).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", 16)
    assert mask[:, :8].all()
    assert not mask[:, 8:].any()


def test_a_box_is_of_the_image_as_it_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert box_mask((0, 0, 30, 20), tmp_path / "a.jpg", 16)[:8].all()
    with pytest.raises(ImageDataError, match="is 30 pixels wide and 40 high"):
        box_mask((0, 0, 40, 20), tmp_path / "a.jpg", 16)
