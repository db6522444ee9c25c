"""Throughput and memory of the model client, against a server that takes its time.

``python benchmarks/model_client.py [--cases N] [--seconds S] [--out FILE]``
starts a server on loopback that answers after S seconds, puts questions to it
one at a time and several at a time, and writes what it measured: for the
judge's questions, which are words; for the critic's, with three panels each
that were drawn before; and for the critic's with the drawing.  Memory is that
of this process while it puts N questions of the judge, sixteen at a time.
``benchmarks/page.py`` makes the book's page of what is written.

On a machine with other work, `chrt --rr 5 python ...` (Linux, as root) lets
client and server compute whenever they have something to compute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from lvlmva_lite.critic import Case, Critique
from lvlmva_lite.critic.batch import concurrently
from lvlmva_lite.critic.panels import render_panels
from lvlmva_lite.critic.providers import Connection, CriticSettings, make

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from answering_server import AnsweringServer  # noqa: E402
from timing import provenance  # noqa: E402

IN_FLIGHT = (1, 2, 4, 8, 16)
"""Questions at a time; the last is that of the long run."""


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "model_client.json")
    options = parser.parse_args()

    measured: dict[str, object] = here() | {
        "seconds_per_answer": options.seconds,
        "in_flight": list(IN_FLIGHT),
        "cases": options.cases,
    }
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder) / "address"
        process = os.fork()
        if not process:
            serve(options.seconds, address)
        try:
            while not (address.exists() and (url := address.read_text())):
                time.sleep(0.05)
            measured["drawing_ms"] = round(drawing(), 1)
            for who, longest in (
                ("judge", options.cases),
                ("critic, drawn before", options.cases // 5),
                ("critic", options.cases // 5),
            ):
                rates, memory = [], []
                for n_at_a_time in IN_FLIGHT:
                    n = longest if n_at_a_time == IN_FLIGHT[-1] else 10 * (n_at_a_time + 1)
                    rate, memory = asked(url, who, n, n_at_a_time)
                    rates.append(round(rate, 2))
                    print(f"{who}: {rate:.2f} answers a second, {n_at_a_time} in flight", flush=True)
                every = max(1, longest // 100)
                measured[who] = {
                    "answers_per_second": rates,
                    "ratio": round(rates[-1] / rates[0], 2),
                    "megabytes": [round(size, 1) for size in memory[every - 1 :: every]],
                }
        finally:
            os.kill(process, 9)
            os.waitpid(process, 0)
    options.out.write_text(json.dumps(measured, indent=1) + "\n")


def here() -> dict[str, object]:
    """Where it was measured, and whether other work there took turns."""
    return provenance() | {
        "openai": version("openai"),
        "undisturbed": os.sched_getscheduler(0) != os.SCHED_OTHER,
    }


def serve(seconds: float, address: Path) -> None:
    """Answer until killed, in a process of its own, so that it takes no turn from the client."""
    with AnsweringServer(seconds=seconds) as server:
        server.bodies = _Nothing()
        address.write_text(server.url)
        while True:
            time.sleep(60)


class _Nothing(list):
    def append(self, _: object) -> None:
        """Keep nothing."""


def cases_of(n: int) -> list[Case]:
    """Cases with nothing in them, each another one, as large as those of DecoyMNIST."""
    labels = torch.arange(2).repeat_interleave(14)[:, None].expand(28, 28)
    return [
        Case(
            f"case-{i}", torch.full((1, 28, 28), i / n), labels, 2, "3", "The square means nothing.",
            torch.ones(28, 28),
        )
        for i in range(n)
    ]  # fmt: skip


def drawing() -> float:
    """Milliseconds of a processor that the panels of a case take."""
    cases = cases_of(11)
    render_panels(cases[0])
    start = time.process_time()
    for case in cases[1:]:
        render_panels(case)
    return (time.process_time() - start) * 100


def asked(url: str, who: str, n: int, n_at_a_time: int) -> tuple[float, list[float]]:
    """Answers a second, and memory in MB after each.

    Raises
    ------
    SystemExit : an answer could not be used, so that nothing was measured
    """
    cases = cases_of(n)
    sizes: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        critic, judge = make(
            "openai", CriticSettings("a-model"),
            Connection(store=Path(folder), base_url=url, no_cost=True, max_concurrency=n_at_a_time),
        )  # fmt: skip
        function: Callable[..., object] = critic.criticise
        items: list = cases
        if who == "judge":
            function = partial(judge.judge, n_segments=2)
            items = [
                Critique(case.case_id, "", f"{case.case_id}: Segment A is spurious.", 0, ("A", "B"))
                for case in cases
            ]
        if who == "critic, drawn before":
            function, items = critic.ask, [critic.request(case) for case in cases]
        start = time.perf_counter()
        results = concurrently(function, items, n_at_a_time, on_result=lambda _: sizes.append(megabytes()))
        seconds = time.perf_counter() - start
    if bad := [result.reason for result in results if getattr(result, "reason", "")]:
        raise SystemExit(f"{len(bad)} of {n} answers cannot be used: {bad[0]}")
    return n / seconds, sizes


def megabytes() -> float:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
