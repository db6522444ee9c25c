"""The commands ``lvlmva critic ...``: what a critic costs, how good it is, what it said."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from lvlmva_lite.cli import options
from lvlmva_lite.cli.critic import answers, cases, evaluate, model

_OF_THE_RUN = ("n_segments", "seed", "description", "model", "weights", "train_epochs")


def build(arguments: Sequence[str]) -> typer.Typer:
    """The commands; the options of one that prepares a run are those of the task that is named."""
    app = typer.Typer(
        help="Critics: what they cost, how good they are, what they said.", rich_markup_mode=None
    )
    of_the_run: dict = {}
    if arguments[:2] in (["critic", "evaluate"], ["critic", "cases"], ["critic", "estimate"]):
        words = arguments[2:]
        of_the_run = options.of_tasks(words) | options.of_config(*_OF_THE_RUN, arguments=words)
    app.command()(options.with_options(model.estimate, of_the_run))
    app.command()(options.with_options(evaluate.evaluate, options.CRITIC | of_the_run))
    app.command()(answers.export)
    app.command()(options.with_options(cases.cases, of_the_run))
    app.command("import")(cases.import_)
    app.command()(model.check)
    app.command("list")(answers.list_)
    app.command()(answers.show)
    app.command()(answers.forget)
    return app
