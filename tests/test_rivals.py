"""GroupDRO, AFR, CDEP and RR-ClArC against closed forms, peers and plain training."""

import copy
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lvlmva_lite.alignment_set import AlignmentSet
from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.contextual_decomposition import cdep_penalty, contextual_decomposition
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.fills import fill
from lvlmva_lite.methods.afr import AFR, afr, sample_weights
from lvlmva_lite.methods.cdep import CDEP
from lvlmva_lite.methods.group_dro import GroupLoss
from lvlmva_lite.methods.rr_clarc import RRClArC, direction_penalty, pattern_direction
from lvlmva_lite.models import Classifier, NetworkError, OwnNetwork, fit, mlp
from lvlmva_lite.models.networks import Residual
from lvlmva_lite.models.pretrained import Normalise, ReLU6
from lvlmva_lite.pipeline import Prepared
from lvlmva_lite.torchvision_compat import import_torchvision


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


def prepared(data, model, masks=None, **settings):
    """A run on ``data``, of which each image is in the alignment set."""
    data = data if masks is None else replace(data, spurious_masks=masks)
    maps = torch.zeros(len(data), *data.images.shape[2:])
    shown = AlignmentSet(torch.arange(len(data)), maps, None, [], None)
    config = Config(**{"batch_size": 16, "align_epochs": 40, "align_learning_rate": 1e-2} | settings)
    return Prepared(None, config, data, data, None, model, data.images[:2], shown, 0.0)


def pixel(data, shows):
    """Masks of the first pixel where ``shows``."""
    masks = torch.zeros(len(data), *data.images.shape[2:], dtype=torch.bool)
    masks[:, 0, 0] = shows
    return masks


