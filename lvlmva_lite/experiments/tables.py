"""Tidy tables of many seeds: made seed by seed, kept with where they came from.

A table of recorded results is a pair of files in ``experiments/results``:
``NAME.csv``, one row per measurement, and ``NAME.yml``, its provenance.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm

from lvlmva_lite.environment import environment

Rows = Iterable[Mapping[str, Any]]
SEEDS = tuple(range(7))
"""The seven seeds of every reported mean."""


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
    file : a CSV that gets each seed's rows as soon as they are there; seeds
        already in it are not run again, so an interrupted sweep resumes
    n_jobs : processes at a time
    progress : show a progress bar over seeds

    Returns
    -------
    pandas.DataFrame : sorted by seed

    Raises
    ------
    ValueError : the file has no "seed" column
    """
    done = pd.DataFrame()
    if file is not None and file.exists() and file.stat().st_size:
        done = pd.read_csv(file)
        if "seed" not in done:
            raise ValueError(f"{file} has no column 'seed'; give a new file, or delete this one")
    tables = [done[done["seed"].isin(list(seeds))]] if len(done) else []
    missing = [seed for seed in seeds if not len(done) or seed not in set(done["seed"])]

    def keep(seed: int, rows: Rows) -> None:
        table = pd.DataFrame([{"seed": seed, **row} for row in rows])
        tables.append(table)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            written = file.with_suffix(".part")
            pd.concat([t for t in (done, *tables[bool(len(done)) :]) if len(t)]).to_csv(
                written, index=False
            )
            written.replace(file)

    bar = {"total": len(missing), "desc": "seeds", "unit": "seed", "disable": not progress}
    if n_jobs == 1:
        for seed in tqdm(missing, **bar):
            keep(seed, rows_of(seed))
    else:
        # A forked process must use neither CUDA nor OpenMP once the one it came from has.
        with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(_listed, rows_of, seed): seed for seed in missing}
            for future in tqdm(as_completed(futures), **bar):
                keep(futures[future], future.result())
    return pd.concat(tables).sort_values("seed", kind="stable").reset_index(drop=True)


def _listed(rows_of: Callable[[int], Rows], seed: int) -> list[Mapping[str, Any]]:
    return list(rows_of(seed))


def recorded_table(name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table of recorded results and its provenance.

    Parameters
    ----------
    name : stem of its files in ``lvlmva_lite/experiments/results``

    Returns
    -------
    DataFrame, and a dict with "machine", "date", "commit" and "command"; in
        tables made since November 2026 also the fields of :func:`environment`

    Raises
    ------
    FileNotFoundError : no such table; the message lists those there are
    """
    folder = resources.files("lvlmva_lite.experiments").joinpath("results")
    file = folder.joinpath(f"{name}.csv")
    if not file.is_file():
        known = sorted(f.name[:-4] for f in folder.iterdir() if f.name.endswith(".csv"))
        raise FileNotFoundError(f"no recorded table {name!r}; there are: {', '.join(known)}")
    with file.open(encoding="utf-8") as stream:
        table = pd.read_csv(stream)
    return table, yaml.safe_load(folder.joinpath(f"{name}.yml").read_text("utf-8"))


def provenance(command: str) -> dict[str, Any]:
    """Where and when something is being measured: machine, date, commit, command, and :func:`environment`."""
    import torch

    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
        commit = described.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}), {accelerator}",
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "command": command,
        **environment(),
    }
