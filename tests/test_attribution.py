import copy
import itertools
import math
import warnings

import pytest
import torch
from captum.attr import IntegratedGradients
from captum_peers import WindowsApart, captums, resnet18
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lvlmva_lite.attribution import (
    EXPLAINERS,
    CompletenessError,
    auto,
    choose_explainer,
    deeplift_shap,
    integrated_gradients,
    runner_up,
)
from lvlmva_lite.models import NetworkError, OwnNetwork, mlp, small_resnet
from lvlmva_lite.models.obstacles import obstacles


def test_linear_model_has_a_closed_form():
    # For a linear model DeepLIFT-SHAP is weight times (input - mean baseline).
    torch.manual_seed(0)
    linear = nn.Linear(2 * 3 * 3, 4)
    model = nn.Sequential(nn.Flatten(), linear)
    images, baselines = torch.rand(5, 2, 3, 3), torch.rand(7, 2, 3, 3)
    targets = torch.tensor([0, 1, 2, 3, 0])
    expected = linear.weight[targets].view(5, 2, 3, 3) * (images - baselines.mean(0))
    torch.testing.assert_close(deeplift_shap(model, images, targets, baselines), expected.sum(1).detach())


def shapley_by_enumeration(model, image, baselines):
    """Exact Shapley values, for the first logit, of a flat input over all orders of arrival; absent inputs from each baseline."""
    values = torch.zeros_like(image)

    def worth(rows):
        return model(rows)[:, 0].mean()

    for order in itertools.permutations(range(len(image))):
        mixed = baselines.clone()
        for i in order:
            before = worth(mixed)
            mixed[:, i] = image[i]
            values[i] += (worth(mixed) - before).detach()
    return values / math.factorial(len(image))


class SingleInputUnits(nn.Module):
    """sum_i a_i g(w_i x_i + b_i): no two inputs meet in a unit."""

    def __init__(self, n, activation=nn.ReLU):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(n)), nn.Parameter(torch.randn(n))
        self.activation, self.last = activation(), nn.Linear(n, 2)

    def forward(self, images):
        return self.last(self.activation(images.flatten(1) * self.weight + self.bias))


def as_images(rows):
    return rows[:, None, None]


@pytest.mark.parametrize("seed", range(3))
def test_equals_exact_shapley_values_where_no_inputs_meet(seed):
    torch.manual_seed(seed)
    model, image, baselines = SingleInputUnits(5), torch.randn(5), torch.randn(4, 5)
    exact = shapley_by_enumeration(model, image, baselines)
    maps = deeplift_shap(model, as_images(image[None]), torch.tensor([0]), as_images(baselines))
    torch.testing.assert_close(maps[0, 0], exact, rtol=1e-4, atol=1e-5)


def test_follows_the_rescale_rule_where_inputs_meet():
    # max(0, x1 + x2) at (2, -1) against (0, 0): the secant's slope is 1, so DeepLIFT
    # gives (2, -1); over both orders of arrival Shapley gives (1.5, -0.5).
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        for linear in (model[1], model[3]):
            linear.weight[:], linear.bias[:] = 1.0, 0.0
    image, baselines = torch.tensor([2.0, -1.0]), torch.zeros(2, 2)
    maps = deeplift_shap(model, as_images(image[None]), torch.tensor([0]), as_images(baselines))
    assert maps[0, 0].tolist() == [2.0, -1.0]
    assert shapley_by_enumeration(model, image, baselines).tolist() == [1.5, -0.5]


@pytest.mark.parametrize("seed", range(3))
def test_chains_secants_through_two_hidden_layers(seed):
    # One pair of image and baseline at a time, as a product of matrices in float64.
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)
    )
    images, targets, baselines = torch.randn(4, 6), torch.tensor([0, 2, 1, 2]), torch.randn(5, 6)
    first, second, third = (model[i].weight.double().detach() for i in (1, 3, 5))
    with torch.no_grad():
        z1, r1 = model[:2](images).double(), model[:2](baselines).double()
        z2, r2 = model[:4](images).double(), model[:4](baselines).double()

    def secants(z, r):
        return torch.diag((z.clamp_min(0) - r.clamp_min(0)) / (z - r))

    expected = torch.zeros(4, 6, dtype=torch.float64)
    for n, b in itertools.product(range(4), range(5)):
        multipliers = third[targets[n]] @ secants(z2[n], r2[b]) @ second @ secants(z1[n], r1[b]) @ first
        expected[n] += multipliers * (images[n] - baselines[b]).double() / 5
    maps = deeplift_shap(model, as_images(images), targets, as_images(baselines))
    torch.testing.assert_close(maps[:, 0], expected.float(), rtol=1e-4, atol=1e-5)


