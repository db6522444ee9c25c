"""Numbers under stable names, kept in the outputs of the notebook that made them."""

from __future__ import annotations

import math
from typing import Any

PREFIX = "application/papermill.record/"


def record(key: str, value: float | int | str | bool, shown: str | None = None) -> None:
    """Keep ``value`` under ``key`` in the running notebook's output, which shows nothing of it.

    The prose of the book quotes it by ``{glue:text}`` and the claims by its
    name; :func:`recorded` reads it back from the executed notebook.

    Parameters
    ----------
    key : name, unique within the chapter, e.g. "accuracy_before"
    value : a finite number, a truth value or a text
    shown : how the prose quotes it, default: three decimals for floats

    Raises
    ------
    ValueError : a number that is not finite
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key} is {value}; only finite numbers can be recorded")
    if shown is None:
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
    from IPython.display import display

    display(
        {f"{PREFIX}text/plain": shown},
        raw=True,
        metadata={"scrapbook": {"name": key, "mime_prefix": PREFIX, "value": value}},
    )


def recorded(notebook: dict[str, Any]) -> dict[str, Any]:
    """Names and values that an executed notebook (nbformat 4, as a dict) recorded.

    Raises
    ------
    ValueError : a name was recorded twice
    """
    values: dict[str, Any] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            scrap = output.get("metadata", {}).get("scrapbook")
            if scrap is None:
                continue
            if scrap["name"] in values:
                raise ValueError(
                    f"{scrap['name']!r} was recorded twice; give each number a name of its own"
                )
            values[scrap["name"]] = scrap["value"]
    return values
