import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods import balanced_subset, dfr, jtt, placebo_masks, shuffle_verdicts, subg
from lvlmva_lite.methods.dfr import select
from lvlmva_lite.models import Classifier, fit, mlp, predict

CORE, SHORTCUT = 0, 1


SPREAD = 24
"""The pixels' range before they are brought into [0, 1]."""


class Spread(nn.Module):
    def forward(self, images):
        return SPREAD * (images - 0.5)


def toy(sizes, seed=0, noise=1.0):
    """Nine pixels: one tells the class, one the shortcut (less noisy), seven nothing; group 2y + a."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    groups = groups[torch.randperm(len(groups), generator=generator)]
    labels, shortcut = groups // 2, groups % 2
    pixels = torch.randn(len(groups), 9, generator=generator)
    pixels[:, CORE] = 2 * (2 * labels - 1) + noise * pixels[:, CORE]
    pixels[:, SHORTCUT] = 2 * (2 * shortcut - 1) + 0.3 * pixels[:, SHORTCUT]
    return ShortcutDataset(
        images=(pixels.view(-1, 1, 3, 3) / SPREAD + 0.5).clamp(0, 1),
        labels=labels,
        groups=groups,
        spurious_masks=torch.zeros(len(groups), 3, 3, dtype=torch.bool),
        class_names=("no", "yes"),
        group_names=("no, absent", "no, present", "yes, absent", "yes, present"),
        name="toy",
    )


def linear(random_state=0, n_classes=2):
    torch.manual_seed(random_state)
    return Classifier(Spread(), nn.Flatten(), nn.Linear(9, n_classes))


def new_mlp(seed):
    return Classifier(Spread(), *mlp((1, 3, 3), 2, hidden=(8,), random_state=seed))


def worst(model, dataset):
    right = predict(model, dataset.images) == dataset.labels
    return min(right[dataset.groups == group].double().mean().item() for group in range(4))


# Balance


@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_subset_holds_the_smallest_groups_size_of_each_and_nobody_twice(sizes, seed):
    dataset = toy(sizes)
    indices = balanced_subset(dataset, random_state=seed)
    assert torch.bincount(dataset.groups[indices], minlength=4).tolist() == [min(sizes)] * 4
    assert len(indices.unique()) == len(indices)


def test_every_member_of_a_group_may_be_drawn():
    dataset = toy([1, 5, 1, 1])
    drawn = {i for seed in range(100) for i in balanced_subset(dataset, random_state=seed).tolist()}
    assert drawn == set(range(8))


@pytest.mark.parametrize(
    "train", [lambda data: subg(new_mlp, data, epochs=1), lambda data: dfr(linear(), data)]
)
def test_an_empty_group_is_named(train):
    with pytest.raises(ValueError, match="'yes, absent' has 0"):
        train(toy([5, 5, 0, 5]))


def test_subg_is_plain_training_on_its_subset():
    train = toy([95, 5, 5, 95])
    result = subg(new_mlp, train, epochs=4, batch_size=8, weight_decay=0.1, random_state=3)
    assert torch.bincount(train.groups[result.indices]).tolist() == [5, 5, 5, 5]
    part, model = train.subset(result.indices), new_mlp(3)
    fit(model, part.images, part.labels, epochs=4, batch_size=8, weight_decay=0.1, random_state=3)
    for ours, plain in zip(result.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, plain)


# DFR


@pytest.mark.filterwarnings("error")
def test_dfr_turns_from_the_shortcut_to_the_core():
    sizes = [480, 20, 20, 480], [90, 30, 30, 90], [200] * 4
    train, validation, test = (toy(size, seed, noise=2.0) for seed, size in enumerate(sizes))
    model = linear()
    fit(model, train.images, train.labels, epochs=30, learning_rate=0.05)
    before = copy.deepcopy(model.state_dict())
    result = dfr(model, validation)
    slopes = {
        name: (one.head.weight[1] - one.head.weight[0]).detach()
        for name, one in {"plain": model, "dfr": result.model}.items()
    }
    assert slopes["plain"][SHORTCUT] > slopes["plain"][CORE] > 0
    assert slopes["dfr"][CORE] > 5 * slopes["dfr"][SHORTCUT].abs()
    assert worst(result.model, test) > worst(model, test) + 0.3
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("C", [1.0, 0.1])
def test_dfr_head_is_the_regression_of_scikit_learn(C):
    # Balanced already: every balanced subset is the whole, so that all fits are one.
    validation = toy([40] * 4)
    # Far from standardised, so that a fold left out would show.
    embedding = nn.Linear(9, 9)
    torch.manual_seed(0)
    nn.init.normal_(embedding.weight, 0, 3)
    nn.init.normal_(embedding.bias, 20, 5)
    model = Classifier(nn.Flatten(), embedding, nn.Linear(9, 2))
    result = dfr(model, validation, n_fits=3, Cs=[C])
    with torch.no_grad():
        features = model.embed(validation.images).double().numpy()
        logits = result.model(validation.images)
    peer = make_pipeline(
        StandardScaler(), LogisticRegression(C=C, l1_ratio=1, solver="saga", max_iter=20_000, tol=1e-8)
    ).fit(features, validation.labels)
    np.testing.assert_allclose(
        (logits[:, 1] - logits[:, 0]).numpy(), peer.decision_function(features), rtol=0.01, atol=0.02
    )
    np.testing.assert_allclose(logits.softmax(1).numpy(), peer.predict_proba(features), atol=0.01)


def test_dfr_penalty_is_l1_and_chosen_by_worst_group():
    validation = toy([60] * 4)
    strict = dfr(linear(), validation, Cs=[0.02], n_fits=2)
    slope = (strict.model.head.weight[1] - strict.model.head.weight[0]).detach()
    assert slope[CORE] > 0
    assert (slope[2:] == 0).all()  # an L2 penalty would leave them small
    result = dfr(linear(), validation, Cs=[1e-6, 0.1], n_fits=2)
    nothing, something = (trial["score"] for trial in result.trials)
    # At C = 1e-6 all coefficients are 0, so that one class is never predicted.
    assert nothing == 0
    assert something > 0.8
    assert (result.model.head.weight[1] - result.model.head.weight[0])[CORE] > 0


def test_dfr_with_three_classes():
    data = toy([50] * 4)
    labels = data.groups.clamp_max(2)
    data = ShortcutDataset(
        data.images, labels, data.groups, data.spurious_masks, ("a", "b", "c"), data.group_names, "toy"
    )
    result = dfr(linear(n_classes=3), data, n_fits=2)
    assert (predict(result.model, data.images) == labels).double().mean() > 0.9


def test_dfr_needs_a_head():
    with pytest.raises(TypeError, match="got Sequential"):
        dfr(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), toy([4] * 4))


# JTT


class Constant(nn.Module):
    """Always class 0 until its single weight is trained."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, images):
        return self.bias.expand(len(images), 2)


