"""Knee and skin: one method after another on the same model, measured in groups.

Every method gets the same number of trials, and the trial of the best
worst-group accuracy on the validation split is taken: the rule of SUBG, DFR
and JTT, which reads the validation groups for all of them.  DFR, which is
fitted on that split, chooses by the half of it that was held out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite import metrics
from lvlmva_lite.baselines import dfr, jtt, placebo_masks, subg
from lvlmva_lite.config import FITTED_ON, Config, ConfigError
from lvlmva_lite.critic import Critique, Verdict, providers
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.providers import Connection
from lvlmva_lite.critic.types import UNDECIDED
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.environment import environment
from lvlmva_lite.models import predict
from lvlmva_lite.pipeline import (
    Prepared,
    Score,
    load_split,
    new_model,
    prepare,
    taking_part,
    verdict_matrix,
    verdict_quality,
)
from lvlmva_lite.segmentation import Segments
from lvlmva_lite.threads import as_configured

ROWS = {
    "lvlm-va": "LVLM-VA",
    "rrr-gt": "RRR, true masks",
    "placebo": "placebo masks",
    "finetune": "plain fine-tuning",
    "subg": "SUBG",
    "dfr": "DFR",
    "jtt": "JTT",
}
"""Methods as people read them; their keys are ``config.METHODS``."""

TRIALS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "lvlm-va": ({"strength": 1.0}, {"strength": 3.0}),
    "rrr-gt": ({"strength": 1.0}, {"strength": 3.0}),
    "placebo": ({"strength": 1.0}, {"strength": 3.0}),
    "finetune": ({"rate": 1.0}, {"rate": 3.0}),
    "subg": ({"rate": 1.0}, {"rate": 0.3}),
    "dfr": ({"C": 0.1}, {"C": 0.01}),
    "jtt": ({"first_epochs": 1, "upweight": 5}, {"first_epochs": 1, "upweight": 20}),
}
"""Two settings to choose from for each method.

