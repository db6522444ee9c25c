import pytest

from lvlmva_lite import tasks
from lvlmva_lite.experiments.near_arms import ACCURACIES, NEARS, near_rows
from lvlmva_lite.pipeline import prepare
from lvlmva_lite.registry import EXPERIMENTS


def test_both_phantoms_have_the_experiment():
    assert {"knee_near", "skin_near"} <= {*EXPERIMENTS.names()}


@pytest.mark.slow
def test_the_nearer_the_smaller_the_mask_and_the_split_is_that_of_validation():
    task = tasks.get("decoy-mnist")()
    config = task.config(
        n_align=60, train_epochs=1, align_epochs=1, n_explained=20, keep_unjudged=True, evaluate_on="validation"
    )  # fmt: skip
    prepared = prepare(task, config)
    assert len(prepared.test) == len(task.load("validation", seed=0))
    before, *rows = near_rows(prepared)
    assert before["accuracy"] == prepared.score(prepared.model)["accuracy"]
    critics = ["lexicon", *(f"simulated {accuracy:g}" for accuracy in ACCURACIES)]
    assert [(row["critic"], row["mask_near"]) for row in rows] == [
        (critic, near) for critic in critics for near in NEARS
    ]
    for critic in critics:
        areas = [row["mask_area"] for row in rows if row["critic"] == critic]
        whole, *near = areas
        assert near == sorted(near, reverse=True)
        assert 0 < near[0] <= whole
