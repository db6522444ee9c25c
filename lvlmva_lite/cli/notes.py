"""Warnings, as a command tells them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

_PACKAGE = Path(__file__).parents[1]


@contextmanager
def warnings_told() -> Iterator[list[str]]:
    """The package's own warnings are told in one line, each kind once; gives those told so far."""
    told: list[str] = []
    known: set[str] = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"lvlmva_lite\b")
        as_usual = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], file: str, *rest: Any, **more: Any
        ) -> None:
            if not Path(file).is_relative_to(_PACKAGE):
                as_usual(message, category, file, *rest, **more)
                return
            text = " ".join(str(message).split())
            # A second explanation of the same network misses completeness by another number.
            if (kind := re.sub(r"[\d.]+", "", text)) not in known:
                known.add(kind)
                told.append(text)
                typer.echo(f"note: {text}", err=True)

        warnings.showwarning = show
        yield told
