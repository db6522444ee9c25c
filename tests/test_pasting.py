import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lvlmva_lite.datasets.pasting import LETTER_GROUND, LETTER_SIZE, Layer, letter_layer, patch_layer

SEEDS = st.integers(0, 2**32 - 1)


def grey(seed, side):
    rng = np.random.default_rng(seed)
    return (rng.random((side, side)) * rng.random()).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(16, 160), st.sampled_from("LR"))
def test_a_letter_lies_whole_in_the_image_and_changes_nothing_outside_its_mask(seed, side, letter):
    image = grey(seed, side)
    before = image.copy()
    layer = letter_layer(image, letter, np.random.default_rng(seed))
    result = layer.over(image)
    assert np.array_equal(image, before)
    assert np.array_equal(result[~layer.mask], image[~layer.mask])
    assert result.dtype == np.float32
    assert 0 <= result.min() <= result.max() <= 1
    rows = np.flatnonzero(layer.mask.any(1))
    # Between the height of the letter upright, less a pixel, and tilted with its rim.
    assert LETTER_SIZE[0] * side - 1 <= len(rows) <= 1.6 * LETTER_SIZE[1] * side + 3
    assert layer.opacity.max() > 0.5


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_a_letter_is_bright_unless_all_places_are(seed):
    rng = np.random.default_rng(seed)
    for ground, bright in ((0.3, True), (LETTER_GROUND + 0.1, False)):
        image = np.full((96, 96), ground, np.float32)
        layer = letter_layer(image, "R", rng)
        assert (layer.colour.max() > 0.8) == bright


def half_disc(side, seed):
    """A disc cut off by one edge, and clear of the others; opaque."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    opacity = ((x**2 + (y - rng.uniform(0.35, 0.65)) ** 2) < rng.uniform(0.1, 0.3) ** 2).astype(np.float32)
    opacity = np.rot90(opacity, rng.integers(4)).copy()
    return Layer(opacity, np.repeat(opacity[..., None], 3, axis=2) * np.float32(0.5))


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_a_patch_stays_cut_off_by_the_edge_and_keeps_most_of_itself(seed):
    side = 64
    patch = half_disc(side, seed)
    image = np.random.default_rng(seed).random((side, side, 3)).astype(np.float32)
    layer = patch_layer(image, patch, np.random.default_rng(seed))

    def edges(mask):
        return np.array([mask[0].any() or mask[-1].any(), mask[:, 0].any() or mask[:, -1].any()])

    assert (edges(layer.mask) >= edges(patch.mask)).all()
    assert layer.mask.sum() >= 0.3 * patch.mask.sum()
    assert np.allclose(layer.colour[layer.mask], 0.5)  # colour and opacity moved together
    assert np.array_equal(layer.over(image)[~layer.mask], image[~layer.mask])


def test_a_patch_keeps_off_a_dark_lesion_where_it_can():
    side = 64
    y, x = np.mgrid[:side, :side] / side
    opacity = (x**2 + (y - 0.5) ** 2 < 0.04).astype(np.float32)  # at the left edge
    patch = Layer(opacity, np.repeat(opacity[..., None], 3, axis=2))
    image = np.full((side, side, 3), 0.8, np.float32)
    lesion = (slice(None), slice(0, side // 3))
    image[lesion] = 0.2
    rng = np.random.default_rng(0)
    covering = [patch_layer(image, patch, rng).mask[lesion].any() for _ in range(200)]
    # Each of six moves is mirrored to the free side with probability 1/2.
    assert np.mean(covering) < 0.06
