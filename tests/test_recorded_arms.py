import dataclasses
from statistics import mean, stdev

import pandas as pd
import pytest
import torch
from scipy import stats

from lvlmva_lite import metrics, tasks
from lvlmva_lite.critic import recordings
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.types import segment_names
from lvlmva_lite.datasets import knee_phantom, load_decoy_mnist
from lvlmva_lite.experiments import recorded_arms
from lvlmva_lite.models import predict
from lvlmva_lite.pipeline import prepare
from lvlmva_lite.registry import EXPERIMENTS

ONE_IMAGE = {
    "knee": lambda: knee_phantom("validation", n=4, size=64),
    "decoy-mnist": lambda: load_decoy_mnist("validation"),
}


def untrained(dataset, seed, prompt="critic-2", **settings):
    """The recorded cases with a model that has learnt nothing, so that it is there at once."""
    task = tasks.get(dataset)()
    config = task.config(
        seed=seed, critic="recorded", n_explained=2,
        critic_settings=CriticSettings(model="claude", prompt=prompt), **settings,
    )  # fmt: skip
    shaped = ONE_IMAGE[dataset]()  # what a model takes, of the data's size
    return prepare(task, config, model=task.network(config, shaped, 0))


@pytest.fixture(scope="module")
def knee():
    return untrained("knee", 1)


@pytest.fixture(scope="module")
def arms(knee):
    return list(recorded_arms.recorded_arms(knee))


def by_hand(train, source, seed, prompt):
    """Sensitivity and specificity of the recorded words, segment by segment, in plain Python."""
    recording = recordings.find(source, seed)
    tally = {True: [0, 0], False: [0, 0]}
    for i, index in enumerate(recording.indices.tolist()):
        if index not in recording.answers[prompt]:
            continue
        said = recording.answers[prompt][index].verdicts
        for j, letter in enumerate(segment_names(recording.n_segments)):
            inside = recording.segment_labels[i] == j
            if not inside.any() or said.get(letter, "undecided") == "undecided":
                continue
            effect = recording.attributions[i].clamp_min(0).double()
            on_it = effect[inside & train.spurious_masks[index]].sum()
            spurious = bool(on_it > 0.5 * effect[inside].sum())
            tally[spurious][0] += (said[letter] == "spurious") == spurious
            tally[spurious][1] += 1
    return tuple(right / all_ for right, all_ in (tally[True], tally[False]))


@pytest.mark.parametrize(
    ("source", "prompt"),
    [("knee-phantom", "critic-2"), ("decoy-mnist", "critic-1"), ("decoy-mnist", "critic-2")],
)
def test_sensitivity_and_specificity_are_those_of_the_recorded_words(source, prompt, arms, knee):
    seed = 1 if source == "knee-phantom" else 0
    ready = knee if source == "knee-phantom" else untrained("decoy-mnist", 0, prompt)
    found = arms if source == "knee-phantom" else recorded_arms.recorded_arms(ready)
    kinds = next(arm.kinds for arm in found if arm.name == prompt)
    scores = metrics.verdict_scores(kinds, ready.alignment_set.truth)
    assert (scores["sensitivity"], scores["specificity"]) == pytest.approx(
        by_hand(ready.train, source, seed, prompt)
    )


def test_every_arm_is_of_the_recorded_cases_and_has_masks_of_its_own(knee, arms):
    recording = knee.task.recording(knee.config)
    assert knee.alignment_set.indices.tolist() == recording.indices.tolist()
    assert [(arm.name, arm.mask, arm.mask_near) for arm in arms] == [
        ("critic-2", "spurious", 0.5),
        ("critic-2", "spurious", 0.0),
        ("critic-2", "spurious+background", 0.5),
        ("right verdicts", "spurious", 0.5),
        ("right verdicts", "spurious", 0.0),
        ("lexicon", "spurious", 0.5),
        ("simulated 0.42", "spurious", 0.5),
        ("simulated 0.87", "spurious", 0.5),
        ("true masks", None, None),
        ("nothing", None, None),
    ]
    by = {(arm.name, arm.mask, arm.mask_near): arm for arm in arms}
    assert all(len(arm.masks) == len(arm.keep) == len(recording.indices) for arm in arms)
    assert not by["nothing", None, None].masks.any()
    assert by["nothing", None, None].keep.all()
    assert torch.equal(by["true masks", None, None].masks, knee.train.spurious_masks[recording.indices])
    near, whole, broad = (arm.masks for arm in arms[:3])
    assert (near <= whole).all()
    assert near.sum() < whole.sum()
    assert (near <= broad).all()
    assert near.sum() < broad.sum()
    # Whole segments by the words: all pixels of each segment that the answer calls spurious, and no other.
    for i, index in enumerate(recording.indices.tolist()):
        said = recording.answers["critic-2"][index].verdicts
        called = [j for j, name in enumerate(segment_names(6)) if said.get(name) == "spurious"]
        assert torch.equal(whole[i], torch.isin(recording.segment_labels[i], torch.tensor(called)))


