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
    refuse: Annotated[
        list[str] | None,
        typer.Option(help="One that may count: it is not proposed again; may be repeated.", metavar="NAME"),
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
    sentence for each thing accepted so far, for --description of the next run.
    What you accept and refuse is kept in ruled.json there; the other option
    takes it back.  Of a model that is only to be looked at, make the run with
    --method look.  With --summary a model is sent the words and numbers of the
    page, no image, and its text is shown if it cites cases and each of its
    numbers stands on the page.  Example:

    lvlmva report results/knee-claude
    """
    from lvlmva_lite.report import make_report, read_run
    from lvlmva_lite.report.told import SummaryError

    accept, refuse = accept or [], refuse or []
    idle = [name for name, value in settings.items() if value != OPTIONS[name][1]]
    if idle and not summary:
        raise typer.BadParameter(
            f"--{idle[0].replace('_', '-')} is for --summary; give both, or leave it out"
        )
    for option, names in (("--accept", accept), ("--refuse", refuse)):
        if not all(name.strip() for name in names):
            raise typer.BadParameter(
                f"{option} needs the name of a thing; without it the report lists them"
            )
    with warnings_told(), options.bad_settings_told(), options.failures_told():
        finished = read_run(run)
        asking = _asking(settings, finished.task.source) if summary else None
        made = make_report(finished, accept=accept, refuse=refuse, n_examples=examples)
        _write(run, made)
        if accept or refuse:
            _write_rulings(run, made)
    typer.echo(made.summary)
    for thing in made.leaning.at_odds:
        typer.echo(f"at odds: {thing.odds} ({', '.join(thing.relevant[:5])})")
    for thing in made.candidates:
        filled = made.counterfactuals[thing.key]["before"]
        where = ", ".join(
            f"{of}: {len(ids)} of {made.leaning.n_cases[of]}" for of, ids in thing.cases.items()
        )
        typer.echo(
            f"not in your words: {thing.name}, called {thing.kind} (images leaning on it: {where}); filled in, "
            f'{filled.n_changed} of {filled.n} answers change; --accept "{thing.name}" or --refuse "{thing.name}"'
        )
    if made.refused:
        typer.echo(f"refused, not proposed: {', '.join(thing.name for thing in made.refused)}")
    typer.echo(f"report: {run / 'report.html'}")
    if made.accepted:
        if names := unread(made.accepted):
            typer.echo(
                f"note: the lexicon cannot read what you accepted of {', '.join(names)}; ask --critic openai, which reads "
                "any words (recorded and replay hold answers to the words they were asked with, simulated reads none)",
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


def unread(things: Sequence[Thing]) -> list[str]:
    """Names of those whose sentence dismisses nothing by the lexicon's reading."""
    from lvlmva_lite.critic.reading import read_description

    return [
        thing.name
        for thing in things
        if not any(clause.means_nothing for clause in read_description(thing.sentence).clauses)
    ]


def _write_rulings(run: Path, made: Report) -> None:
    from lvlmva_lite.files import to_json, write_whole
    from lvlmva_lite.report.finished_run import RULED

    write_whole(run / RULED, to_json(made.ruled, indent=1) + "\n")
    if made.accepted:
        write_whole(run / "words.txt", made.words + "\n")
    else:
        (run / "words.txt").unlink(missing_ok=True)


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
