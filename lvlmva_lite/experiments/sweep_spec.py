"""What a sweep is to run: a list of entries, each a grid of parameters, spelt out run by run.

A spec is a YAML list::

    - run: knee                     # as in `lvlmva run knee`
      parameters: {n_align: [50, 100], method: [lvlm-va, subg]}
      seeds: 7                      # 0 .. 6; or a list
    - chapter: notebooks/00_lvlm_va_in_ten_minutes.ipynb
      parameters: {penalty_weight: [1, 2]}
    - experiment: knee_phantoms     # what gives a recorded table its rows
      seeds: 7

A list is a grid; a value that is itself a list stands in another.  The specs of the paper's experiments
come with the package, in ``experiments/specs``, and are known by their names.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from lvlmva_lite.experiments.parameters import declared
from lvlmva_lite.registry import EXPERIMENTS

KINDS = ("run", "chapter", "experiment")


class SpecError(ValueError):
    """A spec, or a parameter in it, that cannot work; the message says which and what to do."""


@dataclass(frozen=True)
class Entry:
    """One grid of runs.

    Attributes
    ----------
    kind : one of ``KINDS``
    what : the name of a task or of an experiment, or the path of a notebook
    grid : parameter -> its values, in the order in which they vary, the last fastest
    """

    kind: str
    what: str
    grid: Mapping[str, Sequence[Any]]

    def runs(self) -> Iterator[dict[str, Any]]:
        """The parameters of each run."""
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


def shipped_specs() -> dict[str, Path]:
    """Name -> file of the specs that come with the package: the paper's experiments, quick and as reported."""
    folder = resources.files("lvlmva_lite.experiments").joinpath("specs")
    return {file.stem: file for file in sorted(Path(str(folder)).glob("*.yml"))}


def read_spec(file: Path) -> list[Entry]:
    """The entries of a YAML file, or of a spec that comes with the package, by its name.

    Raises
    ------
    SpecError : it cannot be read, or is no spec
    """
    shipped = shipped_specs()
    if not Path(file).exists() and "." not in Path(file).name:
        if str(file) not in shipped:
            raise SpecError(f"no spec {str(file)!r}; give a file, or one of: {', '.join(shipped)}")
        file = shipped[str(file)]
    try:
        found = yaml.safe_load(Path(file).read_text("utf-8"))
    except yaml.MarkedYAMLError as error:
        place, problem = error.problem_mark, " ".join(str(error.problem).split())
        raise SpecError(
            f"cannot read the spec {file}: line {place.line + 1}, column {place.column + 1} is no YAML ({problem})"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"cannot read the spec {file} ({' '.join(str(error).split())})") from None
    if not isinstance(found, list) or not found:
        raise SpecError(f"{file} must hold a list of entries, each with one of: {', '.join(KINDS)}")
    return [_entry(f"{file}, entry {number}", one) for number, one in enumerate(found, start=1)]


def _entry(where: str, found: Any) -> Entry:
    if not isinstance(found, dict) or len(kinds := [kind for kind in KINDS if kind in found]) != 1:
        raise SpecError(f"{where}: give one of {' and '.join(KINDS)}, got {found!r}")
    (kind,) = kinds
    if unknown := [str(key) for key in found if key not in (kind, "parameters", "seeds")]:
        raise SpecError(f"{where}: unknown {', '.join(unknown)}; it takes {kind}, parameters and seeds")
    parameters, seeds = found.get("parameters") or {}, found.get("seeds")
    if not isinstance(parameters, dict) or not all(isinstance(name, str) for name in parameters):
        raise SpecError(f"{where}: parameters must be a mapping of names to values, got {parameters!r}")
    grid = {name: value if isinstance(value, list) else [value] for name, value in parameters.items()}
    if seeds is not None:
        if "seed" in grid:
            raise SpecError(f"{where}: give seeds, or the parameter seed, not both")
        grid["seed"] = list(range(seeds)) if type(seeds) is int else seeds
        if not isinstance(grid["seed"], list):
            raise SpecError(f"{where}: seeds must be a number of seeds or a list of them, got {seeds!r}")
    for name, values in grid.items():
        if not values:
            raise SpecError(f"{where}: {name} has no value")
        if (strange := _strange(values)) is not None:
            raise SpecError(f"{where}: {name}: {strange}")
    if not isinstance(found[kind], str):
        raise SpecError(f"{where}: {kind} must be a name, got {found[kind]!r}")
    return Entry(kind, found[kind], grid)


def values_of_words(settings: Sequence[str]) -> dict[str, list[Any]]:
    """A grid as it is given on the command line.

    Parameters
    ----------
    settings : NAME=VALUE or NAME=VALUE,VALUE,...; values as in YAML, so that a text with commas stands in
        quotation marks

    Raises
    ------
    SpecError : one of them is not of this form
    """
    grid: dict[str, list[Any]] = {}
    for setting in settings:
        name, given, values = setting.partition("=")
        name = name.strip()
        if not given or not name:
            raise SpecError(f"-p takes NAME=VALUE or NAME=VALUE,VALUE,..., got {setting!r}")
        if name in grid:
            raise SpecError(f"-p {name} is given twice; give its values once, with commas between them")
        try:
            grid[name] = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            raise SpecError(
                f"-p {name}: cannot read {values!r}; put a text with commas or brackets in quotation marks"
            ) from None
        if not grid[name]:
            raise SpecError(f"-p {name} has no value")
        if (strange := _strange(grid[name])) is not None:
            raise SpecError(f"-p {name}: {strange}")
    return grid


