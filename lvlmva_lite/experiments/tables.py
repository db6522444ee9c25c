"""Tidy tables of many seeds: made seed by seed, kept with where they came from.

A table of recorded results is a pair of files in ``experiments/results``:
``NAME.csv``, one row per measurement, and ``NAME.yml``, its provenance.
"""

from __future__ import annotations

import datetime
import io
import logging
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from importlib import metadata, resources
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from filelock import FileLock, Timeout
from tqdm import tqdm

from lvlmva_lite.environment import environment
from lvlmva_lite.experiments.run_origin import commit_here
from lvlmva_lite.files import write_whole
from lvlmva_lite.fingerprint import fingerprint, package_fingerprint

_LOG = logging.getLogger(__name__)

Rows = Iterable[Mapping[str, Any]]
SEEDS = tuple(range(7))
"""The seven seeds of every reported mean."""


class SweepError(RuntimeError):
    """Some seeds of a sweep failed; all others ran to their end.

    Attributes
    ----------
    failed : dict, seed -> what it raised
    table : pandas.DataFrame, the rows of the others
    """

    def __init__(self, failed: Mapping[int, BaseException], table: pd.DataFrame, kept: str) -> None:
        self.failed, self.table = dict(failed), table
        seeds = ", ".join(map(str, sorted(failed)))
        causes = "; ".join(f"seed {s}: {type(e).__name__}: {e}" for s, e in sorted(failed.items()))
        super().__init__(f"{len(failed)} seed(s) failed ({seeds}), {kept}. {causes}")


