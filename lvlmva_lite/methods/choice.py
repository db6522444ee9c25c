"""A choice among trials that reads words and masks, and the group of no image."""

from __future__ import annotations

from dataclasses import replace

import torch

from lvlmva_lite.alignment_set import find_alignment_set
from lvlmva_lite.config import ConfigError
from lvlmva_lite.critic.providers import Connection
from lvlmva_lite.critic.types import KINDS
from lvlmva_lite.datasets import ShortcutDataset
from lvlmva_lite.fills import fill
from lvlmva_lite.models import predict
from lvlmva_lite.pipeline import Prepared, verdict_matrix
from lvlmva_lite.streams import stream


def judged_twins(
    prepared: Prepared,
    *,
    n: int | None = None,
    connection: Connection | None = None,
    progress: bool = False,
) -> ShortcutDataset:
    """Validation images, each twice: without what the critic calls spurious, and with it.

    What :func:`best_trial` needs to choose where nobody knows groups: a
    trial is worth the accuracy of its worst group, and here the groups are
    class x {without, with}.  The answers of the model as it was to validation
    images are explained, right or wrong, and the critic is asked about their
    segments.  Of each image, what it calls spurious is filled from its
    surroundings; that is the first twin.  For the second, what it calls
    spurious on another of these images, drawn, is put there in addition.  So
    each class comes with the shortcut and without it equally often, as far as
    the critic sees it: what it overlooks stays on both twins.

    Groups and true masks are taken off the validation split before anything
    else, so that no critic can be told them.

    Parameters
    ----------
    prepared : the model as it was, its data and its critic
    n : images that are asked about, one question each; None: as many as the alignment
        set has, or as there are
    connection : how to reach the critic's model and what that may cost

    Returns
    -------
    ShortcutDataset
        of 2 n images: first all without, then all with.  ``groups`` says
        which twin of which class

    Raises
    ------
    ConfigError : the critic called nothing spurious, or answers about recorded cases alone
    ServerError, CapReached, StoreError : the critic's answers stopped coming

    Examples
    --------
    >>> twins = judged_twins(prepared)  # doctest: +SKIP
    >>> best_trial(partial(method.fit, prepared, kinds), method.trials, twins)  # doctest: +SKIP
    """
    config, task = prepared.config, prepared.task
    if task.recording(config) is not None:
        raise ConfigError(
            "the recorded critic has answers about training images alone; choose another critic to choose trials by"
        )
    known = prepared.validation
    # An image on which the shortcut misled has none of it among the evidence for its own class.
    answers = predict(prepared.model, known.images)
    plain = replace(
        known, labels=answers, groups=None, group_names=(), spurious_masks=None, core_masks=None
    )
    n = min(n or config.n_align, len(plain))
    config = task.changed(config, n_align=n, sampling="random", balanced=False)
    shown = find_alignment_set(config, task, plain, prepared.model, prepared.baselines, progress=progress)
    held_out = replace(prepared, config=config, train=plain, alignment_set=shown)
    _, verdicts = held_out.criticised(connection, progress=progress)
    masks = held_out.masks(verdict_matrix(verdicts, shown.segments.labels))
    images, labels = held_out.chosen.in_memory().images, known.labels[shown.indices]
    marked = masks.flatten(1).any(1).nonzero()[:, 0]
    if not len(marked):
        raise ConfigError(
            f"of {len(images)} validation images the critic called nothing {KINDS[1]}; there is nothing to choose "
            "trials by: keep the first, or describe what is spurious in other words"
        )
    draw = torch.randint(len(marked), (len(images),), generator=stream(config.seed, "judged twins"))
    donors = marked[draw]
    without = fill(images, masks)
    with_it = torch.where(masks[donors][:, None], images[donors], without)
    twin = torch.arange(2).repeat_interleave(len(images))
    names = plain.class_names
    return ShortcutDataset(
        torch.cat([without, with_it]), labels.repeat(2), 2 * labels.repeat(2) + twin,
        class_names=names,
        group_names=tuple(f"{name}, {which} what was judged spurious" for name in names for which in ("without", "with")),
        name=f"{plain.name}, judged twins",
    )  # fmt: skip
