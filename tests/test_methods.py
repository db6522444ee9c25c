import dataclasses
import functools
import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lvlmva_lite import methods, pipeline
from lvlmva_lite.config import ConfigError
from lvlmva_lite.datasets import ShortcutDataset, knee_phantom, skin_phantom
from lvlmva_lite.methods.dfr import DFR, halves
from lvlmva_lite.models import predict, predict_logits
from lvlmva_lite.registry import RegistryError
from lvlmva_lite.streams import stream
from lvlmva_lite.tasks import DecoyMNIST, Knee, Skin

TINY = {
    "train_epochs": 1, "n_align": 20, "n_baselines": 2, "n_explained": 4,
    "align_epochs": 1, "batch_size": 32, "n_segments": 3,
}  # fmt: skip
KNEE, SKIN = Knee(image_size=32), Skin(image_size=32)
N_IMAGES = {"train": 200, "validation": 80, "test": 80}


@functools.cache
def few(dataset, split, seed, clean, marked=False):
    draw = {"knee": knee_phantom, "skin": skin_phantom}[dataset]
    rate = (1.0, 1.0) if marked else (0.0, 0.0) if clean else None
    return draw(split, size=32, n=N_IMAGES[split], marker_rate=rate, random_state=seed)


@pytest.fixture
def few_images(monkeypatch):
    """Splits of a few small phantoms in place of thousands."""

    def load(task, split, *, seed, clean=False):
        return few(task.name, split, seed, clean)

    def marked(task, split, *, seed):
        return few(task.name, split, seed, False, marked=True)

    for task in (Knee, Skin):
        monkeypatch.setattr(task, "load", load)
        monkeypatch.setattr(task, "marked", marked)


@pytest.mark.parametrize("method", methods.names())
def test_every_method_runs_and_its_summary_is_what_its_models_do(few_images, method):
    result = methods.run(KNEE, KNEE.config(**TINY), method=method)
    summary = result.summary()
    test = few("knee", "test", 0, False)
    twins = few("knee", "test", 0, True), few("knee", "test", 0, False, marked=True)
    for when in ("before", "after"):
        right = predict(result.models[when], test.images) == test.labels
        groups = [right[test.groups == g].double().mean().item() for g in range(4)]
        assert summary[f"wga_{when}"] == pytest.approx(min(groups))
        assert summary[f"aga_{when}"] == pytest.approx(sum(groups) / 4)
        assert summary[f"accuracy_{when}"] == pytest.approx(right.double().mean().item())
        assert [of[when] for of in summary["groups"].values()] == pytest.approx(groups)
        z = [predict_logits(result.models[when], twin.images).diff(dim=1)[:, 0] for twin in twins]
        # The letter goes with healthy knees: ill ones with it against healthy ones without.
        pairs = z[1][test.labels == 1][:, None] - z[0][test.labels == 0]
        outranked = (pairs > 0).double() + 0.5 * (pairs == 0)
        assert summary[f"conflict_auc_{when}"] == pytest.approx(outranked.mean().item())
        spread = z[0].double().std()
        effect = ((z[0] - z[1]).double().mean() / spread).item() if spread else None
        assert summary[f"letter_effect_{when}"] == (effect if effect is None else pytest.approx(effect))
    for measure in ("wga", "aga"):
        change = summary[f"{measure}_after"] - summary[f"{measure}_before"]
        assert summary[f"delta_{measure}"] == pytest.approx(change)
    asked = method in ("lvlm-va", "placebo", "look")
    assert (summary["verdict_accuracy"] is not None) == asked
    assert (summary["critic"] is not None) == asked
    masked = few("knee", "train", 0, False).spurious_masks[result.indices].flatten(1).any(1)
    assert summary["spurious_share_align"] == pytest.approx(masked.double().mean().item())
    if method == "rrr-gt":
        assert summary["n_cases_judged_spurious"] == masked.sum()
    assert len(summary["trials"]) == len(methods.get(method).trials)
    assert methods.get(method).label in result.table()


def test_every_method_has_as_many_trials_as_the_others_and_says_what_it_reads():
    # "look" changes nothing, so that there is nothing to choose.
    every = [methods.get(name) for name in methods.names() if name != "look"]
    assert {len(method.trials) for method in every} == {2}
    assert len({method.label for method in every}) == len(every)
    of = {method.label: method.supervision for method in every}
    assert {name for name, reads in of.items() if reads.train_groups or reads.validation_groups} == {
        "SUBG", "DFR", "GroupDRO", "RR-ClArC",
    }  # fmt: skip
    assert {name for name, reads in of.items() if reads.masks} == {
        "RRR, true masks", "counter-examples, true masks", "CDEP, true masks",
    }  # fmt: skip
    assert of["LVLM-VA"].words


