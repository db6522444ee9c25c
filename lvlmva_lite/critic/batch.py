"""Many cases at a time: each answer handed on as it arrives, nothing under way thrown away."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TypeVar

from tqdm import tqdm

from lvlmva_lite.critic.types import Case, Critic, Critique, Judge, Verdict
from lvlmva_lite.critic.verdicts import vote
from lvlmva_lite.fingerprint import fingerprint, package_fingerprint

_LOG = logging.getLogger(__name__)

_In, _Out = TypeVar("_In"), TypeVar("_Out")

FAILURES_IN_A_ROW = 3
"""So many questions without an answer, one after the other, and the server is taken for dead."""

FIRST_ANSWERS = 5
"""If none of so many first answers can be used, none of the rest is asked for."""

GRACE = 0.7
"""Seconds that calls under way are given after an interrupt."""

_ADVICE = {
    "refused": "the model refuses such images or words",
    "empty": "the model says nothing; another --critic-model, or look at the server's log",
    "reasoning": "the model spends its tokens on reasoning; --max-answer-tokens, --reasoning-effort low",
    "cut": "the answers are too long for --max-answer-tokens",
    "malformed": "the judge does not keep to the form; another --judge-model",
    "blind": "the model does not see images; choose one that does",
    "failed": "the server rejects the questions",
}


class NothingUsable(RuntimeError):
    """None of the first answers can be used; the message says why, and what to do."""


def unusable_counts(said: Sequence[Critique | Verdict]) -> dict[str, int]:
    """How many critiques or verdicts there are without a usable answer, by the kind of their reason."""
    return dict(Counter(one.reason.partition(":")[0] for one in said if one.reason))


def criticise_all(
    critic: Critic,
    cases: Sequence[Case],
    *,
    known: Mapping[tuple[str, int], Critique] | None = None,
    on_critique: Callable[[Critique], None] | None = None,
    judge: Judge | None = None,
    progress: bool = False,
) -> list[Critique]:
    """All of a critic's answers: ``critic.samples`` for each case, in the order of the cases.

    An image none of whose segments holds a pixel is not asked about; its
    critique is empty, which every judge rules undecided.  A case that the
    critic cannot answer is set aside: its critique has no text and says why in
    ``reason``; a few in a row are taken for the critic's end.

    Parameters
    ----------
    critic : Critic
    cases : of one run, with distinct ids
    known : critiques that are there already, by case id and sample; one is
        taken over only if it is usable and answered this very question (see
        :func:`question_of`), else it is asked for again and a logged warning
        says how many and why
    on_critique : called in this thread with each new critique that can be
        used, as it arrives
    judge : rules on the first few critiques at once, so that one that cannot
        be used is found before the rest is paid for
    progress : show a progress bar

    Raises
    ------
    NothingUsable : none of the first answers can be used
    whatever the critic raises, after the answers under way have arrived
    """
    wanted = {(case.case_id, sample): case for case in cases for sample in range(critic.samples)}
    known = {key: critique for key, critique in (known or {}).items() if not critique.reason}
    questions = {key: question_of(critic, case, key[1]) for key, case in wanted.items()}
    done = {
        key: critique
        for key, critique in known.items()
        if key in wanted and critique.question == questions[key]
    }
    _tell_left_out(known, set(wanted), set(done))
    first: list[Critique] | None = None if done else []
    proven = bool(done)

    def ask(key: tuple[str, int]) -> Critique:
        case, sample = wanted[key], key[1]
        if (case.segment_labels >= 0).any():
            critique = critic.criticise(case, sample)
        else:
            critique = Critique(case.case_id, critic.name, "", sample)
        return replace(critique, question=questions[key])

    def stand_in(key: tuple[str, int], error: Exception) -> Critique:
        return critic.without_answer(wanted[key], key[1], f"failed: {error}")

    def arrived(critique: Critique) -> None:
        nonlocal first
        done[critique.case_id, critique.sample] = critique
        if on_critique is not None and not critique.reason:
            on_critique(critique)
        if first is not None:
            first.append(critique)
            if len(first) == FIRST_ANSWERS:
                trial, first = first, None
                _require_some(trial, "critic")
                if hasattr(judge, "ask"):
                    heard = [one for one in trial if one.text]
                    ruled = [judge.judge(one, wanted[one.case_id, one.sample].n_segments) for one in heard]
                    if len(ruled) == FIRST_ANSWERS:
                        _require_some(ruled, "judge")

    def all_of(keys: Sequence[tuple[str, int]]) -> None:
        concurrently(
            ask, keys, critic.concurrency,
            on_result=arrived, label="criticising", progress=progress,
            stand_in=stand_in if hasattr(critic, "without_answer") else None,
            interrupt=getattr(critic, "interrupt", None), proven=proven,
        )  # fmt: skip

    left = [key for key in wanted if key not in done]
    if ask_ahead := getattr(critic, "ask_ahead", None):
        # A few at once: what cannot be used is found before a batch is paid for.
        all_of(left[:FIRST_ANSWERS])
        left = left[FIRST_ANSWERS:]
        ask_ahead(
            critic.request(wanted[key], key[1]) for key in left if (wanted[key].segment_labels >= 0).any()
        )
    all_of(left)
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
    """One verdict for each case, in the order in which the cases first occur; several samples vote.

    Raises
    ------
    NothingUsable : none of the first answers can be used
    whatever the judge raises, after the answers under way have arrived
    """
    if ask_ahead := getattr(judge, "ask_ahead", None):
        ask_ahead(
            judge.request(one, n_segments) for one in critiques if not one.reason and one.text.strip()
        )
    heard = {one.case_id for one in critiques if not one.reason and one.text.strip()}
    first: list[Verdict] | None = []

    def stand_in(critique: Critique, error: Exception) -> Verdict:
        return judge.without_answer(critique, n_segments, f"failed: {error}")

    def arrived(verdict: Verdict) -> None:
        nonlocal first
        if first is not None and verdict.case_id in heard:
            first.append(verdict)
            if len(first) == FIRST_ANSWERS:
                trial, first = first, None
                _require_some(trial, "judge")

    verdicts = concurrently(
        lambda critique: judge.judge(critique, n_segments), critiques, judge.concurrency,
        on_result=arrived, label="judging", progress=progress and judge.concurrency > 1,
        stand_in=stand_in if hasattr(judge, "without_answer") else None,
        interrupt=getattr(judge, "interrupt", None),
    )  # fmt: skip
    by_case: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_case.setdefault(verdict.case_id, []).append(verdict)
    return [_one(of_case) for of_case in by_case.values()]


def _one(verdicts: list[Verdict]) -> Verdict:
    voted = verdicts[0] if len(verdicts) == 1 else vote(verdicts)
    return replace(voted, reason=verdicts[0].reason if all(one.reason for one in verdicts) else "")


def _require_some(first: Sequence[Critique | Verdict], who: str) -> None:
    """Raise NothingUsable if every one of these has a reason instead of an answer."""
    if not all(one.reason for one in first):
        return
    counts = unusable_counts(first)
    commonest = max(counts, key=counts.get)
    words = next(one.reason for one in first if one.reason.startswith(commonest))
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    raise NothingUsable(
        f"none of the first {len(first)} answers of the {who} can be used ({told}; for instance: "
        f"{words.partition(':')[2].strip() or words}): {_ADVICE.get(commonest, 'look at the answers')}; "
        "the rest was not asked for; `lvlmva critic list --unusable` shows what came"
    )


def concurrently(
    function: Callable[[_In], _Out],
    items: Sequence[_In],
    limit: int,
    *,
    on_result: Callable[[_Out], None] | None = None,
    label: str = "",
    progress: bool = False,
    stand_in: Callable[[_In, Exception], _Out] | None = None,
    interrupt: Callable[[], None] | None = None,
    proven: bool = False,
) -> list[_Out]:
    """``[function(item) for item in items]``, up to ``limit`` at a time.

    Items go alone until one has succeeded, so that a wrong key or model name
    costs one call.  After an error nothing new is begun; what is under way is
    waited for and handed to ``on_result`` before the error is raised.  After
    Ctrl-C it is given ``GRACE`` seconds.

    Parameters
    ----------
    function, items, limit : as above
    on_result : called in this thread with each result as it arrives
    label, progress : of the progress bar
    stand_in : makes the result of an item whose error says, by its attribute
        ``of_case``, that other items may fare better; not after
        ``FAILURES_IN_A_ROW`` of them in a row
    interrupt : ends the waits of what is under way
    proven : it has succeeded before
    """
    results: dict[int, _Out] = {}
    in_a_row = 0

    with tqdm(total=len(items), desc=label, unit="case", disable=not progress) as bar:

        def arrived(i: int, result: _Out | None, error: BaseException | None) -> None:
            nonlocal in_a_row, proven
            if error is not None:
                if stand_in is None or not getattr(error, "of_case", False):
                    raise error
                in_a_row += 1
                nobody = not proven and in_a_row == len(items)
                if nobody or (in_a_row >= FAILURES_IN_A_ROW and len(items) > FAILURES_IN_A_ROW):
                    raise error
                result = stand_in(items[i], error)
            else:
                in_a_row = 0
                proven = proven or not getattr(result, "reason", "")
            results[i] = result
            bar.update()
            if on_result is not None:
                on_result(result)

        def stopped() -> KeyboardInterrupt:
            return KeyboardInterrupt(
                f"{label or 'work'} interrupted: {len(results)} of {len(items)} are kept"
            )

        waiting = iter(range(len(items)))
        try:
            for i in waiting:
                arrived(i, *_tried(function, items[i]))
                if proven and limit > 1:
                    break
        except KeyboardInterrupt:
            raise stopped() from None

        tasks: SimpleQueue[int | None] = SimpleQueue()
        done: SimpleQueue[tuple] = SimpleQueue()

        def work() -> None:
            while (i := tasks.get()) is not None:
                done.put((i, *_tried(function, items[i])))

        workers, running, until = 0, 0, None
        failed: BaseException | None = None
        try:
            while True:
                try:
                    while failed is None and running < limit and (i := next(waiting, None)) is not None:
                        if workers == running:
                            # Daemons: one that hangs does not keep the process alive.
                            threading.Thread(target=work, daemon=True).start()
                            workers += 1
                        tasks.put(i)
                        running += 1
                    if not running:
                        break
                    try:
                        result = done.get(
                            timeout=None if until is None else max(until - time.monotonic(), 0)
                        )
                    except Empty:
                        break
                    running -= 1
                    arrived(*result)
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        if until is not None:
                            raise
                        until = time.monotonic() + GRACE
                        failed = error
                    if failed is None:
                        failed = error
                    if interrupt is not None:
                        interrupt()
        finally:
            for _ in range(workers):
                tasks.put(None)
        if isinstance(failed, KeyboardInterrupt):
            raise stopped() from None
        if failed is not None:
            raise failed
    return [results[i] for i in range(len(items))]


def _tried(function: Callable[[_In], _Out], item: _In) -> tuple[_Out | None, Exception | None]:
    try:
        return function(item), None
    except Exception as error:
        return None, error
