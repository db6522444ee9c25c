import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from lvlmva_lite.crossed import conflict_auc, crossed_readouts, letter_effect
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.models import mlp, predict_logits, predict_proba
from lvlmva_lite.tasks import DecoyMNIST, Knee, Skin

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "knee"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_conflict_auc_counts_the_pairs_that_are_in_order(rows):
    bare, marked, own = (torch.tensor(column) for column in zip(*rows, strict=True))
    if own.all() or not own.any():
        with pytest.raises(ValueError, match="both classes"):
            conflict_auc(bare, marked, own)
        return
    pairs = [(a, b) for a in bare[own].tolist() for b in marked[~own].tolist()]
    expected = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    assert conflict_auc(bare.float(), marked.float(), own) == pytest.approx(expected)


def twin_scores(effect, gap=2.0, n=4000):
    """Normal scores of two classes ``gap`` apart, and a letter that adds ``effect`` to each."""
    draw = torch.Generator().manual_seed(0)
    own = torch.arange(n) % 2 == 0
    bare = torch.randn(n, generator=draw) + gap * own
    return bare, bare + effect, own


@pytest.mark.parametrize("effect", [0.0, 1.0, 2.0, 5.0])
def test_of_normal_scores_it_is_the_normal_distribution_of_the_gap_less_the_letter(effect):
    # Difference of two unit normals: standard deviation sqrt(2).
    expected = stats.norm.cdf((2.0 - effect) / 2**0.5)
    assert conflict_auc(*twin_scores(effect)) == pytest.approx(expected, abs=0.02)


def test_the_effect_of_a_letter_is_in_standard_deviations_of_what_is_without():
    bare, marked, _ = twin_scores(3.0)
    expected = 3.0 / (1 + 1) ** 0.5  # variance 1 within a class, 1 between two classes 2 apart
    assert letter_effect(bare, marked) == pytest.approx(expected, rel=0.03)
    assert letter_effect(7 * bare - 2, 7 * marked - 2) == pytest.approx(letter_effect(bare, marked))
    assert letter_effect(bare, bare) == 0
    assert letter_effect(marked, bare) < 0
    assert math.isnan(letter_effect(torch.ones(3), torch.arange(3.0)))


def pairs(letter, labels):
    """Two pixels: the letter, and the class."""
    images = torch.stack([torch.as_tensor(letter).expand(len(labels)).float(), labels.float()], 1)
    masks = torch.zeros(len(labels), 1, 2, dtype=torch.bool)
    masks[:, 0, 0] = images[:, 0] > 0
    return ShortcutDataset(images.view(-1, 1, 1, 2), labels, spurious_masks=masks, class_names=("a", "b"))


class Weights(nn.Module):
    """Logits (0, z), z = the letter's weight times the letter, plus twice the class less one."""

    def __init__(self, letter):
        super().__init__()
        self.letter = nn.Parameter(torch.tensor(float(letter)))

    def forward(self, images):
        z = self.letter * images[:, 0, 0, 0] + 2 * images[:, 0, 0, 1] - 1
        return torch.stack([torch.zeros_like(z), z], 1)


@pytest.mark.parametrize("goes_with", [0, 1])
@pytest.mark.parametrize(("weight", "auc"), [(0.0, 1.0), (2.0, 0.5), (3.0, 0.0)])
def test_readouts_are_towards_the_class_that_the_letter_goes_with(goes_with, weight, auc):
    labels = torch.arange(20) % 2
    train = pairs((labels == goes_with) & (torch.arange(20) < 15), labels)
    towards = weight * (2 * goes_with - 1)
    found = crossed_readouts(Weights(towards), pairs(0, labels), pairs(1, labels), train)
    assert found["conflict_auc"] == auc
    spread = torch.tensor([-1.0, 1.0] * 10).std().item()
    assert found["letter_effect"] == pytest.approx(weight / spread)


def test_where_there_are_no_twins_there_are_no_readouts():
    labels = torch.arange(20) % 2
    one = pairs(0, labels)
    nothing = {}
    assert crossed_readouts(Weights(1), None, one, one) == nothing
    assert crossed_readouts(Weights(1), one, None, one) == nothing
    three = dataclasses.replace(one, class_names=("a", "b", "c"))
    assert crossed_readouts(Weights(1), three, three, three) == nothing
    assert crossed_readouts(Weights(1), one, one, dataclasses.replace(one, spurious_masks=None)) == nothing
    with pytest.raises(ValueError, match=r"the 20 without .* and of the 4 with it differ"):
        crossed_readouts(Weights(1), one, pairs(1, labels[:4]), one)
    assert DecoyMNIST().marked("test", seed=0) is None
    assert Skin(data_root=".").marked("test", seed=0) is None


@pytest.mark.parametrize(
    "task",
    [
        Knee(image_size=32),
        Skin(image_size=32),
        pytest.param(
            lambda: Knee(image_size=32, data_root=str(REAL)),
            marks=pytest.mark.skipif(not REAL.is_dir(), reason=f"the real radiographs are not at {REAL}"),
        ),
    ],
    ids=("knee", "skin", "real knee"),
)
def test_twins_differ_in_the_spurious_feature_alone_which_is_that_of_the_split(task):
    task = task if not callable(task) else task()
    bare, split = (task.load("validation", seed=1, clean=clean) for clean in (True, False))
    marked = task.marked("validation", seed=1)
    assert marked.spurious_masks.flatten(1).any(1).all()
    assert not bare.spurious_masks.any()
    assert torch.equal(bare.labels, marked.labels)
    outside = ~marked.spurious_masks[:, None].expand_as(marked.images)
    assert torch.equal(bare.images[outside], marked.images[outside])
    shows = split.spurious_masks.flatten(1).any(1)
    assert 0 < shows.sum() < len(shows)
    assert torch.equal(split.images[shows], marked.images[shows])
    assert torch.equal(split.images[~shows], bare.images[~shows])


def test_probabilities_are_the_softmax_of_the_logits():
    model, images = mlp((1, 4, 4), 3, hidden=(5,)), torch.rand(7, 1, 4, 4)
    logits = predict_logits(model, images, batch_size=3)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(images))
    odds = predict_proba(model, images).log()
    torch.testing.assert_close(odds.diff(dim=1), logits.diff(dim=1))
