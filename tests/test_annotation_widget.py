import base64
import io
import re
import threading
import time

import numpy as np
import pytest
from PIL import Image

from lvlmva_lite.annotation_widget import annotation_widget
from lvlmva_lite.datasets.annotations import (
    Annotation,
    append_annotation,
    read_annotations,
    remove_annotation,
)
from lvlmva_lite.datasets.image_files import ImageDataError

ipywidgets = pytest.importorskip("ipywidgets")


@pytest.fixture
def root(tmp_path):
    for i, name in enumerate(("a.png", "b.png", "deep/c.jpg", "deep/d.png")):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), 50 * i, np.uint8)).save(tmp_path / "data" / name)
    return tmp_path / "data"


def parts(widget):
    status, picture, buttons, boxed, across, down, _ = widget.children
    edges = [edge for line in (across, down) for edge in line.children]
    assert [edge.description for edge in edges] == ["left", "right", "top", "bottom"]
    return (
        status,
        picture,
        {b.description.partition(" (")[0]: b for b in buttons.children},
        boxed,
        edges,
    )


def set_box(edges, *values):
    """Left, right, top, bottom."""
    for edge, value in zip(edges, values, strict=True):
        edge.value = value


def shown(picture):
    source = re.search('base64,([^"]+)', picture.value)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB"))


def test_every_answer_is_written_at_once(root, tmp_path):
    table = tmp_path / "marks.csv"
    (root / "patch_masks").mkdir()
    Image.new("L", (40, 30)).save(root / "patch_masks" / "a.png")  # no image to ask about
    status, picture, buttons, boxed, edges = parts(annotation_widget(root, table))
    assert "1 of 4: a.png" in status.value
    assert 'alt="a.png"' in picture.value
    buttons["No"].click()
    assert read_annotations(table, root) == {"a.png": Annotation(False)}
    assert "2 of 4: b.png" in status.value
    buttons["Yes"].click()
    boxed.value = True
    set_box(edges, 10, 20, 0, 30)
    buttons["Yes"].click()
    assert not boxed.value  # the next image starts without
    buttons["Can't say"].click()
    assert read_annotations(table, root) == {
        "a.png": Annotation(False),
        "b.png": Annotation(True),
        "deep/c.jpg": Annotation(True, (10, 0, 20, 30)),
        "deep/d.png": Annotation(None),
    }
    assert "All 4 images" in status.value
    assert buttons["Yes"].disabled


def test_the_last_answer_is_taken_back(root, tmp_path):
    table = tmp_path / "marks.csv"
    widget = annotation_widget(root, table)
    status, _, buttons, *_ = parts(widget)
    assert buttons["Take back"].disabled
    for answer in ("No", "Yes", "No", "No"):
        buttons[answer].click()
    assert "All 4 images" in status.value
    buttons["Take back"].click()
    buttons["Take back"].click()
    assert "3 of 4: deep/c.jpg" in status.value
    assert not buttons["Yes"].disabled
    assert read_annotations(table, root) == {"a.png": Annotation(False), "b.png": Annotation(True)}
    buttons["Yes"].click()
    assert read_annotations(table, root)["deep/c.jpg"] == Annotation(True)
    # Answers of another day are not of this sitting.
    again = parts(annotation_widget(root, table))[2]["Take back"]
    assert again.disabled


def test_keys_answer_at_once(root, tmp_path):
    table = tmp_path / "marks.csv"
    widget = annotation_widget(root, table)
    field = widget.children[-1]
    for key in ("y", "q", "N", "u", "z", "y"):
        field.value += key
    marks = {name: found.spurious for name, found in read_annotations(table, root).items()}
    assert marks == {"a.png": True, "b.png": False, "deep/c.jpg": True}
    field.value += "nnn"  # more than there are images
    assert len(read_annotations(table, root)) == 4


@pytest.mark.parametrize("name", ["x.png", "a, b.png"])
def test_a_row_that_is_not_there_cannot_be_removed(root, tmp_path, name):
    append_annotation(tmp_path / "m.csv", "a.png", True, (0, 0, 10, 10))
    with pytest.raises(ImageDataError, match="has no row of"):
        remove_annotation(tmp_path / "m.csv", name)
    append_annotation(tmp_path / "m.csv", name, None)
    before = (tmp_path / "m.csv").read_text()
    append_annotation(tmp_path / "m.csv", "c.png", False)
    remove_annotation(tmp_path / "m.csv", "c.png")
    assert (tmp_path / "m.csv").read_text() == before


def test_goes_on_where_it_stopped(root, tmp_path):
    table = tmp_path / "marks.csv"
    parts(annotation_widget(root, table))[2]["Can't say"].click()
    status, _, buttons, *_ = parts(annotation_widget(root, table))
    assert "2 of 4: b.png" in status.value
    for _ in range(3):
        buttons["No"].click()
    assert "All 4 images" in parts(annotation_widget(root, table))[0].value
    assert len(read_annotations(table, root)) == 4


def test_the_box_is_drawn(root, tmp_path):
    _, picture, _, boxed, edges = parts(annotation_widget(root, tmp_path / "m.csv"))
    assert (shown(picture) == 0).all()
    boxed.value = True
    set_box(edges, 10, 20, 5, 25)
    pixels = shown(picture)
    assert (pixels[5, 10:21] == [255, 0, 255]).all()
    assert (pixels[6:25, 11:20] == 0).all()
    boxed.value = False
    assert (shown(picture) == 0).all()


def test_a_box_goes_with_yes_alone(root, tmp_path):
    _, _, buttons, boxed, *_ = parts(annotation_widget(root, tmp_path / "m.csv"))
    boxed.value = True
    buttons["No"].click()
    assert read_annotations(tmp_path / "m.csv", root) == {"a.png": Annotation(False)}


def test_the_order_may_be_given(root, tmp_path):
    status, *_ = parts(
        annotation_widget(root, tmp_path / "m.csv", names=["deep/d.png", "a.png"], question="R?")
    )
    assert "1 of 2: deep/d.png" in status.value
    assert "R?" in status.value


def test_errors(root, tmp_path):
    with pytest.raises(ImageDataError, match=r"the image 'z\.png', but there is no such file"):
        annotation_widget(root, tmp_path / "m.csv", names=["z.png"])
    with pytest.raises(ImageDataError, match="there is no folder"):
        annotation_widget(root / "nowhere", tmp_path / "m.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageDataError, match="no image in"):
        annotation_widget(tmp_path / "empty", tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("file,spurious\n")
    with pytest.raises(ImageDataError, match="lacks the column"):
        annotation_widget(root, tmp_path / "m.csv")


def test_a_key_and_a_click_at_once_are_two_answers(root, tmp_path, monkeypatch):
    # JupyterLab answers some messages in a thread of their own.
    def slowly(*row):
        time.sleep(0.2)
        append_annotation(*row)

    monkeypatch.setattr("lvlmva_lite.annotation_widget.append_annotation", slowly)
    widget = annotation_widget(root, tmp_path / "m.csv")
    key = threading.Thread(target=widget.children[-1].set_trait, args=("value", "n"))
    key.start()
    parts(widget)[2]["No"].click()
    key.join()
    no = Annotation(False)
    assert read_annotations(tmp_path / "m.csv", root) == {"a.png": no, "b.png": no}