def test_a_pixel_on_which_image_and_baselines_agree_gets_nothing(decoys, shortcut_model):
    images, baselines = decoys.images[:5], torch.zeros(2, 1, 28, 28)
    maps = deeplift_shap(shortcut_model, images, decoys.labels[:5], baselines)
    assert not maps[images[:, 0] == 0].any()
    assert maps[images[:, 0] > 0].any()


def test_adds_up_to_the_output_difference(decoys, shortcut_model):
    images, targets, baselines = decoys.images[:50], decoys.labels[:50], decoys.images[50:70]
    maps = deeplift_shap(shortcut_model, images, targets, baselines)
    with torch.no_grad():
        logits = shortcut_model(images).gather(1, targets[:, None])[:, 0]
        difference = logits - shortcut_model(baselines).mean(0)[targets]
    torch.testing.assert_close(maps.sum((1, 2)), difference, rtol=1e-4, atol=1e-4)


def test_contrast_is_the_difference_of_two_explanations(decoys, shortcut_model):
    images, targets, baselines = decoys.images[:10], decoys.labels[:10], decoys.images[50:60]
    rivals = (targets + 3) % 10
    contrast = deeplift_shap(shortcut_model, images, targets, baselines, rivals=rivals)
    one = deeplift_shap(shortcut_model, images, targets, baselines)
    other = deeplift_shap(shortcut_model, images, rivals, baselines)
    torch.testing.assert_close(contrast, one - other)


def test_batch_size_changes_nothing(decoys, shortcut_model):
    arguments = (shortcut_model, decoys.images[:9], decoys.labels[:9], decoys.images[50:60])
    torch.testing.assert_close(
        deeplift_shap(*arguments, batch_size=2), deeplift_shap(*arguments, batch_size=9)
    )


def test_no_hook_outlives_the_call(decoys, shortcut_model):
    deeplift_shap(shortcut_model, decoys.images[:2], decoys.labels[:2], decoys.images[2:4])
    for module in shortcut_model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


class FunctionalReLU(nn.Module):
    """F.relu is not a module, so captum's rule for ReLU never sees it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(9, 20), nn.Linear(20, 3)

    def forward(self, images):
        return self.second(torch.relu(self.first(images.flatten(1))))


def small_cnn(pool):
    return nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 3))


NOT_FOLLOWED = {
    "F.relu": FunctionalReLU,
    "GELU": lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 20), nn.GELU(), nn.Linear(20, 3)),
}


def explain_noise(model):
    images, baselines = torch.randn(20, 1, 3, 3), torch.randn(5, 1, 3, 3)
    return deeplift_shap(model, images, torch.zeros(20, dtype=torch.int64), baselines)


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_a_model_that_deeplift_cannot_follow_is_refused(name):
    torch.manual_seed(0)
    with pytest.raises(
        CompletenessError, match=r"misses completeness by \d+(\.\d+)? of the output difference of image"
    ):
        explain_noise(NOT_FOLLOWED[name]())


@pytest.mark.parametrize("loud", [1, 1e4])
def test_one_large_image_hides_the_errors_of_no_other(loud):
    torch.manual_seed(0)
    model, images = FunctionalReLU(), torch.randn(8, 1, 3, 3)
    # A bright image of a direction in which the model is almost linear: next to no error of its own.
    with torch.no_grad():
        model.first.bias.abs_()
    bright = loud * torch.full((1, 1, 3, 3), 100.0)
    with torch.no_grad():
        model.first.weight[:10].abs_()
        model.first.weight[10:] = 0
    baselines = torch.randn(5, 1, 3, 3)
    zeros = torch.zeros(9, dtype=torch.int64)
    deeplift_shap(model, bright, zeros[:1], baselines)  # passes by itself
    for batch in (images, torch.cat([images, bright]), torch.cat([bright, images])):
        with pytest.raises(CompletenessError, match="of the output difference of image"):
            deeplift_shap(model, batch, zeros[: len(batch)], baselines)


def test_rounding_is_no_error_where_effects_cancel(decoys, shortcut_model):
    # Between an image above the baselines' mean logit and one below lies one that is equal to it.
    baselines = decoys.images[50:70]

    def difference(images):
        with torch.no_grad():
            return shortcut_model(images)[:, 0] - shortcut_model(baselines)[:, 0].mean()

    apart = difference(decoys.images[:50])
    above, below = decoys.images[apart.argmax()][None], decoys.images[apart.argmin()][None]
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        image = (1 - middle) * above + middle * below
        low, high = (middle, high) if difference(image) > 0 else (low, middle)
    maps = deeplift_shap(shortcut_model, image, torch.tensor([0]), baselines)
    assert maps.sum().abs() < 1e-3 * maps.abs().sum()
    # Nothing to tell apart: all differences are zero.
    image = image.detach().clone()
    same = image.repeat(3, 1, 1, 1)
    assert not deeplift_shap(shortcut_model, image, torch.tensor([0]), same).any()


def test_average_pooling_is_followed():
    torch.manual_seed(0)
    assert explain_noise(small_cnn(nn.AvgPool2d(2))).any()


def shared_relu():
    relu = nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 9), relu, nn.Linear(9, 9), relu, nn.Linear(9, 3))


class TwoReaders(nn.Module):
    """The input of the ReLU is read by another layer, too."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3)

    def forward(self, images):
        x = self.first(images.flatten(1))
        return self.last(self.relu(x) + 0.5 * x)


