"""``lvlmva critic cases`` and ``import``: cases for anybody to answer, and the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvlmva_lite.cli import options
from lvlmva_lite.cli.idle import refuse_idle
from lvlmva_lite.cli.notes import warnings_told

if TYPE_CHECKING:
    from lvlmva_lite.config import Config
    from lvlmva_lite.tasks import Task


def cases(
    dataset: options.Dataset,
    out: Annotated[Path, typer.Option(help="New folder for the cases.")],
    n_cases: options.NCases = 20,
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Write the cases of a run as pictures and text, for anybody to answer.  Example:

    lvlmva critic cases decoy-mnist --n 20 --out cases

    Or of your own network and images, as `lvlmva align` would show them:

    lvlmva critic cases folder --data belt --model net.py:Net --weights net.pt --description "A sticker means nothing." --out cases
    """
    from lvlmva_lite import pipeline
    from lvlmva_lite.critic.case_files import CaseFilesError, export_cases, require_new_folder

    with warnings_told(), options.bad_settings_told():
        task, config = checked(dataset, settings, critic="replay", n_align=n_cases)
    try:
        require_new_folder(out)
        # Some settings can be held against the data only once these are there.
        with warnings_told(), options.bad_settings_told(), options.failures_told():
            written = pipeline.prepare(task, config, progress=not quiet).alignment_set.cases
        export_cases(written, out)
    except CaseFilesError as error:
        raise options.fail(error, 2) from None
    typer.echo(f"{len(written)} cases: {out}; {out / 'README.md'} says how to answer them")


def checked(dataset: str, settings: dict[str, Any], **more: Any) -> tuple[Task, Config]:
    """The task and the settings of a run whose cases are wanted, checked before any work.

    Parameters
    ----------
    settings : a value for each option of the task and of the run
    more : further fields of ``Config``

    Raises
    ------
    RegistryError, ConfigError : something that cannot work, or does nothing
    """
    from lvlmva_lite.pretrained_weights import check_weights

    task = options.task_of(dataset, settings)
    # Words that a simulated critic does not read may be for a second one.
    given = {name for name, value in settings.items() if value is not None and name != "description"}
    settings["description"] = options.text_or_file(settings["description"])
    config = task.config(**settings, **more)
    refuse_idle(task, config, "look", given)
    check_weights(task, config)
    return task, config


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