"strength" is a factor of the config's lambda, "rate" one of its learning
rate, "C" the inverse strength of DFR's L1 penalty.
"""


@dataclass(frozen=True)
class Fitted:
    """The model of one trial, and what its weights have seen.

    Attributes
    ----------
    model : nn.Module
    data : tuple of ShortcutDataset, every set whose samples set its weights
    held_out_score : of a method that is fitted on the validation split: the
        worst-group accuracy of the same settings on the half of that split
        that they were not fitted on, in [0, 1]; else None
    """

    model: nn.Module
    data: tuple[ShortcutDataset, ...]
    held_out_score: float | None = None

    def check_held_out(self, dataset: ShortcutDataset) -> None:
        """Refuse to measure the model on images that it was fitted on.

        Raises
        ------
        ConfigError : an image of ``dataset`` is, bit for bit, in ``data``
        """
        for fitted_on in self.data:
            seen = dataset.also_in(fitted_on)
            if seen.any():
                raise ConfigError(
                    f"{int(seen.sum())} of the {len(dataset)} images to measure on (the first is number "
                    f"{int(seen.nonzero()[0])}) are among those that the model was fitted on; measure it on "
                    "images that it has not seen"
                )


@dataclass(frozen=True)
class MethodResult:
    """All that one method made of one model.

    Attributes
    ----------
    config : Config
    indices, attributions, segments, critiques, verdicts, kinds, masks
        of the alignment set, as in :class:`pipeline.Result`; critiques and
        verdicts are empty and masks those used where nobody was asked
    confusion : dict, truth -> kind -> count, from :func:`metrics.kind_confusion`;
        None where nobody was asked
    models : dict of nn.Module, "before" and "after"
    scores : dict of Score, "before" and the method
    group_accuracies : dict of Tensor, (n_groups,), "before" and "after"
    group_names : tuple of str
    trials : list of dict, the settings tried and their "score"
    spurious_share_align : share of the alignment set that shows the spurious feature
    """

    config: Config
    indices: Tensor
    attributions: Tensor
    segments: Segments
    critiques: list[Critique]
    verdicts: list[Verdict]
    kinds: Tensor
    masks: Tensor
    confusion: dict[str, dict[str, int]] | None
    models: dict[str, nn.Module]
    scores: dict[str, Score]
    group_accuracies: dict[str, Tensor]
    group_names: tuple[str, ...]
    trials: list[dict[str, Any]]
    spurious_share_align: float

    def summary(self) -> dict:
        """The numbers of a run as plain values, ready for JSON."""
        before, after = self.scores["before"], self.scores[self.config.method]
        return {
            "method": self.config.method,
            "wga_before": before.wga,
            "wga_after": after.wga,
            "aga_before": before.aga,
            "aga_after": after.aga,
            "delta_wga": after.wga - before.wga,
            "delta_aga": after.aga - before.aga,
            "accuracy_before": before.accuracy,
            "accuracy_after": after.accuracy,
            "mu_align_before": before.mu_align,
            "mu_align_after": after.mu_align,
            "verdict_sensitivity": after.verdict_sensitivity,
            "verdict_specificity": after.verdict_specificity,
            "verdict_balanced_accuracy": after.verdict_balanced_accuracy,
            "verdict_accuracy": after.verdict_accuracy,
            "verdict_base_rate": after.verdict_base_rate,
            "verdict_confusion": self.confusion,
            "spurious_share_align": self.spurious_share_align,
            "n_cases": len(self.indices),
            "n_cases_judged_spurious": int(self.masks.flatten(1).any(1).sum()),
            "n_undecided": int((self.kinds == UNDECIDED).sum()),
            "n_cases_undecided": int((self.kinds == UNDECIDED).any(1).sum()),
            "critic": self.critiques[0].critic if self.critiques else None,
            "judge": self.verdicts[0].judge if self.verdicts else None,
            "groups": {
                name: {when: _number(values[i]) for when, values in self.group_accuracies.items()}
                for i, name in enumerate(self.group_names)
            },
            "trials": self.trials,
            "seed": self.config.seed,
            "scores": {row: asdict(score) for row, score in self.scores.items()},
            "environment": environment(self.config.threads),
            "config": asdict(self.config) | {"description": self.config.expert_description},
        }


def format_table(result: MethodResult) -> str:
    """The result as text: before and after, worst group, average group, every group."""
    names = {"before": "before", "after": ROWS[result.config.method]}
    lines = [f"{'':<20}{'WGA':>7}{'AGA':>7}  " + "  ".join(result.group_names)]
    for when, values in result.group_accuracies.items():
        score = result.scores["before" if when == "before" else result.config.method]
        groups = "  ".join(
            f"{value:>{len(name)}.3f}"
            for name, value in zip(result.group_names, values.tolist(), strict=True)
        )
        lines.append(f"{names[when]:<20}{score.wga:>7.3f}{score.aga:>7.3f}  {groups}")
    return "\n".join(lines)


def _number(value: Tensor) -> float | None:
    return None if value.isnan() else value.item()


def groups_of(model: nn.Module, dataset: ShortcutDataset) -> Tensor:
    """Accuracy of a model in each group of a data set, (n_groups,), nan where a group is empty."""
    return metrics.group_accuracy(
        predict(model, dataset.images), dataset.labels, dataset.groups, len(dataset.group_names)
    )


def candidates(
    prepared: Prepared, method: str, kinds: Tensor | None = None, *, progress: bool = False
) -> Callable[[dict[str, Any]], Fitted]:
    """The method as a function from one of its ``TRIALS`` to a trained model.

    Parameters
    ----------
    prepared : the model, its alignment set and its data
    method : of ``config.METHODS``
    kinds : (N, J) int64 verdicts, codes of ``KINDS``; for "lvlm-va" and "placebo"

    Raises
    ------
    ConfigError : a group that the method needs is empty; from the function that is returned
    """
    config, train, chosen = prepared.config, prepared.train, prepared.chosen
    fresh = partial(new_model, config, train)
    common = {
        "epochs": config.train_epochs, "batch_size": config.batch_size, "decay": config.decay,
        "random_state": config.seed, "progress": progress,
    }  # fmt: skip
    data = {"train": train} | {
        split: load_split(config, split) for split in FITTED_ON[method] if split != "train"
    }
    everything = torch.ones(len(chosen), dtype=torch.bool)

    def aligned(masks: Tensor, keep: Tensor, **settings: float) -> Fitted:
        return Fitted(prepared.aligned(masks, keep, progress=progress, **settings), (train,))

    if method in ("lvlm-va", "placebo"):
        masks = prepared.masks(kinds)
        keep = taking_part(kinds, masks, config.keep_unjudged)
        if method == "placebo":
            masks = placebo_masks(masks, random_state=config.seed)
    elif method == "rrr-gt":
        masks, keep = chosen.spurious_masks, everything
    if method in ("lvlm-va", "placebo", "rrr-gt"):
        return lambda trial: aligned(masks, keep, penalty_weight=config.penalty_weight * trial["strength"])
    if method == "finetune":
        return lambda trial: aligned(
            torch.zeros_like(chosen.spurious_masks), everything, penalty_weight=0.0,
            learning_rate=config.align_learning_rate * trial["rate"],
        )  # fmt: skip
    # SUBG's subset is smaller and seen more often: for half as many steps as plain training takes.
    smallest = min(n for n in torch.bincount(train.groups).tolist() if n)
    longer = max(1, len(train) // (smallest * len(train.group_names)) // 2)

    def baseline(trial: dict[str, Any]) -> Fitted:
        held_out_score = None
        try:
            if method == "subg":
                made = subg(
                    fresh, train, learning_rate=config.learning_rate * trial["rate"],
                    **common | {"epochs": config.train_epochs * longer},
                )  # fmt: skip
            elif method == "jtt":
                made = jtt(fresh, train, learning_rate=config.learning_rate, **trial, **common)
            else:
                made = dfr(
                    prepared.model, data["validation"], Cs=(trial["C"],),
                    random_state=config.seed, progress=progress,
                )  # fmt: skip
                held_out_score = made.trials[0]["score"]
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return Fitted(made.model, tuple(data.values()), held_out_score)

    return baseline


def best_trial(
    make: Callable[[dict[str, Any]], Fitted],
    method: str,
    validation: ShortcutDataset,
    n_trials: int | None = None,
) -> tuple[Fitted, list[dict[str, Any]]]:
    """The trial of best worst-group accuracy on samples that it was not fitted on, and all trials.

    These samples are the validation split; where a trial was fitted on that
    split, its ``held_out_score`` stands in.  Of trials that score alike the
    first is taken.  ``n_trials``: only the first so many of ``TRIALS``; None:
    all.

    Raises
    ------
    ConfigError : a trial was fitted on images of ``validation`` and has no held-out score
    """
    tried = []
    best: tuple[float, Fitted] | None = None
    for trial in TRIALS[method][:n_trials]:
        fitted = make(trial)
        score = fitted.held_out_score
        if score is None:
            fitted.check_held_out(validation)
            score = metrics.worst_group_accuracy(groups_of(fitted.model, validation))
        tried.append({**trial, "score": score})
        if best is None or score > best[0]:
            best = score, fitted
    return best[1], tried


@as_configured
def run(
    config: Config,
    *,
    connection: Connection | None = None,
    known_critiques: Mapping[tuple[str, int], Critique] | None = None,
    on_critique: Callable[[Critique], None] | None = None,
    progress: bool = False,
) -> MethodResult:
    """Train on the shortcut, apply the config's method, and measure in groups.

    Parameters and errors as for :func:`pipeline.run`.
    """
    connection = connection or Connection()
    asks = config.method in ("lvlm-va", "placebo")
    if asks:
        providers.check(config.critic, config.critic_settings, connection, config.source)
    prepared = prepare(config, progress=progress)
    start = time.perf_counter()
    found, chosen = prepared.found, prepared.chosen
    critiques: list[Critique] = []
    verdicts: list[Verdict] = []
    kinds = torch.full(found.truth.shape, UNDECIDED)
    right: dict[str, float | None] = {}
    masks = torch.zeros_like(chosen.spurious_masks)
    if asks:
        critic, judge = providers.make(
            config.critic, config.critic_settings, connection, seed=config.seed,
            truth=found.truth_by_case() if config.critic == "simulated" else None,
            recording=config.recording,
        )  # fmt: skip
        critiques = criticise_all(
            critic,
            found.cases,
            known=known_critiques,
            on_critique=on_critique,
            judge=judge,
            progress=progress,
        )
        verdicts = judge_all(judge, critiques, found.segments.n_segments, progress=progress)
        kinds = verdict_matrix(verdicts, found.segments.labels)
        right = verdict_quality(kinds, found.truth)
        masks = prepared.masks(kinds)
    elif config.method == "rrr-gt":
        masks = chosen.spurious_masks
    validation = load_split(config, "validation")
    make = candidates(prepared, config.method, kinds, progress=progress)
    fitted, trials = best_trial(make, config.method, validation)
    seconds = time.perf_counter() - start
    fitted.check_held_out(prepared.test)
    models = {"before": prepared.model, "after": fitted.model}
    return MethodResult(
        config, found.indices, found.attributions, found.segments, critiques, verdicts, kinds, masks,
        metrics.kind_confusion(kinds, found.truth) if asks else None,
        models,
        {
            "before": Score(**prepared.score(prepared.model), seconds=prepared.training_seconds),
            config.method: Score(**prepared.score(fitted.model), seconds=seconds, **right),
        },
        {when: groups_of(one, prepared.test) for when, one in models.items()},
        prepared.test.group_names,
        trials,
        chosen.spurious_masks.flatten(1).any(1).double().mean().item(),
    )  # fmt: skip
