"""The method's steps in order, for any task, every intermediate result kept.

Load, train, sample, explain, segment (:func:`prepare`); judge, mask, align, measure (:class:`Prepared`).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite import metrics
from lvlmva_lite.alignment import align, correction_masks, penalty_of
from lvlmva_lite.alignment_set import (
    AlignmentSet,
    check_amounts,
    draw_baselines,
    explain,
    find_alignment_set,
    make_alignment_set,
    make_cases,
    recorded_set,
    segment,
    taking_part,
    verdict_matrix,
    verdict_quality,
)
from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.critic import Critique, Verdict, providers
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.providers import Connection, CriticSettings
from lvlmva_lite.critic.types import BACKGROUND, SPURIOUS
from lvlmva_lite.crossed import crossed_readouts
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.models import Classifier, fit, predict
from lvlmva_lite.tasks import Task
from lvlmva_lite.threads import as_configured

__all__ = [
    "AlignmentSet", "Config", "ConfigError", "Prepared", "accuracy_of", "explain", "groups_of", "make_alignment_set",
    "make_cases", "prepare", "recorded_set", "segment", "taking_part", "trained", "verdict_matrix", "verdict_quality",
]  # fmt: skip

_OF_THE_DATA = ("seed", "evaluate_on")
"""Fields of the config that decide which data there are."""


@dataclass(frozen=True)
class Prepared:
    """A model that took the shortcut, its alignment set, and the data to go on with.

    What every arm of an experiment shares: arms differ in the masks only.

    Attributes
    ----------
    task : Task
    config : Config
    train, test, clean_test : ShortcutDataset; the latter may be None
        "test" is the split of ``config.evaluate_on``; the clean one has the
        same images without the spurious feature
    model : nn.Module, before alignment
    baselines : Tensor, (b, C, H, W)
    alignment_set : AlignmentSet
    training_seconds : wall time of training the model
    """

    task: Task
    config: Config
    train: ShortcutDataset
    test: ShortcutDataset
    clean_test: ShortcutDataset | None
    model: nn.Module
    baselines: Tensor
    alignment_set: AlignmentSet
    training_seconds: float

    def changed(self, **settings: Any) -> Prepared:
        """The same model and data with other settings; of these, only the alignment set is made anew.

        Parameters
        ----------
        settings : fields of :class:`Config`; None: the task's default

        Raises
        ------
        ConfigError : a setting that decides which data there are
        """
        config = self.task.changed(self.config, **settings)
        other = [name for name in _OF_THE_DATA if getattr(config, name) != getattr(self.config, name)]
        if other:
            raise ConfigError(
                f"with another {' and '.join(other)} the data are others: call prepare with this config"
            )
        baselines, alignment_set = _explained(config, self.task, self.train, self.model)
        return replace(self, config=config, baselines=baselines, alignment_set=alignment_set)

    @property
    def chosen(self) -> ShortcutDataset:
        """The training samples of the alignment set."""
        return self.train.subset(self.alignment_set.indices)

    @cached_property
    def validation(self) -> ShortcutDataset:
        """The validation split, loaded when first asked for."""
        return self.task.load("validation", seed=self.config.seed)

    @cached_property
    def marked_test(self) -> ShortcutDataset | None:
        """The test images, each with the spurious feature; None where there are none such."""
        return self.task.marked(self.config.evaluate_on, seed=self.config.seed)

    @as_configured
    def criticised(
        self,
        connection: Connection | None = None,
        *,
        critic_name: str | None = None,
        settings: CriticSettings | None = None,
        known: Mapping[tuple[str, int], Critique] | None = None,
        on_critique: Callable[[Critique], None] | None = None,
        progress: bool = False,
    ) -> tuple[list[Critique], list[Verdict]]:
        """Ask the critic about every case, and its judge about what it said.

        Parameters
        ----------
        connection : how to reach a model and what that may cost
        critic_name, settings : default: those of the config
        known, on_critique : see :func:`methods.run`
        """
        name, cases = critic_name or self.config.critic, self.alignment_set
        critic, judge = providers.make(
            name, settings or self.config.critic_settings, connection or Connection(), seed=self.config.seed,
            # The one critic that is shown the ground truth, and says so in its name.
            truth=cases.truth_by_case() if name == "simulated" else None,
            recording=self.task.recording(self.config),
        )  # fmt: skip
        critiques = criticise_all(
            critic, cases.cases, known=known, on_critique=on_critique, judge=judge, progress=progress
        )
        return critiques, judge_all(judge, critiques, cases.segments.n_segments, progress=progress)

    def verdicts(
        self, critic_name: str | None = None, settings: CriticSettings | None = None, progress: bool = False
    ) -> Tensor:
        """Verdicts (N, J) of an offline critic, default the config's, as :func:`verdict_matrix` gives them."""
        _, verdicts = self.criticised(critic_name=critic_name, settings=settings, progress=progress)
        return verdict_matrix(verdicts, self.alignment_set.segments.labels)

    def masks(self, kinds: Tensor) -> Tensor:
        """What verdicts (N, J) amount to, (N, H, W) bool, by the config's ``mask`` and ``mask_near``."""
        judged = kinds == SPURIOUS
        if self.config.mask == "spurious+background":
            judged |= kinds == BACKGROUND
        shown = self.alignment_set
        return correction_masks(
            shown.segments.labels, judged, shown.attributions, near=self.config.mask_near
        )

    @as_configured
    def aligned(
        self, masks: Tensor, keep: Tensor | None = None, *, progress: bool = False, **settings: Any
    ) -> nn.Module:
        """A copy of the model, fine-tuned with these masks on the alignment set.

        Parameters
        ----------
        masks : (N, H, W) bool
        keep : (N,) bool, the samples that take part; None: all.  Where none
            does, the model comes back as it was
        settings : of :func:`alignment.align`, in place of the config's
        """
        student, config = copy.deepcopy(self.model), self.config
        keep = torch.ones(len(masks), dtype=torch.bool) if keep is None else keep
        if keep.any():
            chosen = self.chosen
            align(
                student, self.train.images, self.train.labels,
                chosen.images[keep], chosen.labels[keep], masks[keep],
                **{
                    "penalty": penalty_of(config, self.train.images),
                    "penalty_weight": config.penalty_weight,
                    "penalty_scale": config.penalty_scale,
                    "batch_size": config.batch_size,
                    "epochs": config.align_epochs,
                    "learning_rate": config.align_learning_rate,
                    "align_fraction": config.align_fraction,
                    "decay": config.decay,
                    "random_state": config.seed,
                    "progress": progress,
                } | settings,
            )  # fmt: skip
        return student

    def aligned_by_verdicts(self, kinds: Tensor, **settings: Any) -> nn.Module:
        """As :meth:`aligned`, with the masks that verdicts (N, J) amount to."""
        masks = self.masks(kinds)
        return self.aligned(masks, taking_part(kinds, masks, self.config.keep_unjudged), **settings)

    def trained(self, dataset: ShortcutDataset, *, config: Config | None = None, **more: Any) -> Classifier:
        """A fresh model, trained as the one before alignment was, or with other settings."""
        return trained(self.task, config or self.config, dataset, **more)

    @as_configured
    def score(self, model: nn.Module) -> dict[str, float]:
        """The measured fields of :class:`results.Score`, of a model on the test set."""
        test, config = self.test, self.config
        step = max(1, len(test) // config.n_explained) if self.task.sorted else 1
        shown = test.subset(torch.arange(len(test))[::step][: config.n_explained])
        network = self.task.network_named(config.model)
        # Of few images, so that a pretrained network keeps within 2 GB.
        rows = min(32, network.max_rows) if network.pretrained else network.max_rows
        masks, answers = shown.spurious_masks, predict(model, test.images)
        in_groups = groups_of(model, test, answers)
        maps = None if masks is None else explain(config, model, shown, self.baselines, max_rows=rows)
        return {
            "accuracy": metrics.accuracy(answers, test.labels),
            "accuracy_clean": None if self.clean_test is None else accuracy_of(model, self.clean_test),
            "mu_align": None if masks is None else metrics.mu_align(maps, masks),
            "wga": None if in_groups is None else metrics.worst_group_accuracy(in_groups),
            "aga": None if in_groups is None else metrics.average_group_accuracy(in_groups),
            **crossed_readouts(model, self.clean_test, self.marked_test, self.train),
        }


@as_configured
def prepare(
    task: Task, config: Config, *, model: nn.Module | None = None, progress: bool = False
) -> Prepared:
    """Train a model on the shortcut and make its alignment set, without asking anybody about it.

    Parameters
    ----------
    task : whose images
    config : from ``task.config(...)``
    model : one that was trained before, with a config of the same seed; None: train one

    Raises
    ------
    ConfigError : the alignment set or the baselines ask for more training images than there are
    """
    config = task.changed(config)  # with the task's words, and held against its recorded cases
    train = task.load("train", seed=config.seed)
    check_amounts(config, train)
    test, clean_test = (task.load(config.evaluate_on, seed=config.seed, clean=c) for c in (False, True))
    start = time.perf_counter()
    model = model or task.ready(config, train) or trained(task, config, train, progress=progress)
    seconds = time.perf_counter() - start
    baselines, alignment_set = _explained(config, task, train, model, progress)
    return Prepared(task, config, train, test, clean_test, model, baselines, alignment_set, seconds)


@as_configured
def _explained(
    config: Config, task: Task, train: ShortcutDataset, model: nn.Module, progress: bool = False
) -> tuple[Tensor, AlignmentSet]:
    check_amounts(config, train)
    baselines = draw_baselines(config, train)
    return baselines, find_alignment_set(config, task, train, model, baselines, progress=progress)


@as_configured
def trained(
    task: Task,
    config: Config,
    dataset: ShortcutDataset,
    *,
    model: Classifier | None = None,
    progress: bool = False,
) -> Classifier:
    """A fresh network of the task, or the untrained ``model``, trained on ``dataset``."""
    model = model or task.network(config, dataset, config.seed)
    fit(
        model, dataset.images, dataset.labels,
        epochs=config.train_epochs, learning_rate=config.learning_rate, decay=config.decay,
        batch_size=config.batch_size, random_state=config.seed, progress=progress,
    )  # fmt: skip
    return model


def accuracy_of(model: nn.Module, dataset: ShortcutDataset) -> float:
    """Accuracy on a data set, each sample alike."""
    return metrics.accuracy(predict(model, dataset.images), dataset.labels)


def groups_of(model: nn.Module, dataset: ShortcutDataset, answers: Tensor | None = None) -> Tensor | None:
    """Accuracy in each group, (n_groups,), nan where one is empty, of a model or its ``answers``; None without groups."""
    if dataset.groups is None:
        return None
    answers = predict(model, dataset.images) if answers is None else answers
    return metrics.group_accuracy(answers, dataset.labels, dataset.groups, len(dataset.group_names))
