"""The base class of every task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import nn

from lvlmva_lite.config import Config, ConfigError, check
from lvlmva_lite.critic import class_description, recordings
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT, Recording
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.models import Classifier


@dataclass(frozen=True)
class Network:
    """One of a task's networks.

    Attributes
    ----------
    make : (image shape (C, H, W), number of classes, random_state=...) -> Classifier
    pretrained : ``make`` takes ``weights`` too: "imagenet", "none" or a file
    max_rows : of an explainer, what is in the network at once (see ``attribution``)
    gpu : worth a GPU, where there is one
    """

    make: Callable[..., Classifier]
    pretrained: bool = False
    max_rows: int = 256
    gpu: bool = True


def options_of(task: type[Task]) -> list[Field]:
    """The fields of a task that :func:`config.setting` declared: its options."""
    return [one for one in fields(task) if "choices" in one.metadata]


class Task(ABC):
    """Images, words, networks and settings that belong together.

    A task is a frozen dataclass, whose fields, declared with
    :func:`config.setting`, are its own options, on the command line too.

    Attributes
    ----------
    name : as on the command line and in results
    networks : those there are, by name
    defaults : settings that are not those of :class:`Config`, chosen on a validation split
    n_trials : settings of each method that are tried; None: all
    """

    name: ClassVar[str]
    networks: ClassVar[Mapping[str, Network]]
    defaults: Mapping[str, Any] = {}
    n_trials: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        for declared in options_of(type(self)):
            check(declared.name, declared, getattr(self, declared.name))

    @abstractmethod
    def load(self, split: str, *, seed: int, clean: bool = False) -> ShortcutDataset | None:
        """One split.

        Parameters
        ----------
        split : "train", "validation" or "test"
        seed : int, draws what is drawn
        clean : the same images without the spurious feature; None where there are none such

        Raises
        ------
        ImageDataError : the files are not as their reader wants them
        """

    def marked(self, split: str, *, seed: int) -> ShortcutDataset | None:
        """The images of a split, in order, each *with* the spurious feature; None where there are none such."""
        return None

    @property
    def source(self) -> str:
        """Where the images come from, as in the names of recordings."""
        return self.name

    @property
    def words(self) -> str:
        """The expert's words that ship for the task."""
        return class_description(self.name)

    @property
    def sorted(self) -> bool:
        """Images come sorted, so that of a few every kind must be taken."""
        return True

    def options(self) -> dict[str, Any]:
        """The task's own options, by name."""
        return {one.name: getattr(self, one.name) for one in options_of(type(self))}

    def config(self, **settings: Any) -> Config:
        """Settings for this task.

        Parameters
        ----------
        settings : fields of :class:`Config` that are not the task's defaults; None: the default

        Raises
        ------
        ConfigError : no such field, or a value that cannot work
        """
        if unknown := settings.keys() - {one.name for one in fields(Config)}:
            raise ConfigError(
                f"unknown setting {', '.join(sorted(unknown))}; choose of the fields of Config, or of the "
                f"options of {self.name}: {', '.join(self.options()) or 'none'}"
            )
        given = {name: value for name, value in settings.items() if value is not None}
        usual = {"description": self.words, **self.defaults}
        if given.get("critic") == "recorded":
            given = self._as_recorded(given, usual)
        config = Config(**usual | given)
        if not self.network_named(config.model).pretrained and config.weights not in ("imagenet", "none"):
            raise ConfigError(f"{config.model} takes no file of weights; leave weights out")
        return config

    def network_named(self, name: str) -> Network:
        """One of the task's networks.

        Raises
        ------
        ConfigError : there is none of this name
        """
        if name not in self.networks:
            raise ConfigError(f"unknown model {name!r}; choose one of: {', '.join(self.networks)}")
        return self.networks[name]

    def ready(self, config: Config, dataset: ShortcutDataset) -> nn.Module | None:
        """A network that was trained elsewhere; None: one is trained on ``dataset``."""
        return None

    def changed(self, config: Config, **settings: Any) -> Config:
        """``config`` with other settings; None: the task's default."""
        kept = {one.name: getattr(config, one.name) for one in fields(Config)}
        return self.config(**kept | settings)

    def recording(self, config: Config) -> Recording | None:
        """Cases and answers of a real model, where the critic is "recorded"; else None."""
        return recordings.find(self.source, config.seed) if config.critic == "recorded" else None

    def _as_recorded(self, given: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
        """Take the recorded cases as the alignment set; refuse settings under which they were not made."""
        # What is not given has its usual value; the recorded cases say how many there are.
        config = Config(**usual | {k: v for k, v in given.items() if k != "n_align"})
        settings, recording = config.critic_settings, self.recording(config)
        n_cases = len(recording.answered(settings.prompt or DEFAULT_PROMPT, settings.model))
        n_align = given.get("n_align", n_cases)
        side = recording.segment_labels.shape[-1]
        options = self.options()
        ordinary = Config(**usual)
        for name, value, recorded in (
            ("n_segments", config.n_segments, recording.n_segments),
            ("image_size", options.get("image_size", side), side),
            ("description", " ".join(config.description.split()), " ".join(recording.description.split())),
            *(
                (name, getattr(config, name), getattr(ordinary, name))
                for name in (
                    "segmenter", "feature_weight", "sampling", "balanced", "explainer", "explain",
                    "fill", "tolerance", "smoothing",
                )
            ),
            ("overlap", options.get("overlap", False), False),
            # One answer to each case, and its verdicts in its own words.
            ("samples", settings.samples, 1),
            ("temperature", settings.temperature, None),
            ("judge_model", settings.judge_model, ""),
        ):  # fmt: skip
            if value != recorded:
                raise ConfigError(
                    f"the recorded cases {recording.name} were made with {name} {recorded!r}, not {value!r}; "
                    "leave it out, or choose another critic"
                )
        if not 1 <= n_align <= n_cases:
            raise ConfigError(
                f"n_align must lie between 1 and {n_cases}, the recorded cases of {recording.name}; "
                f"got {n_align}"
            )
        return given | {"n_align": n_align}

    def network(self, config: Config, dataset: ShortcutDataset, random_state: int) -> Classifier:
        """An untrained (or, for the backbones, pretrained) network of the config for this data set."""
        network = self.network_named(config.model)
        more = {"weights": config.weights} if network.pretrained else {}
        model = network.make(dataset.images.shape[1:], dataset.n_classes, random_state=random_state, **more)
        return model.to(self._device(config))

    def _device(self, config: Config) -> str:
        if config.device == "auto":
            worth_it = self.network_named(config.model).gpu and torch.cuda.is_available()
            return "cuda" if worth_it else "cpu"
        return config.device

    def bounds(self, prepared: Any) -> Iterator[tuple[str, nn.Module]]:
        """What a method could reach at best: (row of the result, model); none where nothing is known.

        ``prepared`` : from :func:`pipeline.prepare`
        """
        yield from ()
