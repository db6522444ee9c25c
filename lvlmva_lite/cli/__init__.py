"""The command ``lvlmva``."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from lvlmva_lite import __version__
from lvlmva_lite.cli import align, chapter, collect, critic, options, report, run, study, sweep


class _Stopped(Exception):
    """Somebody pressed Ctrl-C; the message says what is kept."""


class _Commands(TyperGroup):
    """Hands Ctrl-C on with its message, which typer, by its version, drops or wraps."""

    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise _Stopped(str(interrupt) or "interrupted") from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def build(arguments: Sequence[str]) -> typer.Typer:
    """The command for these arguments: a command's options are those of the task they name."""
    app = typer.Typer(
        name="lvlmva",
        cls=_Commands,
        help="Teach small vision models right from wrong with words (LVLM-VA, arXiv 2512.21985).",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    app.command()(run.command(arguments))
    app.command()(align.command(arguments))
    app.add_typer(critic.build(arguments), name="critic")
    app.command()(options.with_options(report.report, report.OPTIONS))
    app.add_typer(study.build(), name="study")
    app.command()(chapter.chapter)
    app.command()(sweep.sweep)
    app.command()(collect.collect)
    return app


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _leave(status: int) -> NoReturn:
    """End at once: all that is kept is on disk, and the interpreter's own end waits for calls under way."""
    atexit._run_exitfuncs()  # a chapter's kernel is ended by one of these
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Entry point: bad usage is answered in one line, with exit status 2."""
    try:
        arguments = sys.argv[1:] or ["--help"]
        status = build(arguments)(arguments, prog_name="lvlmva", standalone_mode=False)
    except _Stopped as stopped:
        typer.echo(f"lvlmva: {stopped}; the same command takes it up again", err=True)
        _leave(130)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        # typer carries its own copy of click, so its usage errors are told by their shape.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "lvlmva"
        typer.echo(f"lvlmva: {error.format_message()} (`{command} --help` explains)", err=True)
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(status or 0)
