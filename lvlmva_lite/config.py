"""Every setting of a run: the defaults of each data set, and the checks that come before any work."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lvlmva_lite.critic import class_description, providers, recordings
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.reading import read_description
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT, Recording
from lvlmva_lite.datasets.decoy_mnist import N_VALIDATION
from lvlmva_lite.datasets.phantoms.scene import SIZES
from lvlmva_lite.sampling import STRATEGIES

N_TRAIN = 60_000 - N_VALIDATION
N_TEST = 10_000
DATASETS = ("decoy-mnist", "knee", "skin")
METHODS = ("lvlm-va", "rrr-gt", "subg", "dfr", "jtt", "placebo", "finetune")
FITTED_ON = {method: ("train", "validation") if method == "dfr" else ("train",) for method in METHODS}
"""The splits whose samples set a method's weights; nothing is measured on these."""
MODELS = ("mlp", "small_resnet", "resnet50", "efficientnet_lite0")
DEVICES = ("auto", "cpu", "cuda")
MASKS = ("spurious", "spurious+background")
SEGMENTERS = ("ppeps-wgm", "felzenszwalb", "slic", "sam")

_MNIST = {
    "model": "mlp",
    "image_size": 28,
    "n_align": 1000,
    "penalty_weight": 2.0,
    "penalty_scale": "none",
    "fill": 0.0,
    "tolerance": 5e-5,
    "smoothing": 0.0,
    "train_epochs": 5,
    "learning_rate": 1e-3,
    "decay": False,
    "batch_size": 256,
    "align_epochs": 5,
    "align_learning_rate": 3e-3,
    "align_fraction": 0.5,
    "mask_near": 0.0,
    "keep_unjudged": False,
    "n_baselines": 50,
    "n_explained": 2000,
}
_PHANTOMS = {
    "model": "small_resnet",
    "image_size": 64,
    "n_align": 300,
    "penalty_weight": 1.0,
    "penalty_scale": "initial",
    "fill": 3.0,
    "tolerance": 5e-4,
    "smoothing": 0.023,
    "train_epochs": 8,
    "learning_rate": 3e-3,
    "decay": True,
    "batch_size": 64,
    "align_epochs": 3,
    "align_learning_rate": 6e-4,
    "align_fraction": 0.25,
    # Two classes, and the spurious feature on one of them: without the images in which
    # nothing is judged, the alignment set would hold that class alone.
    "keep_unjudged": True,
    # What is judged by its bright pixels is masked by them: on validation seeds no worse
    # with right verdicts, and better with false alarms.
    "mask_near": 0.5,
    "n_baselines": 12,
    "n_explained": 60,
}
_PHOTOGRAPHS = _PHANTOMS | {
    "model": "efficientnet_lite0",
    "n_align": 200,
    "train_epochs": 6,
    "learning_rate": 1e-3,
    "batch_size": 32,
    "align_learning_rate": 1e-4,
    "n_baselines": 4,
    "n_explained": 20,
}


def defaults(dataset: str, data_root: str = "") -> dict[str, Any]:
    """The settings of a data set: DecoyMNIST, phantoms, or real images (with a ``data_root``).

    Chosen on validation splits, of seeds that are not reported for the phantoms.
    """
    if dataset == "decoy-mnist":
        return _MNIST
    if not data_root:
        return _PHANTOMS
    # Few sampled photographs of skin show a patch, and they have to be heard.
    return _PHOTOGRAPHS | ({"penalty_weight": 3.0} if dataset == "skin" else {})


class ConfigError(ValueError):
    """A setting that cannot work; the message says which and what to do."""


