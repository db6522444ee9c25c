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


@pytest.mark.parametrize(
    ("keywords", "name"), [({"split": "dev"}, "dev"), ({"split": "test", "shade": "red"}, "red")]
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