def test_jtt_repeats_what_the_first_model_gets_wrong():
    train = toy([10, 3, 2, 5])
    # The learning rate is too small to change an answer: class 1 is the error set.
    result = jtt(lambda seed: Constant(), train, first_epochs=2, upweight=4, epochs=1, learning_rate=1e-9)
    assert torch.equal(result.indices[:20], torch.arange(20))
    counts = torch.bincount(result.indices)
    assert counts.tolist() == [4 if label else 1 for label in train.labels.tolist()]


def test_jtt_uses_the_answers_given_during_training():
    # One sample a batch, all of class 1: the first steps turn the answer, the later ones find it right.
    train = toy([0, 0, 10, 10])
    result = jtt(
        lambda seed: Constant(),
        train,
        first_epochs=1,
        upweight=2,
        epochs=1,
        learning_rate=0.1,
        batch_size=1,
    )
    # Adam moves either logit by 0.1 a step: 1 > 0, .9 > .1, ..., .6 > .4, then a tie, whose answer rounding decides.
    assert len(result.indices) - 20 in (5, 6)


def test_jtt_without_upweighting_is_plain_training():
    train = toy([20, 5, 5, 20])
    result = jtt(new_mlp, train, first_epochs=1, upweight=1, epochs=3, batch_size=8, random_state=2)
    model = new_mlp(2)
    fit(model, train.images, train.labels, epochs=3, batch_size=8, random_state=2)
    for ours, plain in zip(result.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("name", ["first_epochs", "upweight"])
def test_jtt_refuses_none(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        jtt(new_mlp, toy([4] * 4), **{"first_epochs": 1, "upweight": 2, "epochs": 1, name: 0})


@pytest.mark.parametrize("method", ["subg", "jtt"])
def test_balancing_and_repeating_help_the_worst_group(method):
    train, test = toy([475, 25, 25, 475], noise=0.7), toy([200] * 4, seed=2, noise=0.7)
    plain = new_mlp(0)
    fit(plain, train.images, train.labels, epochs=10, learning_rate=3e-3, batch_size=32)
    options = {"learning_rate": 3e-3, "batch_size": 32}
    if method == "subg":
        result = subg(new_mlp, train, epochs=100, **options)
    else:
        result = jtt(new_mlp, train, first_epochs=2, upweight=20, epochs=10, **options)
    assert worst(result.model, test) > worst(plain, test)


# Controls


masks_of_any_kind = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7))


