"""What a person's verdicts are worth, and on which segments: the least certain ones against random ones.

The person is played by the truth: an upper bound for any person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lvlmva_lite import metrics, tasks
from lvlmva_lite.config import Config
from lvlmva_lite.critic import TextJudge, recordings
from lvlmva_lite.critic.adjudication import adjudicated, certainty, queue, vote_certainty
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT, RecordedCritic, Recording
from lvlmva_lite.critic.simulated import SimulatedCritic
from lvlmva_lite.critic.types import EMPTY
from lvlmva_lite.experiments.recorded_arms import MODEL, WEAK_PROMPT
from lvlmva_lite.pipeline import (
    AlignmentSet,
    Prepared,
    accuracy_of,
    groups_of,
    prepare,
    recorded_set,
    verdict_matrix,
    verdict_quality,
)
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.streams import stream
from lvlmva_lite.tasks import Task
from lvlmva_lite.threads import as_configured

Row = dict[str, Any]

BUDGETS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Shares of the segments that a person sees."""

N_DRAWS = 100
"""Of cases and random segments, for intervals."""

WEAK_ACCURACY, WEAK_SAMPLES = 0.7, 3
"""Of a weak simulated critic, which is asked several times and knows from its votes where it is unsure."""

ORDERS = ("least certain first", "at random")


@dataclass(frozen=True)
class Judged:
    """One critic's verdicts on a set of cases.

    Attributes
    ----------
    critic : "simulated", or the version of the prompt that the recorded model was asked with
    kinds : Tensor, (n, J), int64, codes of ``KINDS``
    certainty : Tensor, (n, J), float64
    """

    critic: str
    kinds: Tensor
    certainty: Tensor


def recorded_cases(dataset: str, seed: int, prompt: str = DEFAULT_PROMPT) -> tuple[AlignmentSet, Recording]:
    """The recorded cases that were answered under a prompt, of images that need no files; without any training."""
    task = tasks.get(dataset)()
    recording = recordings.find(task.source, seed)
    return recorded_set(recording, _config(task, seed, prompt), task.load("train", seed=seed)), recording


def judged_sets(found: AlignmentSet, recording: Recording) -> Iterator[Judged]:
    """The weak simulated critic, and the recorded one under every prompt that covers these cases.

    Parameters
    ----------
    found : recorded cases, all or the first of them
    recording : which they are of
    """
    n_segments, labels = found.segments.n_segments, found.segments.labels
    reader = TextJudge()
    weak = SimulatedCritic(found.truth_by_case(), WEAK_ACCURACY, recording.seed)
    weak.samples = WEAK_SAMPLES
    votes = judge_all(reader, criticise_all(weak, found.cases), n_segments)
    yield Judged("simulated", verdict_matrix(votes, labels), vote_certainty(votes))
    for prompt in (WEAK_PROMPT, DEFAULT_PROMPT):
        if set(found.indices.tolist()) <= set(recording.answers.get(prompt, ())):
            critiques = criticise_all(RecordedCritic(recording, MODEL, prompt), found.cases)
            kinds = verdict_matrix(judge_all(reader, critiques, n_segments), labels)
            yield Judged(prompt, kinds, certainty(kinds, critiques, reader))


def seen_places(judged: Judged, truth: Tensor, budget: float, draw: int | None, seed: int) -> Tensor:
    """Segments (m, 2) that a person sees: the least certain ones, or with a ``draw`` random ones."""
    places = queue(judged.certainty, truth != EMPTY)
    if draw is not None:
        places = places[torch.randperm(len(places), generator=stream(seed, f"a person sees, draw {draw}"))]
    return places[: round(budget * len(places))]


def quality_rows(
    judged: Judged,
    truth: Tensor,
    *,
    budgets: Sequence[float] = BUDGETS,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> list[Row]:
    """How good verdicts are once a person has seen some.

    Parameters
    ----------
    judged : a critic's verdicts
    truth : (n, J) int64, from :func:`metrics.segment_truth`
    budgets : shares in [0, 1] of the segments that hold a pixel
    n_draws : each draws the cases anew, with replacement, and its own random segments
    seed : of the draws

    Returns
    -------
    list of dict
        "critic"; "order", of ``ORDERS``; "budget", "n_seen" and "draw"; the
        fields of :func:`pipeline.verdict_quality` on the cases of the draw
    """
    right = metrics.right_verdicts(truth)
    rows = []
    for budget in budgets:
        sure = seen_places(judged, truth, budget, None, seed)
        for draw in range(n_draws):
            anew = torch.randint(len(truth), (len(truth),), generator=stream(seed, f"cases, draw {draw}"))
            for drawn, places in enumerate((sure, seen_places(judged, truth, budget, draw, seed))):
                kinds = adjudicated(judged.kinds, right, places)
                about = _about(judged, bool(drawn), budget, places, draw)
                rows.append(about | verdict_quality(kinds[anew], truth[anew]))
    return rows


def _about(judged: Judged, drawn: bool, budget: float, places: Tensor, draw: int) -> Row:
    return {
        "critic": judged.critic, "order": ORDERS[drawn], "budget": budget, "n_seen": len(places), "draw": draw
    }  # fmt: skip


@as_configured
def group_rows(
    prepared: Prepared,
    *,
    budgets: Sequence[float] = (0.0, 0.2, 1.0),
    alignment_seeds: Sequence[int] = (0, 1, 2),
) -> list[Row]:
    """What alignment makes of such verdicts, on the split of ``config.evaluate_on``.

    Parameters
    ----------
    prepared : of recorded cases
    budgets : as for :func:`quality_rows`
    alignment_seeds : draw the batches, and the random segments

    Returns
    -------
    list of dict
        as :func:`quality_rows`, with "draw" the alignment's seed; "accuracy", "wga" and "aga"
    """
    found, seed = prepared.alignment_set, prepared.config.seed
    right = metrics.right_verdicts(found.truth)
    rows = []
    for judged in judged_sets(found, prepared.task.recording(prepared.config)):
        for budget in budgets:
            # Of no segment, and of all, there is one order.
            for drawn in (False,) if budget in (0.0, 1.0) else (False, True):
                for draw in alignment_seeds:
                    places = seen_places(judged, found.truth, budget, draw if drawn else None, seed)
                    kinds = adjudicated(judged.kinds, right, places)
                    model = prepared.aligned_by_verdicts(kinds, random_state=draw)
                    in_groups = groups_of(model, prepared.test)
                    measured = {
                        "accuracy": accuracy_of(model, prepared.test),
                        "wga": metrics.worst_group_accuracy(in_groups),
                        "aga": metrics.average_group_accuracy(in_groups),
                    }
                    about = _about(judged, drawn, budget, places, draw)
                    rows.append(about | verdict_quality(kinds, found.truth) | measured)
    return rows


def human_sweep(dataset: str, seed: int) -> list[Row]:
    """:func:`group_rows` of this seed's recorded cases, those of the weak prompt where there are such."""
    task = tasks.get(dataset)()
    if (task.source, seed) not in recordings.recorded_sets():
        return []
    answered = recordings.find(task.source, seed).answers
    prompt = WEAK_PROMPT if WEAK_PROMPT in answered else DEFAULT_PROMPT
    return group_rows(prepare(task, _config(task, seed, prompt)))


def _config(task: Task, seed: int, prompt: str) -> Config:
    settings = CriticSettings(model=MODEL, prompt=prompt)
    return task.config(seed=seed, critic="recorded", critic_settings=settings)


EXPERIMENTS.register("decoy_human", partial(human_sweep, "decoy-mnist"))
EXPERIMENTS.register("knee_human", partial(human_sweep, "knee"))
