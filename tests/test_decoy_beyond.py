import dataclasses
import math

import pytest
import torch
from few_decoys import take_few
from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite import metrics
from lvlmva_lite.attribution import deeplift_shap
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.experiments import decoy_arms
from lvlmva_lite.models import fit, mlp
from lvlmva_lite.pipeline import Prepared, make_alignment_set, prepare
from lvlmva_lite.segmentation import ppeps_wgm
from lvlmva_lite.tasks import DecoyMNIST

rates = st.floats(0, 1)


def marked(n, random_state, shortcut):
    """A bar that lies or stands, mostly by class; a corner whose shade tells it too, if it is the ``shortcut``."""
    draw = torch.Generator().manual_seed(random_state)
    labels = torch.randint(0, 2, (n,), generator=draw)
    stands = labels ^ (torch.rand(n, generator=draw) < 0.1)
    bright = labels if shortcut else torch.randint(0, 2, (n,), generator=draw)
    images = 0.2 * torch.rand(n, 1, 8, 8, generator=draw)
    images[stands == 0, 0, 4, 2:7] = 0.7
    images[stands == 1, 0, 2:7, 4] = 0.7
    images[:, 0, :2, :2] = (0.3 + 0.7 * bright)[:, None, None]
    masks = torch.zeros(n, 8, 8, dtype=torch.bool)
    masks[:, :2, :2] = True
    return ShortcutDataset(
        images, labels, torch.zeros(n, dtype=torch.int64), masks, ("0", "1"), ("all",), "decoy-mnist"
    )


@pytest.fixture(scope="module")
def prepared():
    train, test = marked(2000, 0, shortcut=True), marked(1000, 1, shortcut=False)
    clean = dataclasses.replace(test, images=test.images * ~test.spurious_masks[:, None])
    task = DecoyMNIST()
    config = task.config(n_align=40, n_segments=2, n_baselines=5, n_explained=100, align_epochs=10)
    model = mlp((1, 8, 8), 2, hidden=(16,), random_state=0)
    fit(model, train.images, train.labels, epochs=5, learning_rate=0.01)
    indices, baselines = torch.arange(40), train.images[100:105]
    chosen = train.subset(indices)
    attributions = deeplift_shap(model, chosen.images, chosen.labels, baselines)
    segments = ppeps_wgm(attributions, 2)
    found = make_alignment_set(train, indices, attributions, segments, config.description)
    assert (found.truth == 1).any(), "the network took no shortcut; there is nothing to test"
    return Prepared(task, config, train, test, clean, model, baselines, found, 0.0)


def by_arm(rows):
    assert len({row["arm"] for row in rows}) == len(rows)
    return {row["arm"]: row for row in rows}


@given(rates, rates)
def test_errors_of_one_kind_leave_the_other_kind_alone(misses, false_alarms):
    truth = torch.rand(60, 5, generator=torch.Generator().manual_seed(1)) < 0.3
    codes = truth.long()  # 1 spurious, 0 core
    only_missed = decoy_arms.one_sided_verdicts(codes, misses=misses, random_state=0)
    only_alarmed = decoy_arms.one_sided_verdicts(codes, false_alarms=false_alarms, random_state=0)
    assert not only_missed[~truth].any()
    assert only_alarmed[truth].all()
    both = decoy_arms.one_sided_verdicts(codes, misses=misses, false_alarms=false_alarms, random_state=0)
    assert both.equal(torch.where(truth, only_missed, only_alarmed))


