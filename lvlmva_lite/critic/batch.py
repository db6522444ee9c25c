"""Many cases at a time: each answer handed on as it arrives, nothing under way thrown away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TypeVar

from tqdm import tqdm

from lvlmva_lite.critic.types import Case, Critic, Critique, Judge, Verdict
from lvlmva_lite.critic.verdicts import vote
from lvlmva_lite.fingerprint import fingerprint, package_fingerprint

_LOG = logging.getLogger(__name__)

_In, _Out = TypeVar("_In"), TypeVar("_Out")


def criticise_all(
    critic: Critic,
    cases: Sequence[Case],
    *,
    known: Mapping[tuple[str, int], Critique] | None = None,
    on_critique: Callable[[Critique], None] | None = None,
    progress: bool = False,
) -> list[Critique]:
    """All of a critic's answers: ``critic.samples`` for each case, in the order of the cases.

    An image none of whose segments holds a pixel is not asked about; its
    critique is empty, which every judge rules undecided.

    Parameters
    ----------
    critic : Critic
    cases : of one run, with distinct ids
    known : critiques that are there already, by case id and sample; one is
        taken over only if it answered this very question (see
        :func:`question_of`), else it is asked for again and a logged warning
        says how many and why
    on_critique : called in this thread with each new critique as it arrives
    progress : show a progress bar

    Raises
    ------
    whatever the critic raises, after the answers under way have arrived
    """
    wanted = {(case.case_id, sample): case for case in cases for sample in range(critic.samples)}
    questions = {key: question_of(critic, case, key[1]) for key, case in wanted.items()}
    done = {
        key: critique
        for key, critique in (known or {}).items()
        if key in wanted and critique.question == questions[key]
    }
    _tell_left_out(known or {}, set(wanted), set(done))

    def ask(key: tuple[str, int]) -> Critique:
        case, sample = wanted[key], key[1]
        if (case.segment_labels >= 0).any():
            critique = critic.criticise(case, sample)
        else:
            critique = Critique(case.case_id, critic.name, "", sample)
        return replace(critique, question=questions[key])

    def arrived(critique: Critique) -> None:
        done[critique.case_id, critique.sample] = critique
        if on_critique is not None:
            on_critique(critique)

    concurrently(
        ask, [key for key in wanted if key not in done], critic.concurrency,
        on_result=arrived, label="criticising", progress=progress,
    )  # fmt: skip
    return [done[key] for key in wanted]


def question_of(critic: Critic, case: Case, sample: int = 0) -> str:
    """Fingerprint (SHA-256, hex) of all that decides an answer.

    The case with its image, segments and words, the number of the sample, the
    critic's name and what it says it is ``decided_by``, and the code and
    prompts that critics are made of.
    """
    decided_by = getattr(critic, "decided_by", None)
    return fingerprint(
        package_fingerprint("critic"), critic.name, decided_by and decided_by(case), case, sample
    )


def _tell_left_out(
    known: Mapping[tuple[str, int], Critique], wanted: set[tuple[str, int]], taken: set[tuple[str, int]]
) -> None:
    strangers = [key for key in known if key not in wanted]
    others = [key for key in known if key in wanted and key not in taken]
    untold = sum(not known[key].question for key in others)
    for count, why in (
        (
            len(others) - untold,
            "answered another question (image, segments, words, settings or code differ)",
        ),
        (untold, "do not say what they answered (an older version wrote them)"),
        (len(strangers), "are of cases that are not among these"),
    ):
        if count:
            _LOG.warning(
                "%d of %d critiques there are left out and what is missing is asked for again: they %s",
                count, len(known), why,
            )  # fmt: skip


def judge_all(
    judge: Judge, critiques: Sequence[Critique], n_segments: int, *, progress: bool = False
) -> list[Verdict]:
    """One verdict for each case, in the order in which the cases first occur; several samples vote."""
    verdicts = concurrently(
        lambda critique: judge.judge(critique, n_segments), critiques, judge.concurrency,
        label="judging", progress=progress and judge.concurrency > 1,
    )  # fmt: skip
    by_case: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_case.setdefault(verdict.case_id, []).append(verdict)
    return [of_case[0] if len(of_case) == 1 else vote(of_case) for of_case in by_case.values()]


def concurrently(
    function: Callable[[_In], _Out],
    items: Sequence[_In],
    limit: int,
    *,
    on_result: Callable[[_Out], None] | None = None,
    label: str = "",
    progress: bool = False,
) -> list[_Out]:
    """``[function(item) for item in items]``, up to ``limit`` at a time.

    The first item goes alone, so that a wrong key or model name costs one
    call.  After an error nothing new is begun; what is under way is waited
    for and handed to ``on_result`` before the error is raised.
    """
    results: dict[int, _Out] = {}
    with tqdm(total=len(items), desc=label, unit="case", disable=not progress) as bar:

        def arrived(i: int, result: _Out) -> None:
            results[i] = result
            bar.update()
            if on_result is not None:
                on_result(result)

        alone = 1 if limit > 1 else len(items)
        for i, item in enumerate(items[:alone]):
            arrived(i, function(item))
        waiting = iter(enumerate(items[alone:], alone))
        running: dict[Future, int] = {}
        failed: BaseException | None = None
        with ThreadPoolExecutor(max(limit, 1)) as pool:
            while True:
                while failed is None and len(running) < limit and (following := next(waiting, None)):
                    i, item = following
                    running[pool.submit(function, item)] = i
                if not running:
                    break
                try:
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                except KeyboardInterrupt as interrupt:
                    if failed is not None:
                        raise
                    failed = interrupt
                    continue
                for future in finished:
                    i = running.pop(future)
                    if future.exception() is None:
                        arrived(i, future.result())
                    elif failed is None:
                        failed = future.exception()
        if failed is not None:
            raise failed
    return [results[i] for i in range(len(items))]
