import dataclasses

import pytest
import torch

from lvlmva_lite.datasets import load_decoy_mnist
from lvlmva_lite.datasets.mnist import load_mnist


@pytest.mark.parametrize(("split", "n"), [("train", 50_000), ("validation", 10_000), ("test", 10_000)])
def test_shapes_and_ranges(split, n):
    data = load_decoy_mnist(split)
    assert data.images.shape == (n, 1, 28, 28)
    assert data.images.dtype == torch.float32
    assert data.images.min() == 0
    assert data.images.max() == 1
    assert data.spurious_masks.shape == (n, 28, 28)


def test_square_is_four_by_four_in_a_corner_and_carries_the_class():
    data = load_decoy_mnist("train")
    assert (data.spurious_masks.sum((1, 2)) == 16).all()
    corners = data.spurious_masks[:, [0, 0, 27, 27], [0, 27, 0, 27]]
    assert (corners.sum(1) == 1).all()
    assert corners.float().mean(0).sub(0.25).abs().max() < 0.01
    inside = data.images[:, 0][data.spurious_masks].view(-1, 16) * 255
    torch.testing.assert_close(inside, (255 - 25 * data.labels.float())[:, None].expand(-1, 16))
    assert (data.groups % 2 == 1).all()


def test_shade_in_the_test_set_says_nothing():
    data = load_decoy_mnist("test")
    shade = (data.images[:, 0] * data.spurious_masks).amax((1, 2)) * 255
    shade_class = ((255 - shade) / 25).round().long()
    agrees = shade_class == data.labels
    # One in ten by chance; four standard deviations of 10 000 draws.
    assert abs(agrees.double().mean() - 0.1) < 4 * (0.09 / 10_000) ** 0.5
    assert torch.equal(agrees, data.groups % 2 == 1)
    assert torch.equal(data.groups // 2, data.labels)


def test_outside_the_square_the_digit_is_untouched():
    data = load_decoy_mnist("validation")
    original = torch.from_numpy(load_mnist("train")[0][-10_000:].copy()).float() / 255
    outside = ~data.spurious_masks
    assert torch.equal(data.images[:, 0][outside], original[outside])


def test_clean_variant_is_mnist_itself():
    data = load_decoy_mnist("test", shade="none")
    assert torch.equal(
        (data.images[:, 0] * 255).round().byte(), torch.from_numpy(load_mnist("test")[0].copy())
    )
    assert not data.spurious_masks.any()


def test_seed_decides():
    one, same, other = (load_decoy_mnist("test", random_state=s).images for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def shade_classes(data):
    shade = (data.images[:, 0] * data.spurious_masks).amax((1, 2)) * 255
    return ((255 - shade) / 25).round().long()


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_correlation_is_the_share_that_follows_and_fills_the_groups(correlation):
    data = load_decoy_mnist("train", correlation=correlation, random_state=3)
    aligned = shade_classes(data) == data.labels
    expected = correlation + (1 - correlation) / 10
    # Four standard deviations of 50 000 draws.
    assert abs(aligned.double().mean() - expected) < 4 * (expected * (1 - expected) / 50_000) ** 0.5
    assert torch.equal(data.groups, 2 * data.labels + aligned)
    assert torch.bincount(data.groups, minlength=20).min() > 0
    others = torch.bincount(shade_classes(data)[~aligned], minlength=10).double()
    assert (others / others.sum()).sub(0.1).abs().max() < 0.02


def test_more_correlation_adds_followers_and_leaves_the_rest_alone():
    weak, strong, full = (load_decoy_mnist("train", correlation=c) for c in (0.4, 0.8, 1.0))
    assert torch.equal(weak.spurious_masks, full.spurious_masks)
    follows = shade_classes(weak) == weak.labels
    assert torch.equal(weak.images[follows], full.images[follows])
    changed = (strong.images != weak.images).flatten(1).any(1)
    assert torch.equal(strong.images[changed], full.images[changed])
    assert 0.3 < changed.double().mean() < 0.42  # of the 40 % that joined, a tenth agreed by chance


def test_full_correlation_is_the_default():
    default, explicit = load_decoy_mnist("train"), load_decoy_mnist("train", correlation=1)
    assert torch.equal(default.images, explicit.images)
    assert torch.equal(default.groups, explicit.groups)


def test_default_draws_stay_what_they_were():
    """Corners of the first training and test decoys as published with version 0.1.0."""
    train, test = [2, 3, 3, 2, 1, 3, 0, 3, 3, 0, 0, 0], [3, 2, 2, 1, 1, 0, 0, 0, 0, 3, 2, 3]
    for split, expected in (("train", train), ("test", test)):
        data = load_decoy_mnist(split)
        corners = data.spurious_masks[:12, [0, 0, 27, 27], [0, 27, 0, 27]].int().argmax(1)
        assert corners.tolist() == expected


@pytest.mark.parametrize(
    ("keywords", "name"),
    [
        ({"split": "dev"}, "dev"),
        ({"split": "test", "shade": "red"}, "red"),
        ({"split": "train", "correlation": 1.5}, "1.5"),
        ({"split": "train", "correlation": -0.1}, "-0.1"),
        ({"split": "train", "correlation": float("nan")}, "nan"),
        ({"split": "test", "correlation": 0.5}, "pass shade='label'"),
    ],
)
def test_unknown_names_are_refused(keywords, name):
    with pytest.raises(ValueError, match=name):
        load_decoy_mnist(**keywords)


def test_fields_must_agree_in_length(decoys):
    with pytest.raises(ValueError, match="labels has 3 rows for 2000 images"):
        dataclasses.replace(decoys, labels=decoys.labels[:3])


def test_subset_keeps_rows_together(decoys):
    picked = decoys.subset(torch.tensor([5, 3, 5]))
    assert torch.equal(picked.images[1], decoys.images[3])
    assert torch.equal(picked.labels, decoys.labels[[5, 3, 5]])
