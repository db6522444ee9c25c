"""How good a real model's recorded verdicts are, and the lexicon's on the very same cases."""

from __future__ import annotations

from typing import Any

from lvlmva_lite.config import Config
from lvlmva_lite.critic import LexiconCritic, TextJudge, recordings
from lvlmva_lite.critic.batch import criticise_all, judge_all
from lvlmva_lite.critic.providers import CriticSettings
from lvlmva_lite.critic.recordings import RecordedCritic
from lvlmva_lite.critic.types import EMPTY, SPURIOUS, UNDECIDED
from lvlmva_lite.experiments.recorded_arms import MODEL, SOURCES
from lvlmva_lite.pipeline import load_split, recorded_set, verdict_matrix, verdict_quality

Row = dict[str, Any]


def verdict_rows(dataset: str, seed: int, *, data_root: str | None = None) -> list[Row]:
    """Each version of the prompt under which a set was answered, and the lexicon on those cases.

    Parameters
    ----------
    dataset, seed, data_root : fields of ``Config``, of a set that is recorded

    Returns
    -------
    list of dict
        "source", as in ``Config.source``; "prompt"; "critic", the model's name
        or "lexicon"; "n_cases"; the fields of :func:`pipeline.verdict_quality`;
        counts of segments that hold a pixel: "n_spurious", by the truth, and
        "n_others"; "n_missed" and "n_false_alarms" among these; "n_undecided"
    """
    rows: list[Row] = []
    first = Config(
        dataset=dataset, seed=seed, data_root=data_root, critic="recorded",
        critic_settings=CriticSettings(model=MODEL),
    )  # fmt: skip
    train = load_split(first, "train")
    for prompt in first.recording.answers:
        settings = CriticSettings(model=MODEL, prompt=prompt)
        config = Config(
            dataset=dataset, seed=seed, data_root=data_root, critic="recorded", critic_settings=settings
        )
        found = recorded_set(config, train)
        spurious, others = found.truth == SPURIOUS, (found.truth != SPURIOUS) & (found.truth != EMPTY)
        for name, critic in (
            (MODEL, RecordedCritic(config.recording, MODEL, prompt)),
            ("lexicon", LexiconCritic()),
        ):
            kinds = verdict_matrix(
                judge_all(TextJudge(), criticise_all(critic, found.cases), found.segments.n_segments)
            )
            rows.append({
                "source": config.source, "prompt": prompt, "critic": name, "n_cases": len(found.cases),
                **verdict_quality(kinds, found.truth),
                "n_spurious": int(spurious.sum()), "n_others": int(others.sum()),
                "n_missed": int((spurious & (kinds != SPURIOUS) & (kinds != UNDECIDED)).sum()),
                "n_false_alarms": int((others & (kinds == SPURIOUS)).sum()),
                "n_undecided": int(((spurious | others) & (kinds == UNDECIDED)).sum()),
            })  # fmt: skip
    return rows


def verdict_sweep(seed: int) -> list[Row]:
    """:func:`verdict_rows` of every recorded set of this seed whose images need no files."""
    return [
        row
        for source, of in recordings.recorded_sets()
        if source in SOURCES and of == seed
        for row in verdict_rows(SOURCES[source], seed)
    ]


def real_verdict_sweep(dataset: str, data_root: str, seed: int) -> list[Row]:
    """:func:`verdict_rows` of real images, where the seed has a recording."""
    if (dataset, seed) not in recordings.recorded_sets():
        return []
    return verdict_rows(dataset, seed, data_root=data_root)