def with_parameters(entries: Sequence[Entry], given: Mapping[str, Sequence[Any]]) -> list[Entry]:
    """A spec's entries with other values of some parameters; each goes to all that take it.

    An experiment takes what its function takes; a run or a chapter what its entry names.

    Raises
    ------
    SpecError : a parameter that none of them takes
    """
    changed = []
    taken: set[str] = set()
    for entry in entries:
        names = {*entry.grid, *(_arguments(entry.what) if entry.kind == "experiment" else ())}
        taken |= names
        changed.append(
            replace(entry, grid={**entry.grid, **{name: given[name] for name in given if name in names}})
        )
    if unknown := [name for name in given if name not in taken]:
        raise SpecError(
            f"no entry of the spec takes -p {unknown[0]}; they take: {', '.join(sorted(taken))}"
        )
    return changed


def _arguments(name: str) -> dict[str, bool]:
    """What an experiment takes, and whether it must be given.

    Raises
    ------
    RegistryError : there is no such experiment
    """
    parameters = inspect.signature(EXPERIMENTS.get(name)).parameters.values()
    return {one.name: one.default is one.empty for one in parameters}


def experiment_parameters(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an experiment, checked.

    Raises
    ------
    RegistryError : there is no such experiment
    SpecError : one that it does not take, one missing, a seed that is none, a folder that is not there
    """
    known = _arguments(name)
    if unknown := [one for one in given if one not in known]:
        raise SpecError(f"experiment {name} has no parameter {unknown[0]!r}; it takes: {', '.join(known)}")
    if missing := [one for one, needed in known.items() if needed and one not in given]:
        meaning = {"data_root": ", the folder of the images", "seed": ", or seeds in a spec"}
        raise SpecError(
            f"experiment {name} needs {missing[0]}: -p {missing[0]}=...{meaning.get(missing[0], '')}"
        )
    seed, root = given["seed"], given.get("data_root", ".")
    if type(seed) is not int or seed < 0:
        raise SpecError(f"experiment {name}: seed must be a whole number of at least 0, got {seed!r}")
    if not Path(str(root)).is_dir():
        raise SpecError(f"experiment {name}: data_root must be a folder, got {root!r}")
    return dict(given)


def _strange(value: Any) -> str | None:
    """What is wrong with a value that cannot be handed on: YAML knows dates, and numbers that are none."""
    if isinstance(value, list):
        return next(filter(None, map(_strange, value)), None)
    if isinstance(value, dict):
        return _strange([*value, *value.values()])
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no finite number"
    if value is None or isinstance(value, str | int | float):
        return None
    return f"{value} is no number and no text; put a text that looks like a date in quotation marks"


def of_type(value: Any, like: Any) -> Any:
    """``value``, a number where a number is meant: YAML takes 1e-4, without a point, for text."""
    if type(like) is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def chapter_parameters(notebook: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a chapter, those of its ``parameters`` cell and those given.

    Raises
    ------
    SpecError : the notebook cannot be read, has no parameter of this name, or one of another type
    """
    import papermill

    if not notebook.is_file() or notebook.suffix != ".ipynb":
        raise SpecError(f"there is no notebook {notebook}; chapters lie in notebooks/*.ipynb")
    try:
        known = papermill.inspect_notebook(str(notebook))
    except Exception as error:
        raise SpecError(f"{notebook} is no notebook ({error})") from None
    defaults = {name: _literal(one["default"]) for name, one in known.items()}
    kinds = declared(notebook)
    made = {}
    for name, value in given.items():
        if name not in defaults:
            raise SpecError(
                f"{notebook.name} has no parameter {name!r}; it takes: {', '.join(defaults) or 'none'}"
            )
        made[name] = value = of_type(value, defaults[name])
        wanted = None
        if name not in kinds:
            wanted = _other_type(value, defaults[name])
        elif not kinds[name].fits(value):
            wanted = kinds[name].words
        if wanted is not None:
            raise SpecError(f"{notebook.name}: {name} must be {wanted}, got {value!r}")
    return {**defaults, **made}


class _Expression(str):
    """A default that is no literal: nothing is known of its type."""


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _Expression(text)


def _other_type(value: Any, default: Any) -> str | None:
    """What is meant in place of a value of another type than the default's; None: it is as meant."""
    if default is None or isinstance(default, _Expression):
        return None
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if isinstance(default, list | tuple):
        return None if isinstance(value, list | tuple) else "a list (in a grid: a list in a list)"
    fits = isinstance(value, int | float) if type(default) is float else isinstance(value, type(default))
    if isinstance(value, bool) and type(default) is not bool:
        fits = False
    return None if fits else words.get(type(default), f"a {type(default).__name__}")
