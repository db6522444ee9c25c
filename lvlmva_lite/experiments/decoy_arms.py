"""DecoyMNIST with everything but one thing as it is: chapters 07 and 11, one seed at a time.

All arms of a seed share the model that took the shortcut.  Settings were
chosen on the validation split; these rows are of the test split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite import metrics
from lvlmva_lite.attribution import deeplift_shap, runner_up
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.types import EMPTY, RELEVANT, SPURIOUS, UNDECIDED
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods import placebo_masks, shuffle_verdicts
from lvlmva_lite.models import predict, predict_proba
from lvlmva_lite.pipeline import (
    AlignmentSet,
    Prepared,
    make_alignment_set,
    prepare,
    taking_part,
    verdict_quality,
)
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.segment_choice import choose_n_segments
from lvlmva_lite.segmentation import Segments, ppeps_wgm
from lvlmva_lite.streams import stream
from lvlmva_lite.tasks import DecoyMNIST
from lvlmva_lite.threads import as_configured, threads

Row = dict[str, Any]

ACCURACIES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the simulated critics."""

ERROR_RATES = (0.6,)
"""Of the simulated critics that err in one way only."""

AS_IT_IS = "as it is"
"""Name of the arm with every setting at its default."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "explain the class alone": {"explain": "logit"},
    "classes not balanced": {"balanced": False},
    "random samples": {"sampling": "random"},
    "high entropy": {"sampling": "high"},
    "N = 300": {"n_align": 300},
    "J = 3": {"n_segments": 3},
    "J = 10": {"n_segments": 10},
}
"""One setting changed: name -> fields of the config."""


def square_class(dataset: ShortcutDataset) -> Tensor:
    """The class that each image's square stands for, (N,) int64: 255 - 25 * class is its grey value."""
    shade = (dataset.images[:, 0] * dataset.spurious_masks).flatten(1).amax(1)
    return ((1 - shade) * 255 / 25).round().long()


@threads()
def embed(model: nn.Sequential, images: Tensor) -> Tensor:
    """Activations of the last hidden layer of an MLP, (n, D)."""
    with torch.no_grad():
        return model[:-1](images)


@as_configured
def loop_rows(prepared: Prepared) -> list[Row]:
    """The whole loop: before, LVLM-VA, true masks, never saw decoys.

    Returns
    -------
    list of dict
        "arm"; "accuracy", "accuracy_clean", "mu_align"; "wga" and "aga" over
        class x {conflicting, aligned}; "purity_digit" and "purity_square",
        the share of ten nearest neighbours in the last hidden layer that
        share the digit, or the class the square stands for; and for LVLM-VA
        the fields of :func:`pipeline.verdict_quality`
    """
    test = prepared.test
    kinds = prepared.verdicts()
    models = {
        "before": prepared.model,
        "lvlm_va": prepared.aligned_by_verdicts(kinds),
        **dict(prepared.task.bounds(prepared)),
    }
    rows = []
    some = slice(prepared.config.n_explained)
    for arm, model in models.items():
        in_groups = metrics.group_accuracy(
            predict(model, test.images), test.labels, test.groups, len(test.group_names)
        )
        points = embed(model, test.images[some])
        row = {"arm": arm, **prepared.score(model)} | {
            "wga": metrics.worst_group_accuracy(in_groups),
            "aga": metrics.average_group_accuracy(in_groups),
            "purity_digit": metrics.neighbour_purity(points, test.labels[some]),
            "purity_square": metrics.neighbour_purity(points, square_class(test)[some]),
        }
        if arm == "lvlm_va":
            row |= verdict_quality(kinds, prepared.alignment_set.truth)
        rows.append(row)
    return rows


def _prepare(seed: int, **settings: Any) -> Prepared:
    task = DecoyMNIST()
    return prepare(task, task.config(seed=seed, **settings))


@EXPERIMENTS.register("decoy_loop")
def loop_sweep(seed: int) -> list[Row]:
    """The whole loop on the test set."""
    return loop_rows(_prepare(seed))


def _row(
    prepared: Prepared,
    experiment: str,
    arm: str,
    model: nn.Module,
    kinds: Tensor | None = None,
    keep: Tensor | None = None,
) -> Row:
    """Measure a model; and the verdicts (N, J) and samples (N,) it was aligned with, where there are any."""
    row = {"experiment": experiment, "arm": arm}
    if kinds is not None:
        row |= verdict_quality(kinds, prepared.alignment_set.truth)
    if keep is not None:
        row["n_taking_part"] = int(keep.sum())
    return row | prepared.score(model)


