import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite.alignment import align
from lvlmva_lite.datasets import ImageStore, ShortcutDataset, image_store
from lvlmva_lite.models import fit, mlp, predict_proba

VALUES = np.random.default_rng(0).integers(0, 256, (20, 3, 5, 4), dtype=np.uint8)
FLOATS = torch.from_numpy(VALUES).float() / 255


@pytest.fixture(params=["memory", "disk", "disk, mapped anew"])
def store(request, tmp_path, monkeypatch):
    if request.param == "memory":
        return ImageStore(VALUES)
    if request.param != "disk":
        monkeypatch.setattr(image_store, "KEPT", 0)
    np.save(tmp_path / "values.npy", VALUES)
    return ImageStore(tmp_path / "values.npy")


@pytest.mark.parametrize(
    "index",
    [3, -1, slice(2, 9), slice(None), slice(1, 19, 3), torch.tensor(4),
     torch.tensor([5, 0, 5]), torch.arange(20) % 3 == 0, np.array([1, 2]), [7, 7]],
)  # fmt: skip
def test_an_index_gives_what_a_tensor_would(store, index):
    got, expected = store[index], FLOATS[index]
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@given(st.lists(st.integers(-20, 19), min_size=1, max_size=30), st.data())
def test_a_part_of_a_part_is_still_the_same(indices, data):
    part = ImageStore(VALUES).take(torch.tensor(indices))
    tensor = FLOATS[indices]
    inner = data.draw(st.lists(st.integers(0, len(indices) - 1), max_size=10))
    assert part.shape == tensor.shape
    assert torch.equal(part.take(np.array(inner, int))[:], tensor[inner])
    assert torch.equal(torch.cat(list(part.split(7))), tensor)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))])
def test_a_copy_reads_the_same_and_carries_none_of_the_file(tmp_path, again):
    np.save(tmp_path / "values.npy", np.tile(VALUES, (50, 1, 1, 1)))
    store = ImageStore(tmp_path / "values.npy")
    assert torch.equal(store[:20], FLOATS)
    assert len(pickle.dumps(store)) < 2000 < VALUES.nbytes * 50
    assert torch.equal(again(store)[:20], FLOATS)


def test_only_a_small_file_stays_mapped(store):
    mapped = store._mapped()
    anew = store._mapped() is not mapped
    assert anew == (image_store.KEPT == 0)


def test_what_was_handed_out_is_ones_own(store):
    batch = store[:2]
    batch.zero_()
    assert torch.equal(store[:2], FLOATS[:2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VALUES.astype(np.float32), "holds uint8 of shape .*, got float32"),
        (VALUES[0], r"got uint8 of shape \(3, 5, 4\)"),
    ],
)
def test_other_arrays_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ImageStore(values)


def test_damaged_files_and_wrong_indices(tmp_path):
    np.save(tmp_path / "values.npy", VALUES)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "values.npy").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"cut.npy is no .npy file of images, or cut short"):
        ImageStore(tmp_path / "cut.npy")
    with pytest.raises(FileNotFoundError):
        ImageStore(tmp_path / "none.npy")
    store = ImageStore(VALUES)
    with pytest.raises(TypeError, match="one index of images"):
        store[:, 0]
    with pytest.raises(IndexError, match="a mask of"):
        store[torch.ones(3, dtype=torch.bool)]
    with pytest.raises(IndexError):
        store[20]


def test_a_network_trained_aligned_and_asked_by_either_is_the_same_to_the_bit(store):
    labels = torch.arange(20) % 2
    masks = torch.zeros(20, 5, 4, dtype=torch.bool)
    masks[:, :2] = True
    outcomes = []
    for images in (FLOATS, store):
        model = mlp((3, 5, 4), 2, hidden=(8,), random_state=0)
        history = fit(model, images, labels, epochs=2, batch_size=6)
        chosen = ShortcutDataset(images, labels, class_names=("a", "b")).subset(torch.arange(6)).in_memory()
        history += align(
            model, images, labels, chosen.images, chosen.labels, masks[:6], penalty_weight=1.0, epochs=1,
            batch_size=8,
        )  # fmt: skip
        outcomes.append((history, predict_proba(model, images, 7)))
    assert outcomes[0][0] == outcomes[1][0]
    assert torch.equal(outcomes[0][1], outcomes[1][1])


def test_a_data_set_knows_its_images_again(store):
    labels = torch.zeros(20, dtype=torch.int64)
    stored, held = (ShortcutDataset(images, labels, class_names=("a",)) for images in (store, FLOATS))
    assert stored.also_in(held).all()
    part = stored.subset(torch.tensor([3, 1]))
    assert isinstance(part.images, ImageStore)
    assert torch.equal(part.in_memory().images, FLOATS[[3, 1]])
