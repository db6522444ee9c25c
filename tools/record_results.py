"""Run an experiment for seven seeds and keep its table with the package.

``python tools/record_results.py NAME [--jobs N]`` writes
``lvlmva_lite/experiments/results/NAME.csv`` and ``NAME.yml``, the machine, date and
commit it comes from, once all seeds are there.  Until then the rows grow seed by seed in
``results/NAME.csv``, from where an interrupted run of the same code resumes.  A seed that fails
stops no other; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import yaml

from lvlmva_lite.experiments.sweeps import REAL_SWEEPS, SWEEPS
from lvlmva_lite.experiments.tables import SweepError, provenance, sweep
from lvlmva_lite.files import write_whole

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
    growing = ROOT / "results" / f"{options.name}.csv"
    try:
        table = sweep(rows_of, range(options.seeds), growing, n_jobs=options.jobs, progress=True)
    except SweepError as error:
        print(f"record_results: {error}; nothing is recorded", file=sys.stderr)
        return 1
    RESULTS.mkdir(exist_ok=True)
    # The origin goes first and comes last: a table without one does not count.
    (RESULTS / f"{options.name}.yml").unlink(missing_ok=True)
    write_whole(RESULTS / f"{options.name}.csv", table.to_csv(index=False))
    write_whole(RESULTS / f"{options.name}.yml", yaml.safe_dump(origin, sort_keys=False))
    print("recorded in", RESULTS / f"{options.name}.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
