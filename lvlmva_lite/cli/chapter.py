"""``lvlmva chapter``: execute a chapter and check its claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lvlmva_lite.cli import options


def chapter(
    notebook: Annotated[Path, typer.Argument(help="A chapter, notebooks/NN_name.ipynb.")],
    out: Annotated[Path, typer.Option(help="Folder for the executed notebook, its numbers and figures.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter; may be repeated."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Execute a chapter with papermill and check its claims.

    With parameters set, the claims (which are about the defaults) are not
    checked.  Example:

    lvlmva chapter notebooks/00_lvlm_va_in_ten_minutes.ipynb -p seed=3 --out results/seed-3
    """
    import yaml

    from lvlmva_lite.experiments.chapters import ChapterError, run_chapter
    from lvlmva_lite.experiments.claims import contradicted, load_claims

    parameters = {}
    for setting in parameter or ():
        name, given, value = setting.partition("=")
        if not given:
            raise options.fail(f"-p takes NAME=VALUE, got {setting!r}", 2)
        parameters[name] = yaml.safe_load(value)
    try:
        values = run_chapter(notebook, parameters, out, progress=not quiet)
    except ChapterError as error:
        raise options.fail(error, 1) from None
    if "table" in values:
        typer.echo(values["table"])
    typer.echo(f"executed notebook: {out / notebook.name}")
    typer.echo(f"numbers: {out / notebook.with_suffix('.json').name}; figures: {out / 'figures'}")
    if not parameters and (lines := contradicted(load_claims(), notebook.stem, values)):
        raise options.fail("\n".join(["claims that no longer hold:", *lines]), 1)
