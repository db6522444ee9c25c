import dataclasses
import math

import pytest
import torch
from torch import nn

from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.experiments import decoy_sweeps
from lvlmva_lite.experiments.decoy_sweeps import Bench
from lvlmva_lite.models import fit, mlp


def two_by_two(n, random_state, shortcut):
    """Class 0 or 1 in the right column; in the masked pixel too, if it is the ``shortcut``."""
    draw = torch.Generator().manual_seed(random_state)
    labels = torch.randint(0, 2, (n,), generator=draw)
    images = 0.3 * torch.rand(n, 1, 2, 2, generator=draw)
    images[:, 0, :, 1] += 0.3 * labels[:, None]
    images[:, 0, 0, 0] += 0.7 * (labels if shortcut else torch.randint(0, 2, (n,), generator=draw))
    masks = torch.zeros(n, 2, 2, dtype=torch.bool)
    masks[:, 0, 0] = True
    groups = torch.zeros(n, dtype=torch.int64)
    return ShortcutDataset(images, labels, groups, masks, ("0", "1"), ("all",), "two-by-two")


@pytest.fixture(scope="module")
def place():
    train = two_by_two(600, 0, shortcut=True)
    clean = two_by_two(500, 2, shortcut=False)
    clean.images[:, 0, 0, 0] = 0
    model = mlp((1, 2, 2), 2, hidden=(8,), random_state=0)
    fit(model, train.images, train.labels, epochs=40, learning_rate=0.01)
    chosen = train.subset(torch.arange(50))
    return Bench(model, train, chosen, two_by_two(500, 1, shortcut=False), clean)


def test_the_objective_is_the_loss_that_align_reports(place):
    # With learning rate 0 the history is that of the model as it is.
    from lvlmva_lite.alignment import align

    plain, chosen = place.chosen, place.chosen
    history = align(
        place.model, plain.images, plain.labels, chosen.images, chosen.labels, chosen.spurious_masks,
        penalty_weight=3.0, epochs=300, batch_size=100, learning_rate=0.0,
    )  # fmt: skip
    drawn = sum(row["cross_entropy"] + 3 * row["penalty"] for row in history) / len(history)
    same = dataclasses.replace(place, plain=plain)
    assert same.objective(place.model, 3.0) == pytest.approx(drawn, rel=0.02)


def test_scale_rows_give_the_same_weight_in_three_units(place):
    rows = decoy_sweeps.scale_rows("here", place, (0.5, 2.0))
    initial, ratio = place.initial_penalty(), place.gradient_ratio()
    for row in rows:
        assert row["setting"] == "here"
        assert row["penalty_weight"] * initial == pytest.approx(row["nats"])
        assert row["in_gradient_ratios"] * ratio == pytest.approx(row["penalty_weight"])
    plain = place.score(place.aligned(penalty_weight=rows[1]["penalty_weight"]))
    assert rows[1]["accuracy"] == pytest.approx(plain["accuracy"], abs=0.01)


def test_gradient_ratio_is_that_of_finite_steps(place):
    # Move along each loss's own gradient: the loss changes by the squared norm times the step.
    def norm(loss_of):
        model = place.model
        vector = nn.utils.parameters_to_vector(model.parameters()).detach().double()
        double = mlp((1, 2, 2), 2, hidden=(8,)).double()
        gradient = torch.zeros_like(vector)
        for i in range(len(vector)):
            sides = []
            for step in (1e-6, -1e-6):
                moved = vector.clone()
                moved[i] += step
                nn.utils.vector_to_parameters(moved, double.parameters())
                sides.append(loss_of(double))
            gradient[i] = (sides[0] - sides[1]) / 2e-6
        return gradient.norm().item()

    images, masks = place.chosen.images.double(), place.chosen.spurious_masks

    def cross_entropy(model):
        return nn.functional.cross_entropy(model(images), place.chosen.labels).item()

    def penalty(model):
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).log_softmax(1).sum(), x)
        return (masks[:, None] * gradient).square().mean().item()

    assert place.gradient_ratio() == pytest.approx(norm(cross_entropy) / norm(penalty), rel=1e-3)


def test_budget_rows_start_where_they_are_told(place):
    cold = decoy_sweeps.budget_rows(place, (1.0,), (1, 2))
    assert [(row["start"], row["epochs"]) for row in cold] == [("shortcut", 1), ("shortcut", 2)]
    (warm,) = decoy_sweeps.budget_rows(place, (1.0,), (1,), first=place.aligned(penalty_weight=1.0))
    assert warm["start"] == "aligned"
    assert warm["objective"] < cold[0]["objective"]


def test_every_share_gets_as_many_steps(place, monkeypatch):
    steps = []
    original = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *a, **k: steps.append(1) or original(*a, **k))
    many = dataclasses.replace(place, plain=place.plain.subset(torch.arange(16_000) % 600))
    for fraction in (0.1, 0.9, 1.0):
        steps.clear()
        (row,) = decoy_sweeps.mixing_rows(many, (fraction,))
        assert len(steps) == 300
        assert row["align_fraction"] == fraction


def test_a_picture_that_cannot_be_cut_up_evenly_is_refused():
    with pytest.raises(ValueError, match="got 10"):
        decoy_sweeps.bench(0, pixels=10)


@pytest.mark.slow
def test_a_coarser_bench_keeps_square_and_shortcut():
    place = decoy_sweeps.bench(0, train_epochs=1, pixels=14)
    chosen = place.chosen
    assert chosen.images.shape[1:] == (1, 14, 14)
    assert (chosen.spurious_masks.sum((1, 2)) == 4).all()
    squares = chosen.images[:, 0][chosen.spurious_masks].view(-1, 4)
    torch.testing.assert_close(squares, (1 - 25 / 255 * chosen.labels)[:, None].expand(-1, 4))
    assert place.score(place.model)["accuracy"] < 0.9


@pytest.mark.slow
def test_lambda_rows_cover_arms_and_weights():
    from lvlmva_lite.pipeline import prepare
    from lvlmva_lite.tasks import DecoyMNIST

    task = DecoyMNIST()
    config = task.config(
        n_align=60, train_epochs=1, align_epochs=1, n_explained=50, evaluate_on="validation"
    )
    rows = decoy_sweeps.lambda_rows(prepare(task, config), (0.0, 2.0))
    assert [row["arm"] for row in rows] == ["before"] + ["lvlm_va"] * 2 + ["ground_truth_masks"] * 2
    assert math.isnan(rows[0]["penalty_weight"])
    by_truth = {row["penalty_weight"]: row for row in rows if row["arm"] == "ground_truth_masks"}
    assert by_truth[2.0]["mu_align"] > by_truth[0.0]["mu_align"]
    assert all(row["initial_penalty"] > 0 for row in rows[1:])
