import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from lvlmva_lite.datasets import knee_phantom
from lvlmva_lite.experiments import overlap_arms
from lvlmva_lite.models import small_resnet
from lvlmva_lite.pipeline import Prepared, make_alignment_set, segment
from lvlmva_lite.segmentation import Segments, filled, ppeps_wgm
from lvlmva_lite.tasks import Knee


@pytest.fixture(scope="module")
def prepared():
    """Eight letters across the joint, an untrained network, and maps that are the letters and the joint."""
    task = Knee(overlap=True)
    config = task.config(n_segments=2, fill=0.0, n_align=8, align_epochs=1)
    train = knee_phantom("train", n=8, marker_rate=(1, 1), overlap=True)
    maps = (train.spurious_masks | train.core_masks).double()
    indices = torch.arange(8)
    found = make_alignment_set(
        train, indices, maps, segment(config, train.images, maps), config.description
    )
    test = knee_phantom("test", n=16, overlap=True)
    model = small_resnet((1, 64, 64), 2, random_state=0)
    return Prepared(task, config, train, test, None, model, train.images[:2], found, training_seconds=0.0)


def with_labels(prepared, labels):
    """The same with segments (N, H, W) of our own."""
    n = len(labels)
    segments = Segments(
        labels, torch.full((n, 2), 0.5), torch.zeros(n, 2, 2), torch.eye(2).repeat(n, 2, 1, 1),
        torch.zeros(n), torch.zeros(n),
    )  # fmt: skip
    found = make_alignment_set(
        prepared.train, prepared.alignment_set.indices, prepared.alignment_set.attributions, segments,
        prepared.config.description,
    )  # fmt: skip
    return dataclasses.replace(prepared, alignment_set=found)


def test_masks_that_are_the_letters_are_perfect(prepared):
    letters = prepared.train.spurious_masks
    ours = with_labels(prepared, torch.where(letters, 0, torch.where(prepared.train.core_masks, 1, -1)))
    quality = overlap_arms.mask_quality(ours, torch.tensor([[1, 0]] * 8))
    assert quality == pytest.approx(
        {"purity": 1, "covered": 1, "off": 0, "on_core": 0, "core_masked": 0, "overlap": 1}
    )


def test_one_segment_for_all_masks_letter_and_joint_alike(prepared):
    letters, core = prepared.train.spurious_masks, prepared.train.core_masks
    ours = with_labels(prepared, torch.where(letters | core, 0, -1))
    quality = overlap_arms.mask_quality(ours, torch.tensor([[1, 0]] * 8))
    # On even maps the effect is the area.
    share = (letters.sum((1, 2)) / (letters | core).sum((1, 2))).double()
    assert quality["covered"] == quality["core_masked"] == 1
    assert quality["off"] == quality["on_core"] == pytest.approx(1 - share.mean().item())
    assert quality["overlap"] == pytest.approx(share.mean().item())
    assert quality["purity"] == pytest.approx(torch.maximum(share, 1 - share).mean().item())


def test_without_masks_nothing_is_covered_and_no_share_of_a_mask_is_known(prepared):
    quality = overlap_arms.mask_quality(prepared, torch.zeros(8, 2, dtype=torch.int64))
    assert quality["covered"] == quality["core_masked"] == quality["overlap"] == 0
    assert math.isnan(quality["off"])
    assert math.isnan(quality["on_core"])


def test_feature_weight_zero_is_the_mixture_over_positions(prepared):
    spatial, hybrid = (overlap_arms.resegmented(prepared, weight) for weight in (0.0, 1.0))
    assert torch.equal(spatial.alignment_set.segments.labels, prepared.alignment_set.segments.labels)
    assert spatial.alignment_set.segments.means.shape[2] == 2
    assert hybrid.alignment_set.segments.means.shape[2] == 3
    assert hybrid.model is prepared.model
    assert (spatial.config.fill, hybrid.config.fill) == (prepared.config.fill, overlap_arms.HYBRID_FILL)