def test_a_relu_may_be_used_twice_and_have_company():
    torch.manual_seed(0)
    shared = shared_relu()
    own = nn.Sequential(*(nn.ReLU() if isinstance(module, nn.ReLU) else module for module in shared))
    assert torch.equal(deeplift_shap(shared, *noise()), deeplift_shap(own, *noise()))
    # relu(x) + x / 2 is a leaky ReLU: 1.5 x above 0, x / 2 below.
    model = TwoReaders()
    leaky = nn.Sequential(nn.Flatten(), model.first, nn.LeakyReLU(1 / 3), copy.deepcopy(model.last))
    leaky[-1].weight.data *= 1.5
    torch.testing.assert_close(deeplift_shap(model, *noise()), deeplift_shap(leaky, *noise()))


@pytest.mark.parametrize("module", [nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Softplus, nn.Tanh])
@pytest.mark.parametrize("inplace", [False, True])
def test_each_rule_gives_captums_values(module, inplace):
    if inplace and module not in (nn.ReLU, nn.ELU, nn.LeakyReLU):
        return
    torch.manual_seed(0)
    bend = module(inplace=True) if inplace else module()
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 20), bend, nn.Linear(20, 3))
    images, targets, baselines = noise()
    images[0] = baselines[0]  # no secant, but a tangent
    # captum subtracts two numbers of the size of the logit where inputs are nearly equal, as we do.
    torch.testing.assert_close(
        deeplift_shap(model, images, targets, baselines),
        captums(model, images, targets, baselines),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: mlp((3, 32, 32), 4, random_state=1),
        lambda: small_resnet((3, 32, 32), 4, random_state=1),
        lambda: resnet18(4),
    ],
    ids=["mlp", "small_resnet", "resnet18"],
)
def test_networks_get_captums_values(build):
    torch.manual_seed(0)
    model, images, baselines = build().eval(), torch.rand(5, 3, 32, 32), torch.rand(6, 3, 32, 32)
    targets = torch.arange(5) % 4
    peer = captums(model, images, targets, baselines)
    for max_rows in (4096, 7):
        maps = deeplift_shap(model, images, targets, baselines, max_rows=max_rows)
        assert (maps - peer).abs().max() <= 1e-5 * peer.abs().max()


def test_windows_may_overlap_and_stand_beside_a_relu():
    # captum is right where the windows are first copied apart, which is linear.
    torch.manual_seed(0)
    model = resnet18(4, pool=lambda: nn.MaxPool2d(3, 2, 1)).eval()
    peer = nn.Sequential(*model[:3], WindowsApart(), *model[4:])
    images, baselines, targets = torch.rand(3, 3, 32, 32), torch.rand(4, 3, 32, 32), torch.arange(3)
    expected = captums(peer, images, targets, baselines)
    maps = deeplift_shap(model, images, targets, baselines)
    assert (maps - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (nn.MaxPool1d(3, 2, 1), (2, 7)),
        (nn.MaxPool2d(3, 1, ceil_mode=True), (2, 6, 5)),
        (nn.MaxPool2d(2, 1, dilation=2), (2, 6, 5)),
        (nn.MaxPool3d(2, 1), (2, 4, 3, 3)),
    ],
    ids=str,
)
def test_pools_of_all_kinds_add_up(pool, shape):
    torch.manual_seed(0)
    n_inputs = math.prod(shape)
    n_outputs = pool(torch.zeros(1, *shape)).numel()
    model = nn.Sequential(nn.Flatten(), nn.Unflatten(1, shape), pool, nn.Flatten(), nn.Linear(n_outputs, 3))
    images, baselines = torch.randn(5, 1, 1, n_inputs), torch.randn(4, 1, 1, n_inputs)
    targets = torch.arange(5) % 3
    maps = deeplift_shap(model, images, targets, baselines, tolerance=1e-4)
    with torch.no_grad():
        change = model(images).gather(1, targets[:, None])[:, 0] - model(baselines).mean(0)[targets]
    torch.testing.assert_close(maps.sum((1, 2)), change, rtol=1e-4, atol=1e-4)


