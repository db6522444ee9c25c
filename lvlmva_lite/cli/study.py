"""``lvlmva study make`` and ``analyse``: do people see what the critic sees?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lvlmva_lite.cli import options


def build() -> typer.Typer:
    """The commands."""
    app = typer.Typer(
        help="A study for a class: people's answers beside the critic's and the truth.",
        rich_markup_mode=None,
    )
    app.command()(make)
    app.command()(analyse)
    return app


def make(
    out: Annotated[Path, typer.Option(help="Folder for study.html.")],
    seed: Annotated[
        int, typer.Option(help="Of the order in which each participant sees the images.", min=0)
    ] = 0,
) -> None:
    """Write the form: one file that works without a network and gives each participant a file of answers.

    Fifteen minutes: 21 segments of digits, drawn knees and drawn skin, always
    the same, in an order of each participant's own.  Example:

    lvlmva study make --out study
    """
    from lvlmva_lite.files import write_whole
    from lvlmva_lite.study import study_page, study_trials

    with options.bad_settings_told(), options.failures_told():
        options.make_folder(out)
        trials = study_trials()
        write_whole(out / "study.html", study_page(trials, seed=seed))
    typer.echo(
        f"form: {out / 'study.html'}, {len(trials)} segments; hand it out as it is, and collect the files"
    )


def analyse(
    out: Annotated[Path, typer.Option(help="Folder for agreement.csv and agreement.md.")],
    answers: Annotated[
        list[Path] | None, typer.Argument(help="Files that the form gave; none: nobody was asked.", metavar="CSV")
    ] = None,
    simulated: Annotated[
        int | None,
        typer.Option(
            help="Simulated raters, drawn from the truth; no people. [5 without files, else 0]", min=0,
            max=1000, metavar="N",
        ),
    ] = None,
    accuracy: Annotated[float, typer.Option(help="Of the simulated raters.", min=0.0, max=1.0)] = 0.87,
    seed: Annotated[int, typer.Option(help="Of simulated raters and intervals.", min=0)] = 0,
) -> None:  # fmt: skip
    """Measure how far people, critic and truth agree: percent, kappa, intervals.

    The recorded model under its other prompt stands beside them, as a rater of
    its own kind.  Example:

    lvlmva study analyse answers-*.csv --out agreement
    """
    import pandas as pd

    from lvlmva_lite.files import write_whole
    from lvlmva_lite.study import (
        StudyError,
        agreement_table,
        as_markdown,
        read_answers,
        recorded_raters,
        simulated_raters,
        study_trials,
    )

    if missing := [str(file) for file in answers or () if not file.is_file()]:
        raise options.fail(f"there is no file {missing[0]}", 2)
    written = {(out / name).resolve() for name in ("agreement.csv", "agreement.md")}
    if read := [file for file in answers or () if file.resolve() in written]:
        raise options.fail(
            f"{read[0]} is read, and would be overwritten by the result; choose another --out", 2
        )
    with options.bad_settings_told(), options.failures_told():
        options.make_folder(out)
        trials = study_trials()
        try:
            people = read_answers(answers or (), trials)
        except StudyError as error:
            raise options.fail(error, 2) from None
        n = (0 if answers else 5) if simulated is None else simulated
        drawn = simulated_raters(trials, n, accuracy=accuracy, random_state=seed)
        raters = pd.concat([people, recorded_raters(trials), drawn])
        table = agreement_table(raters, trials, random_state=seed)
        text = as_markdown(table)
        write_whole(out / "agreement.csv", table.to_csv(index=False))
        write_whole(out / "agreement.md", text)
    typer.echo(text)
    typer.echo(
        f"people: {people['rater'].nunique()}; tables: {out / 'agreement.csv'}, {out / 'agreement.md'}"
    )
