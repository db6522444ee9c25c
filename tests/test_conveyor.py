import numpy as np
import pytest
import torch
from PIL import Image

from lvlmva_lite.datasets.phantoms.conveyor import CLASS_NAMES, STICKER_RATES, conveyor, write_conveyor


@pytest.mark.parametrize("size", [32, 64])
def test_the_sticker_changes_its_mask_and_nothing_else(size):
    marked, clean = (conveyor("train", n=60, size=size, marker_rate=rate) for rate in ((1, 1), (0, 0)))
    changed = (marked.images != clean.images).any(1)
    assert not (changed & ~marked.spurious_masks).any()
    assert changed[marked.spurious_masks].float().mean() > 0.95
    assert marked.spurious_masks.flatten(1).any(1).all()
    assert not clean.spurious_masks.any()
    # It lies on the belt, never on the part.
    assert not (marked.spurious_masks & marked.core_masks).any()


def test_groups_follow_the_rates():
    train, test = conveyor("train", n=1000, size=32), conveyor("test", n=400, size=32)
    for label, rate in enumerate(STICKER_RATES):
        share = (train.groups[train.labels == label] % 2).float().mean().item()
        assert abs(share - rate) < 4 * (rate * (1 - rate) / 500) ** 0.5
    assert torch.bincount(test.groups).tolist() == [100] * 4
    assert torch.equal(train.groups % 2 == 1, train.spurious_masks.flatten(1).any(1))


def test_a_break_takes_metal_away():
    dataset = conveyor("test", n=200, marker_rate=(0, 0))
    # Metal is brighter than the belt by far.
    metal = ((dataset.images.mean(1) > 0.4) & dataset.core_masks).flatten(1).float().sum(1)
    share = metal / dataset.core_masks.flatten(1).sum(1)
    assert share[dataset.labels == 1].median() < share[dataset.labels == 0].median() - 0.05


def test_the_files_hold_the_images(tmp_path):
    write_conveyor(tmp_path, n={"train": 5, "val": 4, "test": 6}, size=32, random_state=2)
    for folder, split, n in (("train", "train", 5), ("val", "validation", 4), ("test", "test", 6)):
        drawn = conveyor(split, n=n, size=32, random_state=2)
        assert len(list((tmp_path / folder).rglob("*.png"))) == n
        for number, (image, label) in enumerate(zip(drawn.images, drawn.labels.tolist(), strict=True)):
            read = np.asarray(Image.open(tmp_path / folder / CLASS_NAMES[label] / f"{number:04}.png"))
            assert np.array_equal(read / np.float32(255), image.permute(1, 2, 0).numpy())
