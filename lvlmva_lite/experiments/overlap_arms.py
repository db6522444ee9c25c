"""Shortcuts that lie on the evidence: a mixture over positions against one over positions and colours.

All arms of a seed share the model, its alignment set and its maps; they differ
in the segments, in who judges them, and in whether the masks stay where they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite import methods, metrics
from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.types import SPURIOUS
from lvlmva_lite.experiments import group_arms
from lvlmva_lite.pipeline import (
    Prepared,
    groups_of,
    make_alignment_set,
    segment,
    taking_part,
    verdict_quality,
)
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.segmentation import positive_effect, segment_sums
from lvlmva_lite.threads import as_configured

Row = dict[str, Any]

FEATURE_WEIGHTS = (0.0, 0.3, 1.0, 3.0)
"""Of the ablation; 0 is the mixture over positions alone."""

HYBRID_FILL = 12.0
"""``Config.fill`` of segments by position and colour, whose outlines colour keeps; those by
position alone keep the default.  Of four fillings each gave the masks of a
perfect critic their best overlap with the letters, on alignment images of a seed that is not reported."""

ARMS = {"spatial": 0.0, "hybrid": 1.0}
"""Feature weights of the models that are aligned; 1 is the default of ``segmentation.ppeps_wgm``."""

CRITICS = {"perfect": "simulated", "lexicon": "lexicon"}
"""Who judges -> ``Config.critic``; the perfect one is told the truth about each segment."""

CONTRASTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the spurious feature in what the mixture sees: 0 hides it, 1 is the image as it is."""

SPEAKS = 0.05
"""Least share of the positive effect on the spurious feature for an image to count in :func:`mask_quality`."""


def resegmented(prepared: Prepared, feature_weight: float, features: Tensor | None = None) -> Prepared:
    """The same model and maps with the segments of another feature weight; 0: positions alone.

    With features, segments are filled up to ``HYBRID_FILL``.

    Parameters
    ----------
    prepared : from :func:`pipeline.prepare`
    feature_weight : >= 0
    features : (N, C, H, W) float, whose colours the mixture sees; None: the images'
    """
    fill = {"fill": HYBRID_FILL} if feature_weight else {}
    config = dataclasses.replace(prepared.config, feature_weight=feature_weight, **fill)
    alignment_set = prepared.alignment_set
    features = prepared.chosen.images if features is None else features
    segments = segment(config, features, alignment_set.attributions)
    alignment_set = make_alignment_set(
        prepared.train, alignment_set.indices, alignment_set.attributions, segments, config.description
    )
    return dataclasses.replace(prepared, config=config, alignment_set=alignment_set)


def judged(prepared: Prepared, critic: str) -> Tensor:
    """Verdicts (N, J) of one of ``CRITICS``."""
    return prepared.verdicts(CRITICS[critic], CriticSettings(simulated_accuracy=1.0))


def mask_quality(prepared: Prepared, kinds: Tensor) -> Row:
    """What the masks of some verdicts take in, and what they should have left alone.

    Means over the images in which more than ``SPEAKS`` of the positive effect
    lies on the spurious feature.  Reads the ground truth: for evaluation only.

    Parameters
    ----------
    prepared : of a data set with ``core_masks``
    kinds : (N, J) int64 verdicts, codes of ``KINDS``

    Returns
    -------
    dict, all in [0, 1], nan where no image or no mask counts
        "purity": share of the effect that lies on its segment's majority side,
        on the spurious feature or off it; the verdicts do not matter.
        "covered": share of the spurious feature's effect that is masked.
        "off": share of the mask off the spurious feature, and "on_core": on
        evidence that is not hidden by it; both over masks that are not empty.
        "core_masked": share of that evidence that is masked.
        "overlap": intersection over union of mask and spurious feature
    """
    chosen, segments = prepared.chosen, prepared.alignment_set.segments
    mass, feature = positive_effect(prepared.alignment_set.attributions), chosen.spurious_masks
    visible = chosen.core_masks & ~feature
    masks = correction_masks(segments.labels, kinds == SPURIOUS)

    def total(values: Tensor) -> Tensor:
        return values.sum((-2, -1), dtype=torch.float64)

    on_feature = total(mass * feature)
    speaks = on_feature > SPEAKS
    masked = speaks & masks.flatten(1).any(1)
    held, held_on_feature = (
        segment_sums(segments.labels, segments.n_segments, part) for part in (mass, mass * feature)
    )
    majority = torch.maximum(held_on_feature, held - held_on_feature)
    return {
        "purity": (majority.sum(1) / held.sum(1))[speaks].mean().item(),
        "covered": (total(mass * feature * masks) / on_feature)[speaks].mean().item(),
        "off": (total(masks & ~feature) / total(masks))[masked].mean().item(),
        "on_core": (total(masks & visible) / total(masks))[masked].mean().item(),
        "core_masked": (total(masks & visible) / total(visible))[speaks].mean().item(),
        "overlap": (total(masks & feature) / total(masks | feature))[speaks].mean().item(),
    }


