"""What the parameters of a chapter may be, said once, in its first cell after them::

    check_parameters(globals(), profile=one_of("quick", "paper"), seed=whole_number(0), n_align=as_setting("n_align"))

The cell refuses in one line what cannot work, under plain papermill, too.  ``lvlmva chapter`` and ``lvlmva
sweep`` read it and refuse before a kernel is started, and the book's page of parameters shows it.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lvlmva_lite.config import Config


class ParameterError(ValueError):
    """A parameter that cannot work; the message says which and what to give."""


@dataclass(frozen=True)
class Kind:
    """What a parameter may be.

    Attributes
    ----------
    words : of it, such as "a whole number of at least 0"
    fits : whether a value is one
    """

    words: str
    fits: Callable[[Any], bool]


def one_of(*values: str) -> Kind:
    """One of a few texts."""
    return Kind(" or ".join(map(repr, values)), lambda value: value in values and isinstance(value, str))


def whole_number(low: int | None = None, high: int | None = None, *, or_none: bool = False) -> Kind:
    """A whole number, with bounds that are within bounds."""
    return _of_type("a whole number", int, low, high, or_none)


def any_number(low: float | None = None, high: float | None = None, *, or_none: bool = False) -> Kind:
    """A finite number, with bounds that are within bounds."""
    return _of_type("a number", int | float, low, high, or_none)


def as_setting(name: str, *, or_none: bool = False) -> Kind:
    """What :class:`~lvlmva_lite.config.Config` lets its setting of that name be: bounds or choices.

    Raises
    ------
    ValueError : no such setting, or one that is not said by choices or by bounds within bounds
    """
    declared = {one.name: one for one in fields(Config)}.get(name)
    about = declared.metadata if declared else {}
    if declared and isinstance(about["choices"], tuple) and about["choices"] and not or_none:
        return one_of(*about["choices"])
    numbers = {int: whole_number, float: any_number}
    if not declared or type(declared.default) not in numbers or about["above"] is not None:
        raise ValueError(f"the setting {name!r} has no choices or bounds to take over; name its kind here")
    return numbers[type(declared.default)](about["low"], about["high"], or_none=or_none)


def any_text(*, or_none: bool = False) -> Kind:
    """Any text."""
    return _of_type("a text", str, None, None, or_none)


def folder(*, or_empty: bool = False) -> Kind:
    """The path of a folder that is there."""
    return _path("a folder that is there", Path.is_dir, or_empty)


def file(*, or_empty: bool = False) -> Kind:
    """The path of a file that is there."""
    return _path("a file that is there", Path.is_file, or_empty)


def file_or_folder(*, or_empty: bool = False) -> Kind:
    """The path of a file or of a folder that is there."""
    return _path("a file or a folder that is there", Path.exists, or_empty)


def starting_weights() -> Kind:
    """What a pretrained network starts from: "imagenet", "none", or a file that is there."""
    named, given = one_of("imagenet", "none"), file()
    return Kind(f"{named.words} or {given.words}", lambda value: named.fits(value) or given.fits(value))


def known_critic() -> Kind:
    """The name of a critic, of this package or of another that registers one."""
    from lvlmva_lite.critic.providers import names  # late: most chapters ask for none

    return one_of(*names())


def _path(words: str, is_one: Callable[[Path], bool], or_empty: bool) -> Kind:
    def fits(value: Any) -> bool:
        if not isinstance(value, str) or not value:
            return or_empty and value == ""
        try:
            return is_one(Path(value))
        except (OSError, ValueError):  # no path at all
            return False

    return Kind(words + ", or empty" * or_empty, fits)


def true_or_false() -> Kind:
    """True or False."""
    return Kind("True or False", lambda value: isinstance(value, bool))


def _of_type(words: str, kind: Any, low: float | None, high: float | None, or_none: bool) -> Kind:
    if low is not None and high is not None:
        words += f" from {low:,} to {high:,}"
    elif low is not None:
        words += f" of at least {low}"
    elif high is not None:
        words += f" of at most {high}"

    def fits(value: Any) -> bool:
        if value is None:
            return or_none
        if isinstance(value, bool) or not isinstance(value, kind) or value != value:
            return False
        if value in (math.inf, -math.inf):
            return False
        return (low is None or value >= low) and (high is None or value <= high)

    return Kind(words + " or None" * or_none, fits)


KINDS: dict[str, Callable[..., Kind]] = {
    made.__name__: made
    for made in (
        one_of,
        whole_number,
        any_number,
        as_setting,
        any_text,
        true_or_false,
        folder,
        file,
        file_or_folder,
        starting_weights,
        known_critic,
    )
}


def check_parameters(values: Mapping[str, Any], **kinds: Kind) -> None:
    """Hold parameters against what they may be; names that papermill was given must be among them.

    Parameters
    ----------
    values : the notebook's names: ``globals()``
    kinds : of each parameter, by its name

    Raises
    ------
    ParameterError : the first that cannot work
    """
    for cell in values.get("In", ()):
        if cell.startswith("# Parameters"):  # papermill's own
            for name in _assigned(cell):
                if name not in kinds:
                    raise ParameterError(f"there is no parameter {name!r}; there are: {', '.join(kinds)}")
    for name, kind in kinds.items():
        if not kind.fits(values[name]):
            raise ParameterError(f"{name} must be {kind.words}, got {values[name]!r}")


def declared(notebook: Path) -> dict[str, Kind]:
    """What a notebook's ``check_parameters`` says of each of its parameters; empty where it does not say."""
    cells = json.loads(Path(notebook).read_text("utf-8"))["cells"]
    for code in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        if "check_parameters(" not in code:
            continue
        for node in ast.walk(
            ast.parse("\n".join(line for line in code.splitlines() if line[:1] not in "%!"))
        ):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check_parameters":
                return {one.arg: _kind(one.value) for one in node.keywords}
    return {}


def _kind(call: ast.expr) -> Kind:
    made = KINDS[call.func.id]
    named = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
    return made(*map(ast.literal_eval, call.args), **named)


def _assigned(code: str) -> list[str]:
    return [
        target.id
        for node in ast.parse(code).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
