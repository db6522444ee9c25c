"""PNG files: what Pillow reads of them is what was put in."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lvlmva_lite.critic.png import packed, repacked


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


@settings(max_examples=60, deadline=None)
@given(
    heights=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    width=st.integers(1, 400),
    colours=st.integers(1, 256),
    seed=st.integers(0, 2**16),
)
def test_pillow_reads_what_was_packed(heights, width, colours, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, colours, (len(heights), width, 3), dtype=np.uint8)
    pixels = rows.repeat(heights, axis=0)
    png = packed(rows, np.array(heights))
    assert (opened(png) == pixels).all()
    length = int.from_bytes(png[33:37])
    assert png[37:41] == b"IDAT"
    assert len(zlib.decompress(png[41 : 41 + length])) == len(pixels) * (1 + 3 * width)  # with its checksum
    # However the rows are told, and whoever packed them first.
    assert packed(pixels, np.ones(len(pixels), int)) == png
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    assert repacked(file.getvalue()) == png == repacked(png)


@pytest.mark.parametrize("png", [b"", b"\0\0\0", b"\x89PNG\r\n\x1a\n", "cut", "grey"])
def test_what_is_no_picture_in_rgb_stays_as_it_is(png):
    file = io.BytesIO()
    Image.new("L" if png == "grey" else "RGB", (40, 40), 7).save(file, "png")
    png = {"cut": file.getvalue()[:60], "grey": file.getvalue()}.get(png, png)
    assert repacked(png) == png
