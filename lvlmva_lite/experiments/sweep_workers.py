"""Where the runs of a sweep are carried out: in processes of this machine, or by Dask's workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lvlmva_lite.experiments.run_origin import device_here
from lvlmva_lite.experiments.sweep_folder import SweepFolder

Tell = Callable[[str, str], None]
"""Called with each run's id and its state as soon as it has one: "finished" or "failed"."""

_POLL = 0.1
_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_UNITS |= {f"{unit}I": 1024**power for power, unit in enumerate("KMGT", start=1)}


class LimitError(ValueError):
    """More than the machine has; the message says what fits."""


def bytes_of(text: str) -> int:
    """A size such as 4GB, 512 MiB or 2e9, in bytes.

    Raises
    ------
    LimitError : it is none
    """
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([KMGT]I?)?B?\s*", text, re.IGNORECASE)
    try:
        size = float(match[1]) * _UNITS[(match[2] or "").upper()]
    except (TypeError, ValueError):
        size = 0
    if size < 1:
        raise LimitError(f"--memory takes a size such as 4GB or 512MiB, got {text!r}")
    return int(size)


def cores_here() -> int:
    """Cores that this process may use."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(int(quota) // int(period), 1))
    return cores


def memory_here() -> int | None:
    """Bytes of memory that this process may use; None where the system does not say."""
    found = []
    with suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found, default=None)


def at_a_time(jobs: int | None, cores: int | None, memory: int | None, *, threads: int = 1) -> int:
    """How many runs at a time.

    Parameters
    ----------
    jobs : runs at a time; None: one, or with ``memory`` as many as fit
    cores : of all together; None: those of the machine
    memory : bytes that one run needs; None: not counted
    threads : that each of the runs asks for

    Raises
    ------
    LimitError : they do not fit
    """
    there, room = cores_here(), memory_here()
    if cores is not None and not 1 <= cores <= there:
        raise LimitError(f"--cores must lie between 1 and {there}, the cores of this machine; got {cores}")
    cores = cores or there
    most = max(cores // threads, 1)
    if memory is not None and room is not None:
        if memory > room:
            raise LimitError(f"one run of {_gb(memory)} does not fit into the {_gb(room)} of this machine")
        if jobs is not None and jobs * memory > room:
            raise LimitError(
                f"{jobs} runs of {_gb(memory)} do not fit into the {_gb(room)} of this machine; "
                f"give --jobs {room // memory}"
            )
        most = min(most, room // memory)
    if jobs is None:
        jobs = most if memory is not None else 1
    if jobs < 1:
        raise LimitError(f"--jobs must be at least 1, got {jobs}")
    if jobs * threads > cores and (jobs > 1 or threads == 1):
        of_each = f" of {threads} threads each" if threads > 1 else ""
        raise LimitError(f"{jobs} runs{of_each} are too many for {cores} cores; give --jobs {most}")
    return jobs


def _gb(size: int) -> str:
    return f"{size / 1000**3:.1f} GB"


def start(folder: SweepFolder, id: str, program: Sequence[str]) -> subprocess.Popen:
    """Start a process that carries a run out; it ends when the one that calls this does.

    Libraries get as many threads as the run asks for, wherever that is: numbers depend on it.

    Parameters
    ----------
    program : arguments of Python; the folder's path, the id and this process's own id follow
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    command = [sys.executable, *program, str(folder.path), id, str(os.getpid())]
    threads = dict.fromkeys(names, str(folder.job(id).threads))
    with folder.log(id).open("ab") as log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {folder.job(id)}\n".encode())
        log.flush()
        return subprocess.Popen(
            command, cwd=folder.job(id).cwd, env=os.environ | threads,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def settle(folder: SweepFolder, id: str, status: int) -> str:
    """Keep how a process ended: "finished" or "failed"."""
    if folder.done(id):
        return "finished"
    if status < 0:
        name = signal.Signals(-status).name
        more = "; too little memory?" if -status == signal.SIGKILL else ""
        error = f"killed by {name}{more}"
    else:
        said = folder.log(id).read_text("utf-8", "replace").rpartition("\n--- ")[2].splitlines()[1:]
        said = [line for line in said if line.strip()]
        told = [line.removeprefix("lvlmva: ") for line in said if line.startswith("lvlmva: ")] or said
        error = told[-1] if told else f"exit status {status}"
    folder.fail(id, error)
    return "failed"


def run_here(
    folder: SweepFolder, ids: Sequence[str], program: Sequence[str], tell: Tell, *, jobs: int
) -> None:
    """Carry runs out in processes of this machine, ``jobs`` at a time.

    A run that another sweep has under way is left to it, and looked at again once it is free.
    """
    waiting, running = deque(ids), {}
    try:
        while waiting or running:
            for _ in range(len(waiting)):
                if len(running) == jobs:
                    break
                id = waiting.popleft()
                state = folder.state(id)
                if state == "under way":
                    waiting.append(id)
                elif state == "waiting":
                    running[id] = start(folder, id, program)
                else:  # another sweep has settled it
                    tell(id, state)
            for id, process in [*running.items()]:
                if process.poll() is not None:
                    del running[id]
                    tell(id, settle(folder, id, process.returncode))
            time.sleep(_POLL)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def attempt(path: str, id: str, program: Sequence[str]) -> str:
    """Carry one run out in a process of its own, here; what a worker of Dask does."""
    folder = SweepFolder(Path(path), must_exist=True)
    if folder.state(id) in ("finished", "failed"):
        return folder.state(id)
    process = start(folder, id, program)
    try:
        return settle(folder, id, process.wait())
    finally:
        if process.poll() is None:
            process.terminate()


def _client(address: str) -> Any:
    """A client of the Dask scheduler there.

    Raises
    ------
    LimitError : ``dask.distributed`` is not installed, or nobody answers at the address
    """
    try:
        from distributed import Client
    except ImportError:
        raise LimitError(
            "--scheduler needs dask.distributed; install it with `pip install 'lvlmva-lite[cluster]'`"
        ) from None
    try:
        return Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise LimitError(f"no Dask scheduler answers at {address} ({error})") from None


def device_of_workers(address: str) -> str:
    """What :func:`run_origin.device_here` says on a worker of a Dask scheduler; waits until it has one.

    Raises
    ------
    LimitError : ``dask.distributed`` is not installed, or nobody answers at the address
    """
    with _client(address) as client:
        return client.submit(device_here, pure=False).result()


def run_on_dask(
    folder: SweepFolder, ids: Sequence[str], program: Sequence[str], tell: Tell, *, address: str
) -> None:
    """Carry runs out by the workers of a Dask scheduler, one at a time for each thread of theirs.

    A run whose worker dies is given to another.  The workers see the folder under the same path, and
    have the same code and libraries.

    Raises
    ------
    LimitError : ``dask.distributed`` is not installed, or nobody answers at the address
    """
    with _client(address) as client:
        from distributed import as_completed

        # A name that no other sweep gives: what shares a name is run once, and forgotten with its sweep.
        mine = uuid.uuid4().hex[:8]
        futures = {
            client.submit(attempt, str(folder.path), id, list(program), key=f"{id}-{mine}", pure=False): id
            for id in ids
        }
        for future in as_completed(futures, loop=client.loop):
            id = futures[future]
            try:
                state = future.result()
            except Exception as error:  # the worker's own, such as a package that it lacks
                if not folder.done(id):
                    folder.fail(id, f"{type(error).__name__}: {error}")
                state = "finished" if folder.done(id) else "failed"
            tell(id, state)
