"""The base class of every method, what it gives, and how one of its trials is chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lvlmva_lite import metrics
from lvlmva_lite.config import ConfigError
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.pipeline import Prepared, accuracy_of, groups_of


@dataclass(frozen=True)
class Supervision:
    """What a method reads besides images and class labels.

    Choosing settings by worst-group accuracy takes the groups of the
    validation split for every method, and is not counted here.

    Attributes
    ----------
    train_groups, validation_groups : the group of each sample of that split
    masks : where the shortcut is, on each alignment sample
    words : a sentence about each class
    """

    train_groups: bool = False
    validation_groups: bool = False
    masks: bool = False
    words: bool = False


@dataclass(frozen=True)
class Baseline:
    """A trained model and what it learnt from.

    Attributes
    ----------
    model : nn.Module, in eval mode
    indices : Tensor, (m,), int64
        The samples of the data set that it learnt from, repeats included:
        SUBG's balanced subset of the training data; all validation samples
        for DFR; for JTT all training samples, each once, then the errors of
        the first model again, ``upweight - 1`` times
    trials : list of dict
        The settings tried on the way and their scores, see :func:`select`;
        empty but for DFR
    """

    model: nn.Module
    indices: Tensor
    trials: list[dict[str, Any]]


@dataclass(frozen=True)
class Fitted:
    """The model of one trial, and what its weights have seen.

    Attributes
    ----------
    model : nn.Module
    data : tuple of ShortcutDataset, every set whose samples set its weights
    held_out_score : of a method that is fitted on the validation split: the
        worst-group accuracy of the same settings on the half of that split
        that they were not fitted on, in [0, 1]; else None
    """

    model: nn.Module
    data: tuple[ShortcutDataset, ...]
    held_out_score: float | None = None

    def check_held_out(self, dataset: ShortcutDataset) -> None:
        """Refuse to measure the model on images that it was fitted on.

        Raises
        ------
        ConfigError : an image of ``dataset`` is, bit for bit, in ``data``
        """
        for fitted_on in self.data:
            seen = dataset.also_in(fitted_on)
            if seen.any():
                raise ConfigError(
                    f"{int(seen.sum())} of the {len(dataset)} images to measure on (the first is number "
                    f"{int(seen.nonzero()[0])}) are among those that the model was fitted on; measure it on "
                    "images that it has not seen"
                )


class Method(ABC):
    """A way from the model that took the shortcut to one that did not.

    Attributes
    ----------
    label : as people read it
    supervision : what it reads besides images and class labels
    trials : settings to choose from, keywords of :meth:`fit`, the same number for every method
    fitted_on : splits whose samples set the weights; nothing is measured on these
    asks : whether a critic is asked about the alignment set
    """

    label: ClassVar[str]
    supervision: ClassVar[Supervision] = Supervision()
    trials: ClassVar[tuple[Mapping[str, Any], ...]]
    fitted_on: ClassVar[tuple[str, ...]] = ("train",)
    asks: ClassVar[bool] = False

    @abstractmethod
    def fit(
        self, prepared: Prepared, kinds: Tensor | None = None, *, progress: bool = False, **trial: Any
    ) -> Fitted:
        """The model that one trial gives.

        Parameters
        ----------
        prepared : the model, its alignment set and its data
        kinds : (N, J) int64 verdicts, codes of ``KINDS``; for a method that ``asks``
        trial : one of ``trials``

        Raises
        ------
        ConfigError : a group that the method needs is empty
        """

    def masks(self, prepared: Prepared, kinds: Tensor | None) -> Tensor:
        """Where the method was told that the shortcut is, (N, H, W) bool."""
        return torch.zeros_like(prepared.alignment_set.attributions, dtype=torch.bool)


def best_trial(
    fit: Callable[..., Fitted],
    trials: Sequence[Mapping[str, Any]],
    validation: ShortcutDataset,
) -> tuple[Fitted, list[dict[str, Any]]]:
    """The trial of best worst-group accuracy on samples that it was not fitted on, and all trials.

    Every method gets the same number of trials, and is chosen by the rule of
    SUBG, DFR and JTT, which reads the validation groups for all of them.
    Where a trial was fitted on that split, its ``held_out_score`` stands in.
    Of trials that score alike the first is taken.  Where no groups are known
    it is the accuracy that chooses, which knows nothing of a shortcut.

    Parameters
    ----------
    fit : called with each trial as keywords
    trials : at least one
    validation : the split to choose by

    Raises
    ------
    ConfigError : a trial was fitted on images of ``validation`` and has no held-out score
    """
    tried = []
    best: tuple[float, Fitted] | None = None
    for trial in trials:
        fitted = fit(**trial)
        score = fitted.held_out_score
        if score is None:
            fitted.check_held_out(validation)
            in_groups = groups_of(fitted.model, validation)
            if in_groups is None:
                score = accuracy_of(fitted.model, validation)
            else:
                score = metrics.worst_group_accuracy(in_groups)
        tried.append({**trial, "score": score})
        if best is None or score > best[0]:
            best = score, fitted
    return best[1], tried


def check_groups(dataset: ShortcutDataset, least: int, method: str) -> None:
    counts = torch.bincount(dataset.groups, minlength=len(dataset.group_names))
    small = [
        f"{name!r} has {n}"
        for name, n in zip(dataset.group_names, counts.tolist(), strict=True)
        if n < least
    ]
    if small:
        raise ValueError(
            f"{method} needs at least {least} of each group in {dataset.name}, but {', '.join(small)}; "
            "give it data with such samples"
        )


def balanced(groups: Tensor, generator: torch.Generator) -> Tensor:
    """Sorted indices of as many members of every group as the smallest one has."""
    order = torch.randperm(len(groups), generator=generator)
    members = [order[groups[order] == group] for group in groups.unique()]
    least = min(len(group) for group in members)
    return torch.cat([group[:least] for group in members]).sort().values
