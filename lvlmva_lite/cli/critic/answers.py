"""``lvlmva critic list``, ``show``, ``forget`` and ``export``: what is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lvlmva_lite.cli import options

CaseId = Annotated[str | None, typer.Option("--case", metavar="CASE", help="Only about this case.")]
Unusable = Annotated[bool, typer.Option("--unusable", help="Only answers that cannot be used.")]


def list_(
    store: options.Store = options.DEFAULT_STORE,
    case: CaseId = None,
    unusable: Unusable = False,
    shipped: options.Shipped = False,
) -> None:
    """List recorded answers, one a line: day, who, which case, and why it cannot be used.  Examples:

    lvlmva critic list --store answers --unusable

    lvlmva critic list --shipped
    """
    from lvlmva_lite.critic.recordings import shipped_answers
    from lvlmva_lite.critic.store import AnswerStore

    if shipped:
        found = list(shipped_answers(case))
        for recording, prompt, answer in found:
            typer.echo(
                f"{answer.date}  {prompt}  {answer.model}  {recording.source}-{answer.index}"
                f"  seed {recording.seed}"
            )
        typer.echo(f"{len(found)} shown")
        return

    with options.bad_settings_told():
        listed = AnswerStore(store, read_only=True).list(case)
    shown = [one for one in listed if one.unusable or not unusable]
    for one in shown:
        cases = ", ".join(one.cases[:3]) + (f" and {len(one.cases) - 3} more" if len(one.cases) > 3 else "")
        typer.echo("  ".join((one.date[:10], one.kind, one.model, cases or "-", one.unusable or "ok")))
    bad = sum(bool(one.unusable) for one in listed)
    typer.echo(f"{len(shown)} shown; {len(listed)} answers, {bad} of them cannot be used")


def show(
    case: Annotated[str, typer.Argument(metavar="CASE", help="As `lvlmva critic list` names it.")],
    store: options.Store = options.DEFAULT_STORE,
    shipped: options.Shipped = False,
) -> None:
    """Show what was said about one case.  Examples:

    lvlmva critic show decoy-mnist-123 --store answers

    lvlmva critic show knee-phantom-1542 --shipped
    """
    from lvlmva_lite.critic.recordings import shipped_answers
    from lvlmva_lite.critic.store import AnswerStore

    if shipped:
        answers = list(shipped_answers(case))
        if not answers:
            raise options.fail(
                f"no answer about {case!r} ships; `lvlmva critic list --shipped` names the cases", 2
            )
        for recording, prompt, answer in answers:
            typer.echo(f"## {prompt} {answer.model}, {answer.date}, {recording.name}\n{answer.critique}")
        return

    with options.bad_settings_told():
        found = AnswerStore(store, read_only=True).list(case)
    if not found:
        raise options.fail(
            f"{store} holds no answer about {case!r}; `lvlmva critic list` names the cases", 2
        )
    for one in found:
        typer.echo(
            f"## {one.kind} {one.model}, {one.date}" + (f" ({one.unusable})" if one.unusable else "")
        )
        typer.echo(one.answer["text"] or one.answer["refusal"] or "(nothing)")


def forget(
    store: options.Store = options.DEFAULT_STORE,
    unusable: Unusable = False,
    case: CaseId = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this model.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only those recorded before it.")
    ] = None,
) -> None:
    """Delete recorded answers that meet every condition, so that they are asked for again.  Example:

    lvlmva critic forget --store answers --unusable
    """
    from lvlmva_lite.critic.store import AnswerStore, StoreError

    with options.bad_settings_told():
        if not (store / "answers.sqlite").is_file():
            raise StoreError(f"{store} holds no recorded answers")
        try:
            gone = AnswerStore(store).forget(unusable=unusable, case=case, model=model, before=before)
        except ValueError as error:
            if isinstance(error, StoreError):
                raise
            raise options.fail(f"{error} (--unusable, --case, --model or --before)", 2) from None
    typer.echo(f"{gone} answers forgotten")


def export(
    out: Annotated[
        Path, typer.Option(help="File to write, one request and answer a line.", metavar="JSONL")
    ],
    store: options.Store = options.DEFAULT_STORE,
) -> None:
    """Write every recorded request and answer to a JSONL file.  Example:

    lvlmva critic export --store answers --out answers.jsonl
    """
    from lvlmva_lite.critic.store import AnswerStore

    with options.bad_settings_told():
        answers = AnswerStore(store, read_only=True)
        options.make_folder(out.parent)
        count = answers.export(out)
    typer.echo(f"{count} answers: {out}")
