"""The settings of the method, each declared once: default, bounds, choices and help.

What is checked, and the options of the command line, follow from the
declarations.  Which data there are, and what they need in place of these
defaults, is their task's business (:mod:`lvlmva_lite.tasks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvlmva_lite.registry import EXPLAINERS, PENALTIES, SEGMENTERS, Registry

if TYPE_CHECKING:
    from lvlmva_lite.critic.providers import CriticSettings


class ConfigError(ValueError):
    """A setting that cannot work; the message says which and what to do."""


def _critics() -> tuple[str, ...]:
    from lvlmva_lite.critic import providers

    return providers.names()


def _fills() -> tuple[str, ...]:
    from lvlmva_lite.fills import FILLS

    return FILLS


def _critic_settings() -> CriticSettings:
    from lvlmva_lite.critic.providers import CriticSettings

    return CriticSettings()


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | Registry | Callable[[], tuple[str, ...]] = (),
    option: str = "",
    off: str = "",
    metavar: str | None = None,
) -> Any:
    """Declare a setting.

    Parameters
    ----------
    default : its type is the setting's
    help : one line
    low, high : least and largest value; ``above``, ``below``: bounds that are out of bounds themselves
    choices : the values there are, where they are few
    option : on the command line, where it is not the field's name; ``off``: what negates it
    metavar : of its value on the command line
    """
    about = {
        "help": help, "low": low, "high": high, "above": above, "below": below, "choices": choices,
        "option": option, "off": off, "metavar": metavar,
    }  # fmt: skip
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Config:
    """The settings of the method; those of one run.  Checked when made, before any work.

    The defaults are DecoyMNIST's; ``Task.config`` gives those of another task.

    Examples
    --------
    >>> Config(n_segments=4).n_segments
    4
    >>> Config(n_segments=51)
    Traceback (most recent call last):
    ...
    lvlmva_lite.config.ConfigError: n_segments (J) must lie between 1 and 50; got 51
    """

    critic: str = setting("lexicon", "Who judges the segments.", choices=_critics)
    critic_settings: CriticSettings = field(default_factory=_critic_settings)
    description: str | None = setting(
        None, "The expert's words, or a text file that holds them; default: those of the task.",
        metavar="TEXT|FILE",
    )  # fmt: skip
    model: str = setting("mlp", "The network, one of the task's.", metavar="NAME")
    weights: str = setting(
        "imagenet", "Of resnet50 and efficientnet_lite0: imagenet, none, or a file.", metavar="NAME|FILE"
    )
    device: str = setting(
        "auto", "Where the network computes; auto: on a GPU, where there is one and it is worth it.",
        choices=("auto", "cpu", "cuda"),
    )  # fmt: skip
    seed: int = setting(0, "Draws decoys, phantoms, weights, batches and baselines.", low=0, high=2**32 - 1)
    n_align: int = setting(1000, "N, size of the alignment set.", low=1, high=10_000_000, metavar="N")
    n_segments: int = setting(6, "J, segments of an image.", low=1, high=50, metavar="J")
    explainer: str = setting("deeplift-shap", "What makes the maps.", choices=EXPLAINERS)
    explain: str = setting(
        "contrast", "contrast: the class against its runner-up; logit: the class alone.",
        choices=("contrast", "logit"),
    )  # fmt: skip
    smoothing: float = setting(
        # A convolutional network's map alternates in sign from pixel to pixel; its positive part
        # alone is mostly this noise, which neighbours cancel.
        0.0, "Standard deviation of the Gaussian that smooths maps, as a share of the image's side.",
        low=0, metavar="X",
    )  # fmt: skip
    segmenter: str = setting("ppeps-wgm", "What cuts maps into segments.", choices=SEGMENTERS)
    segmenter_checkpoint: str = setting("", "SAM's weights.", metavar="FILE")
    fill: float = setting(
        0.0, "Segments take all pixels within this squared Mahalanobis distance of their Gaussian, also "
        "those without positive effect; 3: the ellipse that holds 78 % of it, 6: 95 %; 0: those alone.",
        low=0, metavar="X",
    )  # fmt: skip
    tolerance: float = setting(5e-5, "At which a mixture is done.", above=0, metavar="X")
    feature_weight: float = setting(
        0.0, "Above 0: a mixture over coordinates and colours.", low=0, metavar="X"
    )
    sampling: str = setting(
        "low", "Alignment samples by entropy; low is the method.", choices=("low", "random", "high")
    )
    balanced: bool = setting(True, "Equally many alignment samples of each class.")
    mask: str = setting(
        "spurious", "Kinds of segments that are masked.", choices=("spurious", "spurious+background")
    )
    mask_near: float = setting(
        0.0, "Of these, only pixels near those of at least this share of the segment's peak evidence; "
        "0: whole segments.", low=0, high=1, metavar="X",
    )  # fmt: skip
    keep_unjudged: bool = setting(
        False, "Samples in which nothing was judged spurious take part; their empty masks say that all "
        "is well here, which is not known.", off="--drop-unjudged",
    )  # fmt: skip
    penalty: str = setting("rrr", "What is penalised under the masks.", choices=PENALTIES)
    penalty_fill: str = setting(
        "surroundings", "What the penalty finite-difference puts under the masks.", choices=_fills
    )
    penalty_weight: float = setting(
        2.0, "Weight of the penalty: of its mean over samples and pixels, inputs in 0-1, or in nats.",
        low=0, option="lambda", metavar="X",
    )  # fmt: skip
    penalty_scale: str = setting(
        "none", "initial: the penalty is divided by its value before alignment, and lambda is in nats.",
        choices=("none", "initial"),
    )  # fmt: skip
    train_epochs: int = setting(5, "Epochs before alignment.", low=1, high=1000, metavar="N")
    learning_rate: float = setting(1e-3, "Of the training before alignment.", above=0, metavar="X")
    decay: bool = setting(False, "Lower the learning rates to 0 by the end.")
    batch_size: int = setting(256, "Images in a step.", low=2, high=100_000, metavar="N")
    align_epochs: int = setting(5, "Epochs of alignment.", low=1, high=1000, metavar="N")
    align_learning_rate: float = setting(3e-3, "Of the alignment.", above=0, metavar="X")
    align_fraction: float = setting(
        0.5, "Share of a batch that comes from the alignment set.", above=0, below=1, metavar="X"
    )
    n_baselines: int = setting(
        50, "Training images that maps compare with.", low=2, high=100_000, metavar="N"
    )
    n_explained: int = setting(
        2000, "Test images on which mu_Align is measured.", low=1, high=100_000, metavar="N"
    )
    threads: int = setting(
        # Another number rounds otherwise, and results move with it: a setting like the others,
        # whatever the machine has.
        1, "Threads that compute; results depend on it. For large networks.", low=1, high=256, metavar="N"
    )  # fmt: skip
    evaluate_on: str = setting(
        "test", "validation when settings are being chosen.", choices=("test", "validation")
    )

    def __post_init__(self) -> None:
        for declared in fields(self):
            if declared.metadata:
                check(declared.metadata["option"] or declared.name, declared, getattr(self, declared.name))
        n_align_of_batch = round(self.align_fraction * self.batch_size)
        if not 1 <= n_align_of_batch < self.batch_size:
            raise ConfigError(
                f"align_fraction {self.align_fraction} of batch_size {self.batch_size} leaves no "
                f"{'plain' if n_align_of_batch else 'alignment'} sample in a batch; change one of the two"
            )
        if self.critic_settings.prompt and self.critic != "recorded":
            raise ConfigError(
                f"a version of the critic's prompt, {self.critic_settings.prompt!r}, is chosen for the recorded "
                "critic alone; leave it out"
            )
        if self.penalty_fill != "surroundings" and self.penalty != "finite-difference":
            raise ConfigError(
                f"penalty_fill {self.penalty_fill!r} does nothing with the penalty {self.penalty!r}; leave it "
                "out, or choose the penalty 'finite-difference'"
            )
        if self.penalty == "cdep" and self.penalty_scale == "none":
            raise ConfigError(
                "the penalty 'cdep' is counted in the logits' unit, for which a weight of slopes means nothing; "
                "choose the penalty_scale 'initial', and a penalty_weight (lambda) in nats, such as 1"
            )
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise ConfigError("device 'cuda': PyTorch sees no GPU here; use 'cpu' or 'auto'")
        if self.segmenter == "sam" and not Path(self.segmenter_checkpoint).is_file():
            raise ConfigError(
                f"SAM needs a file with its weights as segmenter_checkpoint; got {self.segmenter_checkpoint!r}"
            )
        if self.description is not None:
            self._check_description()

    def _check_description(self) -> None:
        object.__setattr__(self, "description", self.description.strip())
        if not self.description:
            raise ConfigError(
                "the description is empty; write what matters or what does not, or leave it out for the one that ships"
            )
        if self.critic == "lexicon":
            from lvlmva_lite.critic.reading import read_description

            if not read_description(self.description).clauses:
                raise ConfigError(
                    f"the lexicon critic understands nothing of the description {self.description!r}; "
                    "name things such as a square, a stroke, a letter, a joint, a lesion or a bandage"
                )


def check(name: str, declared: Any, value: Any) -> None:
    """Hold a value against its declaration.

    Parameters
    ----------
    name : as people know it
    declared : a field made by :func:`setting`

    Raises
    ------
    ConfigError : it is of another type, out of bounds, or none of the choices
    """
    about, kind = declared.metadata, type(declared.default)
    choices = about["choices"]
    if choices:
        known = choices if isinstance(choices, tuple) else getattr(choices, "names", choices)()
        if value not in known:
            raise ConfigError(f"unknown {name} {value!r}; choose one of: {', '.join(known)}")
    elif kind is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{name} must be a whole number; got {value!r}")
    elif kind is float and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ConfigError(f"{name} must be a number; got {value!r}")
    elif kind is bool and not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False; got {value!r}")
    if kind not in (int, float):
        return
    low, high, above, below = (about[bound] for bound in ("low", "high", "above", "below"))
    shown = {"n_align": "n_align (N)", "n_segments": "n_segments (J)"}.get(name, name)
    if low is not None and high is not None and not low <= value <= high:
        raise ConfigError(f"{shown} must lie between {low} and {high}; got {value}")
    if above is not None and below is not None and not above < value < below:
        raise ConfigError(f"{shown} must lie strictly between {above} and {below}; got {value}")
    if low is not None and not low <= value < math.inf:
        raise ConfigError(f"{shown} must be a number of at least {low}; got {value}")
    if above is not None and not above < value < math.inf:
        raise ConfigError(f"{shown} must be above {above}; got {value}")