@pytest.mark.slow
def test_a_run_is_reproducible_and_keeps_its_first_model(few_images):
    config = SKIN.config(**TINY)
    one, other = (methods.run(SKIN, config, method="finetune") for _ in range(2))
    for when in ("before", "after"):
        for a, b in zip(one.models[when].parameters(), other.models[when].parameters(), strict=True):
            assert torch.equal(a, b)
    trained = pipeline.trained(SKIN, config, few("skin", "train", 0, False))
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
        return torch.nn.functional.one_hot(self.answers[: len(images)], 2).float()


def two_groups():
    return ShortcutDataset(
        torch.zeros(20, 1, 2, 2), torch.zeros(20, dtype=torch.int64), torch.arange(20) // 10,
        torch.zeros(20, 2, 2, dtype=torch.bool), ("a", "b"), ("first", "second"), "two groups",
    )  # fmt: skip


@pytest.mark.parametrize(("errors", "best"), [((3, 1), 1), ((1, 3), 0), ((2, 2), 0)])
def test_the_trial_of_the_best_worst_group_is_taken_and_of_equals_the_first(errors, best):
    made, trials = [], methods.get("subg").trials

    def fit(**trial):
        made.append(trial)
        return methods.Fitted(Constant(answers_of(errors[len(made) - 1])), ())

    best_of_all, tried = methods.best_trial(fit, trials, two_groups())
    assert made == list(trials)
    assert tried == [
        {**trial, "score": pytest.approx(1 - wrong / 10)}
        for trial, wrong in zip(trials, errors, strict=True)
    ]
    assert (best_of_all.model.answers != 0).sum() == errors[best]


def test_an_empty_group_has_no_accuracy_and_is_not_the_worst():
    dataset = dataclasses.replace(two_groups(), group_names=("first", "second", "nobody"))
    groups = pipeline.groups_of(Constant(answers_of(5)), dataset)
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
    assert pipeline.groups_of(leaky.model, validation).tolist() == [1.0, 1.0]
    with pytest.raises(ConfigError, match=r"10 of the 10 images .* those that the model was fitted on"):
        methods.best_trial(lambda: leaky, [{}], validation)
    # One image is enough, wherever it stands.
    mixed = dataclasses.replace(validation, images=validation.images.clone())
    mixed.images[7] = train.images[2]
    honest = methods.Fitted(learnt_by_heart(train), (train,))
    methods.best_trial(lambda: honest, [{}], validation)
    with pytest.raises(ConfigError, match=r"1 of the 10 images to measure on \(the first is number 7\)"):
        methods.best_trial(lambda: honest, [{}], mixed)


def test_a_run_is_not_measured_on_what_its_method_was_fitted_on(few_images, monkeypatch):
    """The second planted leak: the choice is clean, the report would not be."""
    kind = methods.get("finetune")
    fit = kind.fit

    def leaky(self, prepared, *arguments, **keywords):
        fitted = fit(self, prepared, *arguments, **keywords)
        return dataclasses.replace(fitted, data=(prepared.train, prepared.test))

    monkeypatch.setattr(kind, "fit", leaky)
    with pytest.raises(ConfigError, match="80 of the 80 images to measure on"):
        methods.run(KNEE, KNEE.config(**TINY), method="finetune")


def test_what_a_method_is_fitted_on_is_what_it_declares(few_images):
    prepared = pipeline.prepare(KNEE, KNEE.config(**TINY))
    spurious = torch.zeros(20, 3)
    for method in map(methods.get, methods.names()):
        fitted = method().fit(prepared, spurious, **method.trials[0])
        for split in ("train", "validation", "test"):
            images = few("knee", split, 0, False)
            seen = any(images.also_in(data).any() for data in fitted.data)
            assert seen == (split in method.fitted_on), (method, split)
        assert (fitted.held_out_score is not None) == ("validation" in method.fitted_on)


def test_dfr_is_chosen_by_the_half_that_was_held_out(few_images, monkeypatch):
    """Its scores are those of heads that never saw the samples they are scored on."""
    weak = ({"C": 1.0}, {"C": 3.0})  # penalties that let it learn by heart
    monkeypatch.setattr(DFR, "trials", weak)
    config = KNEE.config(**TINY)
    result = methods.run(KNEE, config, method="dfr")
    validation = few("knee", "validation", 0, False)
    prepared = pipeline.prepare(KNEE, config)
    with torch.no_grad():
        points = prepared.model.embed(validation.images).double().numpy()
    first, second = halves(validation.groups, stream(config.seed, "DFR's halves and subsets"))
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
    flattering = pipeline.groups_of(result.models["after"], validation).min().item()
    assert flattering > max(tried["score"] for tried in result.trials)


