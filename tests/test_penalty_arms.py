import pytest
import torch

from lvlmva_lite import metrics, pipeline
from lvlmva_lite.critic.recordings import recorded_sets
from lvlmva_lite.crossed import letter_effect
from lvlmva_lite.datasets import knee_phantom
from lvlmva_lite.experiments import cut_out_arms, penalty_arms
from lvlmva_lite.fills import FILLS
from lvlmva_lite.models import predict, predict_logits
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.tasks import Knee

TINY = {
    "train_epochs": 1, "n_align": 20, "n_baselines": 2, "n_explained": 4,
    "align_epochs": 1, "batch_size": 32, "n_segments": 3,
}  # fmt: skip
FEW = {"rrr": penalty_arms.PENALTIES["rrr"], "noise": penalty_arms.OTHER_FILLS["noise"]}


@pytest.fixture(scope="module")
def prepared():
    def few(task, split, seed, rate):
        n = 160 if split == "train" else 60
        return knee_phantom(split, size=32, n=n, marker_rate=rate, random_state=seed)

    task = Knee(image_size=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Knee, "_at_rate", few)
        yield pipeline.prepare(task, task.config(**TINY))


@pytest.fixture(scope="module")
def rows(prepared):
    return penalty_arms.penalty_rows(prepared, FEW, (0.0, 5.0), placebo=True)


def test_every_penalty_meets_every_mask_with_every_weight(rows):
    assert [(row["masks"], row["penalty"], row.get("penalty_weight")) for row in rows] == [
        ("none", "before", None),
        ("none", "never saw it", None),
        *[
            (masks, penalty, weight)
            for masks in ("true", "lexicon", "placebo")
            for penalty in FEW
            for weight in (0.0, 5.0)
        ],
    ]
    assert {*penalty_arms.PENALTIES, *penalty_arms.OTHER_FILLS} == {"rrr", "cdep", *FILLS}
    for masks in ("true", "lexicon", "placebo"):  # without weight the penalty does not matter
        of = [row for row in rows if row["masks"] == masks and row["penalty_weight"] == 0]
        first, *others = ([row["wga"], row["conflict_auc"], row["letter_effect"]] for row in of)
        assert all(other == pytest.approx(first) for other in others)
        of = [row for row in rows if row["masks"] == masks and row["penalty_weight"] == 5]
        assert len({row["letter_effect"] for row in of}) == len(FEW)


def test_weights_are_chosen_by_the_validation_split_alone(rows):
    for masks in ("true", "lexicon", "placebo"):
        for penalty in FEW:
            trials = [row for row in rows if (row["masks"], row["penalty"]) == (masks, penalty)]
            (chosen,) = (row for row in trials if row["chosen"])
            best = max(row["wga_validation"] for row in trials)
            assert chosen is next(row for row in trials if row["wga_validation"] == best)


def test_other_fills_are_tried_under_the_masks_that_are_named(prepared):
    rows = penalty_arms.penalty_rows(prepared, {}, (0.0,), fills_under="lexicon")
    assert [(row["masks"], row["penalty"]) for row in rows[2:]] == [
        ("lexicon", fill) for fill in FILLS if fill != "surroundings"
    ]


def test_rows_are_what_the_models_do(prepared, rows):
    test, z = prepared.test, []
    for twin in (prepared.clean_test, prepared.marked_test):
        z.append(predict_logits(prepared.model, twin.images).diff(dim=1)[:, 0])
    before = rows[0]
    right = predict(prepared.model, test.images) == test.labels
    assert before["accuracy"] == pytest.approx(right.double().mean().item())
    assert before["letter_effect"] == pytest.approx(letter_effect(-z[0], -z[1]))
    masks = prepared.chosen.spurious_masks
    model = prepared.changed(penalty="finite-difference", penalty_fill="noise").aligned(
        masks, penalty_weight=5.0
    )
    of_groups = pipeline.groups_of(model, test)
    (row,) = (
        row for row in rows if [row[k] for k in ("masks", "penalty")] == ["true", "noise"]
        and row["penalty_weight"] == 5
    )  # fmt: skip
    assert row["wga"] == pytest.approx(metrics.worst_group_accuracy(of_groups))


def test_placebo_masks_are_as_large_as_those_they_stand_for(prepared):
    by = {name: masks for name, masks, _ in penalty_arms.masks_to_compare(prepared, placebo=True)}
    assert [*by] == ["true", "lexicon", "placebo"]
    assert torch.equal(by["true"], prepared.chosen.spurious_masks)
    assert torch.equal(by["placebo"].sum((1, 2)), by["lexicon"].sum((1, 2)))


def test_cdep_is_tried_from_both_origins_under_masks_right_and_wrong(prepared):
    rows = cut_out_arms.cut_out_rows(prepared)
    assert [(row["masks"], row["origin"]) for row in rows] == [
        ("none", None), ("lexicon", "black"), ("lexicon", "surroundings"),
        ("placebo", "black"), ("placebo", "surroundings"),
    ]  # fmt: skip
    assert len({row["letter_effect"] for row in rows}) == 5
    (_, masks, keep) = [*penalty_arms.masks_to_compare(prepared)][1]
    by_name = prepared.changed(penalty="cdep").aligned(masks, keep)
    assert rows[1]["letter_effect"] == prepared.score(by_name)["letter_effect"]


def test_the_experiments_are_known_by_name():
    assert EXPERIMENTS.get("knee_penalties").func is penalty_arms.penalty_sweep
    assert EXPERIMENTS.get("knee_penalties_real").func is penalty_arms.real_penalty_sweep
    assert ("knee", 0) in recorded_sets()
