"""``lvlmva collect``: the table of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lvlmva_lite.cli import options


def collect(
    folder: Annotated[Path, typer.Argument(help="The --out of `lvlmva sweep`.")],
    older: Annotated[
        bool,
        typer.Option("--older", help="Also runs finished by other code, data or libraries than the last."),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Only hold the runs against the recorded tables: are the numbers the same?"
        ),
    ] = False,
) -> None:
    """Gather the finished runs of a sweep into one table, and print means over seeds.

    Writes runs.csv (and runs.parquet, where pyarrow is installed), a row for each run and arm, and
    summary.md, what this prints, to the sweep's folder; of experiments also tables/NAME.csv and the
    paper's figures and tables that they allow. Example:

    lvlmva collect results/sizes

    With --again, experiments of a few seeds show whether today's code still gives a recorded table:
    again/NAME.yml is then that table's provenance and what was found. It ends with status 1 if an experiment
    cannot be held against its table.
    """
    from lvlmva_lite.experiments import collect as gathering
    from lvlmva_lite.experiments.sweep_folder import SweepFolder, SweepFolderError

    if older and again:
        raise options.fail("--again is for runs of today's code; give --older or --again, not both", 2)
    try:
        sweep = SweepFolder(folder, must_exist=True)
    except SweepFolderError as error:
        raise options.fail(error, 2) from None
    if again:
        from lvlmva_lite.experiments.recording import run_again

        held, not_held = run_again(sweep)
        for line in held:
            typer.echo(line)
        for line in not_held:
            typer.echo(f"lvlmva: {line}", err=True)
        if not held and not not_held:
            raise options.fail(f"{folder} holds no run of an experiment", 1)
        if not_held:
            raise typer.Exit(1)
        return
    collected = gathering.collect(sweep, older=older)
    names = gathering.write(collected, sweep)
    typer.echo((folder / "summary.md").read_text("utf-8"), nl=False)
    n_missing = sum(sweep.done(id) is None for id in sweep.ids())
    if n_missing:
        typer.echo(f"{n_missing} of {len(sweep.ids())} runs are not finished and not in it", err=True)
    n_older = sum(sweep.done(id) is not None for id in sweep.ids(older=True))
    if n_older and not older:
        typer.echo(
            f"beside them {n_older} finished by older code, data or libraries; --older takes them in",
            err=True,
        )
    typer.echo(f"written to {folder}: {', '.join(names)}", err=True)
