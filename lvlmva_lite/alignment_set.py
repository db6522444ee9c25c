"""Steps 1 to 3, what they put before the critic, and what its verdicts amount to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor, nn

from lvlmva_lite import metrics
from lvlmva_lite.attribution import runner_up
from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.critic import Case, Verdict
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT, Recording, image_digests
from lvlmva_lite.critic.types import BACKGROUND, KINDS, UNDECIDED
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.models import predict_proba
from lvlmva_lite.registry import EXPLAINERS, SEGMENTERS
from lvlmva_lite.sampling import sample_alignment_set
from lvlmva_lite.segmentation import Segments, positive_effect, segment_sums
from lvlmva_lite.streams import stream
from lvlmva_lite.tasks import Task
from lvlmva_lite.threads import as_configured

GREY_LEVELS = 4
"""By so many may the digests of one image differ: another reader of image files rounds otherwise."""


@dataclass(frozen=True)
class AlignmentSet:
    """What is put before the critic, and what the evaluation knows about it.

    Attributes
    ----------
    indices : Tensor, (N,), int64, within the training data
    attributions : Tensor, (N, H, W), smoothed if the config says so
    segments : Segments
    cases : list of N
    truth : Tensor, (N, J), int64, from :func:`metrics.segment_truth`; not for critics.
        None where nobody knows where the spurious feature is
    """

    indices: Tensor
    attributions: Tensor
    segments: Segments
    cases: list[Case]
    truth: Tensor | None

    def truth_by_case(self) -> dict[str, list[int]]:
        """The truth about each segment, by case id.

        Raises
        ------
        ConfigError : nobody knows it
        """
        if self.truth is None:
            raise ConfigError(
                "nobody knows where the spurious feature of these images is, and the simulated critic needs that; "
                "give masks, or choose another critic"
            )
        return {case.case_id: row for case, row in zip(self.cases, self.truth.tolist(), strict=True)}


def make_cases(
    dataset: ShortcutDataset, indices: Tensor, attributions: Tensor, segments: Segments, description: str
) -> list[Case]:
    """The cases of an alignment set: image, segments with their evidence, label and words.

    ``attributions`` are the maps (n, H, W) that were segmented; their positive part is the evidence.
    """
    return [
        Case(
            case_id=f"{dataset.name}-{index}",
            image=dataset.images[index],
            segment_labels=segments.labels[i],
            n_segments=segments.n_segments,
            class_name=dataset.class_names[dataset.labels[index]],
            description=description,
            evidence=attributions[i].clamp_min(0).float(),
        )
        for i, index in enumerate(indices.tolist())
    ]


def make_alignment_set(
    train: ShortcutDataset, indices: Tensor, attributions: Tensor, segments: Segments, description: str
) -> AlignmentSet:
    """Cases and their truth from what was sampled (N,), explained (N, H, W) and segmented."""
    core = None if train.core_masks is None else train.core_masks[indices]
    truth = None
    if train.spurious_masks is not None:
        spurious = train.spurious_masks[indices]
        truth = metrics.segment_truth(segments.labels, segments.n_segments, attributions, spurious, core)
    cases = make_cases(train, indices, attributions, segments, description)
    return AlignmentSet(indices, attributions, segments, cases, truth)


def check_amounts(config: Config, train: ShortcutDataset) -> None:
    """Raise ConfigError where more training images are asked for than there are."""
    for name in ("n_align", "n_baselines"):
        if getattr(config, name) > len(train):
            raise ConfigError(
                f"{name} must be at most {len(train)}, the training images there are; "
                f"got {getattr(config, name)}"
            )


def draw_baselines(config: Config, train: ShortcutDataset) -> Tensor:
    """Training images (b, C, H, W) that maps compare with."""
    order = torch.randperm(len(train), generator=stream(config.seed, "references"))
    return train.images[order[: config.n_baselines]]


def find_alignment_set(
    config: Config,
    task: Task,
    train: ShortcutDataset,
    model: nn.Module,
    baselines: Tensor,
    *,
    progress: bool = False,
) -> AlignmentSet:
    """Steps 1 to 3: sample, explain, smooth and segment; or take what was recorded."""
    if (recording := task.recording(config)) is not None:
        return recorded_set(recording, config, train)
    probabilities = predict_proba(model, train.images)
    indices = sample_alignment_set(
        probabilities, train.labels, config.n_align,
        strategy=config.sampling, balanced=config.balanced, random_state=config.seed,
    )  # fmt: skip
    chosen = train.subset(indices)
    rivals = runner_up(probabilities[indices], chosen.labels) if config.explain == "contrast" else None
    maps = smooth_maps(config, task, model, chosen, baselines, rivals, progress=progress)
    segments = segment(config, chosen.images, maps, progress=progress)
    return make_alignment_set(train, indices, maps, segments, config.description)


def smooth_maps(
    config: Config,
    task: Task,
    model: nn.Module,
    dataset: ShortcutDataset,
    baselines: Tensor,
    rivals: Tensor | None,
    *,
    progress: bool = False,
) -> Tensor:
    """As :func:`explain`, smoothed as the config says."""
    rows = task.network_named(config.model).max_rows
    maps = explain(config, model, dataset, baselines, rivals=rivals, max_rows=rows, progress=progress)
    if config.smoothing:
        sigma = config.smoothing * maps.shape[-1]
        maps = torch.from_numpy(scipy.ndimage.gaussian_filter(maps.numpy(), sigma, axes=(1, 2)))
    return maps


@as_configured
def explain(
    config: Config,
    model: nn.Module,
    dataset: ShortcutDataset,
    baselines: Tensor,
    *,
    rivals: Tensor | None = None,
    max_rows: int = 256,
    progress: bool = False,
) -> Tensor:
    """Maps (n, H, W) of a data set's own classes by the config's explainer.

    ``rivals`` and ``max_rows`` as for :func:`attribution.deeplift_shap`.
    """
    return EXPLAINERS.get(config.explainer)(
        model,
        dataset.images,
        dataset.labels,
        baselines,
        rivals=rivals,
        progress=progress,
        max_rows=max_rows,
    )


@as_configured
def segment(config: Config, images: Tensor, attributions: Tensor, *, progress: bool = False) -> Segments:
    """Segments of maps (n, H, W), by the config's segmenter."""
    return SEGMENTERS.get(config.segmenter)(images, attributions, config, progress=progress)


