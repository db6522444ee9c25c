"""``lvlmva report``: what a model goes by, as a page for the expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvlmva_lite.cli import options
from lvlmva_lite.cli.notes import warnings_told

if TYPE_CHECKING:
    from lvlmva_lite.report import Report, Thing

OPTIONS = {
    name: options.CRITIC[name]
    for name in (
        "critic_model", "base_url", "store", "max_cost", "max_tokens_total", "price", "no_cost", "timeout",
        "temperature", "max_answer_tokens", "reasoning_effort", "extra_body", "i_may_send_these_images",
    )
}  # fmt: skip
"""Options that reach a model for --summary."""


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.", metavar="RUN")],
    accept: Annotated[
        list[str] | None,
        typer.Option(
            help="A thing nobody had named, which should not count; may be repeated.", metavar="NAME"
        ),
    ] = None,
    examples: Annotated[int, typer.Option(help="Images shown.", min=0, max=100)] = 6,
    summary: Annotated[
        bool, typer.Option("--summary", help="Have --critic-model sum it up; its numbers are checked.")
    ] = False,
    **settings: Any,
) -> None:
    """Write what a model goes by, per class and in words, for the expert to read.

    Writes report.html, one file that needs nothing else, and report.md into
    the run's folder; with --accept also words.txt, the expert's words with a
    sentence more, for --description of the next run.  Of a model that is only
    to be looked at, make the run with --method look.  With --summary a model
    is sent the words and numbers of the page, no image, and its text is shown
    if it cites cases and each of its numbers stands on the page.  Example:

    lvlmva report results/knee-claude
    """
    from lvlmva_lite.files import write_whole
    from lvlmva_lite.report import make_report, read_run
    from lvlmva_lite.report.told import SummaryError

    accept = accept or []
    idle = [name for name, value in settings.items() if value != OPTIONS[name][1]]
    if idle and not summary:
        raise typer.BadParameter(
            f"--{idle[0].replace('_', '-')} is for --summary; give both, or leave it out"
        )
    if not all(name.strip() for name in accept):
        raise typer.BadParameter("--accept needs the name of a thing; without it the report lists them")
    with warnings_told(), options.bad_settings_told(), options.failures_told():
        finished = read_run(run)
        asking = _asking(settings, finished.task.source) if summary else None
        made = make_report(finished, accept=accept, n_examples=examples)
        _write(run, made)
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
        for name in unread(made.leaning.candidates, accept):
            typer.echo(
                f"note: the lexicon cannot read the sentence on {name!r}; ask a model, or say it anew",
                err=True,
            )
        typer.echo(f"words: {run / 'words.txt'}")
    if asking:
        # The report is on disk: whatever the model says, nothing is lost.
        try:
            with options.failures_told():
                made = asking(made)
        except SummaryError as error:
            raise options.fail(f"{error}; the report stands without it", 1) from None
        _write(run, made)
        typer.echo(made.told)


def unread(things: Sequence[Thing], names: Sequence[str]) -> list[str]:
    """Those of the accepted things whose sentence dismisses nothing by the lexicon's reading."""
    from lvlmva_lite.critic.reading import read_description

    return [
        thing.name
        for thing in things
        if thing.name in names
        and not any(clause.means_nothing for clause in read_description(thing.sentence).clauses)
    ]


def _write(run: Path, made: Report) -> None:
    from lvlmva_lite.files import write_whole

    write_whole(run / "report.html", made.html())
    write_whole(run / "report.md", made.markdown())


def _asking(settings: dict[str, Any], source: str) -> Callable[[Report], Report]:
    """Check the model's settings before any work; give what asks it."""
    from lvlmva_lite.critic import providers
    from lvlmva_lite.critic.openai_critic import AnswerSettings
    from lvlmva_lite.report.told import told_by

    usual = {name: default for name, (_, default) in options.CRITIC.items()}
    answers, connection = options.critic_of(usual | settings)
    providers.check("openai", answers, connection, source)
    critic, _ = providers.make("openai", answers, connection)
    how = AnswerSettings(
        1, answers.temperature, answers.max_answer_tokens, answers.reasoning_effort, answers.extra_body
    )
    return lambda made: told_by(made, critic.ask, answers.model, how)
