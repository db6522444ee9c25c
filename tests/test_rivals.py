"""GroupDRO, AFR and counter-examples against closed forms and plain training."""

import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lvlmva_lite.config import ConfigError
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods.afr import AFR, afr, sample_weights
from lvlmva_lite.methods.group_dro import GroupLoss
from lvlmva_lite.models import fit, mlp


def toy(n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = torch.rand(n, 1, 3, 3, generator=generator)
    images[:, 0, 0, 0] = 0.5 * images[:, 0, 0, 0] + 0.5 * labels
    return ShortcutDataset(
        images, labels, torch.arange(n) % 4, class_names=("a", "b"), group_names=tuple("wxyz")
    )


def test_one_group_is_plain_training():
    data = toy()
    plain, ours = mlp((1, 3, 3), 2), mlp((1, 3, 3), 2)
    fit(plain, data.images, data.labels, epochs=3, batch_size=16)
    fit(
        ours,
        data.images,
        data.labels,
        epochs=3,
        batch_size=16,
        loss=GroupLoss(torch.zeros(60).long(), 1, 0.5),
    )
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_weights_of_groups_by_hand():
    loss = GroupLoss(torch.tensor([0, 1, 1, 2]), 3, step_size=2.0)
    logits = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]], requires_grad=True)
    value = loss(logits, torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2]))
    low, high = torch.log1p(torch.exp(torch.tensor([-3.0, 3.0])))
    means = torch.stack([torch.log(torch.tensor(2.0)), (low + high) / 2, torch.tensor(0.0)])
    expected = (2 * means).softmax(0)
    torch.testing.assert_close(loss.weights, expected)
    torch.testing.assert_close(value, (expected * means).sum())


@given(st.integers(0, 2**31), st.floats(0.01, 3))
@settings(max_examples=25, deadline=None)
def test_the_worse_a_group_the_more_it_weighs(seed, step_size):
    generator = torch.Generator().manual_seed(seed)
    loss = GroupLoss(torch.arange(12) % 3, 3, step_size)
    logits, labels = torch.randn(12, 2, generator=generator), torch.arange(12) % 2
    losses = nn.functional.cross_entropy(logits, labels, reduction="none").view(4, 3).mean(0)
    loss(logits, labels, torch.arange(12))
    assert loss.weights.sum() == pytest.approx(1)
    assert loss.weights.argsort().tolist() == losses.argsort().tolist()


def test_unsure_images_and_rare_classes_weigh_more():
    chances = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    weights = sample_weights(chances, torch.tensor([0, 0, 1]), gamma=2.0)
    raw = torch.tensor([-1.8, -0.8, -1.6]).exp() / torch.tensor([2.0, 2.0, 1.0])
    torch.testing.assert_close(weights, raw / raw.sum())


def test_only_the_last_layer_moves_and_towards_the_weighted_optimum():
    data, model = toy(), mlp((1, 3, 3), 2)
    fit(model, data.images, data.labels, epochs=5)
    before = copy.deepcopy(model.state_dict())
    made = afr(model, data, gamma=3.0, steps=2000, learning_rate=0.5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        moved = not torch.equal(made.state_dict()[name], before[name])
        assert moved == (
            getattr(model.head, name.rpartition(".")[2], None) is not None and value.shape[0] == 2
        )
    with torch.no_grad():
        weights = sample_weights(model(data.images).softmax(1), data.labels, 3.0)
        embedding = made.embed(data.images)
    loss = (
        weights * nn.functional.cross_entropy(made.head(embedding), data.labels, reduction="none")
    ).sum()
    old = (weights * nn.functional.cross_entropy(model(data.images), data.labels, reduction="none")).sum()
    assert loss < old
    # Pulled hard enough, it stays.
    still = afr(model, data, gamma=3.0, pull=10.0, steps=200, learning_rate=0.01)
    assert (still.head.weight - model.head.weight).abs().max() < 0.1 * (
        made.head.weight - model.head.weight
    ).abs().max()


def test_afr_without_a_last_layer_of_its_own_is_refused():
    prepared = SimpleNamespace(model=nn.Flatten(), config=SimpleNamespace(model="net.py:Net"))
    with pytest.raises(ConfigError, match=r"net\.py:Net has not; choose a network of the package"):
        AFR().fit(prepared)