def test_errors_come_at_their_rate_and_are_nested():
    truth = torch.arange(40_000).view(4000, 10) % 10 < 3
    wrong = [
        decoy_arms.one_sided_verdicts(truth.long(), misses=rate, false_alarms=rate / 2, random_state=3)
        != truth
        for rate in (0.2, 0.6)
    ]
    for rate, where in zip((0.2, 0.6), wrong, strict=True):
        assert where[truth].double().mean().item() == pytest.approx(rate, abs=0.02)
        assert where[~truth].double().mean().item() == pytest.approx(rate / 2, abs=0.02)
    assert (wrong[0] & ~wrong[1]).sum() == 0


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_the_scale_are_exact(rate):
    truth = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    verdicts = decoy_arms.one_sided_verdicts(truth.long(), misses=rate, false_alarms=rate, random_state=0)
    assert verdicts.equal((truth ^ bool(rate)).long())


@pytest.mark.parametrize("name", ["misses", "false_alarms"])
@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_a_rate_that_is_none_is_refused(name, rate):
    with pytest.raises(ValueError, match=f"{name} must lie between 0 and 1"):
        decoy_arms.one_sided_verdicts(torch.zeros(2, 2).long(), **{name: rate}, random_state=0)


def test_as_many_false_alarms_means_as_many(prepared):
    rows = by_arm(decoy_arms.error_rows(prepared, (0.5,)))
    missed, alarmed = rows["misses at 0.5"], rows["false alarms at 0.5"]
    level = rows["as many false alarms as misses at 0.5"]
    # Equal numbers of errors up to the draw of 80 segments.
    assert level["verdict_accuracy"] == pytest.approx(missed["verdict_accuracy"], abs=0.12)
    assert (
        missed["n_taking_part"]
        < (prepared.alignment_set.truth == 1).any(1).sum()
        <= alarmed["n_taking_part"]
    )
    for row in (missed, alarmed):
        assert row["verdict_balanced_accuracy"] == pytest.approx(0.75, abs=0.12)


def test_true_masks_help_and_none_do_not(prepared):
    rows = by_arm(decoy_arms.control_rows(prepared))
    assert list(rows) == [
        "before", "true masks", "moved masks", "opposite corner", "shuffled verdicts",
        "contrary verdicts", "every segment", "lambda 0",
    ]  # fmt: skip
    assert rows["every segment"]["n_taking_part"] == 40
    before, bound = rows["before"], rows["true masks"]
    assert bound["accuracy"] > before["accuracy"] + 0.2
    assert bound["n_taking_part"] == 40
    assert rows["lambda 0"]["accuracy"] < (before["accuracy"] + bound["accuracy"]) / 2
    assert "n_taking_part" not in before


def test_a_perfect_simulated_critic_is_the_truth(prepared):
    (row,) = decoy_arms.dose_rows(prepared, (1.0,))
    assert row["verdict_accuracy"] == row["verdict_balanced_accuracy"] == 1
    by_truth = prepared.score(
        prepared.aligned_by_verdicts(metrics.right_verdicts(prepared.alignment_set.truth))
    )
    assert {key: row[key] for key in by_truth} == by_truth


def test_nobody_leaves_in_the_second_round(prepared):
    some = (prepared.alignment_set.truth == 1) & (torch.arange(40) < 20)[:, None]
    row = decoy_arms.second_round(prepared, some.long())
    assert row["arm"] == "two rounds"
    assert row["n_taking_part"] >= some.any(1).sum()


@pytest.mark.slow
def test_changed_settings_reach_the_alignment(monkeypatch):
    take_few(monkeypatch.setattr)
    task = DecoyMNIST()
    config = task.config(n_align=40, train_epochs=10, align_epochs=1, n_baselines=5)
    rows = by_arm(decoy_arms.variant_rows(prepare(task, config), {"N = 20": {"n_align": 20}}))
    default, kept = rows[decoy_arms.AS_IT_IS], rows["keep what was not judged"]
    assert 0 < rows["N = 20"]["n_taking_part"] <= 20
    assert default["n_taking_part"] < kept["n_taking_part"] == 40
    assert default["verdict_accuracy"] == kept["verdict_accuracy"]
    assert rows["two rounds"]["n_taking_part"] >= default["n_taking_part"]
    assert len({row["mu_align"] for row in rows.values()}) == len(rows)
