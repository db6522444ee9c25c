"""Who puts masks on the training images of a fold: the method's own steps, a real model, nobody who looked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lvlmva_lite.alignment_set import recorded_set, verdict_quality
from lvlmva_lite.config import Config
from lvlmva_lite.critic import recordings
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.methods.placebo import placebo_masks
from lvlmva_lite.models import Classifier
from lvlmva_lite.pipeline import Prepared, prepare
from lvlmva_lite.tasks.phantoms import DrawnOrReal

N_ALIGN = 200


@dataclass(frozen=True)
class Masks:
    """Images at ``where`` (n,), masks (n, H, W) that somebody put on them, and the name of their placebo."""

    where: Tensor
    masks: Tensor
    placebo: str
    quality: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class OfFold(DrawnOrReal):
    """The images of a fold as a task, so that the method's own steps find its alignment set."""

    train: ShortcutDataset | None = dataclasses.field(default=None, repr=False, compare=False)

    def load(self, split: str, *, seed: int, clean: bool = False) -> ShortcutDataset | None:
        return None if clean else self.train

    def marked(self, split: str, *, seed: int) -> None:
        return None


def by_lexicon(task: OfFold, network: Classifier, seed: int) -> Prepared:
    """Steps 1 to 3 of the method for a head on frozen features: its alignment set among ``task.train``."""
    return prepare(task, task.config(seed=seed, n_align=N_ALIGN), model=network)


def recorded_cases(task: OfFold, size: int) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]], Tensor]:
    """The recorded cases among the training images, as a real model and the lexicon judge them, on their segments.

    These are of images of 64 pixels and of a network that was trained on all images of the folder ``train``.

    Parameters
    ----------
    task : whose ``train`` are the images of that folder, as they were when the real model was asked
    size : side of the masks in pixels

    Returns
    -------
    indices : (n,) within ``task.train``
    judged : "claude" and "lexicon" -> masks (n, size, size) bool, kinds (n, J) int64
    truth : (n, J), int64
    """
    settings = CriticSettings(model="claude", prompt=recordings.DEFAULT_PROMPT)
    config: Config = task.config(seed=0, critic="recorded", critic_settings=settings)
    found = recorded_set(task.recording(config), config, task.load("train", seed=0))
    # Nobody is trained: of Prepared, verdicts and masks need the alignment set alone.
    ready = Prepared(task, config, *[None] * 3, torch.nn.Identity(), torch.empty(0), found, 0.0)  # type: ignore[list-item]
    judged = {}
    for name, critic in (("claude", "recorded"), ("lexicon", "lexicon")):
        kinds = ready.verdicts(critic)
        small = ready.masks(kinds)[:, None].float()
        judged[name] = torch.nn.functional.interpolate(small, size=(size, size))[:, 0] > 0.5, kinds
    return found.indices, judged, found.truth


def mask_sources(
    task: OfFold, network: Classifier, seed: int, train: Tensor, recorded: OfFold | None
) -> dict[str, Masks]:
    """Who puts masks, and on which of the training images.

    Parameters
    ----------
    task : whose ``train`` are the images of the fold's training patients
    network : the one before alignment, which the method explains
    train : (n,) int64, which images these are
    recorded : the images of the recorded cases, see :func:`recorded_cases`; None leaves these out
    """
    prepared = by_lexicon(task, network, seed)
    at = prepared.alignment_set.indices
    found, kinds = train[at], prepared.verdicts()
    masks, quality = prepared.masks(kinds), verdict_quality(kinds, prepared.alignment_set.truth)
    sources = {
        "true": Masks(found, task.train.spurious_masks[at], "placebo"),
        "lexicon": Masks(found, masks, "placebo", quality),
        "placebo": Masks(found, placebo_masks(masks, random_state=seed), "placebo"),
    }
    if recorded is not None:
        where, judged, truth = recorded_cases(recorded, task.image_size)
        inside = torch.isin(where, train)
        for name, critic in (("claude", "claude"), ("claude-lexicon", "lexicon")):
            masks, kinds = (one[inside] for one in judged[critic])
            quality = verdict_quality(kinds, truth[inside])
            sources[name] = Masks(where[inside], masks, "claude-placebo", quality)
        moved = placebo_masks(sources["claude"].masks, random_state=seed)
        sources["claude-placebo"] = Masks(where[inside], moved, "claude-placebo")
    return sources