def split_model(seed):
    """Every kind of layer that has a rule, BatchNorm with a history of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), ReLU6())
        model = Classifier(
            Normalise((0.4,) * 3, (0.2,) * 3), nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            Residual(body, nn.Identity(), nn.ReLU()), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3),
        ).double()  # fmt: skip
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (
                    module.weight.data,
                    module.bias.data,
                    module.running_mean,
                    module.running_var,
                ):
                    values.uniform_(0.5, 1.5)
        return model.eval(), torch.rand(4, 1, 9, 8).double(), torch.rand(4, 9, 8) < 0.4


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_contributions_add_up_to_the_logits_and_an_empty_mask_has_none(seed):
    model, images, masks = split_model(seed)
    beta, gamma = contextual_decomposition(model, images, masks)
    torch.testing.assert_close(beta + gamma, model(images))
    # Normalise has a bias of its own, of which an empty mask gets nothing.
    assert not contextual_decomposition(model, images, torch.zeros_like(masks))[0].any()


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_without_a_bias_a_contribution_is_what_the_masked_pixels_give_alone(seed):
    model, images, masks = split_model(seed)
    pure = Classifier(*[layer for layer in model if not isinstance(layer, Normalise | nn.MaxPool2d)])
    for module in pure.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
    images = images.expand(-1, 3, -1, -1)
    beta, _ = contextual_decomposition(pure, images, masks)
    torch.testing.assert_close(beta, pure(images * masks[:, None]))


def test_a_bias_goes_to_both_parts_by_their_size_and_a_relu_takes_the_mask_first():
    model = Classifier(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    first, second = model[1], model[3]
    for value, to in (
        (first.weight, [[2.0, -3.0]]), (first.bias, [4.0]),
        (second.weight, [[1.0], [-2.0]]), (second.bias, [0.0, 0.0]),
    ):  # fmt: skip
        value.data = torch.tensor(to)
    images = torch.tensor([[[[1.0, 2.0]]]])
    masks = torch.tensor([[[True, False]]])
    # 2 and -6 share the bias 4 as 1 and 3: 3 and -3; relu(3) = 3, relu(0) - relu(3) = -3.
    beta, gamma = contextual_decomposition(model, images, masks)
    torch.testing.assert_close(beta, torch.tensor([[3.0, -6.0]]))
    torch.testing.assert_close(gamma, torch.tensor([[-3.0, 6.0]]))
    assert cdep_penalty(model, images, masks).item() == pytest.approx(9)
    assert cdep_penalty(model, images, masks, reduction="mean").item() == pytest.approx(9 / 2)


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_from_an_origin_only_what_differs_contributes(seed):
    model, images, masks = split_model(seed)
    filled = fill(images, masks)
    beta, gamma = contextual_decomposition(model, images, masks, origin=filled)
    torch.testing.assert_close(beta + gamma, model(images), rtol=1e-4, atol=1e-4)
    same, _ = contextual_decomposition(model, images, masks, origin=images)
    assert not same.any()
    # Of a network without a bend it is the finite difference.
    linear = Classifier(nn.Flatten(), nn.Linear(images[0].numel(), 3)).double()
    bare = Classifier(nn.Flatten(), nn.Linear(images[0].numel(), 3, bias=False)).double()
    bare[1].weight = linear[1].weight
    pure, _ = contextual_decomposition(bare, images, masks, origin=filled)
    torch.testing.assert_close(pure, linear(images) - linear(filled), rtol=1e-4, atol=1e-5)


def test_a_maximum_is_taken_where_the_whole_image_has_it():
    model = Classifier(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 1, bias=False))
    model.head.weight.data.fill_(2.0)
    images = torch.tensor([[[[0.1, 0.5], [0.9, 0.2]]]]).repeat(2, 1, 1, 1)
    masks = torch.zeros(2, 2, 2, dtype=torch.bool)
    masks[0, 0, 1] = True  # holds something, and not the maximum
    masks[1, 1, 0] = True
    beta, gamma = contextual_decomposition(model, images, masks)
    torch.testing.assert_close(beta, torch.tensor([[0.0], [1.8]]))
    torch.testing.assert_close(gamma, torch.tensor([[1.8], [0.0]]))


def test_cdep_makes_the_masked_pixel_contribute_nothing():
    data = toy()
    masks = pixel(data, True)
    model = mlp((1, 3, 3), 2)
    fit(model, data.images, data.labels, epochs=30, learning_rate=1e-2, batch_size=16)
    before = contextual_decomposition(model, data.images, masks)[0].abs().mean()
    made = CDEP().fit(prepared(data, model, masks), strength=10.0).model
    assert contextual_decomposition(made, data.images, masks)[0].abs().mean() < 0.05 * before
    assert made(data.images).diff(dim=1).std() > 0.1  # and says something still


def test_a_layer_without_a_rule_and_a_network_that_cannot_be_followed_are_refused():
    data = toy()
    model = Classifier(nn.Flatten(), nn.Linear(9, 3), nn.Sigmoid(), nn.Linear(3, 2))
    with pytest.raises(NetworkError, match="no rule for Sigmoid"):
        contextual_decomposition(model, data.images, pixel(data, True))

    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(9, 2)

        def forward(self, images):
            return self.layer(images.flatten(1)) if images.sum() > 0 else images

    with pytest.raises(NetworkError, match="cannot follow Asks"):
        contextual_decomposition(OwnNetwork(Asks()), data.images, pixel(data, True))
    with pytest.raises(ConfigError, match="which mlp has not"):
        RRClArC().fit(prepared(data, nn.Flatten(), pixel(data, True)))


class Written(nn.Module):
    """As people write networks: functions, methods, sums in place, one logit in a dict."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(16, 1)

    def forward(self, images):
        hidden = nn.functional.relu(self.first(images), inplace=True)
        hidden += self.second(hidden) * 0.5
        hidden = nn.functional.max_pool2d(torch.cat([hidden, hidden], 1), 2)[:, :4]
        hidden = nn.functional.adaptive_avg_pool2d(hidden, 2)
        return {"logits": self.head(hidden.view(hidden.size(0), -1))}


@pytest.mark.parametrize("name", ["written", "resnet18", "vgg11_bn", "mobilenet_v2", "densenet121"])
def test_networks_that_others_wrote_are_followed(name):
    torch.manual_seed(0)
    own = Written() if name == "written" else getattr(import_torchvision().models, name)(num_classes=3)
    model = OwnNetwork(own, mean=[0.5], std=[0.25], repeat_grey=True).eval()
    images = torch.rand(2, 1, 64, 64)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:24, 8:24] = True
    beta, gamma = contextual_decomposition(model, images, masks)
    torch.testing.assert_close(beta + gamma, model(images), rtol=1e-3, atol=1e-4)
    assert beta[0].abs().min() > 0
    assert not beta[1].any()
    cdep_penalty(model, images, masks).backward()
    assert all(weight.grad is not None for weight in own.parameters())


