import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lvlmva_lite.alignment import (
    align,
    correction_masks,
    finite_difference_penalty,
    jacobian_penalty,
    penalty_of,
    rrr_penalty,
)
from lvlmva_lite.config import Config
from lvlmva_lite.fills import FILLS, fill
from lvlmva_lite.models import mlp
from lvlmva_lite.streams import stream


def test_masks_are_the_union_of_spurious_segments():
    labels = torch.tensor([[[0, 1], [2, -1]], [[0, 0], [-1, 1]]])
    spurious = torch.tensor([[True, False, True], [False, True, False]])
    expected = [[[True, False], [True, False]], [[False, False], [False, True]]]
    assert correction_masks(labels, spurious).tolist() == expected


def linear_softmax():
    torch.manual_seed(0)
    linear = nn.Linear(2 * 3 * 4, 5).double()
    images = torch.rand(6, 2, 3, 4, dtype=torch.float64)
    masks = torch.rand(6, 3, 4) > 0.5
    return linear, nn.Sequential(nn.Flatten(), linear), images, masks


def test_penalty_has_a_closed_form_on_a_linear_softmax_model():
    # d/dx sum_k log p_k = sum_k W_k - K sum_k p_k W_k.
    linear, model, images, masks = linear_softmax()
    weight, probabilities = linear.weight, model(images).softmax(1)
    gradient = weight.sum(0) - 5 * probabilities @ weight
    expected = (gradient.view(6, 2, 3, 4) * masks[:, None]).square().sum()
    penalty = rrr_penalty(model, images, masks)
    assert abs(penalty - expected) < 1e-6
    assert abs(rrr_penalty(model, images, masks, reduction="mean") - expected / (6 * 3 * 4)) < 1e-6
    # It is differentiable in the weights, by the same closed form.
    (ours,) = torch.autograd.grad(penalty, linear.weight)
    (theirs,) = torch.autograd.grad(expected, linear.weight)
    torch.testing.assert_close(ours, theirs)


def test_penalty_equals_finite_differences_on_the_mlp():
    model = mlp((1, 3, 3), 4, hidden=(6,)).double()
    images, masks = torch.rand(2, 1, 3, 3, dtype=torch.float64), torch.rand(2, 3, 3) > 0.4
    total, step = 0.0, 1e-6
    for n in range(2):
        for row in range(3):
            for column in range(3):
                nudge = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
                nudge[0, 0, row, column] = step
                up, down = (model(images[n : n + 1] + s * nudge).log_softmax(1).sum() for s in (1, -1))
                total += float(masks[n, row, column] * ((up - down) / (2 * step)) ** 2)
    assert abs(rrr_penalty(model, images, masks) - total) < 1e-6


def test_masks_may_have_the_shape_of_the_inputs():
    linear, model, images, masks = linear_softmax()
    full = masks[:, None].expand_as(images)
    flat = rrr_penalty(linear, images.flatten(1), full.flatten(1))
    torch.testing.assert_close(rrr_penalty(model, images, full), flat)
    torch.testing.assert_close(rrr_penalty(model, images, masks), flat)


def linear_in_two_pixels(rows, bias):
    """Logits with these slopes in the left and the right pixel, float64."""
    linear = nn.Linear(2, len(rows)).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(rows, dtype=torch.float64))
        linear.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return nn.Sequential(nn.Flatten(), linear)


LEFT = torch.tensor([[[True, False]]])


@pytest.mark.parametrize(
    ("slopes", "p"),
    [
        ((0.0, 3.0, -3.0), (0.98, 0.01, 0.01)),
        # Orthogonal to 1 - 4 p = (-1, 0, 0.6, 0.4) without any symmetry:
        ((3.0, 9.0, 3.0, 3.0), (0.5, 0.25, 0.1, 0.15)),
        ((2.0, -1.0, 0.0, 5.0), (0.5, 0.25, 0.1, 0.15)),
    ],
)
def test_the_summed_gradient_cancels_where_the_jacobian_does_not(slopes, p):
    model = linear_in_two_pixels([(slope, 0.0) for slope in slopes], torch.tensor(p).log().tolist())
    image = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    assert rrr_penalty(model, image, LEFT).item() == pytest.approx(0, abs=1e-10)
    slopes = torch.tensor(slopes)
    assert jacobian_penalty(model, image, LEFT).item() == pytest.approx(
        (slopes - slopes.mean()).square().sum().item()
    )
    # And the answer does hang on the masked pixel.
    assert model(image - 20).argmax() != model(image + 20).argmax()


