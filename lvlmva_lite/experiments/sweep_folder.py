"""The folder of a sweep: each run under an id made of all that its numbers depend on, kept once.

``runs/ID/`` holds ``job.json``, what is to be run; ``out/``, what it made; ``log.txt``, what it said;
and at its end ``done.json`` or ``failed.json``.  Only the process that holds the run's lock works in
``out``, and ``done.json`` is written last, in one step: without it a run counts for nothing, whatever
lies there.  ``requests/`` lists which ids belong to what was asked for.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lvlmva_lite.environment import environment
from lvlmva_lite.experiments.run_origin import commit_here, origin_of
from lvlmva_lite.files import to_json, write_whole
from lvlmva_lite.fingerprint import fingerprint


class SweepFolderError(RuntimeError):
    """A folder, or a run in it, that cannot be used; the message says which and what to do."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes
    ----------
    kind : "run", "chapter" or "experiment"
    what : the name of a task or of an experiment, or the absolute path of a notebook
    given : parameters that were asked for
    parameters : all parameters that decide its numbers, those not given at their defaults
    cwd : folder in which it is run; relative paths among the parameters start there
    origin : see :func:`run_origin.origin_of`
    """

    kind: str
    what: str
    given: Mapping[str, Any]
    parameters: Mapping[str, Any]
    cwd: str
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As people know it: the task, the chapter, or the experiment."""
        return Path(self.what).stem if self.kind == "chapter" else self.what

    @property
    def id(self) -> str:
        """Of its parameters and origin: 16 hexadecimal digits."""
        plain = json.loads(to_json(self.parameters))
        return fingerprint(self.kind, self.name, plain, dict(self.origin))[:16]

    @property
    def threads(self) -> int:
        """That it computes with: those of its settings, or one."""
        return self.parameters["threads"] if self.kind == "run" and "threads" in self.parameters else 1

    @property
    def last_file(self) -> str:
        """Name of the file in ``out`` that is written last."""
        return {"run": "results.json", "experiment": "rows.csv"}.get(self.kind, f"{self.name}.json")

    def __str__(self) -> str:
        return " ".join([self.kind, self.name, *(f"{name}={value}" for name, value in self.given.items())])