def _arm(prepared: Prepared, experiment: str, arm: str, kinds: Tensor) -> Row:
    """Align by verdicts (N, J) and measure."""
    masks = prepared.masks(kinds)
    keep = taking_part(kinds, masks, prepared.config.keep_unjudged)
    return _row(prepared, experiment, arm, prepared.aligned(masks, keep), kinds, keep)


def variant_rows(prepared: Prepared, variants: Mapping[str, Mapping[str, Any]] = VARIANTS) -> list[Row]:
    """What each ingredient is worth: the method as it is, then with one thing changed.

    Besides ``variants``: alignment samples that were not judged are kept;
    segments of the effects of both signs in place of positive ones; J chosen
    for each map by the weighted BIC; and a second round of critique on the
    aligned model whose masks join the first.

    Returns
    -------
    list of dict
        "experiment" ("variant"), "arm", the fields of
        :func:`pipeline.verdict_quality`, "n_taking_part" (alignment samples), "accuracy", "accuracy_clean" and "mu_align"
    """
    kinds = prepared.verdicts()
    rows = [_arm(prepared, "variant", AS_IT_IS, kinds)]
    for name, settings in variants.items():
        changed = prepared.changed(**settings)
        rows.append(_arm(changed, "variant", name, changed.verdicts()))

    keeping = dataclasses.replace(prepared.config, keep_unjudged=True)
    kept = dataclasses.replace(prepared, config=keeping)
    rows.append(_arm(kept, "variant", "keep what was not judged", kinds))

    alignment_set, seed = prepared.alignment_set, prepared.config.seed
    effects = alignment_set.attributions
    either = ppeps_wgm(effects.abs(), alignment_set.segments.n_segments, random_state=seed)
    by_bic = choose_n_segments(effects, (3, 6, 10), random_state=seed).segments
    for name, maps, segments in (
        ("effects of both signs", effects.abs(), either),
        ("J by BIC", effects, by_bic),
    ):
        changed = dataclasses.replace(prepared, alignment_set=_resegmented(prepared, maps, segments))
        rows.append(_arm(changed, "variant", name, changed.verdicts()))
    return [*rows, second_round(prepared, kinds)]


def _resegmented(prepared: Prepared, attributions: Tensor, segments: Segments) -> AlignmentSet:
    """The same samples under other segments, whose truth is that of ``attributions``."""
    return make_alignment_set(
        prepared.train, prepared.alignment_set.indices, attributions, segments, prepared.config.description
    )


def second_round(prepared: Prepared, kinds: Tensor) -> Row:
    """Explain the aligned model on the same images, ask again, and align with both rounds' masks.

    The second alignment starts where the first did.  "verdict_accuracy" is
    that of the second round.

    Parameters
    ----------
    prepared : with ``config.explain`` "contrast"
    kinds : (N, J), verdicts of the first round
    """
    first = prepared.masks(kinds)
    model, chosen, config = prepared.aligned_by_verdicts(kinds), prepared.chosen, prepared.config
    attributions = deeplift_shap(
        model, chosen.images, chosen.labels, prepared.baselines,
        rivals=runner_up(predict_proba(model, chosen.images), chosen.labels),
    )  # fmt: skip
    segments = ppeps_wgm(attributions, config.n_segments, random_state=config.seed)
    again = dataclasses.replace(prepared, alignment_set=_resegmented(prepared, attributions, segments))
    verdicts = again.verdicts()
    masks = first | again.masks(verdicts)
    keep = masks.flatten(1).any(1)
    return _row(again, "variant", "two rounds", prepared.aligned(masks, keep), verdicts, keep)