def test_filling_holds_as_much_of_a_gaussian_with_features_as_without(prepared):
    images, maps = prepared.train.images, prepared.alignment_set.attributions
    filling = dataclasses.replace(prepared.config, fill=6.0)
    # Quantiles of chi-squared at 1 - exp(-3): 6 in two dimensions by definition, 7.81 in three (tables).
    for weight, distance in ((0.0, 6.0), (1.0, 7.81)):
        config = dataclasses.replace(filling, feature_weight=weight)
        features = {"features": images, "feature_weight": weight} if weight else {}
        mixtures = ppeps_wgm(maps, 2, random_state=0, tol=config.tolerance, **features)
        expected = filled(mixtures, distance, features=images if weight else None)
        differ = segment(config, images, maps).labels != expected.labels
        assert differ.double().mean() < 1e-3


def test_the_perfect_critic_is_always_right_and_rows_are_complete(prepared):
    rows = overlap_arms.segment_rows(prepared, (0.0, 1.0))
    assert [(row["feature_weight"], row["critic"]) for row in rows] == [
        (0.0, "perfect"), (0.0, "lexicon"), (1.0, "perfect"), (1.0, "lexicon"),
    ]  # fmt: skip
    assert all(row["verdict_accuracy"] == 1 for row in rows if row["critic"] == "perfect")


def test_the_dial_runs_from_the_image_as_it_is_to_its_twin_without_the_letter(prepared, monkeypatch):
    seen = []

    def watched(again, weight, features):
        seen.append(features)
        return resegmented(again, weight, features)

    resegmented = overlap_arms.resegmented
    images = prepared.train.images
    twins = knee_phantom("train", n=8, marker_rate=(0, 0), overlap=True).images
    monkeypatch.setattr(
        Knee, "load", lambda *_, **of: knee_phantom("train", n=8, marker_rate=(0, 0), overlap=True)
    )
    monkeypatch.setattr(overlap_arms, "resegmented", watched)
    rows = overlap_arms.dial_rows(prepared, (0.0, 0.5, 1.0))
    assert [(row["arm"], row["contrast"], row["critic"]) for row in rows] == [
        ("dial", t, "perfect") for t in (0.0, 0.5, 1.0)
    ]
    torch.testing.assert_close(seen[0], twins)
    torch.testing.assert_close(seen[1], (images + twins) / 2)
    torch.testing.assert_close(seen[2], images)
    whole = resegmented(prepared, 1.0)
    quality = overlap_arms.mask_quality(whole, overlap_arms.judged(whole, "perfect"))
    assert {key: rows[2][key] for key in quality} == pytest.approx(quality)


@pytest.fixture(scope="module")
def aligned(prepared):
    return pd.DataFrame(overlap_arms.aligned_rows(prepared, ("perfect",)))


@pytest.mark.slow
def test_every_arm_is_aligned_from_the_same_model_and_stands_beside_its_controls(prepared, aligned):
    fresh = small_resnet((1, 64, 64), 2, random_state=0).state_dict()
    assert all(torch.equal(fresh[name], value) for name, value in prepared.model.state_dict().items())
    assert aligned["arm"].tolist() == [
        "before",
        "finetune",
        *np.repeat(["true masks", "spatial", "hybrid"], 2),
    ]
    assert aligned["control"].fillna("").tolist() == ["", "", *["", "placebo"] * 3]
    assert (aligned["wga"] <= aligned["aga"]).all()
    assert aligned["aga"].between(0, 1).all()


@pytest.mark.slow
def test_a_control_shares_all_but_the_place_of_the_masks_or_the_penalty(prepared, aligned, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Prepared, "aligned",
        lambda self, masks, keep=None, **more: seen.append((masks, keep, more)) or self.model,
    )  # fmt: skip
    overlap_arms.aligned_rows(prepared, ("perfect",))
    (_, everyone, idle), *seen = seen
    assert everyone is None
    assert idle["penalty_weight"] == 0
    assert idle["learning_rate"] == prepared.config.align_learning_rate
    assert torch.equal(seen[0][0], prepared.train.spurious_masks)
    assert len(seen) == 6
    for (masks, keep, more), (moved, same, placebo) in zip(seen[::2], seen[1::2], strict=True):
        assert more == placebo == {}
        assert torch.equal(masks.sum((1, 2)), moved.sum((1, 2)))
        assert torch.equal(masks, moved) == (not masks.any())  # what is empty has no place
        assert keep.all()
        assert same.all()
    known = aligned.set_index(["arm", aligned["control"].fillna("")])
    assert known["on_feature"]["true masks", ""] == 1
    assert known["on_feature"]["true masks", "placebo"] == 0  # a letter is small enough to leave its place
    assert (aligned["n_taking_part"].dropna() == 8).all()
