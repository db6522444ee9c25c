import dataclasses
import functools
import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lvlmva_lite import baselines, methods, pipeline
from lvlmva_lite.baselines import SUPERVISION
from lvlmva_lite.config import FITTED_ON, METHODS, Config, ConfigError
from lvlmva_lite.datasets import ShortcutDataset, knee_phantom, skin_phantom
from lvlmva_lite.models import predict
from lvlmva_lite.streams import stream

TINY = {
    "image_size": 32, "train_epochs": 1, "n_align": 20, "n_baselines": 2, "n_explained": 4,
    "align_epochs": 1, "batch_size": 32, "n_segments": 3,
}  # fmt: skip
N_IMAGES = {"train": 200, "validation": 80, "test": 80}


@functools.cache
def few(dataset, split, seed, clean):
    draw = {"knee": knee_phantom, "skin": skin_phantom}[dataset]
    rate = (0.0, 0.0) if clean else None
    return draw(split, size=32, n=N_IMAGES[split], marker_rate=rate, random_state=seed)


@pytest.fixture
def few_images(monkeypatch):
    """Splits of a few small phantoms in place of thousands."""

    def load(config, split, *, clean=False):
        return few(config.dataset, split, config.seed, clean)

    for module in (pipeline, methods):
        monkeypatch.setattr(module, "load_split", load)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_its_summary_is_what_its_models_do(few_images, method):
    result = methods.run(Config(dataset="knee", method=method, **TINY))
    summary = result.summary()
    test = few("knee", "test", 0, False)
    for when in ("before", "after"):
        right = predict(result.models[when], test.images) == test.labels
        groups = [right[test.groups == g].double().mean().item() for g in range(4)]
        assert summary[f"wga_{when}"] == pytest.approx(min(groups))
        assert summary[f"aga_{when}"] == pytest.approx(sum(groups) / 4)
        assert summary[f"accuracy_{when}"] == pytest.approx(right.double().mean().item())
        assert [of[when] for of in summary["groups"].values()] == pytest.approx(groups)
    for measure in ("wga", "aga"):
        change = summary[f"{measure}_after"] - summary[f"{measure}_before"]
        assert summary[f"delta_{measure}"] == pytest.approx(change)
    asked = method in ("lvlm-va", "placebo")
    assert (summary["verdict_accuracy"] is not None) == asked
    assert (summary["critic"] is not None) == asked
    masked = few("knee", "train", 0, False).spurious_masks[result.indices].flatten(1).any(1)
    assert summary["spurious_share_align"] == pytest.approx(masked.double().mean().item())
    if method == "rrr-gt":
        assert summary["n_cases_judged_spurious"] == masked.sum()
    assert len(summary["trials"]) == len(methods.TRIALS[method])
    assert methods.ROWS[method] in methods.format_table(result)


def test_every_method_has_a_name_and_as_many_trials_as_the_others():
    assert set(methods.ROWS) == set(methods.TRIALS) == set(METHODS)
    assert {len(trials) for trials in methods.TRIALS.values()} == {2}
    assert {"SUBG", "DFR", "JTT"} <= set(SUPERVISION) & set(methods.ROWS.values())


@pytest.mark.slow
def test_a_run_is_reproducible_and_keeps_its_first_model(few_images):
    config = Config(dataset="skin", method="finetune", **TINY)
    one, other = methods.run(config), methods.run(config)
    for when in ("before", "after"):
        for a, b in zip(one.models[when].parameters(), other.models[when].parameters(), strict=True):
            assert torch.equal(a, b)
    trained = pipeline.trained(config, few("skin", "train", 0, False))
    changed = []
    for start, a, b in zip(
        trained.parameters(),
        one.models["before"].parameters(),
        one.models["after"].parameters(),
        strict=True,
    ):
        assert torch.equal(start, a)
        changed.append(not torch.equal(a, b))
    assert any(changed)


def answers_of(wrong):
    """A data set of two groups of ten, and a model that errs on ``wrong`` of group 1."""
    labels = torch.zeros(20, dtype=torch.int64)
    labels[20 - wrong :] = 1
    return labels


class Constant(torch.nn.Module):
    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def forward(self, images):
        return torch.nn.functional.one_hot(self.answers, 2).float()


def two_groups():
    return ShortcutDataset(
        torch.zeros(20, 1, 2, 2), torch.zeros(20, dtype=torch.int64), torch.arange(20) // 10,
        torch.zeros(20, 2, 2, dtype=torch.bool), ("a", "b"), ("first", "second"), "two groups",
    )  # fmt: skip


@pytest.mark.parametrize(("errors", "best"), [((3, 1), 1), ((1, 3), 0), ((2, 2), 0)])
def test_the_trial_of_the_best_worst_group_is_taken_and_of_equals_the_first(errors, best):
    made = []

    def make(trial):
        made.append(trial)
        return methods.Fitted(Constant(answers_of(errors[len(made) - 1])), ())

    best_of_all, tried = methods.best_trial(make, "subg", two_groups())
    assert made == list(methods.TRIALS["subg"])
    assert tried == [
        {**trial, "score": pytest.approx(1 - wrong / 10)}
        for trial, wrong in zip(methods.TRIALS["subg"], errors, strict=True)
    ]
    assert (best_of_all.model.answers != 0).sum() == errors[best]