def test_the_jacobian_does_not_depend_on_how_sure_the_network_is():
    image = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    rows = [(1.0, 0.0), (4.0, 0.0), (-2.0, 0.0)]
    penalties = [
        jacobian_penalty(linear_in_two_pixels(rows, (0.0, 0.0, sure)), image, LEFT).item()
        for sure in (0.0, 5.0, 50.0)
    ]
    assert penalties == pytest.approx([18.0] * 3)  # slopes 1, 4, -2 less their mean


def test_what_all_logits_share_costs_nothing():
    _, model, images, masks = linear_softmax()

    def shifted(x):
        return model(x) + 7 * x.flatten(1).sum(1, keepdim=True)

    ours = jacobian_penalty(shifted, images, masks)
    torch.testing.assert_close(ours, jacobian_penalty(model, images, masks))
    assert ours > 0


def test_jacobian_penalty_has_a_closed_form_on_a_linear_model():
    linear, model, images, masks = linear_softmax()
    rows = linear.weight - linear.weight.mean(0)
    expected = (rows.view(1, 5, 2, 3, 4) * masks[:, None, None]).square().sum()
    ours = jacobian_penalty(model, images, masks)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(
        torch.autograd.grad(ours, linear.weight)[0], torch.autograd.grad(expected, linear.weight)[0]
    )
    mean = jacobian_penalty(model, images, masks, reduction="mean")
    torch.testing.assert_close(mean, expected / (6 * 3 * 4))


def test_one_random_direction_is_right_on_the_mean():
    _, model, images, masks = linear_softmax()
    generator = torch.Generator().manual_seed(0)
    copies = images.repeat(2000, 1, 1, 1), masks.repeat(2000, 1, 1)
    estimate = jacobian_penalty(model, *copies, generator=generator).item() / 2000
    assert estimate == pytest.approx(jacobian_penalty(model, images, masks).item(), rel=0.03)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_classes=st.integers(2, 6))
def test_the_summed_gradient_is_bounded_by_the_jacobian(seed, n_classes):
    torch.manual_seed(seed)
    model = mlp((1, 3, 3), n_classes, hidden=(6,)).double()
    image, mask = torch.rand(1, 1, 3, 3, dtype=torch.float64), torch.rand(1, 3, 3) > 0.3
    direction = 1 - n_classes * model(image).softmax(1)
    seen = rrr_penalty(model, image, mask).item()
    bound = direction.square().sum().item() * jacobian_penalty(model, image, mask).item()
    assert seen <= bound * (1 + 1e-9) + 1e-15
    if n_classes == 2:  # one direction is all there is
        assert seen == pytest.approx(bound, rel=1e-9, abs=1e-15)


def test_both_penalties_can_be_zero_where_the_answer_hangs_on_the_mask():
    class Step(nn.Module):
        """Silent until the masked pixel exceeds a half."""

        def forward(self, x):
            jump = 20 * (x[:, 0, 0, 0] - 0.5).relu()
            return torch.stack([torch.ones_like(jump), jump, -jump], 1)

    images = torch.tensor([[0.1, 0.3], [0.4, 0.9]]).view(2, 1, 1, 2)
    masks = LEFT.expand(2, 1, 2)
    assert rrr_penalty(Step(), images, masks) == 0
    assert jacobian_penalty(Step(), images, masks) == 0
    brighter = images.clone()
    brighter[..., 0] = 1
    assert (Step()(images).argmax(1) != Step()(brighter).argmax(1)).all()