class InPlace(nn.Module):
    """Goes on in place, on what went into the ReLU or on what came out."""

    def __init__(self, work):
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3)
        self.work = work

    def forward(self, images):
        x = self.first(images.flatten(1))
        return self.last(self.work(x, self.relu(x)))


@pytest.mark.parametrize(
    ("work", "apart"),
    [
        (lambda x, y: y.add_(1), lambda x, y: y + 1),
        (lambda x, y: y.add_(x), lambda x, y: y + x),
        (lambda x, y: x.mul_(2) + y, lambda x, y: 2 * x + y),
        (lambda x, y: x.add_(y), lambda x, y: x + y),
    ],
)
def test_a_network_may_go_on_in_place(work, apart):
    torch.manual_seed(0)
    model, same = InPlace(work), InPlace(apart)
    same.load_state_dict(model.state_dict())
    maps = deeplift_shap(model, *noise(), tolerance=1e-4)
    torch.testing.assert_close(maps, deeplift_shap(same, *noise()))


def test_a_pass_that_stops_leaves_the_network_as_it_was():
    class Indices(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.last = nn.MaxPool2d(3, return_indices=True), nn.Linear(1, 3)

        def forward(self, images):
            return self.last(self.pool(images)[0].flatten(1))

    model = Indices()
    model.last.bias.requires_grad_(False)
    with pytest.raises(CompletenessError, match="MaxPool2d gives a tuple, not one tensor"):
        explain_noise(model)
    assert [weight.requires_grad for weight in model.parameters()] == [True, False]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_one_baseline_is_too_few(decoys, shortcut_model):
    with pytest.raises(ValueError, match="got 1"):
        deeplift_shap(shortcut_model, decoys.images[:2], decoys.labels[:2], decoys.images[:1])


def test_runner_up_is_the_best_other_class():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    assert runner_up(probabilities, torch.tensor([0, 2])).tolist() == [1, 0]


# Integrated gradients


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 1000))
def test_integrated_gradients_of_a_linear_model_have_the_closed_form(n, b, channels, seed):
    # Weight times (input - mean baseline), whatever the cut and the number of steps.
    torch.manual_seed(seed)
    linear = nn.Linear(channels * 9, 4)
    model = nn.Sequential(nn.Flatten(), linear)
    images, baselines = torch.rand(n, channels, 3, 3), torch.rand(b, channels, 3, 3)
    targets = torch.randint(4, (n,))
    expected = (linear.weight[targets].view(images.shape) * (images - baselines.mean(0))).sum(1)
    for options in ({}, {"n_steps": 1}, {"max_rows": 1}, {"batch_size": 2, "max_rows": 7, "n_steps": 3}):
        maps = integrated_gradients(model, images, targets, baselines, **options)
        torch.testing.assert_close(maps, expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.Softplus, nn.ReLU])
def test_integrated_gradients_are_shapley_values_where_no_inputs_meet(activation):
    torch.manual_seed(1)
    model, image, baselines = SingleInputUnits(5, activation), torch.randn(5), torch.randn(4, 5)
    exact = shapley_by_enumeration(model, image, baselines)
    maps = integrated_gradients(
        model, as_images(image[None]), torch.tensor([0]), as_images(baselines), n_steps=512
    )
    torch.testing.assert_close(maps[0, 0], exact, rtol=5e-3, atol=5e-3)


