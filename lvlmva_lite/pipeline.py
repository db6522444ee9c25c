"""The whole method, start to end, every intermediate result kept."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from lvlmva_lite import metrics
from lvlmva_lite.alignment import align, correction_masks
from lvlmva_lite.attribution import deeplift_shap, runner_up
from lvlmva_lite.critic import Case, Critique, Verdict, class_description, providers
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.lexicon import read_description
from lvlmva_lite.critic.providers import Connection, CriticSettings
from lvlmva_lite.datasets import ShortcutDataset, load_decoy_mnist
from lvlmva_lite.datasets.decoy_mnist import N_VALIDATION
from lvlmva_lite.models import fit, mlp, predict, predict_proba
from lvlmva_lite.sampling import STRATEGIES, sample_alignment_set
from lvlmva_lite.segmentation import Segments, ppeps_wgm

DATASETS = ("decoy-mnist",)
N_TRAIN = 60_000 - N_VALIDATION
N_TEST = 10_000


class ConfigError(ValueError):
    """A setting that cannot work; the message says which and what to do."""


@dataclass(frozen=True)
class Config:
    """Every setting of a run.  Checked when made, before any work.

    Attributes
    ----------
    dataset : one of ``DATASETS``
    critic : one of ``critic.providers.PROVIDERS``
    critic_settings : model, samples, ...: what decides the critic's answers
    description : the expert's words; empty: those that ship for the data set
    seed : int >= 0, draws decoys, weights, batches and baselines
    n_align : N, size of the alignment set, 1 .. 50 000
    n_segments : J, segments of an image, 1 .. 50
    penalty_weight : lambda >= 0, for the mean over samples and pixels of the
        squared input gradient, inputs in [0, 1]
    sampling : "low" (the method), "random" or "high" entropy
    balanced : take equally many alignment samples from each class
    explain : "contrast": the logit of the class minus that of its runner-up,
        why this class rather than the next?; "logit": that of the class alone
    keep_unjudged : keep alignment samples in which nothing was judged spurious;
        their empty masks say "all is well here", which is not known
    train_epochs, align_epochs : passes over the 50 000 training images
    align_learning_rate, align_fraction : of the fine-tuning; the share of a
        batch that comes from the alignment set
    n_baselines : training images that DeepLIFT-SHAP compares with, >= 2
    n_explained : test images on which mu_Align is measured, 1 .. 10 000
    evaluate_on : "test", or "validation" when settings are being chosen
    """

    dataset: str = "decoy-mnist"
    critic: str = "lexicon"
    critic_settings: CriticSettings = field(default_factory=CriticSettings)
    description: str = ""
    seed: int = 0
    n_align: int = 1000
    n_segments: int = 6
    penalty_weight: float = 2.0
    sampling: str = "low"
    balanced: bool = True
    explain: str = "contrast"
    keep_unjudged: bool = False
    train_epochs: int = 5
    align_epochs: int = 5
    align_learning_rate: float = 3e-3
    align_fraction: float = 0.5
    n_baselines: int = 50
    n_explained: int = 2000
    evaluate_on: str = "test"

    def __post_init__(self) -> None:
        for value, name, known in (
            (self.dataset, "dataset", DATASETS),
            (self.critic, "critic", providers.PROVIDERS),
            (self.sampling, "sampling", STRATEGIES),
            (self.explain, "explain", ("contrast", "logit")),
            (self.evaluate_on, "evaluate_on", ("test", "validation")),
        ):
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}; choose one of: {', '.join(known)}")
        for value, name, low, high, unit in (
            (self.seed, "seed", 0, 2**32 - 1, ""),
            (self.n_align, "n_align (N)", 1, N_TRAIN, ", the training images there are"),
            (self.n_segments, "n_segments (J)", 1, 50, ""),
            (self.train_epochs, "train_epochs", 1, 1000, ""),
            (self.align_epochs, "align_epochs", 1, 1000, ""),
            (self.n_baselines, "n_baselines", 2, N_TRAIN, ", the training images there are"),
            (self.n_explained, "n_explained", 1, N_TEST, ", the test images there are"),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name} must be a whole number; got {value!r}")
            if not low <= value <= high:
                raise ConfigError(f"{name} must lie between {low} and {high}{unit}; got {value}")
        if not 0 <= self.penalty_weight < float("inf"):
            raise ConfigError(f"lambda must be a number of at least 0; got {self.penalty_weight}")
        if not 0 < self.align_learning_rate < float("inf"):
            raise ConfigError(f"align_learning_rate must be above 0; got {self.align_learning_rate}")
        if not 0 < self.align_fraction < 1:
            raise ConfigError(
                f"align_fraction must lie strictly between 0 and 1; got {self.align_fraction}"
            )
        if self.critic == "lexicon" and not read_description(self.expert_description):
            raise ConfigError(
                f"the lexicon critic knows no word of the description {self.expert_description!r}; "
                "name things such as a square, a stroke, a letter, a joint, a lesion or a bandage"
            )

    @property
    def expert_description(self) -> str:
        """The description in force."""
        return self.description.strip() or class_description(self.dataset)


@dataclass(frozen=True)
class Score:
    """One row of the result table.

    Attributes
    ----------
    accuracy : on the decoy test set, in [0, 1]
    accuracy_clean : on MNIST's test digits without any square
    mu_align : share of attribution outside the square, test set
    verdict_accuracy, verdict_balanced_accuracy : of critic and judge, None
        where nobody judged
    seconds : wall time of what this row needed beyond the row before it
    """

    accuracy: float
    accuracy_clean: float
    mu_align: float
    seconds: float
    verdict_accuracy: float | None = None
    verdict_balanced_accuracy: float | None = None


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
    spurious : Tensor, (N, J), float: 1 spurious, 0 not, nan undecided
    masks : Tensor, (N, H, W), bool, what the verdicts amount to
    models : dict of nn.Module, by the keys of ``ROWS``
    scores : dict of Score, by the keys of ``ROWS``
    """

    config: Config
    indices: Tensor
    attributions: Tensor
    segments: Segments
    critiques: list[Critique]
    verdicts: list[Verdict]
    spurious: Tensor
    masks: Tensor
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
            "verdict_accuracy": after.verdict_accuracy,
            "n_cases": len(self.indices),
            "n_cases_judged_spurious": int(self.masks.flatten(1).any(1).sum()),
            "n_undecided": int(self.spurious.isnan().sum()),
            "n_cases_undecided": int(self.spurious.isnan().any(1).sum()),
            "critic": self.critiques[0].critic,
            "judge": self.verdicts[0].judge,
            "seed": self.config.seed,
            "seconds": sum(score.seconds for score in self.scores.values()),
            "scores": {row: asdict(score) for row, score in self.scores.items()},
            "config": asdict(self.config) | {"description": self.config.expert_description},
        }


