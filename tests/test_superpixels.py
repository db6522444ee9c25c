import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import felzenszwalb

from lvlmva_lite.metrics import segment_truth
from lvlmva_lite.segmentation import positive_effect
from lvlmva_lite.superpixels import METHODS, SamError, sam, superpixels


@pytest.fixture(scope="module")
def quarters():
    """Two images of four flat quarters, and maps that put 4, 3, 2, 1 parts of effect on them."""
    image = torch.zeros(1, 16, 16)
    image[0, :8, 8:], image[0, 8:, :8], image[0, 8:, 8:] = 0.3, 0.6, 1.0
    effect = torch.zeros(16, 16)
    effect[2, 2], effect[2, 12], effect[12, 2:4], effect[12, 12] = 1.0, 4.0, 1.5, 2.0
    return torch.stack([image, image]), torch.stack([effect, -effect])


@pytest.mark.parametrize("method", METHODS)
def test_segments_are_the_regions_with_the_most_effect(quarters, method):
    images, maps = quarters
    options = {"slic": {"n_segments": 4, "compactness": 1e-3}, "felzenszwalb": {"sigma": 0, "scale": 10}}
    segments = superpixels(images, maps, 3, method=method, options=options[method])
    expected = torch.full((16, 16), -1)
    expected[:8, 8:], expected[8:, :8], expected[8:, 8:] = 0, 1, 2
    assert torch.equal(segments.labels[0], expected)
    torch.testing.assert_close(segments.shares[0], torch.tensor([0.4, 0.3, 0.2], dtype=torch.float64))
    torch.testing.assert_close(segments.means[0, 1], torch.tensor([12.5, 3.0], dtype=torch.float64) / 16)
    spread = torch.tensor([[1 / 12, 0], [0, 1 / 12 + 0.25]], dtype=torch.float64) / 256
    torch.testing.assert_close(segments.covariances[0, 1], spread)
    # No positive effect, no segment.
    assert (segments.labels[1] == -1).all()
    assert (segments.shares[1] == 0).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 8), st.sampled_from(METHODS), st.sampled_from([1, 3]))
def test_any_image_gives_consistent_segments(seed, n_segments, method, n_channels):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, n_channels, 12, 14, generator=generator)
    maps = torch.randn(2, 12, 14, generator=generator)
    segments = superpixels(images, maps, n_segments, method=method)
    mass = positive_effect(maps)
    for j in range(n_segments):
        held = (mass * (segments.labels == j)).sum((1, 2))
        torch.testing.assert_close(segments.shares[:, j], held)
    assert (segments.shares.diff(dim=1) <= 0).all()
    assert (segments.shares.sum(1) <= 1 + 1e-12).all()
    assert ((segments.means >= 0) & (segments.means <= 1)).all()
    assert torch.linalg.eigvalsh(segments.covariances).amin() >= 14**-2 / 12 * (1 - 1e-6)


def test_no_region_left_out_holds_more(decoys):
    images = decoys.images[:20]
    maps = torch.randn(20, 28, 28, generator=torch.Generator().manual_seed(0))
    segments = superpixels(images, maps, 4)
    for i in range(20):
        regions = felzenszwalb(images[i].permute(1, 2, 0).double().numpy(), scale=50, sigma=0.5, min_size=3)
        held = np.bincount(regions.ravel(), positive_effect(maps)[i].flatten())
        expected = np.zeros(4)
        largest = np.sort(held)[::-1][:4]
        expected[: len(largest)] = largest
        np.testing.assert_allclose(segments.shares[i], expected)
        for j in range(4):  # whole regions
            inside = np.unique(regions[segments.labels[i] == j])
            assert len(inside) <= 1
            assert (segments.labels[i][regions == inside[0]] == j).all() if len(inside) else True


def test_superpixels_find_the_square_and_its_truth_can_be_told(decoys):
    some = decoys.subset((decoys.labels == 1).nonzero()[:10, 0])
    maps = some.spurious_masks.double() + 0.01
    for method in METHODS:
        segments = superpixels(some.images, maps, 6, method=method)
        truth = segment_truth(segments.labels, 6, maps, some.spurious_masks)
        assert (truth[:, 0] == 1).all()
        assert not (truth[:, 3:] == 1).any()


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """A stand-in for the package: it checks what it is given and finds three masks that overlap."""
    seen = {}

    class Model:
        def __init__(self, checkpoint):
            seen["checkpoint"] = checkpoint

        def to(self, device):
            seen["device"] = device
            return self

    class Generator:
        def __init__(self, model):
            assert isinstance(model, Model)

        def generate(self, image):
            assert image.dtype == np.uint8
            assert image.shape == (16, 16, 3)
            seen["brightest"] = image.max()
            small, large, other = np.zeros((3, 16, 16), bool)
            small[2:4, 2:4], large[:8], other[12:] = True, True, True
            return [{"segmentation": mask, "area": mask.sum()} for mask in (small, large, other)]

    module = types.ModuleType("segment_anything")
    module.sam_model_registry = {"vit_b": Model}
    module.SamAutomaticMaskGenerator = Generator
    monkeypatch.setitem(sys.modules, "segment_anything", module)
    checkpoint = tmp_path / "weights.pth"
    checkpoint.touch()
    return checkpoint, seen


def test_masks_of_segment_anything_become_segments(stub, quarters):
    checkpoint, seen = stub
    images, maps = quarters
    segments = sam(images, maps.abs() + 0.01, 2, checkpoint=checkpoint)
    assert seen == {"checkpoint": str(checkpoint), "device": "cpu", "brightest": 255}
    # The small mask lies in the large one and keeps its pixels; it holds the least effect here.
    assert (segments.labels[:, 2:4, 2:4] == -1).all()
    assert (segments.labels[:, 12:] == 0).all() or (segments.labels[:, 12:] == 1).all()
    assert (segments.labels[:, 8:12] == -1).all()
    three = sam(images, maps.abs() + 0.01, 3, checkpoint=checkpoint)
    assert (three.labels[:, 2:4, 2:4] == 2).all()


def test_a_missing_checkpoint_or_package_is_named(stub, quarters, monkeypatch, tmp_path):
    checkpoint, _ = stub
    with pytest.raises(SamError, match=r"nothing\.pth: download .*model-checkpoints"):
        sam(*quarters, 2, checkpoint=tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match="vit_b; got 'vit_z'"):
        sam(*quarters, 2, checkpoint=checkpoint, model_type="vit_z")
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    with pytest.raises(SamError, match="pip install"):
        sam(*quarters, 2, checkpoint=checkpoint)


def test_bad_arguments_are_named(quarters):
    images, maps = quarters
    with pytest.raises(ValueError, match="felzenszwalb, slic; got 'sam'"):
        superpixels(images, maps, 2, method="sam")
    with pytest.raises(ValueError, match="got 0"):
        superpixels(images, maps, 0)
    with pytest.raises(ValueError, match=r"got shape \(2, 1, 16, 16\)"):
        superpixels(images, maps[:1], 2)
    with pytest.raises(ValueError, match="scale them first"):
        superpixels(images * 255, maps, 2)
