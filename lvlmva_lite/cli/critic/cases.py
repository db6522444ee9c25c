"""``lvlmva critic cases`` and ``import``: cases for anybody to answer, and the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lvlmva_lite.cli import options


def cases(
    dataset: options.Dataset,
    out: Annotated[Path, typer.Option(help="New folder for the cases.")],
    n_cases: options.NCases = 20,
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Write the cases of a run as pictures and text, for anybody to answer.  Example:

    lvlmva critic cases decoy-mnist --n 20 --out cases
    """
    from lvlmva_lite import pipeline
    from lvlmva_lite.critic.case_files import CaseFilesError, export_cases, require_new_folder

    with options.bad_settings_told():
        task = options.task_of(dataset, settings)
        settings["description"] = options.text_or_file(settings["description"])
        config = task.config(**settings, critic="replay", n_align=n_cases)
    try:
        require_new_folder(out)
        with options.failures_told():
            written = pipeline.prepare(task, config, progress=not quiet).alignment_set.cases
        export_cases(written, out)
    except CaseFilesError as error:
        raise options.fail(error, 2) from None
    typer.echo(f"{len(written)} cases: {out}; {out / 'README.md'} says how to answer them")


def import_(
    folder: Annotated[
        Path, typer.Argument(help="Made by `lvlmva critic cases`, and answered.", metavar="DIR")
    ],
    store: options.Store = options.DEFAULT_STORE,
    model: Annotated[str, typer.Option(help="Who answered, where an answer does not say.")] = "",
    date: Annotated[str, typer.Option(help="When, YYYY-MM-DD, where an answer does not say.")] = "",
) -> None:
    """Read answered cases into the store, for --critic replay; bad answers are named.  Example:

    lvlmva critic import cases --store answers
    """
    from lvlmva_lite.critic.case_files import CaseFilesError, import_answers
    from lvlmva_lite.critic.store import AnswerStore

    with options.bad_settings_told():
        answers = AnswerStore(store)
    try:
        imported = import_answers(folder, answers, model=model, date=date)
    except CaseFilesError as error:
        raise options.fail(error, 2) from None
    typer.echo(imported.summary())
    if imported.refused:
        raise typer.Exit(1)
