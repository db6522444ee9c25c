"""What code some numbers depend on: a module, all of this package that it imports, and what these read.

Found without running anything, from the ``import`` statements, wherever they stand; a text that names
a module or a package of ours in full, as the homes of a :class:`registry.Registry` do, counts as one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from lvlmva_lite.fingerprint import fingerprint

_ROOT = Path(__file__).parents[2]
_PACKAGE = "lvlmva_lite"
_DATA = (".md", ".txt", ".yaml", ".yml", ".json", ".jsonl", ".npz", ".csv", ".gz")
# A table is read by nobody who makes one, and an experiment is told by its own module.
_NOT_FOLLOWED = f"{_PACKAGE}.experiments"


def closure(module: str, root: Path = _ROOT) -> list[str]:
    """The module and those of this package that it needs, by name, in order.

    Parameters
    ----------
    module : its full name, such as "lvlmva_lite.experiments.group_arms"
    root : folder in which the package lies
    """
    found: set[str] = set()
    todo = [module]
    while todo:
        one = todo.pop()
        if one in found or (file := _file(one, root)) is None:
            continue
        found.add(one)
        # A module's packages are imported before it.
        todo += [one.rpartition(".")[0], *_imported(one, file, root)]
    return sorted(found)


def code_id(module: str, root: Path = _ROOT) -> str:
    """16 hexadecimal digits of all that ``closure(module)`` says and of the data beside it.

    Comments, layout and docstrings do not count.  Data are the files of the closure's folders that hold
    words, answers or images; recorded tables and claims are none.
    """
    names = closure(module, root)
    data = {
        file.relative_to(root).as_posix(): file.read_bytes()
        for folder in _folders(names, root).values()
        for file in _data(folder)
    }
    return fingerprint({name: _plain(_file(name, root)) for name in names}, data)[:16]


def code_ids(module: str, root: Path = _ROOT) -> dict[str, str]:
    """What :func:`code_id` is made of, one by one: 8 hexadecimal digits of each module and of each folder's data.

    A module that is new, and that none of the old ones imports, is not among what numbers were made by.

    Returns
    -------
    dict
        without the package's own name: "alignment", "critic.lexicon"; of data "data in critic"
    """
    names = closure(module, root)
    ids = {_short(name): fingerprint(_plain(_file(name, root)))[:8] for name in names if name != _PACKAGE}
    for name, folder in _folders(names, root).items():
        held = {file.relative_to(folder).as_posix(): file.read_bytes() for file in _data(folder)}
        if held:
            ids[f"data in {_short(name)}"] = fingerprint(held)[:8]
    return ids


def _short(name: str) -> str:
    return name.removeprefix(f"{_PACKAGE}.")


def _folders(names: Iterable[str], root: Path) -> dict[str, Path]:
    """The packages among modules whose data count."""
    files = {name: _file(name, root) for name in names}
    return {
        name: file.parent
        for name, file in files.items()
        if file.name == "__init__.py" and file.parent.name not in (_PACKAGE, "experiments")
    }


def _data(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.suffix in _DATA and file.name != "README.md")


def _file(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@cache
def _parsed(code: str) -> ast.Module:
    return ast.parse(code)


def _imported(name: str, file: Path, root: Path) -> Iterator[str]:
    """Full names of modules of ours that stand in a file."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(_parsed(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from _ours(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            yield from _ours([base, *(f"{base}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            where = node.value.partition(":")[0]
            if where.startswith(f"{_PACKAGE}.") and where != _NOT_FOLLOWED:
                yield where
                if (home := _file(where, root)) is not None and home.name == "__init__.py":
                    yield from (f"{where}.{inner.stem}" for inner in home.parent.glob("[!_]*.py"))


def _ours(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name.partition(".")[0] == _PACKAGE)


def _plain(file: Path) -> str:
    """The code of a file without docstrings, as one text."""
    return _without_docstrings(file.read_text("utf-8"))


@cache
def _without_docstrings(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A text that stands alone does nothing.
            node.body = [one for one in body if not _is_text(one)] or [ast.Pass()]
    return ast.dump(tree)


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