def test_both_prompts_are_compared_on_the_cases_that_both_answered():
    weak = untrained("decoy-mnist", 0, "critic-1")
    names = {arm.name for arm in recorded_arms.recorded_arms(weak)}
    assert {"critic-1", "critic-2"} <= names
    assert set(weak.alignment_set.indices.tolist()) == set(
        weak.task.recording(weak.config).answers["critic-1"]
    )
    strong = untrained("decoy-mnist", 0, "critic-2")
    assert "critic-1" not in {arm.name for arm in recorded_arms.recorded_arms(strong)}


def test_a_right_critic_is_the_simulated_one_that_never_errs(knee, arms):
    right = next(arm for arm in arms if arm.name == "right verdicts")
    simulated = knee.verdicts("simulated", CriticSettings(simulated_accuracy=1.0))
    assert torch.equal(right.kinds, simulated)


def test_a_row_is_what_an_alignment_of_its_own_gives(knee, arms, monkeypatch):
    small = dataclasses.replace(
        knee,
        test=knee.test.subset(torch.arange(0, len(knee.test), 10)),
        config=dataclasses.replace(knee.config, align_epochs=1),
    )
    chosen = [arms[0], arms[-1]]
    monkeypatch.setattr(recorded_arms, "recorded_arms", lambda prepared: iter(chosen))
    # The alignment set is looked up in the training data, which stay whole; an epoch is of a few of them.
    align = recorded_arms.Prepared.aligned
    calls = []

    def fewer(self, masks, keep, **settings):
        calls.append(settings)
        short = dataclasses.replace(
            self, train=self.chosen.subset(torch.arange(60)),
            alignment_set=dataclasses.replace(self.alignment_set, indices=torch.arange(60)),
        )  # fmt: skip
        return align(short, masks, keep, **settings)

    monkeypatch.setattr(recorded_arms.Prepared, "aligned", fewer)
    rows = recorded_arms.recorded_rows(small, (0, 5))
    assert [(row["arm"], row["alignment_seed"]) for row in rows] == [
        ("critic-2", 0), ("critic-2", 5), ("nothing", 0), ("nothing", 5),
    ]  # fmt: skip
    model = fewer(small, chosen[0].masks, chosen[0].keep, random_state=5)
    right = predict(model, small.test.images) == small.test.labels
    groups = [right[small.test.groups == g].double().mean().item() for g in range(4)]
    assert rows[1]["accuracy_after"] == pytest.approx(right.double().mean().item())
    assert rows[1]["wga_after"] == pytest.approx(min(groups))
    assert rows[1]["aga_after"] == pytest.approx(mean(groups))
    assert rows[1]["mask_area"] == pytest.approx(int(chosen[0].masks.sum()) / (60 * 64 * 64))
    before = predict(small.model, small.test.images) == small.test.labels
    for row in rows:
        assert row["accuracy_before"] == pytest.approx(before.double().mean().item())
    assert rows[2]["mask_area"] == 0
    assert rows[2]["verdict_sensitivity"] is None
    assert {row["n_cases"] for row in rows} == {60}
    assert {call["random_state"] for call in calls} == {0, 5}


def test_gains_are_means_over_the_alignment_seeds_and_shares_of_right_verdicts():
    def rows(arm, after, mask="spurious", near=0.5):
        about = {
            "seed": 0, "source": "knee-phantom", "n_cases": 60, "arm": arm, "mask": mask, "mask_near": near,
            "default": near in (0.5, None),
        }  # fmt: skip
        return [
            about | {"alignment_seed": i, "wga_before": 0.2, "wga_after": v} for i, v in enumerate(after)
        ]

    table = pd.DataFrame(
        [
            *rows("critic-2", [0.5, 0.4, 0.6]),
            *rows("right verdicts", [0.6, 0.5, 0.7]),
            *rows("right verdicts", [0.3, 0.3, 0.3], near=0.0),
            *rows("nothing", [0.2, 0.2, 0.2], None, None),
        ]
    )
    found = recorded_arms.gains(table)
    assert found["arm"].tolist() == ["critic-2", "right verdicts", "right verdicts", "nothing"]
    assert found["gain"].tolist() == pytest.approx([0.3, 0.4, 0.1, 0.0])
    assert found["share"].tolist() == pytest.approx([0.75, 1.0, 0.25, 0.0])
    half = stats.t.ppf(0.975, 2) * stdev([0.3, 0.2, 0.4]) / 3**0.5
    assert found.loc[0, ["low", "high"]].tolist() == pytest.approx([0.3 - half, 0.3 + half])


def test_the_sweep_takes_every_recorded_set_that_needs_no_files(monkeypatch):
    asked = []
    monkeypatch.setattr(
        recorded_arms, "set_rows", lambda task, config: asked.append((task.source, config.seed)) or []
    )
    for seed in range(7):
        EXPERIMENTS.get("recorded_masks")(seed)
    without_files = {
        (source, seed)
        for source, seed in recordings.recorded_sets()
        if source in ("decoy-mnist", "knee-phantom", "skin-phantom")
    }
    assert set(asked) == without_files
    assert len(asked) == len(without_files)
    assert recorded_arms.real_recorded_sweep("knee", 3, data_root="no/such/folder") == []