def segment_rows(prepared: Prepared, feature_weights: Sequence[float] = FEATURE_WEIGHTS) -> list[Row]:
    """Masks of each feature weight by each critic, without aligning anything.

    Returns
    -------
    list of dict
        "arm": "segments"; "feature_weight"; "critic"; the fields of
        :func:`mask_quality` and of :func:`pipeline.verdict_quality`
    """
    rows = []
    for weight in feature_weights:
        again = resegmented(prepared, weight)
        for critic in CRITICS:
            kinds = judged(again, critic)
            rows.append(
                {"arm": "segments", "feature_weight": weight, "critic": critic}
                | mask_quality(again, kinds)
                | verdict_quality(kinds, again.alignment_set.truth)
            )
    return rows


def dial_rows(prepared: Prepared, contrasts: Sequence[float] = CONTRASTS) -> list[Row]:
    """A perfect critic's masks as the spurious feature fades from what the mixture sees; nothing is aligned.

    With x an image and x' its twin without the spurious feature, the mixture
    sees the colours of x' + t (x - x').  Maps and model stay.

    Parameters
    ----------
    prepared : of a task whose training images can be had without the spurious feature
    contrasts : t, each in [0, 1]

    Returns
    -------
    list of dict
        "arm": "dial"; "contrast", t; "feature_weight", that of "hybrid" in ``ARMS``; "critic":
        "perfect"; the fields of :func:`mask_quality`
    """
    images, weight = prepared.chosen.images, ARMS["hybrid"]
    clean = prepared.task.load("train", seed=prepared.config.seed, clean=True)
    twins = clean.images[prepared.alignment_set.indices]
    rows = []
    for contrast in contrasts:
        again = resegmented(prepared, weight, twins + contrast * (images - twins))
        rows.append(
            {"arm": "dial", "contrast": contrast, "feature_weight": weight, "critic": "perfect"}
            | mask_quality(again, judged(again, "perfect"))
        )
    return rows


def _masks_to_compare(
    prepared: Prepared, critics: Sequence[str]
) -> Iterator[tuple[dict[str, str], Tensor, Tensor]]:
    """Names of the arm, its masks (N, H, W) and who takes part (N,): the true masks, and those of ``ARMS``."""
    true = prepared.chosen.spurious_masks
    yield {"arm": "true masks"}, true, torch.ones(len(true), dtype=torch.bool)
    for arm, weight in ARMS.items():
        again = resegmented(prepared, weight)
        for critic in critics:
            kinds = judged(again, critic)
            masks = again.masks(kinds)
            yield (
                {"arm": arm, "critic": critic},
                masks,
                taking_part(kinds, masks, again.config.keep_unjudged),
            )


@as_configured
def aligned_rows(prepared: Prepared, critics: Sequence[str] = tuple(CRITICS)) -> list[Row]:
    """Group accuracies before alignment, with true masks, and with the masks of ``ARMS``; and of controls.

    The controls are :class:`methods.finetuning.FineTuning` at the same learning rate, and of every arm
    its masks in the wrong place, by :func:`methods.placebo_masks`.  As long as every sample
    takes part, as in the knee's default, all see the same batches.

    Parameters
    ----------
    prepared : from :func:`pipeline.prepare`
    critics : of ``CRITICS``

    Returns
    -------
    list of dict
        "arm": "before", "finetune", "true masks", "spatial" or "hybrid"; "critic" of the
        latter two; "control": "placebo" where the masks are moved;
        "n_taking_part" samples; "on_feature", share of the masked pixels that lie on the
        spurious feature, nan without any; "wga", "aga", "group_0" ...
    """
    feature, seed = prepared.chosen.spurious_masks, prepared.config.seed

    def measured(model: nn.Module) -> Row:
        accuracies = groups_of(model, prepared.test)
        return {
            "wga": metrics.worst_group_accuracy(accuracies),
            "aga": metrics.average_group_accuracy(accuracies),
            **{f"group_{i}": value for i, value in enumerate(accuracies.tolist())},
        }

    rows = [
        {"arm": "before", **measured(prepared.model)},
        {
            "arm": "finetune",
            "n_taking_part": len(feature),
            **measured(methods.get("finetune")().fit(prepared).model),
        },
    ]
    for names, masks, keep in _masks_to_compare(prepared, critics):
        moved = methods.placebo_masks(masks, random_state=seed)
        for control, placed in (({}, masks), ({"control": "placebo"}, moved)):
            facts = {
                "n_taking_part": int(keep.sum()),
                "on_feature": ((placed & feature).sum() / placed.sum()).item(),
            }
            rows.append(names | control | facts | measured(prepared.aligned(placed, keep)))
    return rows


def overlap_sweep(dataset: str, seed: int) -> list[Row]:
    """Segments, their dial and aligned models on phantoms whose spurious feature lies on the evidence, test split."""
    prepared = group_arms.prepare_default(dataset, seed, overlap=True)
    return segment_rows(prepared) + dial_rows(prepared) + aligned_rows(prepared)


EXPERIMENTS.register("knee_overlap", partial(overlap_sweep, "knee"))
