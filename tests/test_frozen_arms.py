"""Heads on frozen features, and their readouts, against scikit-learn and closed forms."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

from lvlmva_lite.crossed import conflict_auc
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.experiments import frozen_arms, frozen_heads, frozen_masks
from lvlmva_lite.experiments.fold_summary import corrected_interval, over_folds
from lvlmva_lite.experiments.frozen_arms import Knees, frozen_rows
from lvlmva_lite.experiments.frozen_heads import (
    Head,
    Penalty,
    balanced_weights,
    directional,
    dro_head,
    fit_head,
    jtt_weights,
    subset_head,
    to_classifier,
)
from lvlmva_lite.experiments.frozen_masks import Masks
from lvlmva_lite.experiments.twin_readouts import (
    Twins,
    balanced_threshold,
    bootstrapped,
    folds,
    letter_coverage,
    patient_counts,
    readouts,
    twins,
)
from lvlmva_lite.models import Classifier
from lvlmva_lite.streams import stream

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "knee"


def some_features(n=80, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, d, generator=generator, dtype=torch.float64)
    labels = (features[:, 0] + torch.randn(n, generator=generator, dtype=torch.float64) > 0).long()
    return features, labels


def penalised_loss(values, features, labels, l2, penalty=None, weight=0.0):
    """What :func:`fit_head` says it minimises, written out and by autograd: value and gradient."""
    at = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    z = features @ at[:-1] + at[-1]
    total = nn.functional.binary_cross_entropy_with_logits(z, labels.double())
    total = total + l2 / 2 * at[:-1].square().sum()
    if penalty is not None:
        squares = (penalty.changes @ at[:-1]).square().mean(1)
        if penalty.features is not None:
            squares = squares * (1 - 2 * torch.sigmoid(penalty.features @ at[:-1] + at[-1])).square()
        total = total + weight * squares.mean()
    total.backward()
    return total.item(), at.grad.numpy()


def values_of(head):
    return torch.cat([head.weight, head.bias[None]]).numpy()


@pytest.mark.parametrize("d", [5, 130])  # fewer and more features than images
@pytest.mark.parametrize("weighted", [False, True])
def test_the_head_is_scikit_learns(weighted, d):
    features, labels = some_features(d=d)
    weight = torch.linspace(0.5, 2, len(labels), dtype=torch.float64) if weighted else None
    head = fit_head(features, labels, 0.05, sample_weight=weight)
    assert head.converged
    # Its sum of losses, with weights that add up to n, and C on the data's side.
    theirs = LogisticRegression(C=1 / (0.05 * len(labels)), tol=1e-10, max_iter=10_000)
    share = None if weight is None else (weight * len(labels) / weight.sum()).numpy()
    theirs.fit(features.numpy(), labels.numpy(), sample_weight=share)
    np.testing.assert_allclose(head.weight.numpy(), theirs.coef_[0], atol=2e-4)
    np.testing.assert_allclose(head.bias.item(), theirs.intercept_[0], atol=2e-4)


@pytest.mark.parametrize("rrr", [False, True])
@pytest.mark.parametrize("d", [5, 130])
@pytest.mark.parametrize("weight", [1.0, 1000.0])
def test_no_small_change_makes_a_converged_head_better(rrr, d, weight):
    features, labels = some_features(d=d)
    generator = torch.Generator().manual_seed(1)
    changes = torch.randn(6, 2 if rrr else 1, d, generator=generator, dtype=torch.float64)
    penalty = Penalty(changes, features[:6] if rrr else None)
    head = fit_head(features, labels, 0.01, penalty=penalty, penalty_weight=weight)
    assert head.converged
    least, gradient = penalised_loss(values_of(head), features, labels, 0.01, penalty, weight)
    assert abs(gradient).max() < 1e-3
    theirs = scipy.optimize.minimize(
        penalised_loss, values_of(head), (features, labels, 0.01, penalty, weight), "BFGS", jac=True
    )
    assert least < theirs.fun + 1e-7


def test_a_head_that_is_no_optimum_says_so(monkeypatch):
    features, labels = some_features()
    groups = torch.arange(80) % 4
    assert dro_head(features, labels, groups, 0.01).converged
    with monkeypatch.context() as patch:
        patch.setattr(frozen_heads, "MAX_ROUNDS", 1)
        assert not dro_head(features, labels, groups, 0.01).converged
    monkeypatch.setattr(frozen_heads, "MAX_STEPS", 1)
    assert not fit_head(features, labels, 0.01).converged
    assert not subset_head(features, labels, groups, 0.01, stream(0, "x"), 3).converged


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
    assert Penalty(named)(free) == pytest.approx(free.weight[0].item() ** 2 * (1 + 4 + 0.25) / 3)
    assert Penalty(named[:0])(free) == 0


def test_rrr_on_a_linear_network_is_the_formula():
    """Of a network that is its own features, the slope along v is v under the mask."""
    network = Classifier(nn.Flatten(), nn.Linear(16, 2))
    images = torch.rand(3, 1, 4, 4)
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 2, 1] = True  # one pixel each, of the third none
    slopes = directional(network, images, masks, 3, stream(0, "directions"))
    along = slopes.abs().sum(2)
    torch.testing.assert_close(
        along, torch.tensor([1.0, 1, 0]).double()[:, None].expand_as(along), atol=1e-4, rtol=0
    )
    head = Head(torch.arange(16.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))
    features = images.flatten(1).double()
    penalty = Penalty(slopes, features)(head)
    pixels = images.double().requires_grad_()
    z = head.scores(pixels.flatten(1))
    log_p = nn.functional.logsigmoid(z) + nn.functional.logsigmoid(-z)
    (gradient,) = torch.autograd.grad(log_p.sum(), pixels)
    assert penalty == pytest.approx((masks[:, None] * gradient).square().sum().item() / 3, rel=1e-3)


def test_slopes_are_those_of_forward_mode():
    torch.manual_seed(0)
    network = Classifier(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 2))
    images, masks = torch.rand(2, 1, 8, 8), torch.rand(2, 8, 8) > 0.7
    slopes = directional(network, images, masks, 2, stream(1, "directions"))
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


def test_groups_count_alike():
    groups = torch.tensor([1] * 50 + [0] * 10 + [2] * 50 + [3] * 10)
    weights = balanced_weights(groups)
    sums = torch.zeros(4, dtype=torch.float64).scatter_add_(0, groups, weights)
    assert torch.allclose(sums, sums[0].expand(4))


def test_errors_count_more():
    head = Head(torch.tensor([1.0], dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))
    features = torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64)
    assert jtt_weights(head, features, torch.tensor([1, 0, 0]), 5.0).tolist() == [1, 5, 1]


def test_heads_of_balanced_subsets():
    features, labels = some_features(40)
    groups = torch.arange(40) % 4
    # Where all groups are of one size, every subset is the whole.
    whole = fit_head(features, labels, 0.1)
    again = subset_head(features, labels, groups, 0.1, stream(0, "subsets"), 3)
    torch.testing.assert_close(again.weight, whole.weight, atol=1e-6, rtol=0)
    # Where one group has a single image, so has every subset of every group; the label of the others is random.
    few = torch.tensor([0] * 13 + [1] * 13 + [2] * 13 + [3])
    generator = stream(0, "subsets")
    drawn = [frozen_heads.balanced(few, generator) for _ in range(2)]
    assert all(len(one) == 4 and 39 in one for one in drawn)
    mean = subset_head(features, labels, few, 0.1, stream(0, "subsets"), 2)
    heads = [fit_head(features[one], labels[one], 0.1) for one in drawn]
    torch.testing.assert_close(mean.weight, (heads[0].weight + heads[1].weight) / 2)
    torch.testing.assert_close(mean.bias, (heads[0].bias + heads[1].bias) / 2)


@pytest.mark.parametrize("l2", [0.01, 1.0])
def test_no_head_is_better_in_its_worst_group(l2):
    """Against SLSQP on the same problem with a bound on every group's loss."""
    features, labels = some_features(120, 3)
    shows = (features[:, 1] > 0).long()
    groups = 2 * labels + shows

    def losses(values):
        z = features.numpy() @ values[:3] + values[3]
        each = np.logaddexp(0, (1 - 2 * labels.numpy()) * z)
        return np.array([each[groups.numpy() == g].mean() for g in range(4)])

    theirs = scipy.optimize.minimize(
        lambda v: v[4] + l2 / 2 * (v[:3] ** 2).sum(), np.r_[np.zeros(4), 1.0], method="SLSQP",
        constraints={"type": "ineq", "fun": lambda v: v[4] - losses(v[:4])}, options={"ftol": 1e-10},
    )  # fmt: skip
    head = dro_head(features, labels, groups, l2)
    assert head.converged
    ours = losses(values_of(head)).max() + l2 / 2 * head.weight.square().sum().item()
    assert theirs.fun - 1e-6 < ours < theirs.fun + frozen_heads.GAP


