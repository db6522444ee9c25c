import itertools
import math

import pytest
import torch
from torch import nn

from lvlmva_lite.attribution import CompletenessError, deeplift_shap, runner_up


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
    """Exact Shapley values of a flat input over all orders of arrival; absent inputs from each baseline."""
    values = torch.zeros_like(image)
    for order in itertools.permutations(range(len(image))):
        mixed = baselines.clone()
        for i in order:
            before = model(mixed).mean()
            mixed[:, i] = image[i]
            values[i] += (model(mixed).mean() - before).detach()
    return values / math.factorial(len(image))


class SingleInputUnits(nn.Module):
    """sum_i a_i relu(w_i x_i + b_i): no two inputs meet in a unit."""

    def __init__(self, n):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(n)), nn.Parameter(torch.randn(n))
        self.relu, self.last = nn.ReLU(), nn.Linear(n, 1)

    def forward(self, images):
        return self.last(self.relu(images.flatten(1) * self.weight + self.bias))


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
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
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
    "ReLU beside max-pooling": lambda: small_cnn(nn.MaxPool2d(2)),
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


def test_a_relu_that_is_used_twice_is_refused():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 9), relu, nn.Linear(9, 9), relu, nn.Linear(9, 3))
    with pytest.raises(RuntimeError, match="module is being used more than once"):
        explain_noise(model)


def test_one_baseline_is_too_few(decoys, shortcut_model):
    with pytest.raises(ValueError, match="got 1"):
        deeplift_shap(shortcut_model, decoys.images[:2], decoys.labels[:2], decoys.images[:1])


def test_runner_up_is_the_best_other_class():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    assert runner_up(probabilities, torch.tensor([0, 2])).tolist() == [1, 0]
