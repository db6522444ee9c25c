"""``lvlmva report``: what a model goes by, as a page for the expert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lvlmva_lite.cli import options
from lvlmva_lite.cli.notes import warnings_told


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.", metavar="RUN")],
    accept: Annotated[
        list[str] | None,
        typer.Option(
            help="A thing nobody had named, which should not count; may be repeated.", metavar="NAME"
        ),
    ] = None,
    examples: Annotated[int, typer.Option(help="Images shown.", min=0, max=100)] = 6,
) -> None:
    """Write what a model goes by, per class and in words, for the expert to read.

    Writes report.html, one file that needs nothing else, and report.md into
    the run's folder; with --accept also words.txt, the expert's words with a
    sentence more, for --description of the next run.  Of a model that is only
    to be looked at, make the run with --method look.  Example:

    lvlmva report results/knee-claude
    """
    from lvlmva_lite.files import write_whole
    from lvlmva_lite.report import make_report, read_run

    accept = accept or []
    if not all(name.strip() for name in accept):
        raise typer.BadParameter("--accept needs the name of a thing; without it the report lists them")
    with warnings_told(), options.bad_settings_told(), options.failures_told():
        made = make_report(read_run(run), accept=accept, n_examples=examples)
        write_whole(run / "report.html", made.html())
        write_whole(run / "report.md", made.markdown())
        if accept:
            write_whole(run / "words.txt", made.words + "\n")
    typer.echo(made.summary)
    for thing in made.leaning.candidates:
        filled = made.counterfactuals[thing.name]["before"]
        typer.echo(
            f"not in your words: {thing.name}, {thing.n_cases} images; filled in, {filled.n_changed} of {filled.n} "
            f'answers change; --accept "{thing.name}" adds it'
        )
    typer.echo(f"report: {run / 'report.html'}")
    if accept:
        typer.echo(f"words: {run / 'words.txt'}")
