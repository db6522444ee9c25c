"""Where a run's numbers come from beside its parameters: code, libraries, data and device, as fingerprints."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvlmva_lite.environment import LIBRARIES
from lvlmva_lite.experiments.import_closure import code_id
from lvlmva_lite.fingerprint import fingerprint, package_fingerprint
from lvlmva_lite.registry import CRITICS, EXPERIMENTS, EXPLAINERS, METHODS, PENALTIES, SEGMENTERS, TASKS

if TYPE_CHECKING:
    from lvlmva_lite.experiments.sweep_folder import Job

_LIBRARIES = (*LIBRARIES, "scikit-image", "torchvision")
"""The last two cut segments, and give networks; not everyone has torchvision."""

_STORES = ("store", "critic_store")
"""Parameters that name a folder of recorded answers."""

_FILE_COLUMNS = ("path", "image", "mask")
"""Of a CSV, columns that may name files beside it."""


def origin_of(job: Job, device: str | None = None) -> dict[str, str]:
    """Where a run's numbers come from beside its parameters, as fingerprints.

    Parameters
    ----------
    device : on which it will be run; None: on this machine

    Returns
    -------
    dict
        "code": of this package (of an experiment, of what it imports), of what other packages register
        with it, and of the notebook's cells;
        "libraries": versions of Python and of those that compute;
        "device": the GPU that is here, "cpu" where there is none or none is used;
        "data": contents of files that parameters name, also before a colon, as in ``net.py:Net``; names,
        sizes and times of the files in folders that ``data``, ``data_root`` and other parameters ending in
        "root" name, and of those that a CSV lists; for a critic that replays, the answers in its store
    """
    values = [(name, value) for name, value in sorted(job.parameters.items()) if isinstance(value, str)]
    if "replay" not in (job.parameters.get(name) for name in ("critic", "provider")):
        values = [(name, value) for name, value in values if name not in _STORES]
    data = [(name, _content(Path(job.cwd, value), name)) for name, value in values if value]
    notebook = _cells(Path(job.what)) if job.kind == "chapter" else []
    return {
        "code": fingerprint(_own_code(job), _foreign_code(), notebook)[:16],
        "libraries": fingerprint([platform.python_version(), *map(_version, _LIBRARIES)])[:16],
        "device": "cpu" if job.parameters.get("device") == "cpu" else device or device_here(),
        "data": fingerprint([(name, content) for name, content in data if content])[:16],
    }


def commit_here() -> str:
    """The commit of this package's working tree, "-dirty" behind it where files differ; "unknown": it has none."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        said = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


def device_here() -> str:
    """Name of the GPU that PyTorch sees; "cpu": it sees none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _content(path: Path, name: str) -> list[Any]:
    """What is known of a file or of a folder of data; of anything else nothing."""
    try:
        if name in _STORES:
            return _answers(path)
        if not path.exists() and ":" in path.name:  # net.py:Net
            path = path.with_name(path.name.rpartition(":")[0])
        if path.is_file():
            listed = _listed(path) if path.suffix.lower() == ".csv" else []
            return [path.read_bytes(), *_about(path.parent, listed)]
        if (name.endswith("root") or name == "data") and path.is_dir():
            return _about(path, path.rglob("*"))
    except (OSError, ValueError):  # such as a text that is too long for a name
        pass
    return []


def _about(root: Path, files: Iterable[Path]) -> list[Any]:
    """Name, size and time of each of them that is a file."""
    there = {os.path.relpath(file, root): file.stat() for file in files if file.is_file()}
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in sorted(there.items())]


def _listed(table: Path) -> list[Path]:
    """What the cells of a CSV would be as files beside it."""
    with table.open(encoding="utf-8-sig", newline="") as stream:
        cells = {
            cell for row in csv.DictReader(stream) for key, cell in row.items() if key in _FILE_COLUMNS
        }
    return [table.parent / cell for cell in sorted(filter(None, cells))]


def _answers(store: Path) -> list[Any]:
    from lvlmva_lite.critic.store import AnswerStore

    return list(AnswerStore(store, read_only=True).records()) if store.is_dir() else []


def _cells(notebook: Path) -> list[Any]:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in cells]


def _own_code(job: Job) -> str:
    if job.kind != "experiment":
        return package_fingerprint()
    return _code_of(module_of(job.what))


def module_of(experiment: str) -> str:
    """Full name of the module that holds an experiment."""
    function = EXPERIMENTS.get(experiment)
    return getattr(function, "func", function).__module__


@cache
def _code_of(module: str) -> str:
    return code_id(module) if module.startswith("lvlmva_lite.") else package_fingerprint()


@cache
def _foreign_code() -> list[Any]:
    """The entry points of other packages, and the modules that they name, as they are now."""
    found = []
    for registry in (TASKS, METHODS, EXPLAINERS, SEGMENTERS, PENALTIES, EXPERIMENTS, CRITICS):
        for point in entry_points(group=registry.group):
            try:
                spec = find_spec(point.module)
            except ImportError:  # told to whoever asks for it
                spec = None
            file = Path(spec.origin) if spec and spec.origin else None
            found.append((point.group, point.name, point.value, file.read_bytes() if file else b""))
    return sorted(found)