def recorded_set(recording: Recording, config: Config, train: ShortcutDataset) -> AlignmentSet:
    """The cases that a real model answered, as they were put before it.

    Raises
    ------
    ConfigError : the images are not those of the recording
    """
    settings = config.critic_settings
    cases = recording.answered(settings.prompt or DEFAULT_PROMPT, settings.model)[: config.n_align]
    indices, labels = recording.indices[cases], recording.segment_labels[cases]
    if int(indices.max()) >= len(train):
        raise _other_images(recording, "there are fewer")
    for what, ours, theirs in (
        ("labels", train.labels, recording.class_labels),
        ("groups", train.groups, recording.groups),
    ):
        if not torch.equal(ours[indices], theirs[cases]):
            raise _other_images(recording, f"their {what} differ")
    if recording.image_digests is not None:
        digests = image_digests(train.images[indices])
        away = (digests.int() - recording.image_digests[cases].int()).abs().flatten(1).amax(1)
        if int(away.max()) > GREY_LEVELS:
            index = int(indices[away.argmax()])
            raise _other_images(recording, f"case {recording.source}-{index} is another picture")
    attributions = recording.attributions[cases]
    n, n_segments = len(cases), recording.n_segments
    nothing = torch.full((n,), math.nan, dtype=torch.float64)
    segments = Segments(
        labels, segment_sums(labels, n_segments, positive_effect(attributions)),
        nothing.expand(2, n_segments, n).permute(2, 1, 0), nothing.expand(2, 2, n_segments, n).permute(3, 2, 0, 1),
        nothing, nothing,
    )  # fmt: skip
    return make_alignment_set(train, indices, attributions, segments, config.description)


def _other_images(recording: Recording, why: str) -> ConfigError:
    return ConfigError(
        f"the images are not those of the recorded cases {recording.name}: {why}; "
        "give the data they were made with, or another critic"
    )


def verdict_matrix(verdicts: list[Verdict], segment_labels: Tensor | None = None) -> Tensor:
    """Verdicts as a tensor (n, J), int64, codes of ``KINDS``.

    Parameters
    ----------
    verdicts : list of n
    segment_labels : (n, H, W) int64, -1 for none
        Where given, a segment without a pixel is background, whatever was said:
        nobody can decide about what is not to be seen.
    """
    kinds = torch.tensor([[KINDS.index(kind) for kind in verdict.kinds] for verdict in verdicts])
    if segment_labels is not None:
        kinds[segment_sums(segment_labels, kinds.shape[1]) == 0] = BACKGROUND
    return kinds


def verdict_quality(kinds: Tensor, truth: Tensor | None) -> dict[str, float | None]:
    """The verdict fields of :class:`results.Score`, of verdicts (n, J) and :func:`metrics.segment_truth`.

    None of them where there is no truth.
    """
    if truth is None:
        return {}
    scores = metrics.verdict_scores(kinds, truth)
    return {f"verdict_{name}": value for name, value in scores.items() if name != "undecided"}


def taking_part(kinds: Tensor, masks: Tensor, keep_unjudged: bool) -> Tensor:
    """Which alignment samples teach: those in which something was judged spurious.

    With ``keep_unjudged``, or where nothing was judged spurious anywhere (there
    is nothing to unlearn, and plain fine-tuning is left), also the others with
    their empty masks; but never a sample that was left undecided, whose empty
    mask would say that all is well there.

    Parameters
    ----------
    kinds : (n, J) int64, codes of ``KINDS``
    masks : (n, H, W) bool

    Returns
    -------
    Tensor, (n,), bool
    """
    judged = masks.flatten(1).any(1)
    if keep_unjudged or not judged.any():
        return judged | ~(kinds == UNDECIDED).any(1)
    return judged
