"""Panels: checked pixel by pixel against what was put in."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lvlmva_lite.critic import Case
from lvlmva_lite.critic.panels import PALETTE, _place_badges, render_panels


def case_of(image, labels, n_segments=None) -> Case:
    labels = torch.as_tensor(labels)
    n_segments = int(labels.max()) + 1 if n_segments is None else n_segments
    return Case("c", torch.as_tensor(image), labels, n_segments, "digit 0", "words")


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


def quadrants(side=28) -> torch.Tensor:
    half = torch.arange(side) >= side // 2
    return 2 * half[:, None].long() + half[None].long()


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    n_segments=st.integers(1, 30),
    min_size=st.integers(1, 90),
    seed=st.integers(0, 2**16),
)
def test_any_size_is_enlarged_in_whole_blocks(height, width, channels, n_segments, min_size, seed):
    draw = torch.Generator().manual_seed(seed)
    image = torch.rand(channels, height, width, generator=draw)
    labels = torch.randint(-1, n_segments, (height, width), generator=draw)
    panels = render_panels(case_of(image, labels, n_segments), min_size)
    drawn = opened(panels.image)

    scale = drawn.shape[0] // height
    assert drawn.shape == (height * scale, width * scale, 3)
    assert opened(panels.segment_map).shape == opened(panels.overlay).shape == drawn.shape
    assert max(drawn.shape[:2]) >= min_size
    assert min(drawn.shape[:2]) >= 24
    for row in range(height):
        for column in range(width):
            block = drawn[row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
            assert (block == (image[:, row, column].numpy() * 255).round().astype(np.uint8)).all()


def test_a_large_image_stays_as_it_is():
    image = torch.rand(3, 600, 520, generator=torch.Generator().manual_seed(0))
    drawn = opened(render_panels(case_of(image, torch.zeros(600, 520, dtype=torch.int64))).image)
    assert (drawn == (image * 255).round().byte().permute(1, 2, 0).numpy()).all()


def test_segments_have_their_colour_an_outline_and_a_letter():
    panels = render_panels(case_of(torch.full((1, 28, 28), 0.5), quadrants()))
    segment_map, overlay = opened(panels.segment_map), opened(panels.overlay)
    side = segment_map.shape[0]
    assert side == 28 * 19
    for j, (row, column) in enumerate([(40, 40), (40, side - 40), (side - 40, 40), (side - 40, side - 40)]):
        assert tuple(segment_map[row, column]) == PALETTE[j]
        # Inside, the image shines through: three parts of grey 128 to one of the colour.
        assert np.allclose(overlay[row, column], (3 * 128 + np.array(PALETTE[j])) / 4, atol=1)
    # The border between A and B: black line, then each one's own colour.
    assert (overlay[40, side // 2 - 1 : side // 2 + 1] == 0).all()
    assert tuple(overlay[40, side // 2 - 3]) == PALETTE[0]
    assert tuple(overlay[40, side // 2 + 2]) == PALETTE[1]


def test_nothing_but_the_letter_tells_segments_of_one_colour_apart():
    assert PALETTE[2] == PALETTE[8 % len(PALETTE)]
    c, i = (
        opened(render_panels(case_of(torch.zeros(1, 28, 28), torch.full((28, 28), j), 9)).segment_map)
        for j in (2, 8)
    )
    rows, columns, _ = np.nonzero(c != i)
    assert len(rows)
    assert np.ptp(rows) < 40
    assert np.ptp(columns) < 40


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_letter_is_white_on_black_on_any_background(value):
    labels = quadrants()
    overlay = opened(render_panels(case_of(torch.full((1, 28, 28), value), labels)).overlay)
    for badge in _place_badges(labels.numpy().repeat(19, 0).repeat(19, 1), 4):
        inside = overlay[
            badge.top + 1 : badge.top + badge.height - 1, badge.left + 1 : badge.left + badge.width - 1
        ]
        assert inside.max() == 255
        assert (inside == 0).all(axis=2).mean() > 0.5


def test_letters_of_neighbouring_single_pixels_do_not_touch():
    labels = np.zeros((28, 28), np.int64)
    labels[5:7, 5:7] = [[1, 2], [3, 4]]
    labels[27, 27] = 5
    labels = labels.repeat(19, 0).repeat(19, 1)
    badges = _place_badges(labels, 6)
    assert sorted(badge.name for badge in badges) == list("ABCDEF")
    for badge in badges:
        row, column = badge.top + badge.height // 2, badge.left + badge.width // 2
        assert labels[row, column] == "ABCDEF".index(badge.name)
        assert not any(badge.meets(other) for other in badges if other is not badge)


def test_an_empty_segment_gets_no_letter_and_the_others_keep_theirs():
    labels = quadrants()
    labels[labels == 1] = -1
    assert sorted(b.name for b in _place_badges(labels.numpy().repeat(19, 0).repeat(19, 1), 6)) == list(
        "ACD"
    )
    segment_map = opened(render_panels(case_of(torch.zeros(1, 28, 28), labels, 6)).segment_map)
    assert (segment_map[:260, 270:] == 0).all()


def test_no_segments_at_all():
    panels = render_panels(case_of(torch.rand(1, 28, 28), torch.full((28, 28), -1), 6))
    assert panels.overlay == panels.image
    assert (opened(panels.segment_map) == 0).all()


def test_grey_is_the_same_as_rgb_with_equal_channels():
    image = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(1))
    labels = quadrants()
    assert render_panels(case_of(image, labels)) == render_panels(case_of(image.expand(3, -1, -1), labels))


def test_bytes_depend_on_the_case_alone():
    import matplotlib.pyplot as plt

    case = case_of(torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(1)), quadrants())
    before = render_panels(case)
    with plt.rc_context({"font.size": 30, "savefig.dpi": 50}):
        assert render_panels(replace(case, case_id="other", description="other")) == before


def test_the_looks_have_not_changed():
    """Answers are kept under the pictures they were given to: new looks make recorded answers useless."""
    image = torch.arange(28 * 28).view(1, 28, 28) / (28 * 28 - 1)
    panels = render_panels(case_of(image, quadrants()))
    pixels = b"".join(opened(png).tobytes() for png in (panels.image, panels.segment_map, panels.overlay))
    assert (
        hashlib.sha256(pixels).hexdigest()
        == "0d9a195ee0bdba9e2e8a53eec77f24efbdff0f1716d71dbba9bf6646fba5b984"
    )


@pytest.mark.parametrize(
    ("image", "labels", "n_segments", "words"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(4, 4, dtype=torch.int64), 1, r"\(1, H, W\) or \(3, H, W\)"),
        (torch.zeros(1, 0, 4), torch.zeros(0, 4, dtype=torch.int64), 1, "with pixels"),
        (torch.zeros(1, 4, 4), torch.zeros(4, 5, dtype=torch.int64), 1, r"\(4, 4\) like its image"),
        (torch.zeros(1, 4, 4), torch.full((4, 4), 3), 3, r"numbered -1 \.\. 2"),
        (torch.full((1, 4, 4), 2.0), torch.zeros(4, 4, dtype=torch.int64), 1, r"floats in \[0, 1\]"),
        (torch.full((1, 4, 4), torch.nan), torch.zeros(4, 4, dtype=torch.int64), 1, r"floats in \[0, 1\]"),
        (torch.ones(1, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.int64), 1, "floats"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_in_one_line(image, labels, n_segments, words):
    with pytest.raises(ValueError, match=words) as refused:
        render_panels(case_of(image, labels, n_segments))
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="min_size"):
        render_panels(case_of(torch.zeros(1, 4, 4), torch.zeros(4, 4, dtype=torch.int64)), 0)
