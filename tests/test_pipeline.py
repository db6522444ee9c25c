import dataclasses

import pytest
import torch
from few_decoys import FewDecoys

from lvlmva_lite import methods, pipeline
from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.critic import Verdict
from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.registry import PENALTIES
from lvlmva_lite.results import ROWS
from lvlmva_lite.tasks import DecoyMNIST, Knee

TASK, FEW = DecoyMNIST(), FewDecoys()
SMALL = TASK.config(n_align=40, n_segments=3, train_epochs=1, align_epochs=1, n_baselines=5, n_explained=20)


@pytest.fixture(scope="module")
def small_run():
    return methods.run(FEW, SMALL)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; choose one of: auto, cpu, cuda"),
        ({"critic": "oracle"}, "unknown critic 'oracle'; choose one of: lexicon"),
        ({"sampling": "mid"}, "choose one of: low, random, high"),
        ({"explain": "why"}, "choose one of: contrast, logit"),
        ({"evaluate_on": "train"}, "choose one of: test, validation"),
        ({"n_segments": 0}, r"n_segments \(J\) must lie between 1 and 50; got 0"),
        ({"n_align": 0}, r"n_align \(N\) must lie between 1 and"),
        (
            {"segmenter": "watershed"},
            "unknown segmenter 'watershed'; choose one of: ppeps-wgm, felzenszwalb",
        ),
        ({"penalty": "l1"}, "unknown penalty 'l1'; choose one of: rrr, jacobian"),
        ({"explainer": "saliency"}, "unknown explainer 'saliency'; choose one of: deeplift-shap"),
        ({"fill": "much"}, "fill must be a number; got 'much'"),
        ({"decay": 1}, "decay must be True or False; got 1"),
        ({"seed": -1}, "seed must lie between 0"),
        ({"seed": "abc"}, "seed must be a whole number; got 'abc'"),
        ({"n_align": 2.5}, "must be a whole number; got 2.5"),
        ({"penalty_weight": -0.1}, "lambda must be a number of at least 0; got -0.1"),
        ({"penalty_weight": float("nan")}, "got nan"),
        ({"align_fraction": 1.0}, "got 1.0"),
        ({"align_learning_rate": 0.0}, "got 0.0"),
        ({"description": "Be fair."}, "understands nothing of the description 'Be fair.'"),
        ({"description": ""}, "the description is empty"),
        ({"description": " \n"}, "the description is empty"),
        ({"description": "The watermark in the corner is irrelevant."}, "understands nothing of"),
    ],
)
def test_settings_are_refused_with_the_value_and_the_mend(setting, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **setting)


def test_no_description_means_the_one_that_ships():
    assert "square" in TASK.config().description
    assert Config(description=" The stroke is irrelevant. ").description == "The stroke is irrelevant."


def test_every_intermediate_is_kept_and_fits(small_run):
    assert len(small_run.indices) == len(small_run.critiques) == len(small_run.verdicts) == 40
    assert small_run.attributions.shape == small_run.masks.shape == (40, 28, 28)
    assert small_run.kinds.shape == (40, 3)
    # The mask is the union of the spurious segments, rebuilt here pixel by pixel.
    for i in range(40):
        expected = torch.zeros(28, 28, dtype=torch.bool)
        for j in range(3):
            if small_run.verdicts[i].kinds[j] == "spurious":
                expected |= small_run.segments.labels[i] == j
        assert torch.equal(small_run.masks[i], expected)


def test_same_config_same_numbers(small_run):
    again = methods.run(FEW, SMALL)
    strip = lambda result: {  # noqa: E731
        row: dataclasses.replace(score, seconds=0) for row, score in result.scores.items()
    }
    assert strip(again) == strip(small_run)


def test_alignment_leaves_the_model_before_untouched(small_run):
    before, after = (small_run.models[row][1].weight for row in ("before", "after"))
    assert not torch.equal(before, after)


def test_known_critiques_are_not_asked_for_again(small_run):
    asked = []
    known = {(critique.case_id, critique.sample): critique for critique in small_run.critiques[:30]}
    again = methods.run(FEW, SMALL, known_critiques=known, on_critique=asked.append)
    assert asked == small_run.critiques[30:]
    assert again.critiques == small_run.critiques