@given(masks_of_any_kind, st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_placebo_keeps_the_shape_and_overlaps_as_little_as_any_shift(masks, seed):
    masks = torch.from_numpy(masks)
    for original, moved in zip(masks, placebo_masks(masks, random_state=seed), strict=True):
        height, width = original.shape
        shifts = [original.roll((dy, dx), (0, 1)) for dy in range(height) for dx in range(width)]
        assert any(torch.equal(moved, shift) for shift in shifts)
        assert int((moved & original).sum()) == min(int((shift & original).sum()) for shift in shifts)


@given(st.integers(0, 24), st.integers(0, 24), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_placebo_of_a_square_is_a_whole_square_elsewhere(row, column, seed):
    mask = torch.zeros(1, 28, 28, dtype=torch.bool)
    mask[0, row : row + 4, column : column + 4] = True
    moved = placebo_masks(mask, random_state=seed)[0]
    assert not (moved & mask[0]).any()
    rows, columns = moved.nonzero().T
    assert len(rows) == 16
    assert rows.max() - rows.min() == columns.max() - columns.min() == 3


def test_placebos_spread_over_the_image_and_repeat():
    masks = torch.zeros(200, 8, 8, dtype=torch.bool)
    masks[:, :2, :2] = True
    moved = placebo_masks(masks, random_state=0)
    assert torch.equal(moved, placebo_masks(masks, random_state=0))
    assert not torch.equal(moved, placebo_masks(masks, random_state=1))
    # Wherever a 2 x 2 square fits without touching the original.
    assert torch.equal(moved.any(0), ~masks[0])


def test_placebo_of_nothing_is_nothing():
    assert not placebo_masks(torch.zeros(2, 4, 4, dtype=torch.bool), random_state=0).any()


def segment_labels(n, n_segments):
    return torch.arange(n_segments).repeat(n, 2, 1)


def test_everybody_gets_the_verdicts_on_another():
    spurious = torch.arange(30).view(10, 3)  # rows are told apart
    shuffled = shuffle_verdicts(spurious, segment_labels(10, 3), random_state=0)
    assert sorted(shuffled.tolist()) == spurious.tolist()
    assert (shuffled != spurious).all()
    assert not torch.equal(shuffled, shuffle_verdicts(spurious, segment_labels(10, 3), random_state=1))


def test_verdicts_stay_among_cases_of_the_same_segments():
    labels = segment_labels(7, 3)
    labels[4:6][labels[4:6] == 2] = -1
    labels[6][labels[6] != 0] = -1
    spurious = torch.arange(21).view(7, 3)
    shuffled = shuffle_verdicts(spurious, labels, random_state=0)
    assert sorted(shuffled[:4].tolist()) == spurious[:4].tolist()
    assert shuffled[4:6].tolist() == spurious[4:6].flip(0).tolist()
    assert shuffled[6].tolist() == spurious[6].tolist()


# Choice


def test_select_takes_the_first_of_the_best_and_keeps_every_trial():
    scores = {1: 0.5, 2: 0.9, 3: 0.9, 4: 0.1}
    best, trials = select([{"a": a, "b": "x"} for a in scores], lambda a, b: scores[a])
    assert best == {"a": 2, "b": "x"}
    assert trials == [{"a": a, "b": "x", "score": score} for a, score in scores.items()]


def test_select_refuses_what_it_cannot_rank():
    with pytest.raises(ValueError, match="empty"):
        select([], lambda: 0.0)
    with pytest.raises(ValueError, match=r"\{'a': 1\}"):
        select([{"a": 1}], lambda a: float("nan"))
