"""How good a real model's recorded verdicts are, and the lexicon's on the very same cases."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lvlmva_lite import metrics, tasks
from lvlmva_lite.critic import LexiconCritic, TextJudge, recordings
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.recordings import RecordedCritic
from lvlmva_lite.critic.types import EMPTY, SPURIOUS, UNDECIDED
from lvlmva_lite.datasets import ShortcutDataset, foreign_object_masks
from lvlmva_lite.experiments.recorded_arms import MODEL, SOURCES
from lvlmva_lite.pipeline import AlignmentSet, recorded_set, verdict_matrix, verdict_quality
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.segmentation import positive_effect, segment_sums

Row = dict[str, Any]


def verdict_rows(dataset: str, seed: int, *, data_root: str | None = None) -> list[Row]:
    """Each version of the prompt under which a set was answered, and the lexicon on those cases.

    Where all cases of one prompt were also answered under another, the other
    stands on these cases, too, so that the two can be compared.

    Parameters
    ----------
    dataset, seed, data_root : of a set that is recorded

    Returns
    -------
    list of dict
        "source", as in ``Task.source``; "prompt"; "cases_of", the prompt whose
        cases these are, mostly "prompt" itself; "critic", the model's name or
        "lexicon"; "n_cases"; the fields of :func:`pipeline.verdict_quality`;
        counts of segments that hold a pixel: "n_spurious", by the truth, and
        "n_others"; "n_missed" and "n_false_alarms" among these; "n_undecided"
    """
    judged = list(_judged(dataset, seed, data_root))
    rows: list[Row] = []
    for prompt, found, verdicts, _ in judged:
        place = {index: i for i, index in enumerate(found.indices.tolist())}
        for cases_of, others, _, _ in judged:
            if not set(others.indices.tolist()) <= set(place):
                continue
            these = [place[index] for index in others.indices.tolist()]
            rows += [
                {
                    "source": found.cases[0].case_id.rpartition("-")[0], "prompt": prompt, "cases_of": cases_of,
                    "critic": name, "n_cases": len(these), **_scored(kinds[these], found.truth[these]),
                }
                for name, kinds in verdicts.items()
            ]  # fmt: skip
    return rows


def foreign_object_rows(seed: int, *, data_root: str) -> list[Row]:
    """:func:`verdict_rows` of the real skin set, without and with the marked foreign objects in the truth.

    Parameters
    ----------
    seed : of a recording
    data_root : folder of the images

    Returns
    -------
    list of dict
        as :func:`verdict_rows`, and "objects": False, a segment is spurious
        where most of its evidence lies on the data set's patches; True, where
        most lies on these or on any object of :func:`foreign_object_masks`.
        Of segments that are not spurious by that truth, "n_others_touching"
        have evidence on a marked object, and so have "n_false_alarms_touching"
        of the false alarms
    """
    rows: list[Row] = []
    for prompt, found, verdicts, train in _judged("skin", seed, data_root):
        chosen = train.subset(found.indices)
        names = [train.names[i] for i in found.indices.tolist()]
        objects = torch.from_numpy(foreign_object_masks(names, chosen.images.shape[-1]))
        labels, n_segments = found.segments.labels, found.segments.n_segments
        touching = segment_sums(labels, n_segments, positive_effect(found.attributions) * objects) > 0
        for with_objects in (False, True):
            masks = chosen.spurious_masks | objects if with_objects else chosen.spurious_masks
            truth = metrics.segment_truth(labels, n_segments, found.attributions, masks)
            others = (truth != SPURIOUS) & (truth != EMPTY)
            rows += [
                {
                    "source": "skin", "prompt": prompt, "critic": name, "objects": with_objects,
                    "n_cases": len(found.cases), **_scored(kinds, truth),
                    "n_others_touching": int((others & touching).sum()),
                    "n_false_alarms_touching": int((others & touching & (kinds == SPURIOUS)).sum()),
                }
                for name, kinds in verdicts.items()
            ]  # fmt: skip
    return rows


def _judged(
    dataset: str, seed: int, data_root: str | None
) -> Iterator[tuple[str, AlignmentSet, dict[str, Tensor], ShortcutDataset]]:
    """Of each version of the prompt: itself, its cases, verdicts (n, J) by who gave them, the images."""
    task = tasks.get(dataset)(**{"data_root": data_root} if data_root else {})
    train = task.load("train", seed=seed)
    recording = recordings.find(task.source, seed)
    for prompt in recording.answers:
        settings = CriticSettings(model=MODEL, prompt=prompt)
        config = task.config(seed=seed, critic="recorded", critic_settings=settings)
        found = recorded_set(recording, config, train)
        critics = {MODEL: RecordedCritic(recording, MODEL, prompt), "lexicon": LexiconCritic()}
        verdicts = {
            name: verdict_matrix(
                judge_all(TextJudge(), criticise_all(critic, found.cases), found.segments.n_segments)
            )
            for name, critic in critics.items()
        }
        yield prompt, found, verdicts, train


def _scored(kinds: Tensor, truth: Tensor) -> Row:
    spurious, others = truth == SPURIOUS, (truth != SPURIOUS) & (truth != EMPTY)
    return {
        **verdict_quality(kinds, truth),
        "n_spurious": int(spurious.sum()),
        "n_others": int(others.sum()),
        "n_missed": int((spurious & (kinds != SPURIOUS) & (kinds != UNDECIDED)).sum()),
        "n_false_alarms": int((others & (kinds == SPURIOUS)).sum()),
        "n_undecided": int(((spurious | others) & (kinds == UNDECIDED)).sum()),
    }


@EXPERIMENTS.register("recorded_verdicts")
def verdict_sweep(seed: int) -> list[Row]:
    """:func:`verdict_rows` of every recorded set of this seed whose images need no files."""
    return [
        row
        for source, of in recordings.recorded_sets()
        if source in SOURCES and of == seed
        for row in verdict_rows(SOURCES[source], seed)
    ]


def real_verdict_sweep(dataset: str, seed: int, *, data_root: str) -> list[Row]:
    """:func:`verdict_rows` of real images, where the seed has a recording."""
    if (dataset, seed) not in recordings.recorded_sets():
        return []
    return verdict_rows(dataset, seed, data_root=data_root)


@EXPERIMENTS.register("skin_foreign_objects")
def foreign_object_sweep(seed: int, *, data_root: str) -> list[Row]:
    """:func:`foreign_object_rows`, where the seed has a recording."""
    return (
        foreign_object_rows(seed, data_root=data_root)
        if ("skin", seed) in recordings.recorded_sets()
        else []
    )


EXPERIMENTS.register("knee_verdicts", partial(real_verdict_sweep, "knee"))
EXPERIMENTS.register("skin_verdicts", partial(real_verdict_sweep, "skin"))
