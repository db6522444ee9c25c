"""How a benchmark measures: ours and a named peer, in turn, in one process, on the same inputs.

A file of this folder is a step.  Its ``main()`` makes rows with :func:`compare`, curves with
:func:`scaling`, and hands both to :func:`write`, which puts ``benchmarks/STEP.json`` there;
``benchmarks/page.py`` makes the book's page of what lies there.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from lvlmva_lite.environment import environment

ROOT = Path(__file__).parents[1]


def compare(
    what: str,
    peer: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    quality: dict[str, tuple[float, float]],
    repeats: int = 5,
    scale: float = 1.0,
) -> dict[str, Any]:
    """Time ``ours`` and ``theirs`` in turn; return a row of the page.

    Parameters
    ----------
    what : the work and its size, in words, such as "200 maps of 28 x 28, J = 4"
    peer : what ``theirs`` is, with its version
    ours, theirs : do the work once
    quality : what the results are worth, by a name that says which way is better, as
        (ours, the peer's), so that speed is not bought with it
    repeats : of each, after one of each that is not counted
    scale : how many times the work of ``theirs`` the work of ``ours`` is, where the peer is too slow for it all

    Returns
    -------
    dict
        "what", "peer", "quality"; and for "cpu" (processor time, one thread) and "wall" (all threads of the
        machine): "ratio", the median of theirs / ours over the pairs, "spread", its lowest and highest,
        and "seconds", the median of ours
    """
    row: dict[str, Any] = {"what": what, "peer": peer, "quality": quality}
    for kind, clock, threads in (
        ("cpu", time.process_time, 1),
        ("wall", time.perf_counter, os.cpu_count() or 1),
    ):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with threadpool_limits(threads):
                pairs = [(_took(ours, clock), _took(theirs, clock) * scale) for _ in range(repeats + 1)][1:]
        finally:
            torch.set_num_threads(before)
        ratios = [theirs_s / ours_s for ours_s, theirs_s in pairs]
        row[kind] = {
            "ratio": _digits(statistics.median(ratios)),
            "spread": [_digits(min(ratios)), _digits(max(ratios))],
            "seconds": _digits(statistics.median(ours_s for ours_s, _ in pairs)),
        }
    print(
        f"{what}: {row['cpu']['ratio']:g} times {peer} by processor time, {row['wall']['ratio']:g} by the clock"
    )
    return row


def scaling(
    what: str,
    against: str,
    sizes: Sequence[int],
    work: Callable[[int], Callable[[], Any]],
    repeats: int = 3,
) -> dict[str, Any]:
    """Time the work at several sizes; return a curve of the page with its fitted exponent.

    Parameters
    ----------
    what, against : the work, and what its size is, in words
    work : given a size, makes what does the work once

    Returns
    -------
    dict
        "what", "against", "sizes"; "seconds", the median of the processor's, one thread; "exponent", the
        slope of a straight line through the logarithms
    """
    seconds = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for size in sizes:
                do = work(size)
                seconds.append(
                    _digits(statistics.median(_took(do, time.process_time) for _ in range(repeats)))
                )
    finally:
        torch.set_num_threads(before)
    exponent = statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    ).slope
    print(f"{what} against {against}: exponent {exponent:.2f}")
    return {
        "what": what,
        "against": against,
        "sizes": list(sizes),
        "seconds": seconds,
        "exponent": round(exponent, 2),
    }


def write(
    step: str, rows: Sequence[dict[str, Any]], curves: Sequence[dict[str, Any]] = (), **more: Any
) -> None:
    """Write ``benchmarks/STEP.json``: ``rows``, ``curves``, what else there is, and where it was measured."""
    measured = provenance() | {"step": step, "rows": list(rows), "curves": list(curves)} | more
    (ROOT / "benchmarks" / f"{step}.json").write_text(json.dumps(measured, indent=1) + "\n", "utf-8")


def provenance() -> dict[str, Any]:
    """When, on what machine and of which commit."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "machine": environment() | {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
    }


def _took(do: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    do()
    return clock() - start


def _digits(number: float) -> float:
    return float(f"{number:.4g}")
