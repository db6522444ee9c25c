"""The folder that a run of the command line writes, safe to interrupt."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import numpy as np
from filelock import FileLock, Timeout
from safetensors.torch import save

from lvlmva_lite.config import Config, ConfigError
from lvlmva_lite.critic import Critique
from lvlmva_lite.files import append_line, to_json, write_whole
from lvlmva_lite.models import OwnNetwork, save_weights
from lvlmva_lite.results import Result, settings_of
from lvlmva_lite.tasks import Task

_LOG = logging.getLogger(__name__)

_LEFT_BEHIND = re.compile(r"\.lock|[\w.]+\.\d+\.part")
"""What a killed run may leave beside its files: its lock, and files that it had not finished."""


class RunFolder:
    """Claims a folder for one run, or takes up an interrupted run of the same settings.

    ``config.json`` is written with the first answer, when all checks are
    through; ``critiques.jsonl`` grows by a line per answer; ``results.json``
    is written last: its presence says that the run is complete.  Each is whole
    or not there.  While the folder is open no other process can open it;
    use it in a ``with`` statement, or call :meth:`close`.

    Parameters
    ----------
    path : folder, made if need be
    task, config, method : settings of the run

    Raises
    ------
    ConfigError : the folder holds another run, another process is writing it,
        or it cannot be made
    """

    def __init__(self, path: Path, task: Task, config: Config, method: str = "lvlm-va") -> None:
        self.path = Path(path)
        self._settings = to_json(settings_of(task, config, method), indent=1) + "\n"
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file; give --out a folder")
        self._made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._require_own()  # a stranger's folder gets not even a lock
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(blocking=False)
            try:
                self._require_own()
                for file in self.path.iterdir():
                    if file.name != ".lock" and _LEFT_BEHIND.fullmatch(file.name):
                        file.unlink()
            except BaseException:
                self.close()
                raise
        except Timeout:
            raise ConfigError(
                f"another process is writing {self.path}; wait for it, or give --out a new folder"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise ConfigError(f"cannot use {self.path} as --out: {error}") from error

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes have the folder; one that was made for this run and holds nothing goes."""
        if self._made and [file.name for file in self.path.iterdir()] == [".lock"]:
            with suppress(OSError):
                (self.path / ".lock").unlink()
                self.path.rmdir()
        self._lock.release(force=True)

    def _require_own(self) -> None:
        """Raise ConfigError unless the folder is empty or holds this run, unfinished."""
        if (self.path / "results.json").exists():
            raise ConfigError(f"{self.path} holds another run; give --out a new folder, or delete this one")
        config_file = self.path / "config.json"
        if config_file.exists():
            try:
                settings = json.loads(config_file.read_text("utf-8"))
            except (ValueError, RecursionError) as error:
                raise ConfigError(
                    f"{config_file} is damaged ({error}), so this run cannot be taken up; "
                    "give --out a new folder, or delete this one"
                ) from None
            if settings != json.loads(self._settings):
                raise ConfigError(
                    f"{self.path} holds another run, unfinished and with other settings; "
                    "give --out a new folder, or delete this one"
                )
        elif any(not _LEFT_BEHIND.fullmatch(file.name) for file in self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty; give --out a new folder")

    def known_critiques(self) -> dict[tuple[str, int], Critique]:
        """Critiques there already, by case id and sample, the latest of each.

        A line that cannot be read (cut short by an interruption, or damaged)
        is passed over, and a logged warning names it.
        """
        file = self.path / "critiques.jsonl"
        known = {}
        lines = file.read_bytes().split(b"\n") if file.exists() else ()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                critique = _read_critique(line)
            except (ValueError, TypeError, RecursionError) as error:
                _LOG.warning("%s, line %d is passed over and asked again: %s", file, number, error)
            else:
                known[critique.case_id, critique.sample] = critique
        return known

    def add_critique(self, critique: Critique) -> None:
        """Append one answer, on disk when this returns."""
        self._claim()
        append_line(self.path / "critiques.jsonl", to_json(asdict(critique)))

    def finish(
        self,
        result: Result,
        *,
        notes: Sequence[str] = (),
        cost: Mapping[str, float | None] = MappingProxyType({}),
        figures: Mapping[str, bytes] = MappingProxyType({}),
        refused: bool = False,
    ) -> None:
        """Write the run: ``results.json`` last, and all on disk when this returns.

        Parameters
        ----------
        result : the run
        notes : what the reader was warned of; kept in ``results.json``
        cost : of :func:`tally.cost_of`; kept there, too
        figures : name -> contents of further files
        refused : the aligned weights are not written

        Before it ``masks.npz``, ``verdicts.jsonl``, ``before.safetensors``, ``aligned.safetensors``
        (``before.pt`` and ``aligned.pt``, for the reader's own class, where the network is theirs)
        and, where a critic was asked, ``critiques.jsonl`` anew: the critiques
        that the verdicts rest on and no others.
        """
        self._claim()
        segments = result.segments
        masks = io.BytesIO()
        np.savez_compressed(
            masks,
            indices=result.indices.numpy(),
            masks=result.masks.numpy(),
            segment_labels=segments.labels.numpy().astype(np.int8),
            segment_shares=segments.shares.numpy(),
        )
        write_whole(self.path / "masks.npz", masks.getvalue())
        for name, records in (("critiques", result.critiques), ("verdicts", result.verdicts)):
            lines = "".join(to_json(asdict(record)) + "\n" for record in records)
            if lines or name == "verdicts":
                write_whole(self.path / f"{name}.jsonl", lines)
        for name, when in (("before", "before"), ("aligned", "after"))[: 1 if refused else 2]:
            model = result.models[when]
            if isinstance(model, OwnNetwork):
                save_weights(model, self.path / f"{name}.pt")
            else:
                # Convolutions lie channels-last in memory, which the file format does not know.
                weights = {key: value.contiguous() for key, value in model.state_dict().items()}
                write_whole(self.path / f"{name}.safetensors", save(weights))
        for name, content in figures.items():
            write_whole(self.path / name, content)
        summary = result.summary() | {**cost, "notes": list(notes), "refused": refused}
        write_whole(self.path / "results.json", to_json(summary, indent=1) + "\n")

    def _claim(self) -> None:
        if not (self.path / "config.json").exists():
            write_whole(self.path / "config.json", self._settings)


def _read_critique(line: bytes) -> Critique:
    """One line of ``critiques.jsonl``.

    Raises
    ------
    ValueError, TypeError, RecursionError : it is none
    """
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("it holds no JSON object")
    letters = fields.get("asked_about", [])
    if not isinstance(letters, list) or not all(isinstance(letter, str) for letter in letters):
        raise ValueError(f"asked_about is {letters!r}")
    critique = Critique(**fields | {"asked_about": tuple(letters)})
    for name in ("case_id", "critic", "text", "question", "reason"):
        if not isinstance(getattr(critique, name), str):
            raise ValueError(f"{name} is {getattr(critique, name)!r}")
    if type(critique.sample) is not int:
        raise ValueError(f"sample is {critique.sample!r}")
    return critique