def test_integrated_gradients_equal_captums_line_by_line():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 20), nn.GELU(), nn.Linear(20, 3))
    images, baselines, targets = (
        torch.randn(4, 1, 3, 3),
        torch.randn(3, 1, 3, 3),
        torch.tensor([0, 1, 2, 0]),
    )
    peer = torch.stack(
        [
            IntegratedGradients(model).attribute(
                images, baseline.expand_as(images), target=targets, n_steps=32
            )
            for baseline in baselines
        ]
    )
    maps = integrated_gradients(model, images, targets, baselines, n_steps=32, max_rows=50)
    torch.testing.assert_close(maps, peer.mean(0).sum(1).float(), rtol=1e-4, atol=1e-5)


def test_integrated_gradients_take_more_steps_where_few_miss_completeness():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 30), nn.ReLU(), nn.Linear(30, 3))
    images, baselines = 5 * torch.randn(6, 1, 3, 3), torch.randn(2, 1, 3, 3)
    targets = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(CompletenessError, match=r"with 1 steps a line, .* allow more steps \(max_steps\)"):
        integrated_gradients(model, images, targets, baselines, n_steps=1, max_steps=1)
    maps = integrated_gradients(model, images, targets, baselines, n_steps=1)
    with torch.no_grad():
        change = (model(images) - model(baselines).mean(0))[:, 0]
    assert (
        (maps.sum((1, 2)) - change).abs() <= 5e-2 * change.abs() + 5e-3 * maps.abs().sum((1, 2)) + 1e-3
    ).all()


class Counting(nn.Sequential):
    """Notes how many rows it gets at once."""

    def forward(self, images):
        self.rows.append(len(images))
        return super().forward(images)


@pytest.mark.parametrize("max_rows", [2, 7, 30])
def test_integrated_gradients_send_no_more_rows_than_allowed(max_rows):
    model = Counting(nn.Flatten(), nn.Linear(9, 20), nn.GELU(), nn.Linear(20, 3))
    model.rows = []
    images, targets, baselines = noise(9)
    integrated_gradients(model, images, targets, baselines, max_rows=max_rows, n_steps=16)
    assert 0 < max(model.rows) <= max_rows


