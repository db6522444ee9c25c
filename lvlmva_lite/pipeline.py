"""The whole method, start to end, every intermediate result kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import chi2
from torch import Tensor, nn

from lvlmva_lite import metrics
from lvlmva_lite.alignment import align, correction_masks
from lvlmva_lite.attribution import deeplift_shap, runner_up
from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.critic import Case, Critique, Verdict, providers
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.providers import Connection, CriticSettings
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT
from lvlmva_lite.critic.types import BACKGROUND, KINDS, SPURIOUS, UNDECIDED
from lvlmva_lite.datasets import (
    ShortcutDataset,
    knee_phantom,
    load_decoy_mnist,
    load_knee,
    load_skin,
    skin_phantom,
)
from lvlmva_lite.environment import environment
from lvlmva_lite.models import (
    Classifier,
    efficientnet_lite0,
    fit,
    mlp,
    predict,
    predict_proba,
    resnet50,
    small_resnet,
)
from lvlmva_lite.sampling import sample_alignment_set
from lvlmva_lite.segmentation import Segments, filled, positive_effect, ppeps_wgm, segment_sums
from lvlmva_lite.streams import stream
from lvlmva_lite.superpixels import sam, superpixels
from lvlmva_lite.threads import as_configured


@dataclass(frozen=True)
class Score:
    """One row of the result table.

    Attributes
    ----------
    accuracy : on the test set, in [0, 1]; each sample counts alike
    accuracy_clean : on the same images without the spurious feature, None where
        there are none such
    mu_align : share of attribution outside the spurious feature, test set
    wga, aga : worst and average accuracy over the test set's groups
    verdict_sensitivity, verdict_specificity, verdict_balanced_accuracy,
    verdict_accuracy, verdict_base_rate : of critic and judge, from
        :func:`metrics.verdict_scores`; None where nobody judged or there was
        nothing of the sort to judge
    seconds : wall time of what this row needed beyond the row before it
    """

    accuracy: float
    accuracy_clean: float | None
    mu_align: float
    seconds: float
    wga: float | None = None
    aga: float | None = None
    verdict_sensitivity: float | None = None
    verdict_specificity: float | None = None
    verdict_balanced_accuracy: float | None = None
    verdict_accuracy: float | None = None
    verdict_base_rate: float | None = None


ROWS = {
    "before": "before",
    "lvlm_va": "LVLM-VA",
    "ground_truth_masks": "ground-truth masks",
    "never_saw_decoys": "never saw decoys",
}
"""Rows of the result table: key in ``Result.scores`` -> what people read."""


@dataclass(frozen=True)
class Result:
    """All that a run made.

    Attributes
    ----------
    config : Config
    indices : Tensor, (N,), int64, the alignment set within the training data
    attributions : Tensor, (N, H, W), of the model before alignment
    segments : Segments
    critiques : list of N times the number of samples
    verdicts : list of N
    kinds : Tensor, (N, J), int64, codes of ``KINDS``
    masks : Tensor, (N, H, W), bool, what the verdicts amount to
    confusion : dict, truth -> kind -> count, from :func:`metrics.kind_confusion`
    models : dict of nn.Module, by the keys of ``ROWS``
    scores : dict of Score, by the keys of ``ROWS``
    """

    config: Config
    indices: Tensor
    attributions: Tensor
    segments: Segments
    critiques: list[Critique]
    verdicts: list[Verdict]
    kinds: Tensor
    masks: Tensor
    confusion: dict[str, dict[str, int]]
    models: dict[str, nn.Module]
    scores: dict[str, Score]

    def summary(self) -> dict:
        """The numbers of a run as plain values, ready for JSON."""
        before, after, bound = (self.scores[row] for row in ("before", "lvlm_va", "ground_truth_masks"))
        return {
            "accuracy_before": before.accuracy,
            "accuracy_after": after.accuracy,
            "accuracy_ground_truth_masks": bound.accuracy,
            "mu_align_before": before.mu_align,
            "mu_align_after": after.mu_align,
            "mu_align_ground_truth_masks": bound.mu_align,
            "verdict_sensitivity": after.verdict_sensitivity,
            "verdict_specificity": after.verdict_specificity,
            "verdict_balanced_accuracy": after.verdict_balanced_accuracy,
            "verdict_accuracy": after.verdict_accuracy,
            "verdict_base_rate": after.verdict_base_rate,
            "verdict_confusion": self.confusion,
            "n_cases": len(self.indices),
            "n_cases_judged_spurious": int(self.masks.flatten(1).any(1).sum()),
            "n_undecided": int((self.kinds == UNDECIDED).sum()),
            "n_cases_undecided": int((self.kinds == UNDECIDED).any(1).sum()),
            "critic": self.critiques[0].critic,
            "judge": self.verdicts[0].judge,
            "seed": self.config.seed,
            "seconds": sum(score.seconds for score in self.scores.values()),
            "scores": {row: asdict(score) for row, score in self.scores.items()},
            "environment": environment(self.config.threads),
            "config": asdict(self.config) | {"description": self.config.expert_description},
        }


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


@dataclass(frozen=True)
class AlignmentSet:
    """What is put before the critic, and what the evaluation knows about it.

    Attributes
    ----------
    indices : Tensor, (N,), int64, within the training data
    attributions : Tensor, (N, H, W), smoothed if the config says so
    segments : Segments
    cases : list of N
    truth : Tensor, (N, J), int64, from :func:`metrics.segment_truth`; not for critics
    """

    indices: Tensor
    attributions: Tensor
    segments: Segments
    cases: list[Case]
    truth: Tensor

    def truth_by_case(self) -> dict[str, list[int]]:
        """The truth about each segment, by case id."""
        return {case.case_id: row for case, row in zip(self.cases, self.truth.tolist(), strict=True)}


_OF_THE_DATA = ("dataset", "data_root", "image_size", "seed", "overlap", "evaluate_on")
"""Fields of the config that decide which data there are."""


@dataclass(frozen=True)
class Prepared:
    """A model that took the shortcut, its alignment set, and the data to go on with.

    What every arm of an experiment shares: arms differ in the masks only.

    Attributes
    ----------
    config : Config
    train, test, clean_test : ShortcutDataset; the latter may be None
        "test" is the split of ``config.evaluate_on``; the clean one has the
        same images without the spurious feature
    model : nn.Module, before alignment
    baselines : Tensor, (b, C, H, W)
    found : AlignmentSet
    training_seconds : wall time of training the model
    """

    config: Config
    train: ShortcutDataset
    test: ShortcutDataset
    clean_test: ShortcutDataset | None
    model: nn.Module
    baselines: Tensor
    found: AlignmentSet
    training_seconds: float

    def changed(self, **settings: Any) -> Prepared:
        """The same model and data with other settings; of these, only the alignment set is made anew.

        Parameters
        ----------
        settings : fields of :class:`Config`

        Raises
        ------
        ConfigError : a setting that decides which data there are
        """
        config = replace(self.config, **settings)
        other = [name for name in _OF_THE_DATA if getattr(config, name) != getattr(self.config, name)]
        if other:
            raise ConfigError(
                f"with another {' and '.join(other)} the data are others: call prepare with this config"
            )
        return _prepared(config, self.train, self.test, self.clean_test, self.model, self.training_seconds)

    @property
    def chosen(self) -> ShortcutDataset:
        """The training samples of the alignment set."""
        return self.train.subset(self.found.indices)

    @as_configured
    def verdicts(
        self,
        critic_name: str | None = None,
        settings: CriticSettings | None = None,
        *,
        progress: bool = False,
    ) -> Tensor:
        """Verdicts (N, J) of an offline critic, as :func:`verdict_matrix` gives them.

        Parameters
        ----------
        critic_name, settings : default: those of the config
        """
        critic, judge = providers.make(
            critic_name or self.config.critic, settings or self.config.critic_settings, Connection(),
            seed=self.config.seed,
            # The one critic that is shown the ground truth, and says so in its name.
            truth=self.found.truth_by_case() if (critic_name or self.config.critic) == "simulated" else None,
            recording=self.config.recording,
        )  # fmt: skip
        critiques = criticise_all(critic, self.found.cases, progress=progress)
        verdicts = judge_all(judge, critiques, self.found.segments.n_segments, progress=progress)
        return verdict_matrix(verdicts, self.found.segments.labels)

    @as_configured
    def aligned(
        self, masks: Tensor, keep: Tensor | None = None, *, progress: bool = False, **settings: float
    ) -> nn.Module:
        """A copy of the model, fine-tuned with these masks on the alignment set.

        Parameters
        ----------
        masks : (N, H, W) bool
        keep : (N,) bool, the samples that take part; None: all.  Where none
            does, the model comes back as it was
        settings : of :func:`alignment.align`, in place of the config's

        Returns
        -------
        nn.Module
        """
        student = copy.deepcopy(self.model)
        keep = torch.ones(len(masks), dtype=torch.bool) if keep is None else keep
        if keep.any():
            chosen = self.chosen
            align(
                student, self.train.images, self.train.labels,
                chosen.images[keep], chosen.labels[keep], masks[keep],
                **{
                    "penalty_weight": self.config.penalty_weight,
                    "penalty_scale": self.config.penalty_scale,
                    "batch_size": self.config.batch_size,
                    "epochs": self.config.align_epochs,
                    "learning_rate": self.config.align_learning_rate,
                    "align_fraction": self.config.align_fraction,
                    "decay": self.config.decay,
                    "random_state": self.config.seed,
                    "progress": progress,
                } | settings,
            )  # fmt: skip
        return student

    def masks(self, kinds: Tensor) -> Tensor:
        """What verdicts (N, J) amount to, (N, H, W) bool, by the config's ``mask`` and ``mask_near``."""
        judged = kinds == SPURIOUS
        if self.config.mask == "spurious+background":
            judged |= kinds == BACKGROUND
        return correction_masks(
            self.found.segments.labels, judged, self.found.attributions, near=self.config.mask_near
        )

    def aligned_by_verdicts(self, kinds: Tensor, **settings: float) -> nn.Module:
        """As :meth:`aligned`, with the masks that verdicts (N, J) amount to."""
        masks = self.masks(kinds)
        return self.aligned(masks, taking_part(kinds, masks, self.config.keep_unjudged), **settings)

    @as_configured
    def score(self, model: nn.Module) -> dict[str, float]:
        """The measured fields of :class:`Score`, of a model on the test set."""
        test = self.test
        # Images of real sets and phantoms come sorted: take some of every kind.
        step = max(1, len(test) // self.config.n_explained)
        shown = test.subset(
            torch.arange(len(test))[:: step if self.config.data_root else 1][: self.config.n_explained]
        )
        # Of few images, so that a pretrained network keeps within 2 GB.
        rows = 32 if self.config.model in ("resnet50", "efficientnet_lite0") else None
        maps = explain(self.config, model, shown, self.baselines, rivals=None, max_rows=rows)
        predicted = predict(model, test.images)
        in_groups = metrics.group_accuracy(predicted, test.labels, test.groups, len(test.group_names))
        clean = self.clean_test
        return {
            "accuracy": metrics.accuracy(predicted, test.labels),
            "accuracy_clean": None
            if clean is None
            else metrics.accuracy(predict(model, clean.images), clean.labels),
            "mu_align": metrics.mu_align(maps, shown.spurious_masks),
            "wga": metrics.worst_group_accuracy(in_groups),
            "aga": metrics.average_group_accuracy(in_groups),
        }


def load_split(config: Config, split: str, *, clean: bool = False) -> ShortcutDataset | None:
    """One split of the config's data set.

    Parameters
    ----------
    split : "train", "validation" or "test"
    clean : the same images without the spurious feature; None where there are
        none such (natural patches cannot be taken off)

    Raises
    ------
    ImageDataError : the real images are not as their loader wants them
    """
    seed, size = config.seed, config.image_size
    if config.dataset == "decoy-mnist":
        return load_decoy_mnist(split, shade="none" if clean else None, random_state=seed)
    rate = (0.0, 0.0) if clean else None
    if not config.data_root:
        draw = {"knee": knee_phantom, "skin": skin_phantom}[config.dataset]
        return draw(split, size=size, marker_rate=rate, overlap=config.overlap, random_state=seed)
    if config.dataset == "knee":
        return load_knee(config.data_root, split, size=size, marker_rate=rate, random_state=seed)
    return (
        None
        if clean
        else load_skin(config.data_root, split, size=size, shared_images="warn", random_state=seed)
    )


@as_configured
def prepare(config: Config, *, model: nn.Module | None = None, progress: bool = False) -> Prepared:
    """Train a model on the shortcut and make its alignment set, without asking anybody about it.

    Parameters
    ----------
    config : Config
    model : one that was trained before, with a config of the same seed; None: train one

    Raises
    ------
    ConfigError : the alignment set or the baselines ask for more training images than there are
    """
    train = load_split(config, "train")
    _check_amounts(config, train)
    test, clean_test = (load_split(config, config.evaluate_on, clean=clean) for clean in (False, True))
    clock = _Clock()
    model = model or trained(config, train, progress=progress)
    training_seconds = clock.lap()
    return _prepared(config, train, test, clean_test, model, training_seconds, progress)


@as_configured
def _prepared(
    config: Config,
    train: ShortcutDataset,
    test: ShortcutDataset,
    clean_test: ShortcutDataset | None,
    model: nn.Module,
    training_seconds: float,
    progress: bool = False,
) -> Prepared:
    _check_amounts(config, train)
    baselines = _baselines(config, train)
    found = _alignment_set(config, train, model, baselines, progress)
    return Prepared(config, train, test, clean_test, model, baselines, found, training_seconds)


def _check_amounts(config: Config, train: ShortcutDataset) -> None:
    for name in ("n_align", "n_baselines"):
        if getattr(config, name) > len(train):
            raise ConfigError(
                f"{name} must be at most {len(train)}, the training images there are; "
                f"got {getattr(config, name)}"
            )


def _baselines(config: Config, train: ShortcutDataset) -> Tensor:
    order = torch.randperm(len(train), generator=stream(config.seed, "references"))
    return train.images[order[: config.n_baselines]]


def new_model(config: Config, dataset: ShortcutDataset, random_state: int) -> Classifier:
    """An untrained (or, for the backbones, pretrained) model of the config for this data set."""
    make = {
        "mlp": mlp,
        "small_resnet": small_resnet,
        "resnet50": partial(resnet50, weights=config.weights),
        "efficientnet_lite0": partial(efficientnet_lite0, weights=config.weights),
    }[config.model]
    model = make(dataset.images.shape[1:], dataset.n_classes, random_state=random_state)
    if config.device == "auto":
        return model.to("cuda" if config.model != "mlp" and torch.cuda.is_available() else "cpu")
    return model.to(config.device)


@as_configured
def trained(
    config: Config, dataset: ShortcutDataset, *, model: Classifier | None = None, progress: bool = False
) -> Classifier:
    """A fresh model of the config, or the untrained ``model``, trained on ``dataset``."""
    model = model or new_model(config, dataset, config.seed)
    fit(
        model, dataset.images, dataset.labels,
        epochs=config.train_epochs, learning_rate=config.learning_rate, decay=config.decay,
        batch_size=config.batch_size, random_state=config.seed, progress=progress,
    )  # fmt: skip
    return model


@as_configured
def explain(
    config: Config,
    model: nn.Module,
    dataset: ShortcutDataset,
    baselines: Tensor,
    *,
    rivals: Tensor | None,
    max_rows: int | None = None,
    progress: bool = False,
) -> Tensor:
    """DeepLIFT-SHAP maps (n, H, W) of a data set's own classes, within the memory that the model allows.

    ``max_rows`` as for :func:`attribution.deeplift_shap`; None: 12,800 for the MLP, else 256.
    """
    return deeplift_shap(
        model, dataset.images, dataset.labels, baselines, rivals=rivals, progress=progress,
        max_rows=max_rows or (12_800 if config.model == "mlp" else 256),
    )  # fmt: skip


@as_configured
def segment(config: Config, images: Tensor, attributions: Tensor, *, progress: bool = False) -> Segments:
    """Segments of maps (n, H, W), by the config's segmenter."""
    if config.segmenter == "sam":
        return sam(
            images, attributions, config.n_segments,
            checkpoint=config.segmenter_checkpoint, progress=progress,
        )  # fmt: skip
    if config.segmenter != "ppeps-wgm":
        return superpixels(
            images, attributions, config.n_segments, method=config.segmenter, progress=progress
        )
    hybrid = {"features": images, "feature_weight": config.feature_weight} if config.feature_weight else {}
    segments = ppeps_wgm(
        attributions, config.n_segments,
        random_state=config.seed, tol=config.tolerance, progress=progress, **hybrid,
    )  # fmt: skip
    if config.fill:
        distance = config.fill
        if hybrid:  # as much of a Gaussian as that ellipse holds in the plane, 1 - exp(-fill / 2)
            distance = float(chi2.isf(math.exp(-distance / 2), segments.means.shape[2]))
        segments = filled(segments, distance, features=images if hybrid else None)
    return segments


def _alignment_set(
    config: Config, train: ShortcutDataset, model: nn.Module, baselines: Tensor, progress: bool
) -> AlignmentSet:
    if config.recording is not None:
        return recorded_set(config, train)
    probabilities = predict_proba(model, train.images)
    indices = sample_alignment_set(
        probabilities, train.labels, config.n_align,
        strategy=config.sampling, balanced=config.balanced, random_state=config.seed,
    )  # fmt: skip
    chosen = train.subset(indices)
    rivals = runner_up(probabilities[indices], chosen.labels) if config.explain == "contrast" else None
    attributions = explain(config, model, chosen, baselines, rivals=rivals, progress=progress)
    if config.smoothing:
        sigma = config.smoothing * config.image_size
        attributions = torch.from_numpy(gaussian_filter(attributions.numpy(), sigma, axes=(1, 2)))
    segments = segment(config, chosen.images, attributions, progress=progress)
    return make_alignment_set(train, indices, attributions, segments, config.expert_description)


def recorded_set(config: Config, train: ShortcutDataset) -> AlignmentSet:
    """The cases that a real model answered, as they were put before it."""
    recording, settings = config.recording, config.critic_settings
    cases = recording.answered(settings.prompt or DEFAULT_PROMPT, settings.model)[: config.n_align]
    indices, labels = recording.indices[cases], recording.segment_labels[cases]
    for what, ours, theirs in (
        ("labels", train.labels, recording.class_labels),
        ("groups", train.groups, recording.groups),
    ):
        if int(indices.max()) >= len(train) or not torch.equal(ours[indices], theirs[cases]):
            raise ConfigError(
                f"the images are not those of the recorded cases {recording.name}: their {what} differ; "
                "give the data they were made with, or another critic"
            )
    attributions = recording.attributions[cases]
    n, n_segments = len(cases), recording.n_segments
    nothing = torch.full((n,), math.nan, dtype=torch.float64)
    segments = Segments(
        labels, segment_sums(labels, n_segments, positive_effect(attributions)),
        nothing.expand(2, n_segments, n).permute(2, 1, 0), nothing.expand(2, 2, n_segments, n).permute(3, 2, 0, 1),
        nothing, nothing,
    )  # fmt: skip
    return make_alignment_set(train, indices, attributions, segments, config.expert_description)


def make_alignment_set(
    train: ShortcutDataset, indices: Tensor, attributions: Tensor, segments: Segments, description: str
) -> AlignmentSet:
    """Cases and their truth from what was sampled (N,), explained (N, H, W) and segmented."""
    core = None if train.core_masks is None else train.core_masks[indices]
    return AlignmentSet(
        indices,
        attributions,
        segments,
        make_cases(train, indices, attributions, segments, description),
        metrics.segment_truth(
            segments.labels, segments.n_segments, attributions, train.spurious_masks[indices], core
        ),
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


def verdict_quality(kinds: Tensor, truth: Tensor) -> dict[str, float | None]:
    """The verdict fields of :class:`Score`, of verdicts (n, J) and :func:`metrics.segment_truth`."""
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


@as_configured
def run(
    config: Config,
    *,
    connection: Connection | None = None,
    known_critiques: Mapping[tuple[str, int], Critique] | None = None,
    on_critique: Callable[[Critique], None] | None = None,
    progress: bool = False,
) -> Result:
    """Train on decoys, find the shortcut, have it judged, unlearn it, and measure.

    Parameters
    ----------
    config : Config
    connection : how to reach the critic's model and what that may cost
    known_critiques : critiques of an earlier, interrupted run with this
        config, by case id and sample; they are not asked for again
    on_critique : called with each new critique as soon as it is there
    progress : show progress bars

    Returns
    -------
    Result

    Raises
    ------
    SettingsError : the critic cannot be had; before any work
    ServerError, CapReached, StoreError : its answers stopped coming; those so
        far are in the store
    """
    if config.dataset != "decoy-mnist":
        raise ConfigError(f"pipeline.run is for decoy-mnist; methods.run runs {config.dataset}")
    connection = connection or Connection()
    providers.check(config.critic, config.critic_settings, connection, config.source)
    clock = _Clock()
    ready = prepare(config, progress=progress)
    found = ready.found

    finding_seconds = clock.lap() - ready.training_seconds

    def scored(model: nn.Module, seconds: float, **verdicts: float) -> Score:
        score = Score(**ready.score(model), seconds=seconds, **verdicts)
        clock.lap()  # measuring is not part of any method's time
        return score

    models, scores = {"before": ready.model}, {"before": scored(ready.model, ready.training_seconds)}
    critic, judge = providers.make(
        config.critic, config.critic_settings, connection, seed=config.seed,
        # The one critic that is shown the ground truth, and says so in its name.
        truth=found.truth_by_case() if config.critic == "simulated" else None,
        recording=config.recording,
    )  # fmt: skip
    critiques = criticise_all(
        critic, found.cases, known=known_critiques, on_critique=on_critique, judge=judge, progress=progress
    )
    verdicts = judge_all(judge, critiques, config.n_segments, progress=progress)
    kinds = verdict_matrix(verdicts, found.segments.labels)
    masks = ready.masks(kinds)

    models["lvlm_va"] = ready.aligned_by_verdicts(kinds, progress=progress)
    scores["lvlm_va"] = scored(
        models["lvlm_va"], finding_seconds + clock.lap(), **verdict_quality(kinds, found.truth)
    )

    # The bound: the same samples and budget, with the square's own pixels for masks.
    models["ground_truth_masks"] = ready.aligned(ready.chosen.spurious_masks, progress=progress)
    scores["ground_truth_masks"] = scored(models["ground_truth_masks"], clock.lap())
    models["never_saw_decoys"] = trained(config, load_decoy_mnist("train", shade="none"), progress=progress)
    scores["never_saw_decoys"] = scored(models["never_saw_decoys"], clock.lap())

    return Result(
        config,
        found.indices,
        found.attributions,
        found.segments,
        critiques,
        verdicts,
        kinds,
        masks,
        metrics.kind_confusion(kinds, found.truth),
        models,
        scores,
    )


class _Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


def format_table(scores: Mapping[str, Score]) -> str:
    """The result table as text, one row per model.

    "found" is the sensitivity of the verdicts for what is spurious, "spared"
    their specificity.
    """
    lines = [
        f"{'':<20}{'decoy test':>11}{'clean MNIST':>13}{'mu_Align':>10}{'found':>8}{'spared':>8}{'seconds':>9}"
    ]
    for row, score in scores.items():
        found, spared = (
            "-" if value is None else f"{value:.3f}"
            for value in (score.verdict_sensitivity, score.verdict_specificity)
        )
        lines.append(
            f"{ROWS[row]:<20}{score.accuracy:>11.3f}{score.accuracy_clean:>13.3f}"
            f"{score.mu_align:>10.3f}{found:>8}{spared:>8}{score.seconds:>9.1f}"
        )
    return "\n".join(lines)