def test_finite_difference_has_a_closed_form_on_a_linear_model():
    # Of a linear model the change of the logits is W (x' - x).
    linear, model, images, masks = linear_softmax()
    rows = linear.weight - linear.weight.mean(0)
    expected = ((fill(images, masks) - images).flatten(1) @ rows.T).square().sum()
    ours = finite_difference_penalty(model, images, masks)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(
        torch.autograd.grad(ours, linear.weight)[0], torch.autograd.grad(expected, linear.weight)[0]
    )
    mean = finite_difference_penalty(model, images, masks, reduction="mean")
    torch.testing.assert_close(mean, expected / (6 * 3 * 4))


def test_of_two_classes_it_is_half_the_square_of_the_change_of_the_margin():
    model = mlp((1, 3, 4), 2, hidden=(6,)).double()
    images, masks = torch.rand(5, 1, 3, 4, dtype=torch.float64), torch.rand(5, 3, 4) > 0.5
    before, after = (model(x)[:, 1] - model(x)[:, 0] for x in (images, fill(images, masks)))
    ours = finite_difference_penalty(model, images, masks)
    torch.testing.assert_close(ours, (after - before).square().sum() / 2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n_classes=st.integers(2, 5))
def test_the_jacobian_times_the_change_is_its_first_order(seed, n_classes):
    """Small steps towards the filled image: what is left over falls faster than the penalty."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, n_classes)).double()
    image, mask = torch.rand(1, 1, 3, 4, dtype=torch.float64), torch.rand(1, 3, 4) > 0.5
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x)[0], image)[:, 0, 0]
    jacobian = jacobian - jacobian.mean(0)
    step = (fill(image, mask) - image)[0, 0]
    first_order = ((jacobian * step).sum((1, 2))).square().sum().item()
    # x at a share h of the way has a change of h times the whole.
    h = 1e-4
    near = torch.where(mask, fill(image, mask) - h * step, image)
    ours = finite_difference_penalty(model, near, mask).item() / h**2
    at = torch.autograd.functional.jacobian(lambda x: model(x)[0], near)[:, 0, 0]
    at = ((at - at.mean(0)) * step).sum((1, 2)).square().sum().item()
    assert ours == pytest.approx(at, rel=1e-2, abs=1e-9)
    # By Cauchy and Schwarz it is bounded by what the Jacobian's penalty penalises.
    bound = jacobian_penalty(model, image, mask).item() * (mask * step).square().sum().item()
    assert first_order <= bound * (1 + 1e-9) + 1e-15


def test_where_a_saturated_unit_hides_the_letter_the_change_of_the_answer_shows_it():
    class Saturated(nn.Module):
        """Reads the left pixel through a unit that is shut between 1/2 and 3/2 and open outside."""

        def forward(self, x):
            z = 20 * (0.5 - x[:, 0, 0, 0]).relu() - 4
            return torch.stack([torch.zeros_like(z), z], 1)

    images = torch.tensor([1.0, 0.0, 0.9, 0.1]).view(2, 1, 1, 2)  # a bright letter on dark ground
    masks = LEFT.expand(2, 1, 2)
    assert rrr_penalty(Saturated(), images, masks) == 0
    assert jacobian_penalty(Saturated(), images, masks) == 0
    # Dark pixels to the right come in: the margin goes from -4 to 20 (.5 - .0) - 4 and 20 (.5 - .1) - 4.
    assert finite_difference_penalty(Saturated(), images, masks).item() == pytest.approx((100 + 64) / 2)


def test_a_shortcut_that_turns_the_answer_round_costs_what_it_moves():
    """Sums of log-probabilities are the same at z and -z; the penalty is not of these."""
    model = linear_in_two_pixels([(-2.0, 0.0), (2.0, 0.0)], (1.0, -1.0))
    image = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    sums = [model(x).log_softmax(1).sum().item() for x in (image, torch.zeros_like(image))]
    assert sums[0] == pytest.approx(sums[1])
    assert finite_difference_penalty(model, image, LEFT).item() == pytest.approx(4**2 / 2)


@pytest.mark.parametrize("variant", FILLS)
def test_the_config_names_penalty_and_fill(variant):
    _, model, images, masks = linear_softmax()
    others = images.flip(0) + 1
    config = Config(penalty="finite-difference", penalty_fill=variant, seed=5)
    draw = stream(5, "penalty fill")
    expected = finite_difference_penalty(
        model, images, masks, variant=variant, others=others, generator=draw
    )
    assert torch.equal(penalty_of(config, others)(model, images, masks), expected)
    assert penalty_of(Config(), others) is rrr_penalty


@pytest.mark.parametrize("penalty_scale", ["none", "initial"])
def test_finite_difference_takes_the_weight_off_the_masked_pixel(penalty_scale):
    images, labels, left = two_pixels()
    weights = {}
    for weight in (0.0, 30.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
        align(
            model, images, labels, images, labels, left, penalty=finite_difference_penalty,
            penalty_scale=penalty_scale, penalty_weight=weight, epochs=30, batch_size=64, learning_rate=0.05,
        )  # fmt: skip
        weights[weight] = (model[1].weight[1] - model[1].weight[0]).abs().detach()
    assert weights[30.0][0] < 0.1 * weights[0.0][0]


def test_empty_mask_costs_nothing():
    _, model, images, masks = linear_softmax()
    for penalty in (rrr_penalty, jacobian_penalty, finite_difference_penalty):
        assert penalty(model, images, torch.zeros_like(masks)) == 0


@pytest.mark.parametrize("penalty", [rrr_penalty, jacobian_penalty, finite_difference_penalty])
def test_masks_of_the_wrong_shape_are_refused(penalty):
    _, model, images, masks = linear_softmax()
    with pytest.raises(ValueError, match=r"must be \(n, H, W\) = \(6, 3, 4\)"):
        penalty(model, images, masks[:, :2])
    with pytest.raises(ValueError, match="'max'"):
        penalty(model, images, masks, reduction="max")


@settings(max_examples=30, deadline=None)
@given(core=st.floats(-3, 3), shortcut=st.floats(-3, 3), seed=st.integers(0, 99))
def test_two_weights_by_hand(core, shortcut, seed):
    # Logits (0, z), z = w x: d/dx sum_k log p_k = (1 - 2 p) w = -tanh(z / 2) w.
    inputs = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weights = torch.tensor([core, shortcut], dtype=torch.float64, requires_grad=True)
    shortcut_only = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(20, 2)

    def model(x):
        return torch.stack([torch.zeros(len(x), dtype=x.dtype), x @ weights], 1)

    penalty = rrr_penalty(model, inputs, shortcut_only)
    t = torch.tanh(inputs @ weights.detach() / 2)
    assert penalty.item() == pytest.approx((t**2).sum().item() * shortcut**2, abs=1e-12)
    (gradient,) = torch.autograd.grad(penalty, weights)
    through_p = (shortcut**2 * t * (1 - t**2))[:, None] * inputs
    expected = through_p.sum(0) + torch.tensor([0.0, 2 * shortcut], dtype=torch.float64) * (t**2).sum()
    torch.testing.assert_close(gradient, expected)


def test_batch_norm_in_train_mode_couples_the_samples():
    # What "keep BatchNorm in eval mode" is for: the sum over the batch is no
    # longer the samples' own gradients.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    images, masks = torch.randn(8, 1, 2, 2), torch.ones(8, 2, 2)

    def own_gradients():
        images_ = images.clone().requires_grad_()
        rows = model(images_).log_softmax(1).sum(1)
        return sum(
            torch.autograd.grad(rows[n], images_, retain_graph=True)[0][n].square().sum() for n in range(8)
        )

    model.eval()
    torch.testing.assert_close(rrr_penalty(model, images, masks), own_gradients())
    model.train()
    assert abs(rrr_penalty(model, images, masks) / own_gradients() - 1) > 0.1


def two_pixels(n=400):
    """Class = both pixels in training: the left one is the shortcut, the right one the truth."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (n,), generator=generator)
    images = labels.view(n, 1, 1, 1).float().expand(n, 1, 1, 2).clone()
    images += 0.3 * torch.randn(n, 1, 1, 2, generator=generator)
    masks = torch.tensor([[[True, False]]]).expand(n, 1, 2)
    return images, labels, masks