def test_a_network_with_an_attention_over_channels_is_refused():
    model = OwnNetwork(import_torchvision().models.efficientnet_b0(num_classes=2)).eval()
    with pytest.raises(NetworkError, match="no rule for"):
        contextual_decomposition(model, torch.rand(1, 3, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool))


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_the_pattern_is_the_slope_of_a_regression_on_artefact_and_class(seed):
    rng = np.random.default_rng(seed)
    labels, shows = np.arange(40) % 3, rng.random(40) < 0.5
    shows[:6] = [False] * 3 + [True] * 3
    embedding = (
        rng.normal(size=(40, 5)) + 4 * rng.normal(size=(3, 5))[labels] + shows[:, None] * np.arange(5)
    )
    design = np.column_stack([np.eye(3)[labels], shows])
    slope = np.linalg.lstsq(design, embedding, rcond=None)[0][-1]
    ours = pattern_direction(*map(torch.from_numpy, (embedding, labels, shows)))
    np.testing.assert_allclose(ours, slope / np.linalg.norm(slope), atol=1e-10)


def test_the_penalty_is_the_mean_over_signs_of_the_slope_along_the_direction():
    model = mlp((1, 3, 3), 3).double()
    direction = torch.randn(30, generator=torch.Generator().manual_seed(0)).double()
    images = toy(4).images.double()
    embedding = model.embed(images).detach().requires_grad_()
    squares = []
    for signs in itertools.product((-1.0, 1.0), repeat=3):
        output = (model.head(embedding) * torch.tensor(signs)).sum()
        (slopes,) = torch.autograd.grad(output, embedding)
        squares.append((slopes @ direction).square().sum())
    masks = torch.ones(4, 3, 3, dtype=torch.bool)
    penalty = direction_penalty(model, images, masks, direction=direction)
    torch.testing.assert_close(penalty, torch.stack(squares).mean())
    mean = direction_penalty(model, images, masks, direction=direction, reduction="mean")
    torch.testing.assert_close(mean, penalty / 36)


def test_after_rr_clarc_the_answer_is_flat_along_the_direction_and_only_the_head_has_moved():
    data = toy(80)
    shows = torch.rand(80, generator=torch.Generator().manual_seed(1)) < 0.5
    images = data.images.clone()
    images[shows, 0, 2, 2] = 1.0
    data = replace(data, images=images)
    model = mlp((1, 3, 3), 2)
    fit(model, images, data.labels | shows.long(), epochs=30, learning_rate=1e-2, batch_size=16)
    slow = {"align_learning_rate": 1e-3, "decay": True}
    made = RRClArC().fit(prepared(data, model, pixel(data, shows), **slow), strength=1000.0).model
    with torch.no_grad():
        direction = pattern_direction(model.embed(images), data.labels, shows)
        # What the answer changes by when the embedding goes one unit along it, by a difference.
        change = [
            (of.head(of.embed(images) + direction) - of(images)).diff(dim=1).abs().max()
            for of in (model, made)
        ]
        centred = data.labels[:, None] == torch.arange(2)
        effect = [
            sum((z[shows & c].mean() - z[~shows & c].mean()) * (shows & c).sum() * (~shows & c).sum() / c.sum()
                for c in centred.T)
            for z in (of(images).diff(dim=1)[:, 0] for of in (model, made))
        ]  # fmt: skip
    assert change[1] < 0.02 * change[0]
    assert abs(effect[1]) < 0.02 * abs(effect[0])  # with no slope along the pattern, no mean effect
    for name, value in model.state_dict().items():
        assert torch.equal(value, made.state_dict()[name]) == (not name.startswith("5."))
    assert all(weight.requires_grad for weight in made.parameters())
    # Where the masks lie does not matter, nor whether there are any where groups say the same.
    elsewhere = pixel(data, shows).roll(1, 2) | pixel(data, shows).roll(2, 1)
    grouped = replace(data, groups=2 * data.labels + shows)
    for same in (prepared(data, model, elsewhere, **slow), prepared(grouped, model, **slow)):
        again = RRClArC().fit(same, strength=1000.0).model
        for one, other in zip(made.parameters(), again.parameters(), strict=True):
            assert torch.equal(one, other)
    with pytest.raises(ConfigError, match=r"unlearns one artefact, so that .* got w, x, y"):
        RRClArC().fit(prepared(replace(grouped, group_names=tuple("wxyz12")), model))


@pytest.mark.parametrize("shows", ["every image", "none", "one class"])
def test_without_an_image_to_compare_with_there_is_no_direction(shows):
    data = toy()
    which = {"every image": True, "none": False, "one class": data.labels == 1}[shows]
    with pytest.raises(
        ConfigError, match="needs a class with images that show the artefact and images that do not"
    ):
        RRClArC().fit(prepared(data, mlp((1, 3, 3), 2), pixel(data, which)))
