"""Many cases at a time: each answer handed on as it arrives, nothing under way thrown away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from tqdm import tqdm

from lvlmva_lite.critic.types import Case, Critic, Critique, Judge, Verdict
from lvlmva_lite.critic.verdicts import vote

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

    Parameters
    ----------
    critic : Critic
    cases : of one run, with distinct ids
    known : critiques that are there already, by case id and sample
    on_critique : called in this thread with each new critique as it arrives
    progress : show a progress bar

    Raises
    ------
    whatever the critic raises, after the answers under way have arrived
    """
    done = dict(known or {})
    wanted = [(case, sample) for case in cases for sample in range(critic.samples)]
    missing = [(case, sample) for case, sample in wanted if (case.case_id, sample) not in done]

    def arrived(critique: Critique) -> None:
        done[critique.case_id, critique.sample] = critique
        if on_critique is not None:
            on_critique(critique)

    concurrently(
        lambda item: critic.criticise(*item), missing, critic.concurrency,
        on_result=arrived, label="criticising", progress=progress,
    )  # fmt: skip
    return [done[case.case_id, sample] for case, sample in wanted]


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