def aligned_weights(penalty_weight, masks=None):
    images, labels, left = two_pixels()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    history = align(
        model, images, labels, images, labels, left if masks is None else masks,
        penalty_weight=penalty_weight, epochs=30, batch_size=64, learning_rate=0.05,
    )  # fmt: skip
    return (model[1].weight[1] - model[1].weight[0]).abs().detach(), history


def test_alignment_takes_the_weight_off_the_masked_pixel():
    plain, _ = aligned_weights(0.0)
    steered, history = aligned_weights(30.0)
    assert plain[0] > 1  # unpenalised, the shortcut is used
    assert steered[0] < 0.1 * plain[0]
    assert steered[1] > plain[1]  # and the true feature takes over
    assert history[-1]["penalty"] < history[0]["penalty"]


def test_the_mask_decides_what_is_unlearnt():
    _, _, left = two_pixels()
    steered, _ = aligned_weights(30.0, ~left)
    assert steered[1] < 0.1 * steered[0]


def test_empty_masks_are_plain_fine_tuning():
    _, _, left = two_pixels()
    plain, _ = aligned_weights(0.0)
    empty, _ = aligned_weights(30.0, torch.zeros_like(left))
    torch.testing.assert_close(plain, empty)


@pytest.mark.parametrize(("decay", "total"), [(False, 40), (True, 41 / 2)])
def test_the_learning_rate_decays_to_zero_in_equal_steps(decay, total):
    """Adam moves a weight by the learning rate wherever the gradient stays the same: steps can be counted."""
    images, labels, masks = (part[:80] for part in two_pixels())
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).double()
    before = model[1].weight.detach().clone()
    align(
        model, images.double(), labels, images.double(), labels, masks,
        penalty_weight=0.0, epochs=4, batch_size=16, learning_rate=1e-7, decay=decay,
    )  # 80 images, 8 in a batch: 10 steps an epoch  # fmt: skip
    moved = (model[1].weight - before).abs().detach() / 1e-7
    torch.testing.assert_close(moved, torch.full_like(moved, total), rtol=0.1, atol=0)


