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


def test_a_model_that_deeplift_cannot_follow_is_refused():
    torch.manual_seed(0)
    with pytest.raises(CompletenessError, match=r"misses completeness by 0\.\d+"):
        deeplift_shap(
            FunctionalReLU(),
            torch.randn(20, 1, 3, 3),
            torch.zeros(20, dtype=torch.int64),
            torch.randn(5, 1, 3, 3),
        )


def test_one_baseline_is_too_few(decoys, shortcut_model):
    with pytest.raises(ValueError, match="got 1"):
        deeplift_shap(shortcut_model, decoys.images[:2], decoys.labels[:2], decoys.images[:1])


def test_runner_up_is_the_best_other_class():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    assert runner_up(probabilities, torch.tensor([0, 2])).tolist() == [1, 0]
