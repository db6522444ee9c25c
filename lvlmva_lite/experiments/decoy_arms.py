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
from lvlmva_lite.alignment import correction_masks
from lvlmva_lite.attribution import deeplift_shap, runner_up
from lvlmva_lite.baselines import placebo_masks, shuffle_verdicts
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.datasets import ShortcutDataset, load_decoy_mnist
from lvlmva_lite.models import predict, predict_proba
from lvlmva_lite.pipeline import (
    AlignmentSet,
    Config,
    Prepared,
    make_alignment_set,
    prepare,
    taking_part,
    trained,
)
from lvlmva_lite.segmentation import Segments, choose_n_segments, ppeps_wgm

Row = dict[str, Any]

ACCURACIES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the simulated critics."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "explain the class alone": {"explain": "logit"},
    "keep what was not judged": {"keep_unjudged": True},
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


def embed(model: nn.Sequential, images: Tensor) -> Tensor:
    """Activations of the last hidden layer of an MLP, (n, D)."""
    with torch.no_grad():
        return model[:-1](images)


def loop_rows(prepared: Prepared) -> list[Row]:
    """The whole loop: before, LVLM-VA, true masks, never saw decoys.

    Returns
    -------
    list of dict
        "arm"; "accuracy", "accuracy_clean", "mu_align"; "wga" and "aga" over
        class x {conflicting, aligned}; "purity_digit" and "purity_square",
        the share of ten nearest neighbours in the last hidden layer that
        share the digit, or the class the square stands for; and for LVLM-VA
        "verdict_accuracy" and "verdict_balanced_accuracy"
    """
    config, test = prepared.config, prepared.test
    spurious = prepared.verdicts()
    ruled = metrics.verdict_accuracy(spurious, prepared.found.truth, prepared.found.segments.labels)
    models = {
        "before": prepared.model,
        "lvlm_va": prepared.aligned_by_verdicts(spurious),
        "ground_truth_masks": prepared.aligned(prepared.chosen.spurious_masks),
        "never_saw_decoys": trained(config, load_decoy_mnist("train", shade="none")),
    }
    rows = []
    some = slice(config.n_explained)
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
            row["verdict_accuracy"] = ruled["accuracy"]
            row["verdict_balanced_accuracy"] = ruled["balanced_accuracy"]
        rows.append(row)
    return rows


def loop_sweep(seed: int) -> list[Row]:
    """The whole loop on the test set."""
    return loop_rows(prepare(Config(seed=seed)))


def _arm(prepared: Prepared, experiment: str, arm: str, spurious: Tensor) -> Row:
    """Align by verdicts (N, J) and measure."""
    ruled = metrics.verdict_accuracy(spurious, prepared.found.truth, prepared.found.segments.labels)
    return {
        "experiment": experiment,
        "arm": arm,
        "verdict_accuracy": ruled["accuracy"],
        "verdict_balanced_accuracy": ruled["balanced_accuracy"],
        "n_taking_part": int((spurious == 1).any(1).sum()),
        **prepared.score(prepared.aligned_by_verdicts(spurious)),
    }


def variant_rows(prepared: Prepared, variants: Mapping[str, Mapping[str, Any]] = VARIANTS) -> list[Row]:
    """What each ingredient is worth: the method as it is, then with one thing changed.

    Besides ``variants``: effects of both signs in place of positive ones, J
    chosen for each map by the weighted BIC, and a second round of critique on
    the aligned model whose masks join the first.
    """
    spurious = prepared.verdicts()
    rows = [_arm(prepared, "variant", "as it is", spurious)]
    for name, settings in variants.items():
        changed = prepare(dataclasses.replace(prepared.config, **settings), model=prepared.model)
        rows.append(_arm(changed, "variant", name, changed.verdicts()))

    found, seed = prepared.found, prepared.config.seed
    both_signs = ppeps_wgm(found.attributions.abs(), found.segments.n_segments, random_state=seed)
    chosen_by_bic = choose_n_segments(found.attributions, (2, 4, 6, 8, 10), random_state=seed).segments
    for name, segments in (("effects of both signs", both_signs), ("J by BIC", chosen_by_bic)):
        changed = dataclasses.replace(
            prepared, found=_with_segments(prepared, found.attributions, segments)
        )
        rows.append(_arm(changed, "variant", name, changed.verdicts()))
    return [*rows, second_round(prepared, spurious)]