@pytest.mark.parametrize("method", ["subg", "dfr"])
def test_a_method_without_the_groups_it_needs_says_so(few_images, monkeypatch, method):
    split = {"subg": "train", "dfr": "validation"}[method]
    whole = few("knee", split, 0, False)
    without = whole.subset((whole.groups != 3).nonzero()[:, 0])

    def load(task, wanted, *, seed, clean=False):
        return without if wanted == split else few("knee", wanted, 0, clean)

    monkeypatch.setattr(Knee, "load", load)
    with pytest.raises(ConfigError, match="'moderate osteoarthritis, marker' has 0"):
        methods.run(KNEE, KNEE.config(**TINY), method=method)


def test_true_masks_and_placebos_go_where_they_should(few_images, monkeypatch):
    used = {}

    def aligned(self, masks, keep=None, *, progress=False, **settings):
        used[method].append((masks, keep, settings))
        return self.model

    monkeypatch.setattr(pipeline.Prepared, "aligned", aligned)
    prepared = pipeline.prepare(KNEE, KNEE.config(mask_near=0.0, **TINY))
    kinds = torch.zeros(20, 3, dtype=torch.int64)
    kinds[:, 0] = 1
    kinds[7] = 3
    for method in ("lvlm-va", "placebo", "rrr-gt", "finetune"):
        used[method] = []
        for trial in methods.get(method).trials:
            methods.get(method)().fit(prepared, kinds, **trial)
    for masks, keep, _ in used["rrr-gt"]:
        assert torch.equal(masks, prepared.chosen.spurious_masks)
        assert keep is None  # all
    for masks, keep, settings in used["finetune"]:
        assert not masks.any()
        assert keep is None
        assert settings["penalty_weight"] == 0
    in_first = prepared.alignment_set.segments.labels == 0
    for (masks, keep, _), (moved, moved_keep, _) in zip(used["lvlm-va"], used["placebo"], strict=True):
        assert torch.equal(masks[keep], in_first[keep])
        assert torch.equal(masks.flatten(1).sum(1), moved.flatten(1).sum(1))
        assert not torch.equal(masks, moved)
        assert torch.equal(keep, moved_keep)
        assert keep.tolist() == [i != 7 for i in range(20)]
    for method in ("lvlm-va", "placebo", "rrr-gt"):
        weights = [settings["penalty_weight"] for *_, settings in used[method]]
        assert weights == [trial["strength"] for trial in methods.get(method).trials]


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (Knee, {"data_root": "no/such/folder"}, "there is no folder no/such/folder"),
        (Knee, {"image_size": 16}, "image_size must lie between 32"),
        (Knee, {"image_size": 512}, "image_size must lie between 32 and 224, the sizes in which"),
        (Knee, {"image_size": 64.0}, "image_size must be a whole number; got 64.0"),
        (Skin, {"image_size": 225}, "between 32 and 224"),
        (Knee, {"data_root": ".", "image_size": 1025}, "between 32 and 1024; got"),
        (Knee, {"data_root": ".", "overlap": True}, "overlap is for phantoms"),
    ],
)
def test_options_of_a_task_that_cannot_work_are_refused(task, options, message):
    with pytest.raises(ConfigError, match=message):
        task(**options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_align": 0}, "n_align"),
        ({"model": "mlp"}, "unknown model 'mlp'; choose one of: small_resnet"),
        (
            {"batch_size": 32, "align_fraction": 0.99},
            "align_fraction 0.99 of batch_size 32 leaves no plain",
        ),
        (
            {"batch_size": 2, "align_fraction": 0.2},
            "align_fraction 0.2 of batch_size 2 leaves no alignment",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Knee().config(**settings)


def test_a_method_there_is_not_or_that_was_fitted_where_it_is_measured_is_refused():
    with pytest.raises(RegistryError, match="unknown method 'erm'; choose one of: "):
        methods.run(KNEE, method="erm")
    for task in (KNEE, SKIN, DecoyMNIST()):
        config = task.config(evaluate_on="validation")
        with pytest.raises(
            ConfigError, match=r"dfr is fitted on the validation .* leave evaluate_on at 'test'"
        ):
            methods.run(task, config, method="dfr")


@pytest.mark.parametrize("name", ["n_align", "n_baselines"])
def test_more_images_than_there_are_cannot_be_asked_for(few_images, name):
    with pytest.raises(
        ConfigError, match=f"{name} must be at most 200, the training images there are; got 201"
    ):
        methods.run(KNEE, KNEE.config(**TINY | {name: 201}))