def test_a_sentence_that_condemns_nothing_still_runs():
    result = methods.run(FEW, dataclasses.replace(SMALL, description="The pen stroke tells the digit."))
    assert not result.masks.any()
    assert result.scores["after"].verdict_accuracy < 1


def test_verdicts_become_the_places_of_their_kinds():
    matrix = pipeline.verdict_matrix(
        [Verdict("a", "j", ("spurious", "undecided", "relevant", "background"))]
    )
    assert matrix.dtype == torch.int64
    assert [[KINDS[code] for code in row] for row in matrix.tolist()] == [
        ["spurious", "undecided", "relevant", "background"]
    ]
    with pytest.raises(ValueError, match="'irrelevant'"):
        Verdict("a", "j", ("irrelevant",))


def test_table_has_a_row_for_every_model(small_run):
    lines = small_run.table().splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    for name in ROWS.values():
        assert any(line.startswith(name) for line in lines)


@pytest.mark.slow
def test_default_settings_reach_what_the_book_promises_and_the_promise_has_teeth():
    """Cured from a deep shortcut, close to the true masks, in a seed that no chapter runs.

    Without the penalty, or with the wrong sentence, the shortcut stays.
    """
    prepared = pipeline.prepare(TASK, TASK.config(seed=1, n_explained=100))
    kinds = prepared.verdicts()
    wrong_sentence = "The stroke thickness means nothing."
    cases = [dataclasses.replace(case, description=wrong_sentence) for case in prepared.alignment_set.cases]
    misled = dataclasses.replace(
        prepared, alignment_set=dataclasses.replace(prepared.alignment_set, cases=cases)
    )
    models = {
        "before": prepared.model,
        "after": prepared.aligned_by_verdicts(kinds),
        "true masks": prepared.aligned(prepared.chosen.spurious_masks),
        "no penalty": prepared.aligned_by_verdicts(kinds, penalty_weight=0.0),
        "wrong sentence": misled.aligned_by_verdicts(misled.verdicts()),
    }
    scores = {name: prepared.score(model) for name, model in models.items()}
    print(scores)
    accuracy = {name: score["accuracy"] for name, score in scores.items()}
    assert accuracy["before"] <= 0.65
    assert accuracy["after"] >= 0.90
    assert accuracy["true masks"] - accuracy["after"] <= 0.05
    assert scores["after"]["mu_align"] > scores["before"]["mu_align"]
    assert accuracy["no penalty"] < 0.80
    assert accuracy["wrong sentence"] < 0.80


def test_a_gpu_that_is_not_there_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU here; use 'cpu' or 'auto'"):
        Knee().config(device="cuda")


def test_another_penalty_is_minimised_in_its_place():
    """Where the whole Jacobian is penalised, less of it is left than where one direction is."""
    left = {}
    prepared = pipeline.prepare(TASK, SMALL)
    masks, images = prepared.chosen.spurious_masks, prepared.chosen.images
    for penalty in PENALTIES.names():
        scale = "initial" if penalty == "cdep" else "none"
        changed = prepared.changed(penalty=penalty, penalty_weight=100.0, penalty_scale=scale)
        student = changed.aligned(masks)
        left[penalty] = {
            name: PENALTIES.get(name)(student, images, masks).item() for name in PENALTIES.names()
        }
    assert left["jacobian"]["jacobian"] < left["rrr"]["jacobian"]
    assert left["finite-difference"]["finite-difference"] < left["rrr"]["finite-difference"]
    assert left["cdep"]["cdep"] < left["rrr"]["cdep"]


def test_cdep_is_weighed_in_nats():
    with pytest.raises(ConfigError, match="choose the penalty_scale 'initial'"):
        DecoyMNIST().config(penalty="cdep", penalty_scale="none")


def test_the_results_keep_the_keys_of_earlier_ones(small_run):
    summary = small_run.summary()
    assert summary["scores"]["lvlm_va"] == summary["scores"]["after"]
    assert {"before", "ground_truth_masks", "never_saw_decoys"} <= set(summary["scores"])
    assert summary["accuracy_ground_truth_masks"] == small_run.scores["ground_truth_masks"].accuracy


def test_a_setting_that_is_none_is_told_with_the_options_of_the_task():
    with pytest.raises(ConfigError, match=r"unknown setting overlap; .* of the options of knee: data_root"):
        Knee().config(overlap=True)
