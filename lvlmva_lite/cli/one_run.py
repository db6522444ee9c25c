"""``python -m lvlmva_lite.cli.one_run FOLDER ID PARENT``: one run of a sweep, in a process of its own.

It ends when its parent does, so that a killed sweep or worker leaves nobody at work.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import typer

from lvlmva_lite.experiments.sweep_folder import Job, SweepFolder, SweepFolderError

_POLL = 0.25


def main(path: str, id: str, parent: int) -> int:
    """Carry it out; return the exit status."""
    if os.name == "posix":  # elsewhere a child does not learn of its parent's end
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    folder = SweepFolder(Path(path), must_exist=True)
    try:
        folder.carry_out(id, work)
    except typer.Exit as ended:
        # Its results may be whole, but for answers that a server owes.
        folder.fail(id, f"exit status {ended.exit_code}")
        return ended.exit_code
    except SweepFolderError as error:
        print(f"lvlmva: {error}", file=sys.stderr)
        return 1
    return 0


def work(job: Job, out: Path) -> None:
    """What the commands ``lvlmva run`` and ``lvlmva chapter`` do, or the rows of an experiment.

    Raises
    ------
    typer.Exit : it failed, and has said why
    """
    from lvlmva_lite.cli import options
    from lvlmva_lite.cli.run import run
    from lvlmva_lite.cli.sweep import settings_of_run
    from lvlmva_lite.experiments.chapters import ChapterError, run_chapter
    from lvlmva_lite.experiments.recording import write_rows
    from lvlmva_lite.experiments.tables import provenance
    from lvlmva_lite.registry import EXPERIMENTS

    if job.kind == "run":
        method, settings = settings_of_run(job.what, job.given)
        # Of a sweep the numbers are wanted, whatever an alignment costs.
        run(job.what, out, method=method, max_loss=1.0, max_class_loss=1.0, quiet=True, **settings)
        return
    if job.kind == "experiment":
        experiment = EXPERIMENTS.get(job.what)
        origin = provenance(str(job))
        with options.failures_told():
            write_rows(out, job.given["seed"], experiment(**job.given), origin)
        return
    try:
        run_chapter(Path(job.what), job.given, out, progress=False)
    except ChapterError as error:
        raise options.fail(error, 1) from None


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
