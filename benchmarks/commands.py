"""Processor time of whole commands, and how much of it the networks' own passes take.

``python benchmarks/commands.py`` runs ``lvlmva run decoy-mnist`` in a process of its own, imports the package
in others, and writes ``benchmarks/commands.json``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

RUNS = 2
IMPORTS = 7
IMPORT = """\
import time
start = time.process_time(), time.perf_counter()
import torch
between = time.process_time(), time.perf_counter()
import lvlmva_lite.methods
end = time.process_time(), time.perf_counter()
print([[b - a, c - b] for a, b, c in zip(start, between, end)])
"""
STEPS = {
    "training": ("pipeline", "fit"),
    "explaining": ("alignment_set", "explain"),
    "segmenting": ("alignment_set", "segment"),
    "criticising": ("pipeline", "criticise_all"),
    "judging": ("pipeline", "judge_all"),
    "aligning": ("pipeline", "align"),
    "measuring": ("pipeline.Prepared", "score"),
}
"""What each step of a run is called, and where it is found."""


class Stopwatch:
    """Seconds within functions, a call within another one of the same name counted once.

    Attributes
    ----------
    seconds : by name, [of the processor, by the clock]
    """

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._depths: dict[str, int] = {}

    def time(self, name: str, owner: Any, attribute: str) -> None:
        """Count what ``owner.attribute`` takes under ``name`` from now on."""
        function: Callable[..., Any] = getattr(owner, attribute)
        taken = self.seconds.setdefault(name, [0.0, 0.0])
        self._depths.setdefault(name, 0)

        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self._depths[name] += 1
            start = time.process_time(), time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self._depths[name] -= 1
                if not self._depths[name]:
                    taken[0] += time.process_time() - start[0]
                    taken[1] += time.perf_counter() - start[1]

        setattr(owner, attribute, timed)


def inside(out: Path) -> None:
    """Run the command in this process and print, as JSON, what took how long."""
    begun = time.perf_counter() - time.process_time()  # until here the clock ran hardly longer
    import torch

    from lvlmva_lite import alignment_set, cli, pipeline

    watch = Stopwatch()
    for name, (where, attribute) in STEPS.items():
        owner = {
            "pipeline": pipeline,
            "alignment_set": alignment_set,
            "pipeline.Prepared": pipeline.Prepared,
        }
        watch.time(name, owner[where], attribute)
    # A network's passes are what its modules and autograd do, and an explanation is nothing but passes.
    for owner, attribute in (
        (torch.nn.Module, "__call__"),
        (torch.autograd, "backward"),
        (torch.autograd, "grad"),
        (alignment_set, "explain"),
        (pipeline, "explain"),
    ):
        watch.time("passes", owner, attribute)
    sys.argv = ["lvlmva", "run", "decoy-mnist", "--out", str(out), "--quiet"]
    try:
        cli.main()
    except SystemExit as done:
        if done.code:
            raise
    watch.seconds["all"] = [time.process_time(), time.perf_counter() - begun]
    results = json.loads((out / "results.json").read_text())
    print(json.dumps({"seconds": watch.seconds, "accuracy": results["accuracy_after"]}))


def child(*arguments: str) -> str:
    """Last line of what Python prints, on one thread."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


def row(what: str, peer: str, quality: dict, theirs: list[list[float]], ours: list[list[float]]) -> dict:
    """As :func:`timing.compare` makes it, of [processor, clock] seconds measured already."""
    made: dict[str, Any] = {"what": what, "peer": peer, "quality": quality}
    for kind, of_theirs, of_ours in zip(("cpu", "wall"), zip(*theirs), zip(*ours), strict=True):  # noqa: B905
        ratios = [a / b for a, b in zip(of_theirs, of_ours, strict=True)]
        made[kind] = {
            "ratio": round(statistics.median(ratios), 3),
            "spread": [round(min(ratios), 3), round(max(ratios), 3)],
            "seconds": round(statistics.median(of_ours), 3),
        }
    print(what, made)
    return made


def main() -> None:
    """Measure and write."""
    from timing import write

    runs = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(json.loads(child(__file__, str(Path(folder) / "out"))))
    imports = [json.loads(child("-c", IMPORT)) for _ in range(IMPORTS)]
    torch_s, package_s = ([[kind[part] for kind in one] for one in imports] for part in (0, 1))
    steps = {
        name: round(statistics.median(run["seconds"][name][0] for run in runs), 2)
        for name in (*STEPS, "passes", "all")
    }
    accuracy = statistics.median(run["accuracy"] for run in runs)
    write(
        "commands",
        [
            row(
                "lvlmva run decoy-mnist", "the forward and backward passes of its networks alone",
                {"accuracy after": (accuracy, accuracy)},
                *([run["seconds"][name] for run in runs] for name in ("passes", "all")),
            ),
            row("import of the package, beyond PyTorch's", "import of PyTorch", {}, torch_s, package_s),
        ],
        steps=steps,
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:]:
        inside(Path(sys.argv[1]))
    else:
        main()
