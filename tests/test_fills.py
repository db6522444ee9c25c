import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lvlmva_lite.config import ConfigError
from lvlmva_lite.fills import FILLS, SIGMA, fill
from lvlmva_lite.tasks import DecoyMNIST, Knee


def some(seed, n=3, channels=2, height=9, width=7, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(n, channels, height, width, generator=draw, dtype=dtype)
    return images, torch.rand(n, height, width, generator=draw) < 0.5


def filled(images, masks, variant, seed=0):
    others = some(99, 4, images.shape[1], *images.shape[2:], dtype=images.dtype)[0]
    return fill(
        images, masks, variant, others=others, generator=torch.Generator().manual_seed(seed)
    ), others


def ramp(size=21):
    """Rises by one a column; a square in its middle is masked."""
    images = torch.arange(size, dtype=torch.float64).expand(1, 1, size, size).clone()
    masks = torch.zeros(1, size, size, dtype=torch.bool)
    masks[:, 7:14, 7:14] = True
    return images, masks


@pytest.mark.parametrize("variant", ["surroundings", "mean"])
def test_a_ramp_has_its_own_value_in_the_middle_of_a_hole(variant):
    images, masks = ramp()
    values = fill(torch.where(masks[:, None], -50.0, images), masks, variant)
    torch.testing.assert_close(values[0, 0, 7:14, 10], images[0, 0, 7:14, 10])
    if variant == "mean":  # which is the mean of all that is outside, everywhere
        assert torch.allclose(values[masks[:, None]], torch.tensor(10.0).double())
    else:  # the surroundings rise as the ramp does, left and right alike
        row = values[0, 0, 10, 7:14]
        assert (row.diff() > 0).all()
        torch.testing.assert_close(row + row.flip(0), torch.full_like(row, 20.0))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_surroundings_are_scipys_normalised_convolution(seed):
    images, masks = some(seed, n=2, channels=1, height=16, width=16)
    masks[:, 0, 0] = False
    ours = fill(images, masks, "surroundings")
    for image, mask, got in zip(images[:, 0].numpy(), masks.numpy(), ours[:, 0].numpy(), strict=True):

        def blur(values):
            return ndimage.gaussian_filter(values, SIGMA * 16, mode="constant", truncate=16 / (SIGMA * 16))

        expected = blur(image * ~mask) / blur(1.0 * ~mask)
        np.testing.assert_allclose(got[mask], expected[mask], rtol=1e-6)


def test_what_is_far_from_all_surroundings_has_them_still():
    images, masks = torch.rand(1, 1, 224, 224), torch.ones(1, 224, 224, dtype=torch.bool)
    masks[0, 0, 0] = False
    assert (fill(images, masks) == images[0, 0, 0, 0]).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), variant=st.sampled_from(FILLS))
def test_outside_the_mask_nothing_changes_and_what_is_under_it_does_not_matter(seed, variant):
    images, masks = some(seed, dtype=torch.float32)
    masks[:, 0, 0] = False
    values, others = filled(images, masks, variant)
    assert torch.equal(values.masked_select(~masks[:, None]), images.masked_select(~masks[:, None]))
    assert values.dtype == images.dtype
    other_letters = torch.where(masks[:, None], torch.rand(images.shape), images)
    assert torch.equal(filled(other_letters, masks, variant)[0], values)
    if variant == "another-image":
        for value, mask in zip(values, masks, strict=True):
            assert any(torch.equal(value[:, mask], other[:, mask]) for other in others)
    elif variant == "noise":  # whole colours, of pixels outside
        for image, value, mask in zip(images, values, masks, strict=True):
            known = {tuple(colour) for colour in image[:, ~mask].T.tolist()}
            assert {tuple(colour) for colour in value[:, mask].T.tolist()} <= known
    else:
        assert (values >= images.amin((2, 3), keepdim=True)).all()
        assert (values <= images.amax((2, 3), keepdim=True)).all()


@pytest.mark.parametrize("variant", ["surroundings", "mean", "noise"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 255.0])
def test_a_constant_image_stays_as_it_is(variant, value):
    images, (_, masks) = torch.full((3, 2, 9, 7), value), some(1)
    assert torch.equal(filled(images, masks, variant)[0], images)


def test_noise_has_the_histogram_of_what_lies_outside():
    images = (torch.arange(10_000) % 4).view(1, 1, 100, 100).double()
    masks = torch.zeros(1, 100, 100, dtype=torch.bool)
    masks[:, :50] = True
    values = filled(images, masks, "noise")[0][0, 0, :50]
    shares = torch.bincount(values.flatten().long()) / values.numel()
    assert (shares - 0.25).abs().max() < 0.02  # 3 standard deviations of a share of 5000


@pytest.mark.parametrize("variant", ["surroundings", "mean", "noise"])
def test_of_an_image_masked_all_over_the_whole_stands_in(variant):
    images, masks = some(2)
    masks[1] = True
    values = filled(images, masks, variant)[0][1]
    assert values.isfinite().all()
    if variant == "mean":
        torch.testing.assert_close(values, images[1].mean((1, 2), keepdim=True).expand_as(values))


@pytest.mark.parametrize("variant", ["noise", "another-image"])
def test_the_generator_alone_decides_what_is_drawn(variant):
    images, masks = some(3)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = filled(images, masks, variant)[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(filled(images, masks, variant)[0], first)
    assert not torch.equal(filled(images, masks, variant, seed=1)[0], first)
    with pytest.raises(ValueError, match=f"'{variant}' draws; give a generator"):
        fill(images, masks, variant, others=images)


def test_what_cannot_be_filled_is_refused_with_the_value():
    images, masks = some(4)
    draw = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="unknown fill 'black'; choose one of: surroundings, mean"):
        fill(images, masks, "black")
    with pytest.raises(ValueError, match=r"\(3, 9, 7\); got bool, \(3, 9\)"):
        fill(images, masks[:, :, 0])
    with pytest.raises(ValueError, match="got float32"):
        fill(images, masks.float())
    for others in (None, images[:0], images[..., 1:]):
        with pytest.raises(ValueError, match="needs others"):
            fill(images, masks, "another-image", others=others, generator=draw)


def test_a_fill_that_would_do_nothing_is_refused():
    with pytest.raises(ConfigError, match="'noise' does nothing with the penalty 'rrr'"):
        DecoyMNIST().config(penalty_fill="noise")
    with pytest.raises(ConfigError, match="does nothing with the penalty 'jacobian'"):
        Knee().config(penalty="jacobian", penalty_fill="mean")
    with pytest.raises(ConfigError, match="unknown penalty_fill 'grey'; choose one of: surroundings"):
        Knee().config(penalty="finite-difference", penalty_fill="grey")
    assert DecoyMNIST().config(penalty="finite-difference", penalty_fill="noise").penalty_fill == "noise"