def sweep(
    rows_of: Callable[[int], Rows],
    seeds: Sequence[int] = SEEDS,
    file: Path | None = None,
    *,
    n_jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure something for each seed.

    Parameters
    ----------
    rows_of : the experiment; takes a seed and gives its rows (a "seed" column
        is put before them).  With ``n_jobs`` above 1 a function at the top of
        a module
    seeds : int
    file : a CSV that gets each seed's rows as soon as they are there, on disk.
        Seeds that the same experiment, with the same settings and code, has
        put there already are not run again, so an interrupted sweep resumes;
        rows of others stay in the file (its column "made_by" tells them
        apart) and are not handed back.  Several processes may share the file:
        a seed that one has under way is waited for by the others
    n_jobs : processes at a time
    progress : show a progress bar over seeds

    Returns
    -------
    pandas.DataFrame : sorted by seed

    Raises
    ------
    ValueError : the file has no "seed" column, or is no CSV
    SweepError : one or more seeds raised an error; after all others have run
    TypeError : with a file, an experiment that refers to something that
        cannot be told apart by its content
    """
    seeds = list(dict.fromkeys(seeds))
    kept = _Kept(Path(file), _made_by(rows_of)) if file is not None else None
    rows: dict[int, list[Mapping[str, Any]]] = {}
    failed: dict[int, BaseException] = {}
    if kept is not None:
        kept.tell_others(seeds)
    missing = [seed for seed in seeds if kept is None or seed not in kept.seeds()]

    with tqdm(total=len(missing), desc="seeds", unit="seed", disable=not progress) as bar:

        def settle(seed: int, outcome: Callable[[], list | None]) -> bool:
            """Take a seed's rows or its error; False: another process has it under way."""
            try:
                found = outcome()
            except BrokenProcessPool:
                raise
            except Exception as error:
                failed[seed] = error
            else:
                if found is None:
                    return False
                rows[seed] = found
            bar.update()
            return True

        if n_jobs == 1:
            elsewhere = [s for s in missing if not settle(s, partial(_run_seed, rows_of, kept, s))]
            again = [s for s in elsewhere if not settle(s, partial(_run_seed, rows_of, kept, s, True))]
        else:
            elsewhere, again = [], []
            # A forked process must use neither CUDA nor OpenMP once the one it came from has.
            with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
                futures = {}
                for seed in missing:
                    try:
                        futures[pool.submit(_run_seed, rows_of, kept, seed)] = seed
                    except BrokenProcessPool:
                        again.append(seed)
                for future in as_completed(futures):
                    try:
                        if not settle(futures[future], future.result):
                            elsewhere.append(futures[future])
                    except BrokenProcessPool:  # killed, and all beside it: each gets a process of its own
                        again.append(futures[future])
            for seed in sorted(again) + sorted(elsewhere):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    try:
                        settle(seed, pool.submit(_run_seed, rows_of, kept, seed, True).result)
                    except BrokenProcessPool as error:
                        failed[seed] = error

    if kept is None:
        made = [{"seed": seed, **row} for seed in seeds for row in rows.get(seed, ())]
        table = pd.DataFrame(made, columns=None if made else ["seed"])
    else:
        table = kept.table(seeds)
    table = table.sort_values("seed", kind="stable").reset_index(drop=True)
    if failed:
        where = "the rows of the others are " + ("in its `table`" if kept is None else f"kept in {file}")
        raise SweepError(failed, table, where) from failed[min(failed)]
    return table


def _made_by(rows_of: Callable[[int], Rows]) -> str:
    """What an experiment's rows depend on but for the seed: itself, its settings, and all code."""
    versions = [
        metadata.version(name) for name in ("torch", "numpy", "scipy", "scikit-learn", "scikit-image")
    ]
    return fingerprint(rows_of, package_fingerprint(), versions)[:16]


def _run_seed(
    rows_of: Callable[[int], Rows], kept: _Kept | None, seed: int, wait: bool = False
) -> list[Mapping[str, Any]] | None:
    """Run one seed and keep its rows; None if another process has it under way (``wait``: not then)."""
    if kept is None:
        return list(rows_of(seed))
    lock = kept.lock(f".{kept.made_by}-{seed}")
    try:
        held = lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    with held:
        if seed in kept.seeds():
            return []
        rows = list(rows_of(seed))
        kept.add(seed, rows)
    # Whoever waited for it finds the rows.
    Path(lock.lock_file).unlink(missing_ok=True)
    return rows


@dataclass(frozen=True)
class _Kept:
    """A sweep's file, shared by processes, as text: what is not ours goes through unchanged.

    Attributes
    ----------
    file : CSV with "seed" and "made_by" among its columns
    made_by : whose rows count
    """

    file: Path
    made_by: str

    def lock(self, of: str = "") -> FileLock:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.file.with_name(f".{self.file.name}{of}.lock"))

    def _all(self) -> pd.DataFrame:
        if not self.file.exists() or not self.file.stat().st_size:
            return pd.DataFrame({"seed": [], "made_by": []}, dtype=str)
        try:
            found = pd.read_csv(self.file, dtype=str, keep_default_na=False)
        except (pd.errors.ParserError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{self.file} is no table ({error}); give a new file, or delete this one"
            ) from None
        if "seed" not in found:
            raise ValueError(f"{self.file} has no column 'seed'; give a new file, or delete this one")
        return found if "made_by" in found else found.assign(made_by="")

    def _own(self, seeds: Sequence[int] | None = None) -> pd.DataFrame:
        found = self._all()
        own = found["made_by"] == self.made_by
        return found[own if seeds is None else own & found["seed"].isin([str(seed) for seed in seeds])]

    def seeds(self) -> set[int]:
        """Seeds whose rows are there."""
        return set(self._own()["seed"].astype(int))

    def tell_others(self, seeds: Sequence[int]) -> None:
        """Log which seeds are there, but made by something else."""
        others = set(self._all()["seed"]) - set(self._own()["seed"])
        if again := [str(seed) for seed in seeds if str(seed) in others]:
            _LOG.warning(
                "%s: seeds %s were made by another experiment, other settings or other code; "
                "their rows stay in the file, and they are run again",
                self.file, ", ".join(again),
            )  # fmt: skip

    def add(self, seed: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put a seed's rows into the file in one step, beside those that others have put there."""
        if not rows:
            return
        made = pd.DataFrame([{"seed": seed, **row, "made_by": self.made_by} for row in rows])
        made = pd.read_csv(io.StringIO(made.to_csv(index=False)), dtype=str, keep_default_na=False)
        with self.lock():
            whole = pd.concat([self._all(), made], ignore_index=True).fillna("")
            columns = sorted(whole, key=lambda name: (name != "seed", name == "made_by"))
            write_whole(self.file, whole[columns].to_csv(index=False))

    def table(self, seeds: Sequence[int]) -> pd.DataFrame:
        """The rows of these seeds, without the columns that only others fill."""
        own, whole = self._own(seeds), self._all()
        foreign = [name for name in own if (own[name] == "").all() and (whole[name] != "").any()]
        text = own.drop(columns=["made_by", *foreign]).to_csv(index=False)
        return pd.read_csv(io.StringIO(text), float_precision="round_trip")


def recorded_table(name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table of recorded results and its provenance.

    Parameters
    ----------
    name : stem of its files in ``lvlmva_lite/experiments/results``

    Returns
    -------
    DataFrame, and a dict with "machine", "date", "commit" and "command"; in
        tables made since November 2026 also the fields of :func:`environment`.  "state" says whether the code
        is still what the table was made by, see :func:`scorecard.code_since`

    Raises
    ------
    FileNotFoundError : no such table; the message lists those there are
    """
    folder = resources.files("lvlmva_lite.experiments").joinpath("results")
    files = {file.name for file in folder.iterdir()}
    # A table without its origin is one whose recording was interrupted.
    known = sorted(file[:-4] for file in files if file.endswith(".csv") and f"{file[:-4]}.yml" in files)
    if name not in known:
        raise FileNotFoundError(f"no recorded table {name!r}; there are: {', '.join(known)}")
    with folder.joinpath(f"{name}.csv").open(encoding="utf-8") as stream:
        table = pd.read_csv(stream)
    origin = yaml.safe_load(folder.joinpath(f"{name}.yml").read_text("utf-8"))
    from lvlmva_lite.experiments.scorecard import code_since  # late: it reads tables, too

    origin["state"] = f"code since: {code_since(name, origin)}"
    for machinery in ("modules", "again"):
        origin.pop(machinery, None)
    return table, origin


def provenance(command: str) -> dict[str, Any]:
    """Where and when something is being measured: machine, date, commit, command, and :func:`environment`."""
    import torch

    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}), {accelerator}",
        "date": datetime.date.today().isoformat(),
        "commit": commit_here(),
        "command": command,
        **environment(),
    }
