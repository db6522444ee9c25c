import itertools

import numpy as np
import pytest
import torch
from torch import nn

from lvlmva_lite.datasets import knee_phantom, skin_phantom
from lvlmva_lite.datasets.phantoms.scene import DEFAULT_N, TRAIN_RATES, Draws

PHANTOMS = pytest.mark.parametrize("phantom", [knee_phantom, skin_phantom])


@PHANTOMS
@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("overlap", [False, True])
def test_the_marker_changes_its_mask_and_nothing_else(phantom, split, overlap):
    marked = phantom(split, n=60, marker_rate=(1, 1), overlap=overlap)
    clean = phantom(split, n=60, marker_rate=(0, 0), overlap=overlap)
    changed = (marked.images != clean.images).any(1)
    assert not (changed & ~marked.spurious_masks).any()
    assert changed[marked.spurious_masks].float().mean() > 0.95
    assert not clean.spurious_masks.any()
    assert torch.equal(marked.core_masks, clean.core_masks)
    assert torch.equal(marked.labels, clean.labels)


@PHANTOMS
def test_every_marker_is_visible_and_keeps_to_its_side(phantom):
    beside = phantom("test", n=200, marker_rate=(1, 1))
    on_core = phantom("test", n=200, marker_rate=(1, 1), overlap=True)
    assert beside.spurious_masks.flatten(1).sum(1).min() >= 25
    assert beside.core_masks.flatten(1).sum(1).min() >= 20
    assert not (beside.spurious_masks & beside.core_masks).any()
    assert (on_core.spurious_masks & on_core.core_masks).flatten(1).any(1).all()


@PHANTOMS
def test_some_but_not_all_markers_give_the_same_picture_per_image(phantom):
    clean, some = phantom("test", n=40, marker_rate=(0, 0)), phantom("test", n=40)
    every = phantom("test", n=40, marker_rate=(1, 1))
    has = some.groups % 2 == 1
    assert torch.equal(some.images[has], every.images[has])
    assert torch.equal(some.images[~has], clean.images[~has])


@PHANTOMS
def test_groups_follow_the_rates(phantom):
    train = phantom("train", size=32)
    assert len(train) == DEFAULT_N["train"]
    assert torch.bincount(train.labels).tolist() == [len(train) // 2] * 2
    for label, rate in enumerate(TRAIN_RATES):
        share = (train.groups[train.labels == label] % 2).float().mean().item()
        assert abs(share - rate) < 4 * (rate * (1 - rate) / 1000) ** 0.5
    for split in ("validation", "test"):
        mixed = phantom(split, size=32)
        assert torch.bincount(mixed.groups).tolist() == [DEFAULT_N[split] // 4] * 4
    assert torch.equal(train.groups // 2, train.labels)
    assert torch.equal(train.groups % 2 == 1, train.spurious_masks.flatten(1).any(1))
    assert len(train.group_names) == 4
    assert train.group_names[2].startswith(train.class_names[1])


@PHANTOMS
def test_an_image_depends_on_its_seed_split_and_place_only(phantom):
    few, many = phantom("train", n=7, random_state=3), phantom("train", n=90, random_state=3)
    for field in ("images", "labels", "groups", "spurious_masks", "core_masks"):
        assert torch.equal(getattr(few, field), getattr(many, field)[:7])
    for other in (phantom("train", n=7, random_state=4), phantom("test", n=7, random_state=3)):
        assert not (few.images == other.images).flatten(1).all(1).any()
    state = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    phantom("train", n=1)
    assert state[0] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(state[1], torch.get_rng_state())


@PHANTOMS
@pytest.mark.parametrize("size", [32, 45, 224])
def test_any_size_shows_the_same_scene(phantom, size):
    small = phantom("test", n=8, size=size, marker_rate=(1, 1))
    large = phantom("test", n=8, size=2 * size if size < 112 else 112, marker_rate=(1, 1))
    channels = 1 if phantom is knee_phantom else 3
    assert small.images.shape == (8, channels, size, size)
    assert small.images.dtype == torch.float32
    assert small.images.min() >= 0
    assert small.images.max() <= 1
    assert small.spurious_masks.shape == small.core_masks.shape == (8, size, size)
    assert small.spurious_masks.dtype == small.core_masks.dtype == torch.bool
    shrink = torch.nn.AdaptiveAvgPool2d(min(size, 112))
    a, b = shrink(small.images).flatten(1), shrink(large.images).flatten(1)
    for i in range(8):
        assert torch.corrcoef(torch.stack([a[i], b[i]]))[0, 1] > 0.97


def test_knee_and_skin_say_what_they_are():
    knee, skin = knee_phantom("test", n=1), skin_phantom("test", n=1)
    assert (knee.name, skin.name) == ("knee-phantom", "skin-phantom")
    assert knee.class_names == ("no osteoarthritis", "moderate osteoarthritis")
    assert skin.class_names == ("benign", "malignant")


def test_the_joint_of_a_sick_knee_is_narrower():
    knees = knee_phantom("validation", n=400, marker_rate=(0, 0))
    area = knees.core_masks.flatten(1).float().mean(1)
    assert area[knees.labels == 0].mean() > area[knees.labels == 1].mean()


def test_malignant_lesions_are_larger_on_average_only():
    skin = skin_phantom("validation", n=400, marker_rate=(0, 0))
    area = skin.core_masks.flatten(1).float().mean(1)
    benign, malignant = area[skin.labels == 0], area[skin.labels == 1]
    assert malignant.mean() > 1.2 * benign.mean()
    assert malignant.quantile(0.1) < benign.quantile(0.9)


@PHANTOMS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "auto_test"}, "split must be one of"),
        ({"size": 31}, "size must be"),
        ({"size": 225}, "size must be"),
        ({"n": 0}, "n must be"),
        ({"marker_rate": (0.5, 1.2)}, "marker_rate must be"),
        ({"marker_rate": (0.5,)}, "marker_rate must be"),
        ({"random_state": -1}, "random_state must not"),
    ],
)
def test_wrong_arguments_are_named(phantom, arguments, message):
    with pytest.raises(ValueError, match=message):
        phantom(**{"split": "train", **arguments})


