"""The choice of a trial by words: twins by hand, a critic that is told nothing, and no group read."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lvlmva_lite import methods, pipeline
from lvlmva_lite.config import ConfigError
from lvlmva_lite.critic.types import SPURIOUS
from lvlmva_lite.datasets import knee_phantom
from lvlmva_lite.fills import fill
from lvlmva_lite.methods.choice import judged_twins
from lvlmva_lite.models import predict
from lvlmva_lite.tasks import Knee

TINY = {
    "train_epochs": 1, "n_align": 20, "n_baselines": 2, "n_explained": 4,
    "align_epochs": 1, "batch_size": 32, "n_segments": 3,
}  # fmt: skip


def drawn(split):
    return knee_phantom(split, size=32, n={"train": 200}.get(split, 80), random_state=0)


@pytest.fixture(scope="module")
def prepared():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Knee, "load", lambda task, split, *, seed, clean=False: drawn(split))
        patch.setattr(Knee, "marked", lambda task, split, *, seed: None)
        task = Knee(image_size=32)
        made = pipeline.prepare(task, task.config(**TINY))
        assert made.validation is made.validation  # kept, so that it can be given below
    return made


def with_validation(prepared, validation):
    """The same, with another validation split."""
    other = dataclasses.replace(prepared)
    other.__dict__["validation"] = validation
    return other


def by_corner(monkeypatch, spurious):
    """A critic that calls the first segment spurious in the samples ``spurious``, and keeps what it was shown."""
    shown = []

    def criticised(self, connection=None, **options):
        shown.append(self)
        kinds = [
            ["spurious" if j == 0 and i in spurious else "relevant" for j in range(3)]
            for i in range(len(self.alignment_set.cases))
        ]
        return [], [SimpleNamespace(kinds=row) for row in kinds]

    monkeypatch.setattr(pipeline.Prepared, "criticised", criticised)
    return shown


def test_twins_by_hand(prepared, monkeypatch):
    shown = by_corner(monkeypatch, {3, 7})
    twins = judged_twins(prepared, n=12)
    (asked,) = shown
    images, whole = asked.chosen.images, prepared.validation
    which = [int((whole.images == image).flatten(1).all(1).nonzero()[0, 0]) for image in images]
    labels = whole.labels[which]
    # What is explained is the answer that was given, and so the case names it.
    assert torch.equal(asked.chosen.labels, predict(prepared.model, images))
    assert len(twins) == 24
    assert images[:, 0].flatten(1).unique(dim=0).shape[0] == 12
    assert torch.equal(twins.labels, labels.repeat(2))
    assert twins.groups.tolist() == [2 * y for y in labels.tolist()] + [2 * y + 1 for y in labels.tolist()]
    kinds = torch.zeros(12, 3, dtype=torch.int64)
    kinds[[3, 7], 0] = SPURIOUS
    masks = asked.masks(kinds)
    assert masks.flatten(1).any(1).nonzero()[:, 0].tolist() == [3, 7]
    without, with_it = twins.images.split(12)
    assert torch.equal(without, fill(images, masks))
    for i in range(12):
        # Its own is gone, and that of one of the two is there.
        assert any(torch.equal(with_it[i], torch.where(masks[j], images[j], without[i])) for j in (3, 7))


def test_neither_groups_nor_true_masks_are_read(prepared):
    whole = judged_twins(prepared)
    known = prepared.validation
    bare = dataclasses.replace(known, groups=None, group_names=(), spurious_masks=None, core_masks=None)
    wrong = dataclasses.replace(known, groups=known.groups.flip(0), spurious_masks=~known.spurious_masks)
    for other in (bare, wrong):
        again = judged_twins(with_validation(prepared, other))
        assert torch.equal(again.images, whole.images)
        assert torch.equal(again.groups, whole.groups)
    # A critic that is told the truth finds none to be told.
    told = dataclasses.replace(prepared, config=prepared.task.changed(prepared.config, critic="simulated"))
    with pytest.raises(ConfigError, match="the simulated critic needs that"):
        judged_twins(with_validation(told, known))


class Remembers(nn.Module):
    """Answers as it was told about each image."""

    def __init__(self, images, answers):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.told = {
            image.numpy().tobytes(): int(answer) for image, answer in zip(images, answers, strict=True)
        }

    def forward(self, images):
        answers = [self.told[image.numpy().tobytes()] for image in images.detach()]
        return self.weight * nn.functional.one_hot(torch.tensor(answers), 2).float()


def test_the_trial_that_the_patch_does_not_turn_round_is_chosen(prepared):
    twins = judged_twins(prepared)
    ill, with_it = twins.labels == 1, twins.groups % 2 == 1
    answers = {
        "goes by the patch": (~with_it).long(),  # a patch: healthy
        "right but for some": torch.where(
            torch.arange(len(twins)) % 5 == 0, 1 - twins.labels, twins.labels
        ),
        "one class": ill.new_ones(len(ill)).long(),
    }
    assert all(groups.any() for groups in (ill & with_it, ill & ~with_it, ~ill & with_it, ~ill & ~with_it))

    def fitted(which):
        return methods.Fitted(Remembers(twins.images, answers[which]), ())

    chosen, tried = methods.best_trial(fitted, [{"which": which} for which in answers], twins)
    assert chosen.model.told == fitted("right but for some").model.told
    scores = {one["which"]: one["score"] for one in tried}
    assert scores["goes by the patch"] == scores["one class"] == 0
    assert 0.5 < scores["right but for some"] < 1


def test_where_nothing_was_called_spurious_there_is_nothing_to_choose_by(prepared, monkeypatch):
    by_corner(monkeypatch, set())
    with pytest.raises(ConfigError, match="of 20 validation images the critic called nothing spurious"):
        judged_twins(prepared)
