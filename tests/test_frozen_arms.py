"""Heads on frozen features, and their readouts, against scikit-learn and closed forms."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

from lvlmva_lite.crossed import conflict_auc
from lvlmva_lite.experiments import frozen_arms
from lvlmva_lite.experiments.fold_summary import over_folds
from lvlmva_lite.experiments.frozen_arms import directional, folds, frozen_rows, to_classifier, twins
from lvlmva_lite.experiments.frozen_heads import Head, Penalty, balanced_weights, dro_weights, fit_head
from lvlmva_lite.experiments.twin_readouts import (
    balanced_threshold,
    bootstrapped,
    patient_counts,
    readouts,
)
from lvlmva_lite.models import Classifier
from lvlmva_lite.streams import stream

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "knee"


def some_features(n=80, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, d, generator=generator, dtype=torch.float64)
    labels = (features[:, 0] + torch.randn(n, generator=generator, dtype=torch.float64) > 0).long()
    return features, labels


@pytest.mark.parametrize("weighted", [False, True])
def test_the_head_is_scikit_learns(weighted):
    features, labels = some_features()
    weight = torch.linspace(0.5, 2, len(labels), dtype=torch.float64) if weighted else None
    head = fit_head(features, labels, 0.05, sample_weight=weight)
    # Its sum of losses, with weights that add up to n, and C on the data's side.
    theirs = LogisticRegression(C=1 / (0.05 * len(labels)), tol=1e-10, max_iter=10_000)
    share = None if weight is None else (weight * len(labels) / weight.sum()).numpy()
    theirs.fit(features.numpy(), labels.numpy(), sample_weight=share)
    np.testing.assert_allclose(head.weight.numpy(), theirs.coef_[0], atol=2e-4)
    np.testing.assert_allclose(head.bias.item(), theirs.intercept_[0], atol=2e-4)


def test_a_heavy_penalty_leaves_nothing_of_what_it_names():
    features, labels = some_features()
    named = torch.zeros(3, 1, 5, dtype=torch.float64)
    named[:, 0, 0] = torch.tensor([1.0, -2.0, 0.5])
    free, bound = (
        fit_head(features, labels, 0.01, penalty=Penalty(named), penalty_weight=weight)
        for weight in (0.0, 1e4)
    )
    assert free.weight[0] > 0.5
    assert bound.weight[0].abs() < 1e-3
    at = Penalty(named)(free.weight, free.bias)
    assert at.item() == pytest.approx(free.weight[0].item() ** 2 * (1 + 4 + 0.25) / 3)


def test_rrr_on_a_linear_network_is_the_formula():
    """Of a network that is its own features, the slope along v is v under the mask."""
    network = Classifier(nn.Flatten(), nn.Linear(16, 2))
    images = torch.rand(3, 1, 4, 4)
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 2, 1] = True  # one pixel each, of the third none
    slopes = directional(network, images, masks, seed=0)
    along = slopes.abs().sum(2)
    torch.testing.assert_close(
        along, torch.tensor([1.0, 1, 0]).double()[:, None].expand_as(along), atol=1e-4, rtol=0
    )
    head = Head(torch.arange(16.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))
    features = images.flatten(1).double()
    penalty = Penalty(slopes, features)(head.weight, head.bias)
    pixels = images.double().requires_grad_()
    z = head.scores(pixels.flatten(1))
    log_p = nn.functional.logsigmoid(z) + nn.functional.logsigmoid(-z)
    (gradient,) = torch.autograd.grad(log_p.sum(), pixels)
    assert penalty.item() == pytest.approx((masks[:, None] * gradient).square().sum().item() / 3, rel=1e-3)


def test_slopes_are_those_of_forward_mode():
    torch.manual_seed(0)
    network = Classifier(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 2))
    images, masks = torch.rand(2, 1, 8, 8), torch.rand(2, 8, 8) > 0.7
    slopes = directional(network, images, masks, seed=1)
    generator = stream(1, "directions")
    signs = torch.randint(2, images.shape, generator=generator) * 2.0 - 1
    _, theirs = torch.func.jvp(network.embed, (images,), (signs * masks[:, None],))
    torch.testing.assert_close(slopes[:, 0], theirs.double(), atol=2e-3, rtol=2e-3)


def test_the_classifier_says_what_the_head_says():
    network = Classifier(nn.Flatten(), nn.Linear(16, 2))
    images = torch.rand(5, 1, 4, 4)
    features = images.flatten(1).double()
    mean, std = features.mean(0), features.std(0)
    head = Head(torch.randn(16, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
    logits = to_classifier(network, head, mean, std)(images)
    torch.testing.assert_close(
        (logits[:, 1] - logits[:, 0]).double(), head.scores((features - mean) / std), atol=1e-4, rtol=1e-4
    )


def test_groups_count_alike_and_the_hardest_counts_most():
    labels = torch.tensor([0] * 60 + [1] * 60)
    shows = torch.tensor([True] * 50 + [False] * 10 + [False] * 50 + [True] * 10)
    weights = balanced_weights(labels, shows)
    groups = 2 * labels + shows.long()
    sums = torch.zeros(4, dtype=torch.float64).scatter_add_(0, groups, weights)
    assert torch.allclose(sums, sums[0].expand(4))
    # Features that tell the shortcut alone: the two groups against it are the hard ones.
    features = torch.stack([shows.double() * 2 - 1, torch.ones(120, dtype=torch.float64)], 1)
    hard = dro_weights(features, labels, shows, 0.01)
    of_group = torch.zeros(4, dtype=torch.float64).scatter_add_(0, groups, hard)
    head = fit_head(features, labels, 0.01, sample_weight=hard)
    assert head.weight[0].abs() < fit_head(features, labels, 0.01).weight[0].abs() / 3
    assert of_group.sum().item() == pytest.approx(1.0)


def test_no_patient_is_in_two_folds():
    patients = np.repeat(np.arange(40), 2)
    labels = torch.arange(80) % 2
    held = folds(labels, patients, repeat=3)
    assert sorted(np.concatenate(held)) == list(range(80))
    assert sum(len(np.unique(patients[one])) for one in held) == 40
    assert any((a != b).any() for a, b in zip(held, folds(labels, patients, 4), strict=True))


@given(st.integers(0, 10_000), st.integers(4, 30))
@settings(deadline=None, max_examples=30)
def test_the_balanced_threshold_is_the_best_of_all(seed, n):
    rng = np.random.default_rng(seed)
    healthy, worn = rng.normal(0, 1, n), rng.normal(1, 2, n + 3)

    def apart(threshold):
        return abs((healthy < threshold).mean() - (worn > threshold).mean())

    least = min(apart(t) for t in np.linspace(-8, 8, 4001))
    assert apart(balanced_threshold(healthy, worn)) <= least + 1e-12


def test_draws_of_patients():
    patients = np.array([7, 7, 3, 3, 9, 1])
    counts = patient_counts(patients, seed=0)
    assert torch.equal(counts[:, 0], counts[:, 1])
    assert torch.equal(counts[:, 2], counts[:, 3])
    of_patients = counts[:, [0, 2, 4, 5]]
    assert (of_patients.sum(1) == 4).all()
    bare, marked = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    plain = bootstrapped(bare, marked, labels, torch.ones(1, 6, dtype=torch.float64))
    assert plain.item() == pytest.approx(conflict_auc(-bare, -marked, labels == 0))
    # An image that counts twice is an image that is there twice.
    twice = torch.tensor([[2.0, 1, 1, 3, 1, 1]], dtype=torch.float64)
    again = twice[0].long()
    drawn = [one.repeat_interleave(again) for one in (bare, marked, labels)]
    expected = conflict_auc(-drawn[0], -drawn[1], drawn[2] == 0)
    assert bootstrapped(bare, marked, labels, twice).item() == pytest.approx(expected)


def test_a_head_that_ignores_letters_has_the_plain_auc():
    scores, labels = torch.randn(50, dtype=torch.float64), torch.arange(50) % 2
    told = readouts(scores, scores, labels)
    assert told["letter_effect"] == 0
    assert told["conflict_auc"] == pytest.approx(roc_auc_score(labels.numpy(), scores.numpy()))
    shifted = readouts(scores + 5, scores + 5, labels)
    assert shifted["wga"] < told["wga_balanced"] == shifted["wga_balanced"]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real knees in ../shared")
def test_a_fold_of_real_knees(monkeypatch):
    """Few images, small ones: what stands in the rows, and that the alignment set is trained on, not tested."""
    monkeypatch.setattr(frozen_arms, "N_ALIGN", 24)
    monkeypatch.setattr(frozen_arms, "AMOUNTS", (12,))
    monkeypatch.setattr(frozen_arms, "N_DIRECTIONS", 1)
    root = str(REAL)
    asked = []
    original = frozen_arms._Frozen.penalties

    def penalties(fold, where, masks):
        assert not set(where.tolist()) & set(fold.test.tolist())
        assert not set(fold.twins.patients[where]) & set(fold.twins.patients[fold.test])
        asked.append(len(where))
        return original(fold, where, masks)

    monkeypatch.setattr(frozen_arms._Frozen, "penalties", penalties)
    rows = frozen_rows(root, 0, size=32)
    assert len(asked) == 4
    sources = {(row["masks"], row["penalty"]) for row in rows}
    assert {
        ("claude", "rrr"),
        ("true", "finite-difference"),
        ("placebo", "rrr"),
        ("none", "GroupDRO"),
    } <= sources
    for source, penalty in sources - {(s, p) for s, p in sources if s == "none"}:
        chosen = [
            row
            for row in rows
            if (row["masks"], row["penalty"]) == (source, penalty) and row["chosen"] and not row["curve"]
        ]
        assert len(chosen) == 1
    assert rows[0]["gain_se"] == 0
    assert all(row["se"] > 0 for row in rows)
    both = twins(root, 0, 32)
    differ = (both.bare != both.marked).any(1)
    assert torch.equal(differ & both.masks, differ), "a letter changes what its mask covers alone"
    share = both.shows.double()
    assert share[both.labels == 0].mean() == pytest.approx(0.75, abs=0.01)
    assert share[both.labels == 1].mean() == pytest.approx(0.10, abs=0.01)


def test_patients_and_draws_are_two_spreads():
    rows = [
        {"seed": seed, "masks": masks, "penalty": penalty, "conflict_auc": auc + shift, "se": 0.1, "gain_se": 0.05,
         "over_placebo_se": 0.02 if penalty == "rrr" else np.nan,
         "letter_effect": 0, "wga": 0, "wga_balanced": 0, "aga": 0}
        for seed in range(10)
        for shift in [0.0 if seed < 5 else 0.1]
        for masks, penalty, auc in [("none", "before", 0.4 - shift), ("true", "rrr", 0.6), ("placebo", "rrr", 0.3)]
    ]  # fmt: skip
    told = over_folds(pd.DataFrame(rows)).set_index(["masks", "penalty"])
    true = told.loc[("true", "rrr")]
    assert true["conflict_auc"] == pytest.approx(0.65)
    assert true["gain"] == pytest.approx(0.25)
    # Five independent folds of standard error .1 have a mean of standard error .1 / sqrt(5), however often repeated.
    assert true["high"] - true["low"] == pytest.approx(2 * 1.96 * 0.1 / 5**0.5)
    assert true["beyond_placebo"] == pytest.approx(0.3)
    assert true["beyond_high"] == pytest.approx(0.3 + 1.96 * 0.02 / 5**0.5)
    assert true["gain_sd"] == pytest.approx(np.std([0.2, 0.3], ddof=1))
    assert np.isnan(told.loc[("none", "before")]["beyond_placebo"])
    with pytest.raises(ValueError, match=r"true rrr lacks folds: seeds \[0, 1, 2\]"):
        over_folds(pd.DataFrame([row for row in rows if row["masks"] != "true" or row["seed"] < 3]))