def plain_loop(model, images, labels, aligned, masks, penalty, batch_size):
    """What :func:`align` says that it does, written as it says it: two passes, two losses."""
    generator = stream(0, "alignment batches")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    n_plain = batch_size - batch_size // 2
    model.eval()
    for _ in range(2):
        for batch in torch.randperm(len(images), generator=generator).split(n_plain):
            chosen = torch.randint(len(aligned), (batch_size // 2,), generator=generator)
            logits = model(torch.cat([images[batch], aligned[chosen]]))
            loss = nn.functional.cross_entropy(logits, torch.cat([labels[batch], labels[chosen]]))
            loss = loss + 3 * penalty(model, aligned[chosen], masks[chosen], reduction="mean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def jacobian_by_transform(model, images, masks, reduction="sum"):
    """A penalty that others may write: its pass is inside a transform, which leaves nothing to keep."""
    jacobian = torch.func.jacrev(lambda x: model(x).sum(0))(images).movedim(0, 1)  # (n, K, C, H, W)
    total = (masks[:, None, None] * jacobian).square().sum()
    return total if reduction == "sum" else total / masks.numel()


def looks_elsewhere(model, images, masks, reduction="sum"):
    """Asks about other images than those of the batch, and about these without a gradient."""
    with torch.no_grad():
        model(images)
    return model(images + 0.1 * masks[:, None]).square().mean()


def with_batch_norm():
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Softplus(), nn.Flatten(), nn.Linear(12, 3)
    )
    nn.init.uniform_(model[1].running_var, 0.5, 1.5)
    return model.double()


PENALTIES = {
    "rrr": rrr_penalty,
    "jacobian": jacobian_penalty,
    "finite difference": finite_difference_penalty,
    **{
        f"of a config, {fill}": penalty_of(
            Config(penalty="finite-difference", penalty_fill=fill), torch.empty(0, 1, 4, 4)
        )
        for fill in ("surroundings", "mean")
    },
    "by a transform": jacobian_by_transform,
    "elsewhere": looks_elsewhere,
}


@pytest.mark.parametrize("build", [lambda: mlp((1, 4, 4), 3, hidden=(8, 5)).double(), with_batch_norm])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_one_pass_for_both_losses_is_the_same_as_two(build, penalty):
    images, labels, masks = small_task()
    expected, model = build(), build()
    plain_loop(expected, images, labels, images[:15], masks[:15], penalty, batch_size=10)
    align(
        model, images, labels, images[:15], labels[:15], masks[:15], penalty_weight=3, penalty=penalty,
        epochs=2, batch_size=10, learning_rate=0.01,
    )  # fmt: skip
    for weight, right in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, right, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("penalty", "a_step"), [("rrr", 10), ("jacobian", 10), ("finite difference", 15), ("elsewhere", 20)]
)
def test_no_image_goes_forward_twice_in_a_step(penalty, a_step):
    """Of ten images in a step half are penalised; filled, they are five others."""
    images, labels, masks = small_task()
    model, rows = mlp((1, 4, 4), 3, hidden=(8, 5)).double(), []
    model.register_forward_hook(lambda _m, inputs, _o: rows.append(len(inputs[0])))
    align(
        model, images, labels, images[:15], labels[:15], masks[:15], penalty_weight=3,
        penalty=PENALTIES[penalty], epochs=1, batch_size=10,
    )  # fmt: skip
    assert sum(rows) == 8 * a_step  # 40 images, five in a step


def test_frozen_weights_and_images_get_no_gradient():
    images, labels, masks = small_task()
    model = mlp((1, 4, 4), 3, hidden=(8, 5)).double()
    model[1].requires_grad_(False)
    align(model, images, labels, images[:15], labels[:15], masks[:15], penalty_weight=3, epochs=1)
    assert [weight.grad is None for weight in model.parameters()] == [True, True, *4 * [False]]


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return self.factor * images


def small_task():
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(40, 1, 4, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (40,), generator=generator)
    masks = torch.rand(40, 4, 4, generator=generator) > 0.6
    return images, labels, masks


def weights_after(front, images, masks, **keywords):
    """The weights of one and the same network behind ``front``, aligned on 40 images."""
    labels = small_task()[1]
    model = mlp((1, 4, 4), 3, hidden=(8, 5), random_state=1).double()
    align(
        nn.Sequential(front, model), images, labels, images[:15], labels[:15], masks[:15],
        epochs=2, batch_size=10, learning_rate=0.01, **keywords,
    )  # fmt: skip
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@settings(max_examples=15, deadline=None)
@given(power=st.integers(-10, 10), penalty_weight=st.floats(0.01, 10))
def test_scaled_by_its_start_the_penalty_knows_no_input_scale(power, penalty_weight):
    images, _, masks = small_task()
    keywords = {"penalty_weight": penalty_weight, "penalty_scale": "initial"}
    scale = 2.0**power  # a power of two, so that no digit may differ
    plain = weights_after(Times(1), images, masks, **keywords)
    assert torch.equal(weights_after(Times(1 / scale), images * scale, masks, **keywords), plain)


def test_unscaled_the_penalty_does_know_the_input_scale():
    images, _, masks = small_task()
    plain = weights_after(Times(1), images, masks, penalty_weight=1)
    scaled = weights_after(Times(1 / 16), images * 16, masks, penalty_weight=1)
    assert (plain - scaled).abs().max() > 1e-4
    matched = weights_after(Times(1 / 16), images * 16, masks, penalty_weight=16**2)
    torch.testing.assert_close(plain, matched)


@pytest.mark.parametrize("r", [2, 3])
def test_resolution_changes_lambda_by_its_fourth_power_unless_scaled(r):
    images, _, masks = small_task()
    fine, fine_masks = (one.repeat_interleave(r, -1).repeat_interleave(r, -2) for one in (images, masks))
    pool = nn.AvgPool2d(r)  # the same function of the finer picture
    for keywords, matched in (
        ({"penalty_scale": "initial"}, 1), ({"penalty_scale": "none"}, r**4),
    ):  # fmt: skip
        plain = weights_after(Times(1), images, masks, penalty_weight=1, **keywords)
        finer = weights_after(pool, fine, fine_masks, penalty_weight=matched, **keywords)
        torch.testing.assert_close(plain, finer)


def test_lambda_in_nats_is_lambda_over_the_mean_penalty_at_the_start():
    images, _, masks = small_task()
    model = mlp((1, 4, 4), 3, hidden=(8, 5), random_state=1).double()
    initial = rrr_penalty(model, images[:15], masks[:15], reduction="mean").item()
    in_nats = weights_after(Times(1), images, masks, penalty_weight=0.5, penalty_scale="initial")
    plain = weights_after(Times(1), images, masks, penalty_weight=0.5 / initial)
    torch.testing.assert_close(in_nats, plain)


def test_scaling_needs_a_penalty_to_scale_by():
    images, _, masks = small_task()
    empty = torch.zeros_like(masks)
    keywords = {"penalty_weight": 1.0, "penalty_scale": "initial"}
    blind = Times(0.0)  # a network that sees nothing
    assert torch.equal(
        weights_after(Times(1), images, empty, **keywords),
        weights_after(Times(1), images, empty, penalty_weight=0.0),
    )
    with pytest.raises(ValueError, match="'none'"):
        weights_after(blind, images, masks, **keywords)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"penalty_weight": -1}, "got -1"),
        ({"penalty_weight": 1, "penalty_scale": "model"}, "'model'"),
        ({"penalty_weight": 1, "align_fraction": 1.0}, "got 1.0"),
        (
            {"penalty_weight": 1, "align_fraction": 0.99, "batch_size": 32},
            "0.99 of batch_size 32 leaves no plain",
        ),
        (
            {"penalty_weight": 1, "align_fraction": 0.01, "batch_size": 32},
            "0.01 of .* 32 leaves no alignment",
        ),
    ],
)
def test_bad_settings_are_refused_before_any_step(keywords, message):
    images, labels, masks = two_pixels()
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        align(model, images, labels, images, labels, masks, **keywords)
    assert torch.equal(before["1.weight"], model[1].weight)


