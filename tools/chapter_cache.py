"""Run a chapter only where its code, or something that it read when it last ran, has changed.

While a chapter runs, ``watch_files.py`` notes in its kernel which files it opens, so that the modules and the
data that it depends on need not be guessed: whatever lies in the repository and was read counts by its content.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path

import nbformat

WATCH = Path(__file__).with_name("watch_files.py")
PACKAGE = "lvlmva_lite"
# Folders of the repository that hold what was made.
LEFT_OUT = {"_build", "build", "results"}


def run(notebook: Path, parameters: dict, cache: Path, root: Path) -> Path:
    """Run one notebook into ``cache/<stem>`` unless it would do there what it did; return the result.

    Parameters
    ----------
    notebook : whose code is part of the key; its prose is not: to change it costs no run
    parameters : for its ``parameters`` cell
    root : the repository; what lies in it and was read is part of the key, and so is ``constraints.txt``
    """
    code = [
        (cell.id, cell.source, "parameters" in cell.metadata.get("tags", []))
        for cell in nbformat.read(notebook, 4).cells
        if cell.cell_type == "code"
    ]
    given = json.loads(json.dumps([code, parameters]))
    folder = cache / notebook.stem
    result, stamp = folder / notebook.name, folder / "read.json"
    if not (result.exists() and stamp.exists() and _as_it_was(json.loads(stamp.read_text()), given, root)):
        from lvlmva_lite.experiments.chapters import run_chapter

        print("running", notebook.stem, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        record = folder / "watched.jsonl"
        record.touch()
        os.environ["LVLMVA_WATCH"] = str(record.absolute())
        before = _contents(_package(root), root)
        first = f"__import__('runpy').run_path({str(WATCH)!r})"
        run_chapter(notebook, parameters, folder, progress=False, first=first)
        files, folders = read_by(record.read_text().splitlines(), root)
        now = _contents(files, root)
        changed = [name for name in now if name in before and now[name] != before[name]]
        if not changed:  # else the next build runs it again
            read = {"given": given, "files": now, "folders": _listings(folders, root)}
            stamp.write_text(json.dumps(read, indent=1))
        record.unlink()
    return result


def read_by(lines: list[str], root: Path) -> tuple[set[str], set[str]]:
    """What a kernel read of ``root``, from the lines of ``watch_files.py``: files, and folders listed.

    The whole package counts where a program of ours was started, whose files are not noted, and where
    nothing of the package was seen, as when it is installed elsewhere.
    """
    noted: dict[str, set[str]] = {"read": set(), "wrote": set(), "listed": set(), "started": set()}
    for line in lines:
        kind, what = json.loads(line)
        noted[kind].add(what)
    files = _within({_source(path) for path in noted["read"] - noted["wrote"]}, root)
    files.add("constraints.txt")
    ours = any(word in command for command in noted["started"] for word in ("python", "lvlmva"))
    if ours or not any(name.startswith(f"{PACKAGE}/") for name in files):
        files |= _package(root)
    return files, _within(noted["listed"], root)


def _package(root: Path) -> set[str]:
    """All files of the package."""
    return _within({str(path) for path in (root / PACKAGE).rglob("*") if path.is_file()}, root)


def _source(path: str) -> str:
    """The module's source, of a compiled file."""
    compiled = path.endswith(".pyc") and "__pycache__" in path
    return importlib.util.source_from_cache(path) if compiled else path


def _within(paths: set[str], root: Path) -> set[str]:
    """The paths from ``root``, without those outside it, and without what a chapter does not come from."""
    inner = {Path(path).resolve() for path in paths}
    inner = {path.relative_to(root.resolve()) for path in inner if path.is_relative_to(root.resolve())}
    return {
        path.as_posix()
        for path in inner
        if path.parts
        and path.parts[0] not in LEFT_OUT
        and not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }


def _contents(names: set[str], root: Path) -> dict[str, str | None]:
    """A hash of each file, None where there is none."""
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if (path := root / name).is_file() else None
        for name in sorted(names)
    }


def _listings(names: set[str], root: Path) -> dict[str, list[str]]:
    """The data files of each folder: that a module is there, which nothing imports, changes nothing."""
    return {
        name: sorted(
            path.name for path in (root / name).glob("*") if path.is_file() and path.suffix != ".py"
        )
        for name in sorted(names)
    }


def _as_it_was(last: dict, given: list, root: Path) -> bool:
    return (
        last["given"] == given
        and _contents(set(last["files"]), root) == last["files"]
        and _listings(set(last["folders"]), root) == last["folders"]
    )
