import dataclasses
import math

import numpy as np
import pytest
import torch

from lvlmva_lite.datasets import ImageStore, ShortcutDataset, load_decoy_mnist
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


# What is refused, and the mend


def data_of(**changes):
    fields = {
        "images": torch.rand(6, 3, 8, 9, generator=torch.Generator().manual_seed(0)),
        "labels": torch.arange(6) % 2,
        "groups": torch.arange(6) % 4,
        "spurious_masks": torch.zeros(6, 8, 9, dtype=torch.bool),
        "class_names": ("a", "b"),
        "group_names": tuple("wxyz"),
    }
    return ShortcutDataset(**{**fields, **changes})


def changed(index, value, dtype=torch.float32):
    images = data_of().images.clone()
    images[index] = value
    return images.to(dtype)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": changed(0, 1.001)},
            r"images must lie in \[0, 1\], got .* to 1.001; undo their normalisation",
        ),
        ({"images": changed(0, -0.5)}, "got -0.5 to .* put it into the network, as its first layer"),
        ({"images": torch.full((6, 3, 8, 9), 200.0)}, "got 200 to 200; divide by 255"),
        ({"images": changed(4, math.nan)}, "image 4 holds NaN or infinity"),
        ({"images": changed(2, -math.inf)}, "image 2 holds NaN or infinity"),
        (
            {"images": changed(0, 0, torch.float64)},
            r"must be float32, got torch.float64; pass images.float\(\)",
        ),
        ({"images": changed(0, 0, torch.float16)}, "must be float32, got torch.float16"),
        (
            {"images": torch.zeros(6, 3, 8, 9, dtype=torch.uint8)},
            r"uint8; pass images.float\(\) / 255, or Imag",
        ),
        ({"images": torch.zeros(6, 3, 8, 9, dtype=torch.int64)}, "must be float32, got torch.int64"),
        ({"images": np.zeros((6, 3, 8, 9), np.float32)}, "must be a torch.Tensor, got ndarray"),
        ({"images": torch.zeros(6, 8, 9)}, r"\(N, C, H, W\), got shape \(6, 8, 9\)"),
        ({"images": torch.zeros(6, 8, 9, 3)}, r"1 or 3 channels, .*; pass images.permute\(0, 3, 1, 2\)"),
        ({"images": torch.zeros(6, 4, 8, 9)}, "1 or 3 channels, .* keep 1 or 3 of them"),
        ({"labels": torch.tensor([0, 1, 0, 2, 0, 0])}, r"labels must lie in 0 .. 1, .* image 3 has 2"),
        ({"labels": torch.tensor([0, 1, -1, 0, 0, 0])}, "image 2 has -1"),
        (
            {"labels": torch.zeros(6, dtype=torch.int32)},
            r"labels must be int64, got torch.int32; pass labels.long",
        ),
        ({"labels": torch.zeros(6)}, "labels must be int64, got torch.float32"),
        ({"labels": torch.zeros(6, 1, dtype=torch.int64)}, r"labels has shape \(6, 1\) for 6 images"),
        ({"labels": [0] * 6}, "labels must be a torch.Tensor, got list"),
        ({"groups": torch.full((6,), 4)}, "groups must lie in 0 .. 3, the 4 group_names; image 0 has 4"),
        ({"group_names": ()}, "groups must lie in 0 .. -1"),
        ({"groups": torch.zeros(5, dtype=torch.int64)}, "groups has 5 rows for 6 images"),
        ({"spurious_masks": torch.zeros(6, 9, 8, dtype=torch.bool)}, r"= \(6, 8, 9\), got \(6, 9, 8\)"),
        (
            {"spurious_masks": torch.zeros(6, 1, 8, 9, dtype=torch.bool)},
            r"pass spurious_masks.squeeze\(1\)",
        ),
        (
            {"spurious_masks": torch.zeros(6, 8, 9)},
            "must be bool, got torch.float32; pass spurious_masks > 0",
        ),
        ({"core_masks": torch.zeros(5, 8, 9, dtype=torch.bool)}, "core_masks has 5 rows for 6 images"),
        ({"class_names": ()}, "class_names is empty"),
        (
            {"images": torch.zeros(0, 3, 8, 9), "labels": torch.zeros(0, dtype=torch.int64)},
            r"images are empty, of shape \(0, 3, 8, 9\); give at least one",
        ),
        (
            {"images": ImageStore(np.zeros((0, 3, 8, 9), np.uint8))},
            r"images are empty, of shape \(0, 3, 8, 9\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        data_of(**changes)
    assert "\n" not in str(error.value)


def test_a_part_without_images_is_refused():
    with pytest.raises(ValueError, match="images are empty"):
        data_of().subset(torch.zeros(6, dtype=torch.bool))


def test_groups_and_masks_may_be_unknown():
    bare = ShortcutDataset(data_of().images, data_of().labels, class_names=("a", "b"))
    part = bare.subset(torch.tensor([4, 1]))
    assert (part.groups, part.spurious_masks, part.core_masks) == (None, None, None)
    assert torch.equal(part.images, bare.images[[4, 1]])
    with pytest.raises(ValueError, match="SUBG needs groups, and the data set 'images' has none"):
        bare.require("groups", by="SUBG")
    data_of().require("groups", "spurious_masks", by="SUBG")


def test_an_empty_part_is_refused():
    with pytest.raises(ValueError, match="images are empty"):
        data_of().subset(torch.zeros(6, dtype=torch.bool))