class Step(nn.Module):
    """Jumps, so that no gradient tells of the change."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(9, 3)

    def forward(self, images):
        flat = images.flatten(1)
        return self.last(flat) + 10 * (flat.mean(1, keepdim=True) > 0) * torch.ones(3)


class NoGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(9, 3)

    def forward(self, images):
        return self.last(images.flatten(1).round().detach())


def test_integrated_gradients_refuse_jumps_and_what_has_no_gradient():
    images, baselines = torch.ones(2, 1, 3, 3), -torch.ones(2, 1, 3, 3)
    targets = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(CompletenessError, match="its output jumps"):
        integrated_gradients(Step(), images, targets, baselines, max_steps=16)
    model = NoGradient().requires_grad_(False)
    with pytest.raises(NetworkError, match="needs a gradient from the logits to the image"):
        integrated_gradients(model, images, targets, baselines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rows": 0}, "max_rows must be at least 1, got 0"),
        ({"n_steps": 0}, "n_steps must lie between 1 and max_steps = 512, got 0"),
        ({"n_steps": 9, "max_steps": 8}, "max_steps = 8, got 9"),
    ],
)
def test_settings_of_integrated_gradients_are_checked(options, message):
    images, targets = torch.rand(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        integrated_gradients(FunctionalReLU(), images, targets, images, **options)


# The choice between the two


def noise(n=6):
    torch.manual_seed(3)
    return torch.randn(n, 1, 3, 3), torch.arange(n) % 3, torch.randn(5, 1, 3, 3)


def test_auto_is_deeplift_shap_where_it_can_follow():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 3))
    arguments = (model, *noise())
    assert choose_explainer(*arguments) == ("deeplift-shap", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(auto(*arguments), deeplift_shap(*arguments))


@pytest.mark.parametrize("build", NOT_FOLLOWED.values(), ids=NOT_FOLLOWED)
def test_auto_says_why_it_integrates_gradients(build):
    torch.manual_seed(0)
    arguments = (build(), *noise())
    name, reason = choose_explainer(*arguments)
    assert name == "integrated-gradients"
    assert "\n" not in reason
    with pytest.warns(UserWarning, match="integrated gradients instead of DeepLIFT-SHAP: .+") as caught:
        maps = auto(*arguments)
    # What the reason advises is what is done.
    assert reason.removesuffix(", or explain by integrated gradients") in str(caught[0].message)
    assert torch.equal(maps, EXPLAINERS.get(name)(*arguments))


def test_auto_changes_over_when_a_later_image_cannot_be_followed():
    # ReLU6 is linear for the first images and bends for the last.
    model = nn.Sequential(nn.Flatten(), nn.ReLU6(), nn.Linear(9, 3))
    images, targets, baselines = (
        torch.rand(6, 1, 3, 3),
        torch.zeros(6, dtype=torch.int64),
        torch.rand(3, 1, 3, 3),
    )
    images[5] += 20
    assert choose_explainer(model, images, targets, baselines)[0] == "deeplift-shap"
    with pytest.warns(UserWarning, match=r"of image 5.*'1' \(ReLU6\)"):
        auto(model, images, targets, baselines)


@pytest.mark.parametrize("explainer", EXPLAINERS.names())
def test_one_logit_is_two_classes(explainer):
    # A network of one logit z, and the same written with the two logits -z/2 and z/2.
    torch.manual_seed(0)
    one = nn.Sequential(nn.Flatten(), nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 1))
    last = nn.Linear(20, 2)
    with torch.no_grad():
        last.weight[:] = torch.stack([-one[-1].weight[0], one[-1].weight[0]]) / 2
        last.bias[:] = torch.stack([-one[-1].bias[0], one[-1].bias[0]]) / 2
    images, targets, baselines = noise()
    targets = targets % 2
    arguments = (images, targets, baselines)
    maps = EXPLAINERS.get(explainer)(one, *arguments)
    torch.testing.assert_close(maps, EXPLAINERS.get(explainer)(nn.Sequential(*one[:-1], last), *arguments))
    assert maps.flatten(1).any(1).all()
    contrast = EXPLAINERS.get(explainer)(one, *arguments, rivals=1 - targets)
    torch.testing.assert_close(contrast, 2 * maps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("explainer", EXPLAINERS.names())
def test_other_precisions_are_explained_like_float32(explainer, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 3)).to(dtype)
    maps = EXPLAINERS.get(explainer)(model, *noise())
    assert maps.dtype == torch.float32
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    torch.testing.assert_close(
        maps, EXPLAINERS.get(explainer)(model.float(), *noise()), rtol=2e-3, atol=2e-3
    )


def test_a_class_that_the_network_lacks_is_named():
    images, _, baselines = noise()
    with pytest.raises(ValueError, match=r"tells 3 classes apart, .* below 3, got 0 to 5"):
        deeplift_shap(FunctionalReLU(), images, torch.arange(6), baselines)


# What stands in the way, by name


class Block(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.linear = function, nn.Linear(9, 9)

    def forward(self, x):
        return self.function(self.linear(x))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (nn.functional.relu, "calls relu as a function; use an nn.ReLU of its own there"),
        (torch.relu_, "calls relu as a function"),
        (torch.Tensor.sigmoid, "calls sigmoid as a function; use an nn.Sigmoid"),
        (lambda x: x.clamp(min=0), "no rule for the clamp that"),
        (nn.functional.gelu, "no rule for the gelu that"),
        (lambda x: nn.functional.softmax(x, 1), "no rule for the softmax that"),
    ],
)
def test_functions_are_named_with_the_module_that_calls_them(function, words):
    model = nn.Sequential(nn.Flatten(), Block(function), nn.Linear(9, 3))
    (line,) = obstacles(model, torch.randn(1, 1, 3, 3))
    assert words in line
    assert "'1' (Block)" in line
    with pytest.raises(CompletenessError, match=r"'1' \(Block\)"):
        explain_noise(model)


def test_obstacles_of_modules_are_named_in_order_and_no_hook_stays():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2),
        nn.ReLU(),
        nn.GELU(),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    lines = obstacles(model, torch.randn(1, 1, 3, 3))
    assert [line.split(")")[0] for line in lines] == [
        "DeepLIFT has no rule for '2' (GELU",
        "DeepLIFT has no rule for '3' (Hardswish",
    ]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert obstacles(nn.Sequential(nn.Flatten(), nn.Linear(9, 9), nn.ReLU()), torch.randn(1, 1, 3, 3)) == []


def test_places_in_an_own_network_are_named_as_the_user_names_them():
    network = nn.Sequential()
    network.add_module("flat", nn.Flatten())
    network.add_module("body", Block(nn.functional.relu))
    network.add_module("head", nn.Linear(9, 3))
    for model in (network, OwnNetwork(network)):
        with pytest.raises(CompletenessError, match=r": 'body' \(Block\) calls relu"):
            explain_noise(model)
