"""One run: a task, a method, everything between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite import metrics
from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.contextual_decomposition import check_followed
from lvlmva_lite.critic import Critique, Verdict, providers
from lvlmva_lite.critic.providers import Connection
from lvlmva_lite.critic.types import UNDECIDED
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods.method import best_trial
from lvlmva_lite.models import predict
from lvlmva_lite.pipeline import groups_of, prepare, verdict_matrix, verdict_quality
from lvlmva_lite.registry import METHODS
from lvlmva_lite.results import Result, Score
from lvlmva_lite.tasks import Task
from lvlmva_lite.threads import as_configured


def check(task: Task, config: Config, method: str, connection: Connection | None = None) -> None:
    """Refuse, before any work, what the method or the critic cannot do.

    Raises
    ------
    RegistryError : there is no such method
    ConfigError : it would be measured on images that it is fitted on
    SettingsError : the critic cannot be had
    """
    chosen = METHODS.get(method)
    if config.evaluate_on in chosen.fitted_on:
        raise ConfigError(
            f"{method} is fitted on the {config.evaluate_on} split, which would be measured on "
            "images it was fitted on; leave evaluate_on at 'test', or choose another method"
        )
    if chosen.asks:
        providers.check(config.critic, config.critic_settings, connection or Connection(), task.source)


@as_configured
def run(
    task: Task,
    config: Config | None = None,
    *,
    method: str = "lvlm-va",
    connection: Connection | None = None,
    known_critiques: Mapping[tuple[str, int], Critique] | None = None,
    on_critique: Callable[[Critique], None] | None = None,
    progress: bool = False,
) -> Result:
    """Train on the shortcut, have it found and judged, unlearn it by a method, and measure.

    Parameters
    ----------
    task : whose images and words
    config : from ``task.config(...)``; None: its defaults
    method : one of ``methods.names()``
    connection : how to reach the critic's model and what that may cost
    known_critiques : critiques of an earlier, interrupted run with these
        settings, by case id and sample; they are not asked for again
    on_critique : called with each new critique as soon as it is there
    progress : show progress bars

    Raises
    ------
    RegistryError, ConfigError, SettingsError : see :func:`check`; before any work
    NetworkError : CDEP is asked for, and has no rule for a layer; before any work
    ServerError, CapReached, StoreError : the critic's answers stopped coming; those so
        far are in the store
    """
    config = config or task.config()
    check(task, config, method, connection)
    chosen = METHODS.get(method)()
    _check_supervision(task, config, method)
    if config.penalty == "cdep" or method == "cdep":
        train = task.load("train", seed=config.seed)
        model = task.ready(config, train) or task.network(config, train, config.seed)
        check_followed(model, train.images.shape[1:])
    start = time.perf_counter()
    prepared = prepare(task, config, progress=progress)
    shown = prepared.alignment_set
    critiques: list[Critique] = []
    verdicts: list[Verdict] = []
    kinds = torch.full((len(shown.indices), shown.segments.n_segments), UNDECIDED)
    if chosen.asks:
        critiques, verdicts = prepared.criticised(
            connection, known=known_critiques, on_critique=on_critique, progress=progress
        )
        kinds = verdict_matrix(verdicts, shown.segments.labels)
    fitted, trials = best_trial(
        partial(chosen.fit, prepared, kinds, progress=progress),
        chosen.trials[: task.n_trials],
        prepared.validation,
    )
    seconds = time.perf_counter() - start - prepared.training_seconds
    fitted.check_held_out(prepared.test)

    models = {"before": prepared.model, "after": fitted.model}

    def score(model: nn.Module, seconds: float, **more: float | None) -> Score:
        return Score(**prepared.score(model), seconds=seconds, **more)

    scores = {
        "before": score(prepared.model, prepared.training_seconds),
        "after": score(
            fitted.model, seconds, **(verdict_quality(kinds, shown.truth) if chosen.asks else {})
        ),
    }
    start = time.perf_counter()
    for row, model in task.bounds(prepared):
        seconds = time.perf_counter() - start
        models[row], scores[row] = model, score(model, seconds)
        start = time.perf_counter()  # measuring is not part of any method's time
    answers = {row: predict(model, prepared.test.images) for row, model in models.items()}
    test, validation = prepared.test, prepared.validation
    there = {when: predict(models[when], validation.images) for when in ("before", "after")}
    before, after = (balanced_accuracy_of(models[when], validation, there[when]) for when in there)
    return Result(
        task, prepared.config, method,
        shown.indices, shown.attributions, shown.segments, critiques, verdicts, kinds,
        prepared.masks(kinds) if chosen.asks else chosen.masks(prepared, kinds),
        metrics.kind_confusion(kinds, shown.truth) if chosen.asks and shown.truth is not None else None,
        models, scores,
        {} if test.groups is None
        else {
            row: metrics.group_accuracy(given, test.labels, test.groups, len(test.group_names))
            for row, given in answers.items()
        },
        test.group_names, test.class_names, prepared.chosen.labels, test.labels, answers, trials,
        None if prepared.chosen.spurious_masks is None
        else prepared.chosen.spurious_masks.flatten(1).any(1).double().mean().item(),
        before - after, _in_classes(validation, there),
    )  # fmt: skip


def _check_supervision(task: Task, config: Config, method: str) -> None:
    """Raise ConfigError where the data do not tell what the method reads."""
    reads = METHODS.get(method).supervision
    for split, field, needed in (
        ("train", "groups", reads.train_groups),
        ("validation", "groups", reads.validation_groups),
        ("train", "spurious_masks", reads.masks),
    ):
        if needed:
            try:
                task.load(split, seed=config.seed).require(field, by=method)
            except ValueError as error:
                raise ConfigError(str(error)) from error


def balanced_accuracy_of(model: nn.Module, dataset: ShortcutDataset, answers: Tensor) -> float:
    """Mean accuracy of a model's ``answers`` over the groups of a data set, or over its classes where nobody knows groups."""
    in_each = groups_of(model, dataset, answers)
    if in_each is None:
        in_each = metrics.group_accuracy(answers, dataset.labels, dataset.labels, dataset.n_classes)
    return float(in_each.nanmean())


def _in_classes(dataset: ShortcutDataset, answers: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Of each class its number of images, and under the keys of ``answers`` the share told right; None of no images."""
    table: dict[str, dict[str, Any]] = {}
    for label, name in enumerate(dataset.class_names):
        own = dataset.labels == label
        right = {when: (given[own] == label).double() for when, given in answers.items()}
        table[name] = {"n": int(own.sum())} | {
            when: one.mean().item() if len(one) else None for when, one in right.items()
        }
    return table