def test_how_much_of_the_letters_is_covered():
    letters = torch.zeros(4, 4, 4, dtype=torch.bool)
    letters[0, 0] = letters[1, 1] = letters[2, 2, :2] = True  # of 4, 4 and 2 pixels; the last has none
    masks = torch.zeros_like(letters)
    masks[0, :, 0] = True  # one of four
    masks[2] = True
    masks[3] = True
    told = letter_coverage(masks, letters)
    assert told["letters_covered"] == pytest.approx((0.25 + 0 + 1) / 3)
    assert told["letters_touched"] == pytest.approx(2 / 3)
    assert np.isnan(letter_coverage(masks, letters & False)["letters_touched"])


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
    assert told["agreement_auc"] == told["conflict_auc"]
    turned = readouts(scores, scores + 100, labels)  # the letter speaks for the worn
    assert (turned["conflict_auc"], turned["agreement_auc"]) == (1, 0)
    shifted = readouts(scores + 5, scores + 5, labels)
    assert shifted["wga"] < told["wga_balanced"] == shifted["wga_balanced"]


def some_twins(n=240):
    """Images of 36 pixels: the class dims the first row, and the letter lights up a corner of nine."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    bare = 0.3 + 0.1 * torch.rand(n, 1, 6, 6, generator=generator)
    bare[:, 0, 0] -= 0.03 * labels[:, None]
    masks = torch.zeros(n, 6, 6, dtype=torch.bool)
    masks[:, 3:, 3:] = True
    marked = torch.where(masks[:, None], 0.9, bare)
    shows = torch.rand(n, generator=generator) < torch.where(labels == 0, 0.75, 0.15)
    template = ShortcutDataset(
        bare[:1], labels[:1], class_names=("healthy", "worn"), group_names=tuple("abcd")
    )
    return Twins(bare, marked, masks, shows, labels, np.arange(n) // 2, template)


@pytest.fixture
def rows(monkeypatch):
    """A fold of images that are their own features, with masks as three people draw them."""
    monkeypatch.setattr(frozen_arms, "twins", lambda *about: some_twins())
    monkeypatch.setattr(
        frozen_arms, "efficientnet_lite0", lambda shape, n: Classifier(nn.Flatten(), nn.Linear(36, n))
    )

    def sources(fold):
        where = fold.train.where[:100]
        true = fold.twins.dataset(where).spurious_masks
        shifted = true.roll(-3, 2)
        return {
            "true": Masks(where, true, "placebo"),
            "lexicon": Masks(where, true & (torch.arange(6) > 4), "placebo"),
            "placebo": Masks(where, shifted, "placebo"),
            "claude": Masks(where[:40], true[:40], "claude-placebo"),
            "claude-placebo": Masks(where[:40], shifted[:40], "claude-placebo"),
        }

    monkeypatch.setattr(frozen_arms, "_sources", sources)
    return lambda **settings: pd.DataFrame(frozen_rows(Knees(), "", 0, **settings))


def test_one_rule_chooses_for_every_arm(rows):
    told = rows()
    assert told["converged"].all()
    today = told.loc[0, "l2"]
    for (masks, penalty), arm in told[told["validation_auc"].notna()].groupby(["masks", "penalty"]):
        best = arm[arm["chosen"]]
        assert len(best) == 1
        assert best["validation_auc"].item() == arm["validation_auc"].max()
        if masks == "none":
            assert set(arm["l2"]) == {today * factor for factor in frozen_arms.L2_FACTORS}
            assert len(arm) == len(frozen_arms.L2_FACTORS) * (3 if penalty == "JTT" else 1)
        else:
            assert set(arm["penalty_weight"]) == set(frozen_arms.WEIGHTS)
            assert set(arm["l2"]) == {today}
    arms = {"l2 alone", "balanced groups", "SUBG", "DFR", "GroupDRO", "JTT"}
    assert set(told.loc[told["l2"] != today, "penalty"]) == arms
    # At the l2 of the head before, that arm is the head before.
    same = told[(told["penalty"] == "l2 alone") & (told["l2"] == today)].iloc[0]
    assert same["conflict_auc"] == pytest.approx(told.loc[0, "conflict_auc"])


def test_a_habit_turned_round_is_not_chosen(rows):
    fold = frozen_arms.Frozen(Knees(), "", 0, 6)
    joint, letter = torch.zeros(2, 6, 6, dtype=torch.float64)
    joint[0], letter[3:, 3:] = -1.0, 1.0

    def fit(part, setting):
        return Head((joint + setting["letter"] * letter).flatten(), torch.tensor(0.0, dtype=torch.float64))

    best = fold.choose("none", "by hand", [{"letter": one} for one in (-5.0, 0.0, 5.0)], fit)
    assert best["letter"] == 0
    assert fold.rows[2]["conflict_auc"] > best["conflict_auc"]


def test_who_saw_which_letters(rows):
    told = rows().query("chosen and curve == False").set_index(["masks", "penalty"])
    first = told.xs("finite-difference", level="penalty")
    assert first["letters_covered"].to_dict() == pytest.approx(
        {"true": 1, "lexicon": 1 / 3, "placebo": 0, "claude": 1, "claude-placebo": 0}
    )
    assert first["letters_touched"].to_dict() == {
        "true": 1, "lexicon": 1, "placebo": 0, "claude": 1, "claude-placebo": 0,
    }  # fmt: skip
    assert (first["n_masked"] < first["n_align"]).all()
    assert first.loc["true", "n_align"] == 100
    # Each is held against the wrong places on its own cases.
    assert first["placebo"].to_dict()["claude"] == "claude-placebo"
    assert first.loc["claude-placebo", "over_placebo_se"] == 0 < first.loc["claude", "over_placebo_se"]


def test_fresh_directions_tell_what_few_directions_leave(rows, monkeypatch):
    """The letter has nine pixels, and the network is linear: one direction for each of three images leaves six free."""
    of_rrr = "masks == 'true' and penalty == 'rrr' and penalty_weight == 100"
    many = rows().query(of_rrr).iloc[0]
    assert many["fresh_penalty_ratio"] == pytest.approx(many["penalty_ratio"], rel=0.5)
    sources = frozen_arms._sources

    def few(fold):
        found = sources(fold)
        shown = found["true"].masks.flatten(1).any(1).nonzero()[:3, 0]
        return {
            name: Masks(one.where[shown], one.masks[shown], one.placebo)
            for name, one in found.items() if not name.startswith("claude")
        }  # fmt: skip

    monkeypatch.setattr(frozen_arms, "_sources", few)
    monkeypatch.setattr(frozen_arms, "N_DIRECTIONS", 1)
    one = rows().query(of_rrr).iloc[0]
    assert one["fresh_penalty_ratio"] > 10 * one["penalty_ratio"]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real knees in ../shared")
def test_a_fold_of_real_knees(monkeypatch):
    """Few images, small ones: what stands in the rows, and that the alignment set is trained on, not tested."""
    monkeypatch.setattr(frozen_masks, "N_ALIGN", 24)
    monkeypatch.setattr(frozen_arms, "AMOUNTS", (12,))
    monkeypatch.setattr(frozen_arms, "N_DIRECTIONS", 1)
    root = str(REAL)
    asked = []
    original = frozen_arms.Frozen.penalties

    def penalties(fold, where, masks):
        assert not set(where.tolist()) & set(fold.test.tolist())
        assert not set(fold.twins.patients[where]) & set(fold.twins.patients[fold.test])
        asked.append(len(where))
        return original(fold, where, masks)

    monkeypatch.setattr(frozen_arms.Frozen, "penalties", penalties)
    rows = frozen_rows(Knees(), root, 0, size=32)
    assert len(asked) == 6  # three on the method's cases, three on the recorded ones
    sources = {(row["masks"], row["penalty"]) for row in rows}
    assert {
        ("claude", "rrr"),
        ("claude-lexicon", "finite-difference"),
        ("claude-placebo", "rrr"),
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
    told = {row["masks"]: row for row in rows if row.get("curve") is False}
    assert told["true"]["letters_covered"] == 1
    assert (
        told["claude"]["n_align"] == told["claude-lexicon"]["n_align"] == told["claude-placebo"]["n_align"]
    )
    assert told["claude"]["letters_touched"] > 0.5
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
         "letter_effect": 0, "wga": 0, "wga_balanced": 0, "aga": 0,
         "conflict_auc_objects": np.nan if seed == 9 else seed}
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
    assert (true["gain_folds_low"], true["gain_folds_high"]) == pytest.approx(
        corrected_interval(pd.Series([0.2] * 5 + [0.3] * 5), 5)
    )
    assert np.isnan(true["converged"])
    assert true["conflict_auc_objects"] == 4, "a fold of which nothing is known counts for nothing"
    assert np.isnan(told.loc[("none", "before")]["beyond_placebo"])
    with pytest.raises(ValueError, match=r"true rrr lacks folds: seeds \[0, 1, 2\]"):
        over_folds(pd.DataFrame([row for row in rows if row["masks"] != "true" or row["seed"] < 3]))


def test_each_arm_is_held_against_its_own_placebo():
    aucs = {"true": 0.6, "placebo": 0.3, "claude": 0.5, "claude-placebo": 0.4}
    rows = [
        {"seed": seed, "masks": masks, "penalty": "rrr", "conflict_auc": auc, "converged": (seed, masks) != (1, "true"),
         "placebo": "claude-placebo" if "claude" in masks else "placebo",
         "se": 0.1, "gain_se": 0.05, "over_placebo_se": 0.02}
        for seed in range(2)
        for masks, auc in aucs.items()
    ]  # fmt: skip
    rows += [
        rows[0] | {"seed": seed, "masks": "none", "penalty": "before", "placebo": None} for seed in range(2)
    ]
    told = over_folds(pd.DataFrame(rows), n_folds=2).set_index("masks")
    assert told["beyond_placebo"].drop("none").to_dict() == pytest.approx(
        {"true": 0.3, "placebo": 0, "claude": 0.1, "claude-placebo": 0}
    )
    assert np.isnan(told.loc["none", "beyond_placebo"])
    assert told["converged"].to_dict() == {
        "true": 0.5,
        "placebo": 1,
        "claude": 1,
        "claude-placebo": 1,
        "none": 1,
    }


def test_the_interval_over_folds_holds_the_mean_as_often_as_it_says():
    """Of folds that share what they were trained on: correlation 1 / n_folds, as the correction supposes."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 5))
    values = np.sqrt(1 / 5) * shared + np.sqrt(4 / 5) * own
    ends = np.array([corrected_interval(pd.Series(one), 5) for one in values])
    held = ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean()
    assert held == pytest.approx(0.95, abs=0.015)
    plain = np.abs(values.mean(1)) < scipy.stats.t.ppf(0.975, 4) * values.std(1, ddof=1) / np.sqrt(5)
    assert plain.mean() < 0.9
