"""What a distilled critic is worth by the number of answers paid for, on cases held apart.

It learns from the recorded answers of one seed and is measured on those of the
others: other images, explained by other networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lvlmva_lite import metrics, tasks
from lvlmva_lite.critic import TextJudge, recordings
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.distilled import DistilledCritic, segment_features
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT, RecordedCritic
from lvlmva_lite.critic.types import EMPTY, UNDECIDED, Case, Verdict
from lvlmva_lite.experiments.human_arms import recorded_cases
from lvlmva_lite.experiments.recorded_arms import MODEL
from lvlmva_lite.pipeline import Prepared, accuracy_of, groups_of, prepare, verdict_matrix
from lvlmva_lite.registry import EXPERIMENTS
from lvlmva_lite.streams import stream

Row = dict[str, Any]

AMOUNTS = (5, 10, 20, 40, 60)
"""Cases whose answers are paid for, six segments each."""

LEARNT, HELD_APART = 0, (1, 2)
"""Seeds of the recordings."""


def amount_rows(
    dataset: str,
    *,
    amounts: Sequence[int] = AMOUNTS,
    n_draws: int = 5,
    sure: float = 0.8,
    prompt: str = DEFAULT_PROMPT,
) -> list[Row]:
    """How good the distilled verdicts are, by the answers paid for.

    Parameters
    ----------
    dataset : of images that need no files
    amounts : cases that it learns from
    n_draws : of these cases
    sure, prompt : of :class:`DistilledCritic`, and of its teacher

    Returns
    -------
    list of dict
        "source", "amount", "draw" and "seed" of the cases held apart; of
        segments that hold a pixel: "undecided", the share left open, and the
        other fields of :func:`metrics.verdict_scores` against the truth;
        "as_teacher", the share of decided segments with the teacher's kind.
        Draws whose answers are all of one kind are left out
    """
    learnt, recording = recorded_cases(dataset, LEARNT, prompt)
    teacher = _verdicts(RecordedCritic(recording, MODEL, prompt), learnt.cases)
    apart = [(seed, *recorded_cases(dataset, seed)) for seed in HELD_APART]
    measured: dict[str, np.ndarray] = {}  # a case is measured once

    def features(case: Case) -> np.ndarray:
        # Seeds share case ids, and their segments differ.
        key = f"{case.case_id} {case.segment_labels.numpy().tobytes().hex()}"
        if key not in measured:
            measured[key] = segment_features(case)
        return measured[key]

    rows = []
    for amount in amounts:
        for draw in range(n_draws):
            order = torch.randperm(len(learnt.cases), generator=stream(draw, "answers paid for"))
            paid = [(learnt.cases[i], teacher[i]) for i in order[:amount].tolist()]
            if len({kind for _, said in paid for kind in said.kinds} - {"undecided"}) < 2:
                continue  # too few answers to learn from
            critic = DistilledCritic(*zip(*paid, strict=True), sure=sure, name=MODEL, features=features)
            for seed, found, of in apart:
                kinds = verdict_matrix(_verdicts(critic, found.cases), found.segments.labels)
                theirs = verdict_matrix(
                    _verdicts(RecordedCritic(of, MODEL, DEFAULT_PROMPT), found.cases), found.segments.labels
                )
                decided = (kinds != UNDECIDED) & (found.truth != EMPTY)
                rows.append(
                    {
                        "source": of.source, "amount": amount, "draw": draw, "seed": seed,
                        **metrics.verdict_scores(kinds, found.truth),
                        "as_teacher": (kinds == theirs)[decided].double().mean().item(),
                    }
                )  # fmt: skip
    return rows


def _verdicts(critic: RecordedCritic | DistilledCritic, cases: Sequence[Case]) -> list[Verdict]:
    return judge_all(TextJudge(), criticise_all(critic, cases), cases[0].n_segments)


def _answers(dataset: str, seed: int) -> tuple[list[Case], list[Verdict], Tensor]:
    """Recorded cases, the teacher's verdicts on them, and these as codes (n, J), int64."""
    found, recording = recorded_cases(dataset, seed)
    said = _verdicts(RecordedCritic(recording, MODEL, DEFAULT_PROMPT), found.cases)
    return found.cases, said, verdict_matrix(said, found.segments.labels)


def spread_rows(
    dataset: str,
    seed: int,
    *,
    n_align: int = 500,
    amounts: Sequence[int] = (20, 60, 200),
    alignment_seeds: Sequence[int] = (0,),
) -> list[Row]:
    """A model aligned by distilled verdicts on many images, and by the few answers alone.

    The answers that are paid for are those about this seed's network, and
    where they do not suffice, those about the networks of the other recorded
    seeds: all are of training images.

    Parameters
    ----------
    dataset : of images that need no files
    seed : of a recording, whose answers are paid for; the model is trained with it
    n_align : images that the distilled critic judges
    amounts : recorded cases that it learns from; all there are, where that is fewer
    alignment_seeds : draw the batches

    Returns
    -------
    list of dict
        "arm": "spread", or "answers alone" where all are about this network; "amount", of
        answers; "draw"; "accuracy", "delta_accuracy", "wga" and "delta_wga", against the
        model before, on the test split.  None for a seed of which nothing is recorded
    """
    task = tasks.get(dataset)()
    seeds = [of for source, of in recordings.recorded_sets() if source == task.source]
    if seed not in seeds:
        return []
    many = prepare(task, task.config(seed=seed, n_align=n_align))
    answered = CriticSettings(model=MODEL, prompt=DEFAULT_PROMPT)
    before = _measured(many, many.model)
    cases, teacher, own = _answers(dataset, seed)
    for other in seeds:
        if other != seed:
            more, said, _ = _answers(dataset, other)
            cases, teacher = cases + more, teacher + said
    rows = []
    for amount in sorted({min(amount, len(cases)) for amount in amounts}):
        student = DistilledCritic(cases[:amount], teacher[:amount], name=MODEL)
        spread = verdict_matrix(
            _verdicts(student, many.alignment_set.cases), many.alignment_set.segments.labels
        )
        arms = [("spread", many, spread)]
        if amount <= len(own):
            shown = prepare(
                task, task.config(seed=seed, critic="recorded", critic_settings=answered, n_align=amount),
                model=many.model,
            )  # fmt: skip
            arms.insert(0, ("answers alone", shown, own[:amount]))
        for arm, prepared, kinds in arms:
            for draw in alignment_seeds:
                after = _measured(prepared, prepared.aligned_by_verdicts(kinds, random_state=draw))
                change = {f"delta_{name}": after[name] - before[name] for name in after}
                rows.append({"arm": arm, "amount": amount, "draw": draw} | after | change)
    return rows


def _measured(prepared: Prepared, model: nn.Module) -> dict[str, float]:
    in_groups = groups_of(model, prepared.test)
    return {"accuracy": accuracy_of(model, prepared.test), "wga": metrics.worst_group_accuracy(in_groups)}


EXPERIMENTS.register("distilled_spread", partial(spread_rows, "decoy-mnist"))
EXPERIMENTS.register("distilled_knee", partial(spread_rows, "knee"))