def control_rows(prepared: Prepared) -> list[Row]:
    """Is it the place of the masks?  Same images, same budget, other masks or none.

    "before" and "true masks" frame the method.  "moved masks" shifts each mask
    to another place in its image; "opposite corner" turns each by half a turn,
    so that what lay on a square lies on an empty corner; "shuffled verdicts"
    hands each image the verdicts on another; "contrary verdicts" masks just
    what the critic did not call spurious; "every segment" masks all that the network
    was seen to use; "lambda 0" fine-tunes on the same batches without penalty.
    """
    seed, alignment_set = prepared.config.seed, prepared.alignment_set
    kinds = prepared.verdicts()
    masks = prepared.masks(kinds)
    keep = taking_part(kinds, masks, prepared.config.keep_unjudged)
    everyone = torch.ones(len(masks), dtype=torch.bool)
    shuffled = shuffle_verdicts(kinds, alignment_set.segments.labels, random_state=seed)
    placed = {
        "true masks": (prepared.chosen.spurious_masks, everyone),
        "moved masks": (placebo_masks(masks, random_state=seed), keep),
        "opposite corner": (masks.flip(1, 2), keep),
    }
    rows = [_row(prepared, "control", "before", prepared.model)]
    for arm, (mask, who) in placed.items():
        rows.append(_row(prepared, "control", arm, prepared.aligned(mask, who), keep=who))
    for arm, ruled in (
        ("shuffled verdicts", shuffled),
        ("contrary verdicts", contrary(kinds)),
        ("every segment", torch.full_like(kinds, SPURIOUS)),
    ):
        rows.append(_arm(prepared, "control", arm, ruled))
    idle = prepared.aligned(masks, keep, penalty_weight=0.0)
    return [*rows, _row(prepared, "control", "lambda 0", idle, keep=keep)]


def dose_rows(prepared: Prepared, accuracies: Sequence[float] = ACCURACIES) -> list[Row]:
    """What a critic of accuracy q buys: simulated critics that err at random on the truth."""
    rows = []
    for q in accuracies:
        settings = CriticSettings(simulated_accuracy=q)
        kinds = prepared.verdicts("simulated", settings)
        rows.append(_arm(prepared, "dose", f"{q:g}", kinds))
    return rows


def contrary(kinds: Tensor) -> Tensor:
    """Verdicts (N, J) turned round: what was spurious is relevant, all else that was decided spurious."""
    turned = torch.where(kinds == SPURIOUS, RELEVANT, SPURIOUS)
    return torch.where(kinds == UNDECIDED, kinds, turned)


def one_sided_verdicts(
    truth: Tensor, *, misses: float = 0.0, false_alarms: float = 0.0, random_state: int
) -> Tensor:
    """The truth with errors of one kind, or of both, at rates of their own.

    Parameters
    ----------
    truth : (N, J) int64, from :func:`metrics.segment_truth`
    misses : probability that a spurious segment is called relevant
    false_alarms : probability that any other segment is called spurious
    random_state : int; at a higher rate every error of a lower one is made too

    Returns
    -------
    Tensor, (N, J), int64, codes of ``KINDS``; background where a segment is empty

    Raises
    ------
    ValueError : a rate outside [0, 1]
    """
    for name, rate in (("misses", misses), ("false_alarms", false_alarms)):
        if not 0 <= rate <= 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {rate}")
    draw = torch.rand(truth.shape, generator=stream(random_state, "one-sided verdicts"))
    spurious = truth == SPURIOUS
    errs = draw < torch.where(spurious, misses, false_alarms)
    return torch.where(errs, torch.where(spurious, RELEVANT, SPURIOUS), metrics.right_verdicts(truth))


def error_rows(prepared: Prepared, rates: Sequence[float] = ERROR_RATES) -> list[Row]:
    """Which errors hurt?  Simulated critics that only miss, or only raise false alarms.

    At the same rate false alarms are more, for most segments are relevant; "as
    many false alarms" has the rate at which both make equally many errors.
    """
    alignment_set, seed = prepared.alignment_set, prepared.config.seed
    n_spurious = (alignment_set.truth == SPURIOUS).sum()
    odds = (n_spurious / ((alignment_set.truth != EMPTY).sum() - n_spurious)).item()
    rows = []
    for rate in rates:
        for arm, errors in (
            (f"misses at {rate:g}", {"misses": rate}),
            (f"false alarms at {rate:g}", {"false_alarms": rate}),
            (f"as many false alarms as misses at {rate:g}", {"false_alarms": min(1.0, rate * odds)}),
        ):
            kinds = one_sided_verdicts(alignment_set.truth, **errors, random_state=seed)
            rows.append(_arm(prepared, "error", arm, kinds))
    return rows


@EXPERIMENTS.register("decoy_beyond")
def beyond_sweep(seed: int) -> list[Row]:
    """Variants, controls, doses and kinds of error, on the test set; mu_Align on 500 images."""
    prepared = _prepare(seed, n_explained=500)
    return [
        *variant_rows(prepared),
        *control_rows(prepared),
        *dose_rows(prepared),
        *error_rows(prepared),
    ]