class SweepFolder:
    """A sweep's folder; any number of processes may use it at once.

    Parameters
    ----------
    path : folder, made if need be

    Raises
    ------
    SweepFolderError : it holds something else, or cannot be made
    """

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        self.path = Path(path).absolute()
        self._runs, self._requests = self.path / "runs", self.path / "requests"
        if not self._requests.is_dir():
            if must_exist:
                raise SweepFolderError(f"{path} holds no sweep; give the --out of `lvlmva sweep`")
            if self.path.is_file():
                raise SweepFolderError(f"{path} is a file; give --out a folder")
            # Another process may have begun meanwhile.
            free = not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))
            if not free and not self._requests.is_dir():
                raise SweepFolderError(f"{path} holds something else; give --out a new folder")
        if not must_exist:
            try:
                self._requests.mkdir(parents=True, exist_ok=True)  # first: it tells a sweep's folder
                self._runs.mkdir(exist_ok=True)
            except OSError as error:
                raise SweepFolderError(f"cannot use {path} as --out: {error}") from error

    def add(self, jobs: Iterable[Job]) -> list[str]:
        """Put down what is to be run; the ids, in order, each once."""
        jobs = {job.id: job for job in jobs}
        for id, job in jobs.items():
            folder = self._runs / id
            folder.mkdir(exist_ok=True)
            if not (folder / "job.json").exists():
                write_whole(folder / "job.json", to_json(asdict(job), indent=1) + "\n")
        # The same request with newer code, data or libraries takes the place of the older.
        asked = [(job.kind, job.name, json.loads(to_json(job.given))) for job in jobs.values()]
        write_whole(self._requests / f"{fingerprint(asked)[:16]}.json", to_json([*jobs]) + "\n")
        return [*jobs]

    def ids(self, *, older: bool = False) -> list[str]:
        """The runs asked for, the last request's last; ``older``: what other code, data or libraries left there."""
        current: dict[str, None] = {}
        for file in sorted(
            self._requests.glob("*.json"), key=lambda one: (one.stat().st_mtime_ns, one.name)
        ):
            for id in json.loads(file.read_text("utf-8")):
                current.pop(id, None)
                current[id] = None
        if not older:
            return [*current]
        there = sorted(file.parent.name for file in self._runs.glob("*/job.json"))
        return [id for id in there if id not in current]

    def job(self, id: str) -> Job:
        """What is to be run."""
        return Job(**json.loads((self._runs / id / "job.json").read_text("utf-8")))

    def out(self, id: str) -> Path:
        """Where it puts what it makes."""
        return self._runs / id / "out"

    def log(self, id: str) -> Path:
        """What it said."""
        return self._runs / id / "log.txt"

    def done(self, id: str) -> dict[str, Any] | None:
        """How it came to its end: "seconds", "peak_memory" (bytes), "host", :func:`environment`, ...; None: it did not."""
        return self._read(id, "done")

    def failure(self, id: str) -> dict[str, Any] | None:
        """How it failed: "error", "host", "when"; None: it did not."""
        return None if self.done(id) else self._read(id, "failed")

    def state(self, id: str) -> str:
        """ "finished", "under way", "failed" or "waiting"."""
        if self.done(id):
            return "finished"
        if self.under_way(id):
            return "under way"
        return "failed" if self.failure(id) else "waiting"

    def under_way(self, id: str) -> bool:
        """Whether some process, of whatever sweep, is at it now."""
        lock = self._lock(id)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def began(self, id: str) -> float | None:
        """When its last start was, in seconds since 1970."""
        return (self._read(id, "started") or {}).get("when")

    def fail(self, id: str, error: str) -> None:
        """Keep that it failed, and why."""
        found = {"error": error, "host": socket.gethostname(), "when": time.time()}
        write_whole(self._runs / id / "failed.json", to_json(found, indent=1) + "\n")

    def forget_failure(self, id: str) -> None:
        """Have it run again; its log stays, and what is whole of it goes aside."""
        out = self.out(id)
        if (out / self.job(id).last_file).exists():
            number = 1 + len(list(out.parent.glob("out-failed-*")))
            out.rename(out.with_name(f"out-failed-{number}"))
        (out.parent / "failed.json").unlink(missing_ok=True)

    def carry_out(self, id: str, work: Callable[[Job, Path], None]) -> None:
        """Run it, unless it is finished; if another process is at it, once that has ended.

        Parameters
        ----------
        work : given the job and its folder ``out``; writes ``job.last_file`` last, and raises or
            ends the process if it fails

        Raises
        ------
        SweepFolderError : code, data or libraries are not those of its id
        """
        with self._lock(id):
            if self.done(id):
                return
            job, folder, out = self.job(id), self._runs / id, self.out(id)
            here = origin_of(job)
            if differ := [name for name in here if here[name] != job.origin.get(name)]:
                raise SweepFolderError(
                    f"the {' and the '.join(differ)} here are not those with which the sweep was started; "
                    "start it again, or bring them into line"
                )
            out.mkdir(exist_ok=True)
            last, when = out / job.last_file, time.time()
            if last.exists():  # it was killed between its last file and the word that it is done
                began = self.began(id) or last.stat().st_mtime
                seconds = max(last.stat().st_mtime - began, 0.0)
            else:
                write_whole(folder / "started.json", to_json({"when": when, "process": os.getpid()}) + "\n")
                start = time.perf_counter()
                work(job, out)
                seconds = time.perf_counter() - start
                if not last.exists():
                    raise SweepFolderError(f"it ended without its {job.last_file}")
            about = {
                "seconds": seconds, "peak_memory": _peak_memory(), "host": socket.gethostname(),
                "finished": time.time(), "commit": commit_here(), **environment(job.threads),
            }  # fmt: skip
            write_whole(folder / "done.json", to_json(about, indent=1) + "\n")
            (folder / "failed.json").unlink(missing_ok=True)

    def _lock(self, id: str) -> FileLock:
        return FileLock(self._runs / id / ".lock")

    def _read(self, id: str, name: str) -> dict[str, Any] | None:
        try:
            return json.loads((self._runs / id / f"{name}.json").read_text("utf-8"))
        except FileNotFoundError:
            return None


def seconds_left(folder: SweepFolder, states: Mapping[str, str], now: float) -> float | None:
    """Seconds of work that is left: of each unfinished run, what finished ones of its name took on average.

    Parameters
    ----------
    states : id -> its state
    now : seconds since 1970

    Returns
    -------
    float, if several run at once to be divided among them; None: nothing is left, or nothing finished yet
    """
    took: dict[str, list[float]] = {}
    for id, state in states.items():
        if state == "finished":
            took.setdefault(folder.job(id).name, []).append(folder.done(id)["seconds"])
    every = [seconds for some in took.values() for seconds in some]
    todo = [id for id, state in states.items() if state in ("under way", "waiting")]
    if not every or not todo:
        return None
    left = 0.0
    for id in todo:
        some = took.get(folder.job(id).name, every)
        begun = now - (folder.began(id) or now) if states[id] == "under way" else 0.0
        left += max(sum(some) / len(some) - begun, 0.0)
    return left


def _peak_memory() -> int | None:
    """Bytes that this process, or the largest it has started, held at most; None where unknown."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    of_whom = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return unit * sum(resource.getrusage(who).ru_maxrss for who in of_whom)
