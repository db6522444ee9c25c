"""Throughput and memory of the model client, against a server that takes its time.

``python benchmarks/model_client.py [--cases N] [--seconds S] [--concurrency C]``
starts a server on loopback that answers after S seconds, puts questions to it
one at a time and then C at a time, and prints the ratio of the throughputs:
for the judge's questions, which are words, and for the critic's, for each of
which three panels are drawn first.  Memory is that of this process after a
tenth of the judge's N questions and after all.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from lvlmva_lite.critic import Case, Critique
from lvlmva_lite.critic.batch import concurrently
from lvlmva_lite.critic.providers import Connection, CriticSettings, make

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from answering_server import AnsweringServer


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--alone", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--concurrency", type=int, default=16)
    options = parser.parse_args()

    process = os.fork()
    if not process:
        serve(options.seconds)
    try:
        url = address()
        for who, n in (("judge", options.cases), ("critic", options.cases // 10)):
            alone, _ = asked(url, who, options.alone, 1)
            many, (early, late) = asked(url, who, n, options.concurrency)
            print(
                f"{who}: {alone:.2f} answers a second one at a time, {many:.2f} with "
                f"{options.concurrency} in flight: {many / alone:.1f} times; "
                f"{early:.1f} MB after a tenth of {n}, {late:.1f} MB after all"
            )
    finally:
        os.kill(process, 9)


_ADDRESS = Path(tempfile.gettempdir()) / f"lvlmva-benchmark-{os.getpid()}"


def serve(seconds: float) -> None:
    """Answer until killed, in a process of its own, so that it takes no turn from the client."""
    with AnsweringServer(
        lambda _: "Segment A is spurious. Segment B is relevant.", seconds=seconds
    ) as server:
        server.bodies = _Nothing()
        _ADDRESS.write_text(server.url)
        while True:
            time.sleep(60)


class _Nothing(list):
    def append(self, _: object) -> None:
        """Keep nothing: the memory is that of the client."""


def address() -> str:
    """Of the server, once it serves."""
    while not (_ADDRESS.exists() and _ADDRESS.read_text()):
        time.sleep(0.05)
    url = _ADDRESS.read_text()
    _ADDRESS.unlink()
    return url


def asked(url: str, who: str, n: int, concurrency: int) -> tuple[float, tuple[float, float]]:
    """Answers a second, and resident memory in MB after a tenth of them and after all."""
    labels = torch.arange(2).repeat_interleave(14)[:, None].expand(28, 28)
    cases = [
        Case(
            f"case-{i}",
            torch.full((1, 28, 28), i / n),
            labels,
            2,
            "3",
            "The square means nothing.",
            torch.ones(28, 28),
        )
        for i in range(n)
    ]
    sizes: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        critic, judge = make(
            "openai", CriticSettings("a-model"),
            Connection(store=Path(folder), base_url=url, no_cost=True, max_concurrency=concurrency),
        )  # fmt: skip
        if who == "judge":
            said = [
                Critique(case.case_id, "", f"{case.case_id}: segment A is spurious.", 0, ("A", "B"))
                for case in cases
            ]
            work = partial(judge.judge, n_segments=2), said
        else:
            work = critic.criticise, cases
        start = time.perf_counter()
        concurrently(*work, concurrency, on_result=lambda _: sizes.append(resident()))
        seconds = time.perf_counter() - start
    return n / seconds, (sizes[n // 10], sizes[-1])


def resident() -> float:
    """Memory of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