def make_cases(
    dataset: ShortcutDataset, indices: Tensor, segments: Segments, description: str
) -> list[Case]:
    """The cases of an alignment set: image, segments, label and words, and nothing else."""
    return [
        Case(
            case_id=f"{dataset.name}-{index}",
            image=dataset.images[index],
            segment_labels=segments.labels[i],
            n_segments=segments.n_segments,
            class_name=dataset.class_names[dataset.labels[index]],
            description=description,
        )
        for i, index in enumerate(indices.tolist())
    ]


@dataclass(frozen=True)
class AlignmentSet:
    """What is put before the critic, and what the evaluation knows about it.

    Attributes
    ----------
    indices : Tensor, (N,), int64, within the training data
    attributions : Tensor, (N, H, W)
    segments : Segments
    cases : list of N
    truth : Tensor, (N, J), bool, from :func:`metrics.segment_truth`; not for critics
    """

    indices: Tensor
    attributions: Tensor
    segments: Segments
    cases: list[Case]
    truth: Tensor

    def truth_by_case(self) -> dict[str, list[bool]]:
        """Whether each segment is spurious in truth, by case id."""
        return {case.case_id: row for case, row in zip(self.cases, self.truth.tolist(), strict=True)}


@dataclass(frozen=True)
class Prepared:
    """A model that took the shortcut, its alignment set, and the data to go on with.

    What every arm of an experiment shares: arms differ in the masks only.

    Attributes
    ----------
    config : Config
    train, test, clean_test : ShortcutDataset
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
    clean_test: ShortcutDataset
    model: nn.Module
    baselines: Tensor
    found: AlignmentSet
    training_seconds: float

    @property
    def chosen(self) -> ShortcutDataset:
        """The training samples of the alignment set."""
        return self.train.subset(self.found.indices)

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
        )  # fmt: skip
        critiques = criticise_all(critic, self.found.cases, progress=progress)
        return verdict_matrix(
            judge_all(judge, critiques, self.found.segments.n_segments, progress=progress)
        )

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
                    "epochs": self.config.align_epochs,
                    "learning_rate": self.config.align_learning_rate,
                    "align_fraction": self.config.align_fraction,
                    "random_state": self.config.seed,
                    "progress": progress,
                } | settings,
            )  # fmt: skip
        return student

    def aligned_by_verdicts(self, spurious: Tensor, **settings: float) -> nn.Module:
        """As :meth:`aligned`, with the masks that verdicts (N, J) amount to."""
        masks = correction_masks(self.found.segments.labels, spurious == 1)
        return self.aligned(masks, taking_part(spurious, masks, self.config.keep_unjudged), **settings)

    def score(self, model: nn.Module) -> dict[str, float]:
        """ "accuracy", "accuracy_clean" and "mu_align" of a model, all in [0, 1]."""
        test, some = self.test, slice(self.config.n_explained)
        maps = deeplift_shap(model, test.images[some], test.labels[some], self.baselines)
        return {
            "accuracy": metrics.accuracy(predict(model, test.images), test.labels),
            "accuracy_clean": metrics.accuracy(
                predict(model, self.clean_test.images), self.clean_test.labels
            ),
            "mu_align": metrics.mu_align(maps, test.spurious_masks[some]),
        }


def prepare(config: Config, *, model: nn.Module | None = None, progress: bool = False) -> Prepared:
    """Train a model on the shortcut and make its alignment set, without asking anybody about it.

    Parameters
    ----------
    config : Config
    model : one that was trained before, with a config of the same seed; None: train one
    """
    train = load_decoy_mnist("train", random_state=config.seed)
    clock = _Clock()
    model = model or trained(config, train, progress=progress)
    training_seconds = clock.lap()
    baselines = _baselines(config, train)
    return Prepared(
        config,
        train,
        load_decoy_mnist(config.evaluate_on, random_state=config.seed),
        load_decoy_mnist(config.evaluate_on, shade="none"),
        model,
        baselines,
        _alignment_set(config, train, model, baselines, progress),
        training_seconds,
    )


def _baselines(config: Config, train: ShortcutDataset) -> Tensor:
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
    return train.images[order[: config.n_baselines]]


def trained(config: Config, dataset: ShortcutDataset, *, progress: bool = False) -> nn.Module:
    """A fresh model of the config, trained on ``dataset``."""
    model = mlp(dataset.images.shape[1:], dataset.n_classes, random_state=config.seed)
    fit(
        model, dataset.images, dataset.labels,
        epochs=config.train_epochs, random_state=config.seed, progress=progress,
    )  # fmt: skip
    return model


def _alignment_set(
    config: Config, train: ShortcutDataset, model: nn.Module, baselines: Tensor, progress: bool
) -> AlignmentSet:
    probabilities = predict_proba(model, train.images)
    indices = sample_alignment_set(
        probabilities, train.labels, config.n_align,
        strategy=config.sampling, balanced=config.balanced, random_state=config.seed,
    )  # fmt: skip
    chosen = train.subset(indices)
    rivals = runner_up(probabilities[indices], chosen.labels) if config.explain == "contrast" else None
    attributions = deeplift_shap(
        model, chosen.images, chosen.labels, baselines, rivals=rivals, progress=progress
    )
    segments = ppeps_wgm(attributions, config.n_segments, random_state=config.seed, progress=progress)
    return make_alignment_set(train, indices, attributions, segments, config.expert_description)


def make_alignment_set(
    train: ShortcutDataset, indices: Tensor, attributions: Tensor, segments: Segments, description: str
) -> AlignmentSet:
    """Cases and their truth from what was sampled (N,), explained (N, H, W) and segmented."""
    return AlignmentSet(
        indices,
        attributions,
        segments,
        make_cases(train, indices, segments, description),
        metrics.segment_truth(
            segments.labels, segments.n_segments, attributions, train.spurious_masks[indices]
        ),
    )


def verdict_matrix(verdicts: list[Verdict]) -> Tensor:
    """Verdicts as a tensor (n, J), float: 1 spurious, 0 not, nan undecided."""
    return torch.tensor(
        [[float("nan") if ruled is None else float(ruled) for ruled in v.spurious] for v in verdicts]
    )


def taking_part(spurious: Tensor, masks: Tensor, keep_unjudged: bool) -> Tensor:
    """Which alignment samples teach: those in which something was judged spurious.

    With ``keep_unjudged``, or where nothing was judged spurious anywhere (there
    is nothing to unlearn, and plain fine-tuning is left), also the others with
    their empty masks; but never a sample that was left undecided, whose empty
    mask would say that all is well there.

    Parameters
    ----------
    spurious : (n, J) float, 1 spurious, 0 not, nan undecided
    masks : (n, H, W) bool

    Returns
    -------
    Tensor, (n,), bool
    """
    judged = masks.flatten(1).any(1)
    if keep_unjudged or not judged.any():
        return judged | ~spurious.isnan().any(1)
    return judged


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
    connection = connection or Connection()
    providers.check(config.critic, config.critic_settings, connection, config.dataset)
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
    )  # fmt: skip
    critiques = criticise_all(
        critic, found.cases, known=known_critiques, on_critique=on_critique, progress=progress
    )
    verdicts = judge_all(judge, critiques, config.n_segments, progress=progress)
    spurious = verdict_matrix(verdicts)
    masks = correction_masks(found.segments.labels, spurious == 1)

    models["lvlm_va"] = ready.aligned_by_verdicts(spurious, progress=progress)
    ruled = metrics.verdict_accuracy(spurious, found.truth, found.segments.labels)
    scores["lvlm_va"] = scored(
        models["lvlm_va"],
        finding_seconds + clock.lap(),
        verdict_accuracy=ruled["accuracy"],
        verdict_balanced_accuracy=ruled["balanced_accuracy"],
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
        spurious,
        masks,
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
    """The result table as text, one row per model."""
    lines = [f"{'':<20}{'decoy test':>11}{'clean MNIST':>13}{'mu_Align':>10}{'verdicts':>10}{'seconds':>9}"]
    for row, score in scores.items():
        verdicts = "-" if score.verdict_accuracy is None else f"{score.verdict_accuracy:.3f}"
        lines.append(
            f"{ROWS[row]:<20}{score.accuracy:>11.3f}{score.accuracy_clean:>13.3f}"
            f"{score.mu_align:>10.3f}{verdicts:>10}{score.seconds:>9.1f}"
        )
    return "\n".join(lines)
