import pytest

from lvlmva_lite import tasks
from lvlmva_lite.experiments import mask_arms
from lvlmva_lite.experiments.mask_arms import WAYS, mask_rows
from lvlmva_lite.registry import EXPERIMENTS


def test_every_phantom_and_the_digits_have_the_experiment():
    assert {f"{name}_masks" for name in ("decoy", "knee", "skin")} <= {*EXPERIMENTS.names()}


@pytest.mark.slow
def test_each_way_masks_what_it_says():
    task = tasks.get("decoy-mnist")()
    config = task.config(n_align=60, train_epochs=1, align_epochs=1, n_explained=20, keep_unjudged=True)
    prepared = mask_arms.prepare(task, config)
    before, *judged, true = mask_rows(prepared)
    assert before["accuracy"] == prepared.score(prepared.model)["accuracy"]
    assert {(row["critic"], row["way"]) for row in judged} == {
        (critic, way)
        for critic in ("lexicon", "simulated 0.42", "simulated 0.87", "simulated 1")
        for way in WAYS
    }
    area = {(row["critic"], row["way"]): row["mask_area"] for row in judged}
    for critic in {critic for critic, _ in area}:
        near, whole, broad, broadest = (area[critic, way] for way in WAYS)
        assert 0 < near <= whole <= broadest
        assert near <= broad <= broadest
    assert area["lexicon", "whole segments"] < area["lexicon", "whole, with background"]
    # The square covers 16 of 784 pixels of each image.
    assert true["mask_area"] == pytest.approx(16 / 784)
    right = next(row for row in judged if row["critic"] == "simulated 1")
    assert right["verdict_sensitivity"] == right["verdict_specificity"] == 1.0
