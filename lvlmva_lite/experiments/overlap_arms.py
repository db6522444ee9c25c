"""Shortcuts that lie on the evidence: a mixture over positions against one over positions and colours.

All arms of a seed share the model, its alignment set and its maps; they differ
in the segments, and in who judges them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lvlmva_lite import metrics
from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.types import SPURIOUS
from lvlmva_lite.experiments import group_arms
from lvlmva_lite.pipeline import Prepared, groups_of, make_alignment_set, segment, verdict_quality
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

SPEAKS = 0.05
"""Least share of the positive effect on the spurious feature for an image to count in :func:`mask_quality`."""


def resegmented(prepared: Prepared, feature_weight: float) -> Prepared:
    """The same model and maps with the segments of another feature weight; 0: positions alone.

    With features, segments are filled up to ``HYBRID_FILL``.
    """
    fill = {"fill": HYBRID_FILL} if feature_weight else {}
    config = dataclasses.replace(prepared.config, feature_weight=feature_weight, **fill)
    alignment_set = prepared.alignment_set
    segments = segment(config, prepared.chosen.images, alignment_set.attributions)
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


@as_configured
def aligned_rows(prepared: Prepared, critics: Sequence[str] = tuple(CRITICS)) -> list[Row]:
    """Group accuracies before alignment, with true masks, and with the masks of ``ARMS``.

    Parameters
    ----------
    prepared : from :func:`pipeline.prepare`
    critics : of ``CRITICS``

    Returns
    -------
    list of dict
        "arm": "before", "true masks", "spatial" or "hybrid"; "critic" of the
        latter two; "wga", "aga", "group_0" ...
    """

    def measured(arm: str, model: nn.Module, **more: str) -> Row:
        accuracies = groups_of(model, prepared.test)
        return {
            "arm": arm,
            **more,
            "wga": metrics.worst_group_accuracy(accuracies),
            "aga": metrics.average_group_accuracy(accuracies),
            **{f"group_{i}": value for i, value in enumerate(accuracies.tolist())},
        }

    rows = [
        measured("before", prepared.model),
        measured("true masks", prepared.aligned(prepared.chosen.spurious_masks)),
    ]
    for arm, weight in ARMS.items():
        again = resegmented(prepared, weight)
        for critic in critics:
            rows.append(measured(arm, again.aligned_by_verdicts(judged(again, critic)), critic=critic))
    return rows


def overlap_sweep(dataset: str, seed: int) -> list[Row]:
    """Segments and aligned models on phantoms whose spurious feature lies on the evidence, test split."""
    prepared = group_arms.prepare_default(dataset, seed, overlap=True)
    return segment_rows(prepared) + aligned_rows(prepared)


EXPERIMENTS.register("knee_overlap", partial(overlap_sweep, "knee"))