def _with_segments(prepared: Prepared, attributions: Tensor, segments: Segments) -> AlignmentSet:
    return make_alignment_set(
        prepared.train, prepared.found.indices, attributions, segments, prepared.config.expert_description
    )


def second_round(prepared: Prepared, spurious: Tensor) -> Row:
    """Explain the aligned model on the same images, ask again, and align with both rounds' masks."""
    first = correction_masks(prepared.found.segments.labels, spurious == 1)
    model, chosen, config = prepared.aligned_by_verdicts(spurious), prepared.chosen, prepared.config
    attributions = deeplift_shap(
        model, chosen.images, chosen.labels, prepared.baselines,
        rivals=runner_up(predict_proba(model, chosen.images), chosen.labels),
    )  # fmt: skip
    segments = ppeps_wgm(attributions, config.n_segments, random_state=config.seed)
    again = dataclasses.replace(prepared, found=_with_segments(prepared, attributions, segments))
    verdicts = again.verdicts()
    ruled = metrics.verdict_accuracy(verdicts, again.found.truth, segments.labels)
    masks = first | correction_masks(segments.labels, verdicts == 1)
    keep = masks.flatten(1).any(1)
    return {
        "experiment": "variant",
        "arm": "two rounds",
        "verdict_accuracy": ruled["accuracy"],
        "verdict_balanced_accuracy": ruled["balanced_accuracy"],
        "n_taking_part": int(keep.sum()),
        **prepared.score(prepared.aligned(masks, keep)),
    }


def control_rows(prepared: Prepared) -> list[Row]:
    """Is it the place of the masks?  Same images, same budget, other masks or none.

    "before" and "true masks" frame them; "moved" shifts each mask to another
    place in its image; "shuffled" hands each image the verdicts of another;
    "lambda 0" fine-tunes on the same batches without any penalty.
    """
    seed, config = prepared.config.seed, prepared.config
    spurious = prepared.verdicts()
    masks = correction_masks(prepared.found.segments.labels, spurious == 1)
    keep = taking_part(spurious, masks, config.keep_unjudged)
    shuffled = shuffle_verdicts(spurious, prepared.found.segments.labels, random_state=seed)
    models = {
        "before": prepared.model,
        "LVLM-VA": prepared.aligned(masks, keep),
        "true masks": prepared.aligned(prepared.chosen.spurious_masks),
        "moved masks": prepared.aligned(placebo_masks(masks, random_state=seed), keep),
        "shuffled verdicts": prepared.aligned_by_verdicts(shuffled),
        "lambda 0": prepared.aligned(masks, keep, penalty_weight=0.0),
    }
    return [{"experiment": "control", "arm": arm, **prepared.score(m)} for arm, m in models.items()]


def dose_rows(prepared: Prepared, accuracies: Sequence[float] = ACCURACIES) -> list[Row]:
    """What a critic of accuracy q buys: simulated critics that err at random on the truth."""
    rows = []
    for q in accuracies:
        settings = CriticSettings(simulated_accuracy=q)
        spurious = prepared.verdicts("simulated", settings)
        rows.append(_arm(prepared, "dose", f"{q:g}", spurious))
    return rows


def beyond_sweep(seed: int) -> list[Row]:
    """Variants, controls, dose and response, on the test set; mu_Align on 500 images."""
    prepared = prepare(Config(seed=seed, n_explained=500))
    return [*variant_rows(prepared), *control_rows(prepared), *dose_rows(prepared)]