def test_fewer_trials_are_the_first():
    fitted = methods.Fitted(Constant(answers_of(1)), ())
    _, tried = methods.best_trial(lambda trial: fitted, "subg", two_groups(), 1)
    assert len(tried) == 1
    assert tried[0].items() >= methods.TRIALS["subg"][0].items()


def test_an_empty_group_has_no_accuracy_and_is_not_the_worst():
    dataset = dataclasses.replace(two_groups(), group_names=("first", "second", "nobody"))
    groups = methods.groups_of(Constant(answers_of(5)), dataset)
    assert groups[:2].tolist() == [1.0, 0.5]
    assert math.isnan(groups[2])


def noise(n, seed=0):
    images = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(n) % 2
    return ShortcutDataset(
        images, labels, labels, torch.zeros(n, 4, 4, dtype=torch.bool), ("a", "b"), ("a", "b"), "noise"
    )


def learnt_by_heart(dataset):
    """A method that is right on whatever it was given, and on nothing else."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    design = torch.cat([dataset.images.flatten(1), torch.ones(len(dataset), 1)], 1)
    solution = torch.linalg.lstsq(design, 2.0 * dataset.labels - 1, driver="gelsd").solution
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([-solution[:-1], solution[:-1]]))
        model[1].bias.copy_(torch.stack([-solution[-1], solution[-1]]))
    return model


def test_a_method_fitted_on_the_validation_split_is_not_chosen_by_it():
    """The planted leak: a trial that learnt the validation samples by heart would win."""
    train, validation = noise(10), noise(10, seed=1)
    leaky = methods.Fitted(learnt_by_heart(validation), (train, validation))
    assert methods.groups_of(leaky.model, validation).tolist() == [1.0, 1.0]
    with pytest.raises(ConfigError, match=r"10 of the 10 images .* those that the model was fitted on"):
        methods.best_trial(lambda trial: leaky, "subg", validation)
    # One image is enough, wherever it stands.
    mixed = dataclasses.replace(validation, images=validation.images.clone())
    mixed.images[7] = train.images[2]
    honest = methods.Fitted(learnt_by_heart(train), (train,))
    methods.best_trial(lambda trial: honest, "subg", validation)
    with pytest.raises(ConfigError, match=r"1 of the 10 images to measure on \(the first is number 7\)"):
        methods.best_trial(lambda trial: honest, "subg", mixed)


def test_a_run_is_not_measured_on_what_its_method_was_fitted_on(few_images, monkeypatch):
    """The second planted leak: the choice is clean, the report would not be."""
    make = methods.candidates

    def leaky(prepared, method, spurious=None, *, progress=False):
        train = make(prepared, method, spurious, progress=progress)
        return lambda trial: dataclasses.replace(train(trial), data=(prepared.train, prepared.test))

    monkeypatch.setattr(methods, "candidates", leaky)
    with pytest.raises(ConfigError, match="80 of the 80 images to measure on"):
        methods.run(Config(dataset="knee", method="finetune", **TINY))


def test_what_a_method_is_fitted_on_is_what_it_declares(few_images):
    prepared = pipeline.prepare(Config(dataset="knee", **TINY))
    spurious = torch.zeros(20, 3)
    for method in METHODS:
        fitted = methods.candidates(prepared, method, spurious)(methods.TRIALS[method][0])
        for split in ("train", "validation", "test"):
            images = few("knee", split, 0, False)
            seen = any(images.also_in(data).any() for data in fitted.data)
            assert seen == (split in FITTED_ON[method]), (method, split)
        assert (fitted.held_out_score is not None) == ("validation" in FITTED_ON[method])


def test_dfr_is_chosen_by_the_half_that_was_held_out(few_images, monkeypatch):
    """Its scores are those of heads that never saw the samples they are scored on."""
    weak = ({"C": 1.0}, {"C": 3.0})  # penalties that let it learn by heart
    monkeypatch.setattr(methods, "TRIALS", methods.TRIALS | {"dfr": weak})
    config = Config(dataset="knee", method="dfr", **TINY)
    result = methods.run(config)
    validation = few("knee", "validation", 0, False)
    prepared = pipeline.prepare(config)
    with torch.no_grad():
        points = prepared.model.embed(validation.images).double().numpy()
    first, second = baselines._halves(validation.groups, stream(config.seed, "DFR's halves and subsets"))
    assert not set(first.tolist()) & set(second.tolist())
    for tried in result.trials:
        # The halves' groups are equally large, so that the balanced subset is the half.
        peer = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=tried["C"], l1_ratio=1, solver="saga", max_iter=5000, random_state=0),
        ).fit(points[first], validation.labels[first])
        right = peer.predict(points[second]) == validation.labels[second].numpy()
        groups = validation.groups[second].numpy()
        assert tried["score"] == pytest.approx(min(right[groups == g].mean() for g in range(4)))
    # Scored on all that it was fitted on it would look better; that is the leak.
    flattering = methods.groups_of(result.models["after"], validation).min().item()
    assert flattering > max(tried["score"] for tried in result.trials)


@pytest.mark.parametrize("method", ["subg", "dfr"])
def test_a_method_without_the_groups_it_needs_says_so(few_images, monkeypatch, method):
    config = Config(dataset="knee", method=method, **TINY)
    split = {"subg": "train", "dfr": "validation"}[method]
    whole = few("knee", split, 0, False)
    without = whole.subset((whole.groups != 3).nonzero()[:, 0])

    def load(config, wanted, *, clean=False):
        return without if wanted == split else few("knee", wanted, 0, clean)

    for module in (pipeline, methods):
        monkeypatch.setattr(module, "load_split", load)
    with pytest.raises(ConfigError, match="'moderate osteoarthritis, marker' has 0"):
        methods.run(config)


def test_true_masks_and_placebos_go_where_they_should(few_images, monkeypatch):
    used = {}

    def aligned(self, masks, keep=None, *, progress=False, **settings):
        used[method].append((masks, keep, settings))
        return self.model

    monkeypatch.setattr(pipeline.Prepared, "aligned", aligned)
    prepared = pipeline.prepare(Config(dataset="knee", mask_near=0.0, **TINY))
    kinds = torch.zeros(20, 3, dtype=torch.int64)
    kinds[:, 0] = 1
    kinds[7] = 3
    for method in ("lvlm-va", "placebo", "rrr-gt", "finetune"):
        used[method] = []
        make = methods.candidates(prepared, method, kinds)
        for trial in methods.TRIALS[method]:
            make(trial)
    for masks, keep, _ in used["rrr-gt"]:
        assert torch.equal(masks, prepared.chosen.spurious_masks)
        assert keep.all()
    for masks, keep, settings in used["finetune"]:
        assert not masks.any()
        assert keep.all()
        assert settings["penalty_weight"] == 0
    in_first = prepared.found.segments.labels == 0
    for (masks, keep, _), (moved, moved_keep, _) in zip(used["lvlm-va"], used["placebo"], strict=True):
        assert torch.equal(masks[keep], in_first[keep])
        assert torch.equal(masks.flatten(1).sum(1), moved.flatten(1).sum(1))
        assert not torch.equal(masks, moved)
        assert torch.equal(keep, moved_keep)
        assert keep.tolist() == [i != 7 for i in range(20)]
    for method in ("lvlm-va", "placebo", "rrr-gt"):
        weights = [settings["penalty_weight"] for *_, settings in used[method]]
        assert weights == [trial["strength"] for trial in methods.TRIALS[method]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "knee", "method": "erm"}, "unknown method 'erm'; choose one of: lvlm-va"),
        ({"dataset": "decoy-mnist", "method": "subg"}, "these are for knee and skin"),
        ({"dataset": "knee", "data_root": "no/such/folder"}, "there is no folder no/such/folder"),
        (
            {"dataset": "knee", "method": "dfr", "evaluate_on": "validation"},
            "dfr is fitted on the validation",
        ),
        ({"dataset": "skin", "method": "dfr", "evaluate_on": "validation"}, "leave evaluate_on at 'test'"),
        ({"dataset": "knee", "n_align": 0}, "n_align"),
        ({"dataset": "knee", "image_size": 16}, "image_size must lie between 32"),
        (
            {"dataset": "knee", "image_size": 512},
            "image_size must lie between 32 and 224, the sizes in which",
        ),
        ({"dataset": "skin", "image_size": 225}, "between 32 and 224"),
        ({"dataset": "knee", "data_root": ".", "image_size": 1025}, "between 32 and 1024; got"),
        (
            {"batch_size": 32, "align_fraction": 0.99},
            "align_fraction 0.99 of batch_size 32 leaves no plain",
        ),
        (
            {"batch_size": 2, "align_fraction": 0.2},
            "align_fraction 0.2 of batch_size 2 leaves no alignment",
        ),
        ({"dataset": "knee", "data_root": ".", "overlap": True}, "overlap is for phantoms"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config(**settings)


@pytest.mark.parametrize("name", ["n_align", "n_baselines"])
def test_more_images_than_there_are_cannot_be_asked_for(few_images, name):
    with pytest.raises(
        ConfigError, match=f"{name} must be at most 200, the training images there are; got 201"
    ):
        methods.run(Config(dataset="knee", **TINY | {name: 201}))


def test_the_method_of_chapter_00_is_not_run_on_groups():
    with pytest.raises(ConfigError, match=r"methods\.run runs knee"):
        pipeline.run(Config(dataset="knee", **TINY))
