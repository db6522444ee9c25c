import math

import pytest
import torch

from lvlmva_lite import metrics
from lvlmva_lite.attribution import deeplift_shap
from lvlmva_lite.datasets import ShortcutDataset, load_decoy_mnist
from lvlmva_lite.experiments import decoy_arms
from lvlmva_lite.models import predict
from lvlmva_lite.pipeline import Prepared, make_alignment_set
from lvlmva_lite.segmentation import ppeps_wgm
from lvlmva_lite.tasks import DecoyMNIST


@pytest.fixture(scope="module")
def prepared(decoys, shortcut_model):
    """What ``prepare`` gives, of the first 2 000 training and 500 test images."""
    task = DecoyMNIST()
    config = task.config(n_align=40, n_explained=40, n_baselines=5, train_epochs=1, align_epochs=4)
    indices, baselines = torch.arange(40), decoys.images[-5:]
    chosen = decoys.subset(indices)
    maps = deeplift_shap(shortcut_model, chosen.images, chosen.labels, baselines)
    found = make_alignment_set(
        decoys, indices, maps, ppeps_wgm(maps, config.n_segments, random_state=0), config.description
    )
    test, clean = (load_decoy_mnist("test", shade=s).subset(torch.arange(500)) for s in ("random", "none"))
    return Prepared(
        task, config, decoys, test, clean, shortcut_model, baselines, found, training_seconds=0.0
    )


def test_the_class_of_a_square_is_read_from_its_shade_alone():
    shades = torch.tensor([255, 230, 205, 180, 155, 130, 105, 80, 55, 30]) / 255
    images = torch.rand(10, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(10, 6, 6, dtype=torch.bool)
    masks[:, :2, 4:] = True
    images[:, 0, :2, 4:] = shades[:, None, None]
    zeros = torch.zeros(10, dtype=torch.int64)
    dataset = ShortcutDataset(images, zeros, zeros, masks, ("any",), ("any",), "ten squares")
    assert decoy_arms.square_class(dataset).tolist() == list(range(10))


def test_the_class_of_a_square_is_the_label_in_training_and_in_the_aligned_groups(decoys, prepared):
    assert torch.equal(decoy_arms.square_class(decoys), decoys.labels)
    test = prepared.test
    aligned = torch.tensor(["aligned" in name for name in test.group_names])[test.groups]
    assert torch.equal(decoy_arms.square_class(test) == test.labels, aligned)
    assert 0 < aligned.sum() < len(test)


def test_an_embedding_is_what_the_last_layer_sees(shortcut_model, prepared):
    points = decoy_arms.embed(shortcut_model, prepared.test.images)
    assert points.shape == (500, 30)
    assert not points.requires_grad
    assert (points >= 0).all()
    torch.testing.assert_close(shortcut_model[-1](points), shortcut_model(prepared.test.images))


@pytest.fixture(scope="module")
def loop(prepared):
    return {row["arm"]: row for row in decoy_arms.loop_rows(prepared)}


@pytest.mark.slow
def test_a_row_for_every_arm_with_every_column(loop):
    assert list(loop) == ["before", "lvlm_va", "ground_truth_masks", "never_saw_decoys"]
    for arm, row in loop.items():
        verdicts = {name for name in row if name.startswith("verdict_")}
        of_all = {"accuracy", "balanced_accuracy", "sensitivity", "specificity", "base_rate"}
        assert verdicts == ({f"verdict_{name}" for name in of_all} if arm == "lvlm_va" else set())
        shares = {name: value for name, value in row.items() if name != "arm"}
        assert len(shares) - len(verdicts) == 7
        assert all(0 <= value <= 1 for value in shares.values()), shares
        assert row["wga"] <= row["aga"]


@pytest.mark.slow
def test_rows_measure_the_models_they_name(loop, prepared):
    bound = prepared.aligned(prepared.chosen.spurious_masks)
    for arm, model in {"before": prepared.model, "ground_truth_masks": bound}.items():
        for name, value in prepared.score(model).items():
            assert loop[arm][name] == pytest.approx(value), (arm, name)
        test, right = prepared.test, []
        predicted = predict(model, test.images)
        for digit in range(10):
            for agrees in (True, False):
                there = (test.labels == digit) & ((decoy_arms.square_class(test) == test.labels) == agrees)
                right.append((predicted[there] == digit).double().mean().item())
        right = [share for share in right if not math.isnan(share)]
        assert loop[arm]["wga"] == pytest.approx(min(right))
        assert loop[arm]["aga"] == pytest.approx(sum(right) / len(right))


@pytest.mark.slow
def test_purities_count_the_ten_nearest_neighbours(loop, prepared):
    few = prepared.test.subset(torch.arange(40))
    with torch.no_grad():
        points = prepared.model[:-1](few.images).double()
    distance = torch.cdist(points, points).fill_diagonal_(torch.inf)
    nearest = distance.argsort(1)[:, :10]
    for name, of in (("digit", few.labels), ("square", decoy_arms.square_class(few))):
        share = (of[nearest] == of[:, None]).double().mean().item()
        assert loop["before"][f"purity_{name}"] == pytest.approx(share, abs=0.01)


@pytest.mark.slow
def test_the_loop_cures_where_the_mask_is_true(loop):
    # Four passes over 2 000 images, so no cure, but the direction must be right.
    assert loop["ground_truth_masks"]["accuracy"] > loop["before"]["accuracy"]
    assert loop["ground_truth_masks"]["mu_align"] > loop["before"]["mu_align"]
    assert loop["never_saw_decoys"]["accuracy"] > loop["before"]["accuracy"]


def test_controls_differ_in_the_masks_only(prepared):
    rows = {row["arm"]: row for row in decoy_arms.control_rows(prepared)}
    framed = {"before", "true masks", "lambda 0"}
    assert framed | {"moved masks", "shuffled verdicts"} <= set(rows)
    assert {row["experiment"] for row in rows.values()} == {"control"}
    scores = [(row["accuracy"], row["accuracy_clean"], row["mu_align"]) for row in rows.values()]
    assert len(set(scores)) == len(scores)
    # Without a penalty it does not matter which masks there are.
    kinds = prepared.verdicts()
    keep = (kinds == 1).any(1)
    unmasked = prepared.aligned(torch.zeros(40, 28, 28, dtype=torch.bool), keep)
    assert rows["lambda 0"]["accuracy"] == metrics.accuracy(
        predict(unmasked, prepared.test.images), prepared.test.labels
    )


def test_a_simulated_critic_is_as_good_as_asked(prepared):
    rows = decoy_arms.dose_rows(prepared, (0.0, 0.5, 1.0))
    assert [row["arm"] for row in rows] == ["0", "0.5", "1"]
    assert {row["experiment"] for row in rows} == {"dose"}
    never, half, always = rows
    assert (never["verdict_accuracy"], never["verdict_balanced_accuracy"]) == (0, 0)
    assert (always["verdict_accuracy"], always["verdict_balanced_accuracy"]) == (1, 1)
    n_verdicts = prepared.alignment_set.truth.numel()
    assert abs(half["verdict_accuracy"] - 0.5) < 4 * 0.5 / math.sqrt(n_verdicts)
    truth = prepared.alignment_set.truth
    assert always["n_taking_part"] == int((truth == 1).any(1).sum())
    assert always["accuracy"] == pytest.approx(
        prepared.score(prepared.aligned_by_verdicts(metrics.right_verdicts(truth)))["accuracy"]
    )
