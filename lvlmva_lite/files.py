"""Files that are whole or not there, and names that stay inside their folder."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one step: whoever reads it, or is killed, finds the old one or the new one.

    On disk when this returns.  What a killed process leaves is named
    ``<name>.<process>.part``.

    Raises
    ------
    OSError : it cannot be written; what was there is as it was
    """
    content = content.encode() if isinstance(content, str) else content
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append one line of text (UTF-8); on disk when this returns.

    A last line without an end gets one first, so that two never merge.
    """
    with path.open("ab+") as file:
        fresh = file.tell() == 0
        if not fresh:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write((line + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    if fresh:
        _sync_folder(path.parent)


def to_json(value: object, **settings: object) -> str:
    """JSON that every reader accepts: what is not finite becomes null (RFC 8259 knows no NaN).

    Parameters
    ----------
    value : plain values
    settings : of :func:`json.dumps`
    """
    return json.dumps(_finite(value), allow_nan=False, **settings)


def inside(root: Path, name: str) -> Path:
    """The path of a file by its name below ``root``, forward slashes.

    Raises
    ------
    ValueError : the name is empty, absolute, or leads out of the folder by ".."
    """
    every = (PurePosixPath(name), PureWindowsPath(name))
    if not every[0].parts or "\0" in name or any(p.anchor or ".." in p.parts for p in every):
        raise ValueError(
            f"{name!r} is no name of a file below {root}; give it without '..' and no absolute path"
        )
    return root / name


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _sync_folder(folder: Path) -> None:
    """A new name is on disk once its folder is; where folders cannot be synced, the system sees to it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