@pytest.mark.parametrize("knots", [6, 64, 128])
def test_textures_have_unit_variance_before_pixels_average_them(knots):
    fine = Draws([[seed] for seed in range(60)]).texture(512, knots, knots)
    assert abs(fine.mean()) < 0.1
    assert abs(fine.std() - 1) < 0.1
    coarse = Draws([[seed] for seed in range(60)]).texture(64, knots, knots)
    averaged = fine.reshape(60, 64, 8, 64, 8).mean((2, 4))
    assert np.abs(averaged - coarse).max() < 0.05


def small_cnn(channels):
    layers = []
    for width in (16, 32, 64, 64):
        layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


def margins(model, data):
    """How much each image speaks for class 1."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(batch) for batch in data.images.split(500)])
    model.train()
    return logits[:, 1] - logits[:, 0]


def trained(data, epochs, seen, n_steps=None):
    """Margins on each data set in ``seen``, at the end or after ``n_steps``."""
    torch.manual_seed(0)
    model = small_cnn(data.images.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    n_all = epochs * -(-len(data) // 64)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, n_all)
    batches = (batch for _ in range(epochs) for batch in torch.randperm(len(data)).split(64))
    for batch in itertools.islice(batches, n_steps or n_all):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.images[batch]), data.labels[batch]).backward()
        optimizer.step()
        decay.step()
    return [margins(model, other) for other in seen]


def area_under_curve(positive, negative):
    return (positive[:, None] > negative[None]).float().mean().item()


@pytest.mark.slow
@PHANTOMS
def test_clean_images_can_be_told_apart_but_not_perfectly(phantom):
    clean = phantom("test", marker_rate=(0, 0))
    (margin,) = trained(phantom("train", marker_rate=(0, 0)), 10, [clean])
    accuracy = ((margin > 0) == clean.labels).float().mean().item()
    assert 0.85 < accuracy < 0.95


@pytest.mark.slow
@PHANTOMS
def test_a_network_falls_for_the_marker(phantom):
    test = phantom("test")
    (margin,) = trained(phantom("train"), 8, [test])
    right = ((margin > 0) == test.labels).float()
    assert min(right[test.groups == group].mean().item() for group in range(4)) < 0.6


@pytest.mark.slow
@PHANTOMS
def test_on_average_over_seeds_the_marker_is_seen_before_the_core(phantom):
    # A single network may see the joint first: one of three did, on the knees.
    by_marker, by_core = [], []
    for seed in range(3):
        probes = [phantom("validation", marker_rate=rates, random_state=seed) for rates in ((0, 0), (1, 1))]
        ill = probes[0].labels == 1
        unmarked, marked = trained(phantom("train", random_state=seed), 2, probes, n_steps=48)
        by_marker += [area_under_curve(unmarked[of], marked[of]) for of in (ill, ~ill)]
        by_core += [area_under_curve(margin[ill], margin[~ill]) for margin in (unmarked, marked)]
    assert np.mean(by_marker) > np.mean(by_core) + 0.03