@dataclass(frozen=True)
class Config:
    """Every setting of a run.  Checked when made, before any work.

    Settings that are None are filled in from :func:`defaults`.

    Attributes
    ----------
    dataset : one of ``DATASETS``
    data_root : folder of real knees or skin lesions; empty: phantoms, drawn from the seed
    method : one of ``METHODS``; those other than "lvlm-va" are for knee and skin
    model : one of ``MODELS``
    weights : of resnet50 and efficientnet_lite0: "imagenet", "none" or a file
    image_size : side in pixels; 28 for DecoyMNIST
    device : one of ``DEVICES``, where the network computes; "auto": on a GPU where
        there is one, but for the MLP, which is faster without
    critic : one of ``critic.providers.names()``
    critic_settings : model, samples, ...: what decides the critic's answers
    description : the expert's words; None: those that ship for the data set
    seed : int >= 0, draws decoys, phantoms, weights, batches and baselines
    n_align : N, size of the alignment set
    n_segments : J, segments of an image, 1 .. 50
    segmenter : one of ``SEGMENTERS``
    segmenter_checkpoint : file with SAM's weights, for "sam"
    fill : segments take all pixels within this squared Mahalanobis distance of
        their Gaussian, also those without positive effect; 0: only pixels of
        positive effect.  3 is the ellipse that holds 78 % of a Gaussian, 6 that
        of 95 %; beside features the distance is the one that holds as much in so
        many dimensions.
    smoothing : standard deviation, as a share of the image's side, of the
        Gaussian that smooths maps before they are segmented.  A convolutional
        network's map alternates in sign from pixel to pixel; its positive part
        alone is mostly this noise, which neighbours cancel.
    tolerance : at which a mixture is done, see :func:`segmentation.ppeps_wgm`
    feature_weight : > 0: a mixture over coordinates and colours, see
        :func:`segmentation.ppeps_wgm`; 0: coordinates alone
    penalty_weight : lambda >= 0, for the mean over samples and pixels of the
        squared input gradient, inputs in [0, 1]
    penalty_scale : "none" or "initial" (lambda in nats), see :func:`alignment.align`
    sampling : "low" (the method), "random" or "high" entropy
    balanced : take equally many alignment samples from each class
    explain : "contrast": the logit of the class minus that of its runner-up,
        why this class rather than the next?; "logit": that of the class alone
    mask : "spurious", or "spurious+background": which kinds of segments are masked
    mask_near : in [0, 1], see ``near`` of :func:`alignment.correction_masks`
    keep_unjudged : keep alignment samples in which nothing was judged spurious;
        their empty masks say "all is well here", which is not known
    train_epochs, learning_rate, batch_size : of the training on the shortcut
    decay : lower the learning rate to 0 by the end of training, and of alignment
    align_epochs, align_learning_rate, align_fraction : of the fine-tuning;
        the share of a batch that comes from the alignment set
    n_baselines : training images that DeepLIFT-SHAP compares with, >= 2
    n_explained : test images on which mu_Align is measured
    overlap : phantoms whose spurious feature lies on the core feature
    threads : of PyTorch, BLAS and OpenMP, 1 .. 256.  Another number rounds otherwise, and results move
        with it: a setting like the others, whatever the machine has.  More than 1 is
        for large networks on a CPU; the book's own are as fast with 1
    evaluate_on : "test", or "validation" when settings are being chosen
    """

    dataset: str = "decoy-mnist"
    data_root: str = ""
    method: str = "lvlm-va"
    model: str | None = None
    weights: str = "imagenet"
    image_size: int | None = None
    device: str = "auto"
    critic: str = "lexicon"
    critic_settings: CriticSettings = field(default_factory=CriticSettings)
    description: str | None = None
    seed: int = 0
    n_align: int | None = None
    n_segments: int = 6
    segmenter: str = "ppeps-wgm"
    segmenter_checkpoint: str = ""
    fill: float | None = None
    tolerance: float | None = None
    smoothing: float | None = None
    feature_weight: float = 0.0
    penalty_weight: float | None = None
    penalty_scale: str | None = None
    sampling: str = "low"
    balanced: bool = True
    explain: str = "contrast"
    mask: str = "spurious"
    mask_near: float | None = None
    keep_unjudged: bool | None = None
    train_epochs: int | None = None
    learning_rate: float | None = None
    decay: bool | None = None
    batch_size: int | None = None
    align_epochs: int | None = None
    align_learning_rate: float | None = None
    align_fraction: float | None = None
    n_baselines: int | None = None
    n_explained: int | None = None
    overlap: bool = False
    threads: int = 1
    evaluate_on: str = "test"

    def __post_init__(self) -> None:
        if self.critic == "recorded" and self.dataset in DATASETS:
            self._check_recorded()
        elif self.critic_settings.prompt:
            raise ConfigError(
                f"a version of the critic's prompt, {self.critic_settings.prompt!r}, is chosen for the recorded "
                "critic alone; leave it out"
            )
        if self.dataset in DATASETS:
            for name, value in defaults(self.dataset, self.data_root).items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, value)
        for value, name, known in (
            (self.dataset, "dataset", DATASETS),
            (self.method, "method", METHODS),
            (self.model, "model", MODELS),
            (self.device, "device", DEVICES),
            (self.critic, "critic", providers.names()),
            (self.segmenter, "segmenter", SEGMENTERS),
            (self.sampling, "sampling", STRATEGIES),
            (self.explain, "explain", ("contrast", "logit")),
            (self.penalty_scale, "penalty_scale", ("none", "initial")),
            (self.mask, "mask", MASKS),
            (self.evaluate_on, "evaluate_on", ("test", "validation")),
        ):
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}; choose one of: {', '.join(known)}")
        if self.evaluate_on in FITTED_ON[self.method]:
            raise ConfigError(
                f"{self.method} is fitted on the {self.evaluate_on} split, which would be measured on "
                "images it was fitted on; leave evaluate_on at 'test', or choose another method"
            )
        decoys = self.dataset == "decoy-mnist"
        n_train, n_test = (N_TRAIN, N_TEST) if decoys else (100_000, 100_000)
        smallest, largest = (28, 28) if decoys else (32, 1024) if self.data_root else SIZES
        of_phantoms = "" if decoys or self.data_root else ", the sizes in which phantoms are drawn"
        there_are = ", the training images there are" if decoys else ""
        for value, name, low, high, unit in (
            (self.seed, "seed", 0, 2**32 - 1, ""),
            (self.image_size, "image_size", smallest, largest, of_phantoms),
            (self.n_align, "n_align (N)", 1, n_train, there_are),
            (self.n_segments, "n_segments (J)", 1, 50, ""),
            (self.threads, "threads", 1, 256, ""),
            (self.train_epochs, "train_epochs", 1, 1000, ""),
            (self.batch_size, "batch_size", 2, 100_000, ""),
            (self.align_epochs, "align_epochs", 1, 1000, ""),
            (self.n_baselines, "n_baselines", 2, n_train, there_are),
            (self.n_explained, "n_explained", 1, n_test, ", the test images there are" if decoys else ""),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name} must be a whole number; got {value!r}")
            if not low <= value <= high:
                raise ConfigError(f"{name} must lie between {low} and {high}{unit}; got {value}")
        for value, name in (
            (self.penalty_weight, "lambda"), (self.fill, "fill"), (self.smoothing, "smoothing"),
            (self.feature_weight, "feature_weight"),
        ):  # fmt: skip
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be a number of at least 0; got {value}")
        for value, name in (
            (self.learning_rate, "learning_rate"), (self.align_learning_rate, "align_learning_rate"),
            (self.tolerance, "tolerance"),
        ):  # fmt: skip
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be above 0; got {value}")
        if not 0 <= self.mask_near <= 1:
            raise ConfigError(f"mask_near must lie between 0 and 1; got {self.mask_near}")
        if not 0 < self.align_fraction < 1:
            raise ConfigError(
                f"align_fraction must lie strictly between 0 and 1; got {self.align_fraction}"
            )
        n_align_of_batch = round(self.align_fraction * self.batch_size)
        if not 1 <= n_align_of_batch < self.batch_size:
            raise ConfigError(
                f"align_fraction {self.align_fraction} of batch_size {self.batch_size} leaves no "
                f"{'plain' if n_align_of_batch else 'alignment'} sample in a batch; change one of the two"
            )
        if decoys and (self.data_root or self.method != "lvlm-va" or self.model != "mlp" or self.overlap):
            raise ConfigError(
                "decoy-mnist has no data_root, overlap or other model, and its training data leave most "
                "groups empty, so that there is nothing for the other methods; these are for knee and skin"
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device 'cuda': PyTorch sees no GPU here; use 'cpu' or 'auto'")
        if self.overlap and self.data_root:
            raise ConfigError("overlap is for phantoms; leave out data_root")
        if self.data_root and not Path(self.data_root).is_dir():
            raise ConfigError(
                f"there is no folder {self.data_root}; give the data set's folder as data_root"
            )
        if self.segmenter == "sam" and not Path(self.segmenter_checkpoint).is_file():
            raise ConfigError(
                f"SAM needs a file with its weights as segmenter_checkpoint; got {self.segmenter_checkpoint!r}"
            )
        if self.description is not None and not self.description.strip():
            raise ConfigError(
                "the description is empty; write what matters or what does not, or leave it out for the one that ships"
            )
        if self.critic == "lexicon" and not read_description(self.expert_description).clauses:
            raise ConfigError(
                f"the lexicon critic understands nothing of the description {self.expert_description!r}; "
                "name things such as a square, a stroke, a letter, a joint, a lesion or a bandage"
            )

    def _check_recorded(self) -> None:
        """Take the recorded cases as the alignment set; refuse settings under which they were not made."""
        settings, recording = self.critic_settings, self.recording
        n_cases = len(recording.answered(settings.prompt or DEFAULT_PROMPT, settings.model))
        if self.n_align is None:
            object.__setattr__(self, "n_align", n_cases)
        side = recording.segment_labels.shape[-1]
        asked = " ".join(recording.description.split())
        usual = defaults(self.dataset, self.data_root)
        for name, value, recorded in (
            ("n_segments", self.n_segments, recording.n_segments),
            ("image_size", self.image_size or side, side),
            ("description", " ".join(self.expert_description.split()), asked),
            ("segmenter", self.segmenter, "ppeps-wgm"),
            ("feature_weight", self.feature_weight, 0.0),
            ("sampling", self.sampling, "low"),
            ("balanced", self.balanced, True),
            ("explain", self.explain, "contrast"),
            ("overlap", self.overlap, False),
            # One answer to each case, and its verdicts in its own words.
            ("samples", settings.samples, 1),
            ("temperature", settings.temperature, None),
            ("judge_model", settings.judge_model, ""),
            *((name, getattr(self, name), usual[name]) for name in ("fill", "tolerance", "smoothing")),
        ):
            # What is None is filled in with the usual value.
            if value is not None and value != recorded:
                raise ConfigError(
                    f"the recorded cases {recording.name} were made with {name} {recorded!r}, not {value!r}; "
                    "leave it out, or choose another critic"
                )
        if not 1 <= self.n_align <= n_cases:
            raise ConfigError(
                f"n_align must lie between 1 and {n_cases}, the recorded cases of {recording.name}; "
                f"got {self.n_align}"
            )

    @property
    def recording(self) -> Recording | None:
        """Cases and answers of a real model, where the critic is "recorded"; else None."""
        return recordings.find(self.source, self.seed) if self.critic == "recorded" else None

    @property
    def source(self) -> str:
        """Where the images come from: "decoy-mnist", "knee-phantom", "skin-phantom", "knee" or "skin"."""
        drawn = self.dataset != "decoy-mnist" and not self.data_root
        return f"{self.dataset}-phantom" if drawn else self.dataset

    @property
    def expert_description(self) -> str:
        """The description in force."""
        return class_description(self.dataset) if self.description is None else self.description.strip()
