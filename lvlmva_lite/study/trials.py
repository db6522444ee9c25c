"""What is asked: always the same segments of recorded cases, and three questions about each."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from lvlmva_lite import tasks
from lvlmva_lite.alignment_set import recorded_set
from lvlmva_lite.critic import Case, recordings
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT
from lvlmva_lite.critic.types import EMPTY, SPURIOUS, segment_names
from lvlmva_lite.experiments.judge_from_prose import prose
from lvlmva_lite.experiments.recorded_arms import MODEL
from lvlmva_lite.streams import stream

SETS = ("decoy-mnist", "knee", "skin")
"""Data sets whose recorded cases of seed 0 are asked about; none needs files."""

SEED = 0
"""Of the recordings."""

_TURNS, _WRONG = ("relevant", "spurious", "background"), "wrong"

CANNOT_TELL = "cannot tell"

QUESTIONS = {
    "verdict": (
        "Where does the model's support in segment {segment} lie?",
        {
            "relevant": "on what shows the class",
            "spurious": "on a thing that the expert dismisses or that does not belong to the scene",
            "background": "on bare surroundings, neither of the two",
            "undecided": "I cannot tell",
        },
    ),
    "description": (
        "Is what the critic says about segment {segment} right?",
        {"yes": "yes", "no": "no", CANNOT_TELL: "I cannot tell"},
    ),
    "reading": (
        "Going by the critic's words alone, what does the critic take segment {segment} for?",
        {
            "relevant": "it shows the class",
            "spurious": "it is dismissed, or does not belong",
            "background": "it is bare surroundings",
            "undecided": "the words leave it open",
        },
    ),
}
"""Name -> the question, and the answers there are with the words in which they are offered.

The first is asked before the critic's words are shown.
"""


@dataclass(frozen=True)
class Trial:
    """One segment of one recorded case.

    Attributes
    ----------
    trial_id : str, such as "decoy-mnist-20142 B"
    case : Case, what the critic saw
    segment : str, its letter
    critic : str of ``KINDS``, the critic's own verdict on it
    critique : str, the critic's words without its verdicts
    prompt : str, the version of the prompt under which it said so
    spurious : bool, the truth; nobody who is asked sees it
    """

    trial_id: str
    case: Case
    segment: str
    critic: str
    critique: str
    prompt: str
    spurious: bool


@cache
def study_trials() -> tuple[Trial, ...]:
    """The trials, always the same ones.

    One segment a case.  Of each set's seven, six are drawn so that the critic's
    verdicts relevant, spurious and background take turns: of all segments few
    are spurious, and agreement on what is rare would hang on a handful.  The
    seventh is one on which the critic is wrong about spurious or not, so that
    following it and being right are not the same; of the digits it is one
    answered under the weak prompt, for under the other the critic never was
    wrong.  Shares of these trials are therefore no shares of all segments, and
    the critic's accuracy on them is made, not found.  Of the digits only cases
    are taken that were answered under both prompts.
    """
    return tuple(trial for dataset in SETS for trial in _trials_of(dataset))


def study_id(trials: Sequence[Trial]) -> str:
    """Tells which trials answers are about: 8 hex digits."""
    names = "\n".join(f"{trial.trial_id} {trial.critic}" for trial in trials)
    return hashlib.sha256(names.encode()).hexdigest()[:8]


def _trials_of(dataset: str) -> list[Trial]:
    task = tasks.get(dataset)()
    settings = CriticSettings(model=MODEL, prompt=DEFAULT_PROMPT)
    config = task.config(seed=SEED, critic="recorded", critic_settings=settings)
    recording = recordings.find(task.source, SEED)
    found = recorded_set(recording, config, task.load("train", seed=SEED))
    answered = [set(answers) for answers in recording.answers.values()]
    names = segment_names(recording.n_segments)
    waiting: dict[str, list[tuple[int, int, str]]] = {name: [] for name in (*_TURNS, _WRONG)}
    for row in torch.randperm(len(found.cases), generator=stream(SEED, f"study of {dataset}")).tolist():
        index = int(found.indices[row])
        if not all(index in some for some in answered):
            continue
        for prompt, (j, name) in itertools.product(recording.answers, enumerate(names)):
            said = recording.answers[prompt][index].verdicts.get(name)
            if found.truth[row, j] == EMPTY or said not in _TURNS:
                continue
            if (said == "spurious") != (found.truth[row, j] == SPURIOUS):
                waiting[_WRONG].append((row, j, prompt))
            if prompt == DEFAULT_PROMPT:
                waiting[said].append((row, j, prompt))
    chosen: list[Trial] = []
    taken: set[int] = set()
    for turn in (_WRONG, *_TURNS * 2):
        row, j, prompt = next(one for one in waiting[turn] if one[0] not in taken)
        taken.add(row)
        case, answer = found.cases[row], recording.answers[prompt][int(found.indices[row])]
        chosen.append(
            Trial(
                f"{case.case_id} {names[j]}", case, names[j], answer.verdicts[names[j]], prose(answer.critique),
                prompt, bool(found.truth[row, j] == SPURIOUS),
            )
        )  # fmt: skip
    return chosen