def test_empty_alignment_set_is_refused():
    images, labels, masks = two_pixels()
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="empty"):
        align(model, images, labels, images[:0], labels[:0], masks[:0], penalty_weight=1)


def test_masks_lie_where_the_verdicts_lie():
    # Tensors that only know their device stand in for a GPU; mixed devices raise.
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        labels = torch.zeros(2, 3, 3, dtype=torch.int64, device="cuda")
        masks = correction_masks(labels, torch.zeros(2, 4, dtype=torch.bool, device="cuda"))
        assert masks.device.type == "cuda"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("empty", [True, False])
def test_images_may_lie_on_a_gpu(empty):
    images, labels, masks = two_pixels()
    losses = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).to(device)
        data = [tensor.to(device) for tensor in (images, labels, images, labels, masks & (not empty))]
        losses.append(align(model, *data, penalty_weight=1, epochs=1)[0]["cross_entropy"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@given(st.integers(0, 10_000), st.floats(0.01, 1.0))
def test_masks_near_the_evidence_lie_in_the_segments_and_hold_their_peaks(seed, near):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 3, (2, 16, 16), generator=draw)
    evidence = torch.rand(2, 16, 16, generator=draw)
    spurious = torch.rand(2, 3, generator=draw) < 0.5
    whole = correction_masks(labels, spurious)
    masks = correction_masks(labels, spurious, evidence, near=near)
    assert not (masks & ~whole).any()
    for i, j in spurious.nonzero().tolist():
        inside = labels[i] == j
        if inside.any():
            assert masks[i].flatten()[(evidence[i] * inside).argmax()]
    assert torch.equal(correction_masks(labels, spurious, evidence, near=0.0), whole)
    stronger = correction_masks(labels, spurious, evidence, near=min(1.0, near + 0.1))
    assert not (stronger & ~masks).any()


def test_a_big_segment_is_masked_where_its_letter_is():
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)
    evidence = torch.full((1, 64, 64), 0.1)
    evidence[0, 10:14, 10:14] = 1.0
    masks = correction_masks(labels, torch.tensor([[True]]), evidence, near=0.5)
    expected = torch.zeros(1, 64, 64, dtype=torch.bool)
    expected[0, 8:16, 8:16] = True
    assert torch.equal(masks, expected)


def test_masks_near_evidence_need_it():
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="evidence"):
        correction_masks(labels, torch.tensor([[True]]), near=0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        correction_masks(labels, torch.tensor([[True]]), near=1.5)
