"""Run an experiment for seven seeds and keep its table with the package.

``python tools/record_results.py NAME [--jobs N]`` writes
``lvlmva_lite/experiments/results/NAME.csv`` (growing seed by seed; an interrupted run
resumes) and ``NAME.yml``, the machine, date and commit it comes from.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import yaml

from lvlmva_lite.experiments.sweeps import REAL_SWEEPS, SWEEPS
from lvlmva_lite.experiments.tables import provenance, sweep

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "lvlmva_lite/experiments/results"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=sorted(SWEEPS | REAL_SWEEPS))
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="seeds at once")
    parser.add_argument("--seeds", type=int, default=7, help="seeds 0 .. N - 1")
    parser.add_argument("--data-root", help="folder of the images, for " + " and ".join(REAL_SWEEPS))
    options = parser.parse_args(arguments)
    if (options.name in REAL_SWEEPS) != (options.data_root is not None):
        parser.error("--data-root is needed for real images, and for these alone")
    rows_of = SWEEPS.get(options.name) or partial(REAL_SWEEPS[options.name], options.data_root)
    # The folder's name is of this machine alone.
    folder = " --data-root DIR" if options.data_root else ""
    origin = provenance(f"python tools/record_results.py {options.name} --seeds {options.seeds}{folder}")
    # What is under way is no part of the package yet.
    growing = ROOT / "results" / f"{options.name}-{origin['commit']}.csv"
    sweep(rows_of, range(options.seeds), growing, n_jobs=options.jobs, progress=True)
    RESULTS.mkdir(exist_ok=True)
    shutil.copyfile(growing, RESULTS / f"{options.name}.csv")
    (RESULTS / f"{options.name}.yml").write_text(yaml.safe_dump(origin, sort_keys=False), "utf-8")
    print("recorded in", RESULTS / f"{options.name}.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
