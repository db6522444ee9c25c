"""The tables of a sweep's experiments, as they are kept with the package (see :mod:`experiments.tables`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lvlmva_lite.experiments.import_closure import code_ids
from lvlmva_lite.experiments.run_origin import module_of, origin_of
from lvlmva_lite.experiments.sweep_folder import Job, SweepFolder
from lvlmva_lite.files import to_json, write_whole


def write_rows(out: Path, seed: int, rows: Iterable[Mapping[str, Any]], origin: Mapping[str, Any]) -> None:
    """Keep what an experiment gave for one seed: ``rows.csv``, and before it where it comes from."""
    made = [{"seed": seed, **row} for row in rows]
    write_whole(out / "origin.json", to_json(origin, indent=1) + "\n")
    write_whole(
        out / "rows.csv", pd.DataFrame(made, columns=None if made else ["seed"]).to_csv(index=False)
    )


def read_rows(file: Path) -> pd.DataFrame:
    """What :func:`write_rows` kept, bit for bit."""
    return pd.read_csv(file, float_precision="round_trip")


def write_tables(folder: SweepFolder) -> tuple[list[str], list[str]]:
    """Put ``tables/NAME.csv`` and ``NAME.yml`` there for each experiment all of whose seeds are finished.

    Both files are those of a recorded table: copied to ``lvlmva_lite/experiments/results`` they are one.
    A table is of one code, data and libraries, those of the newest request; others are left out.

    Returns
    -------
    written : names of the tables
    missing : a line for each experiment that lacks some seeds, was run in several ways, or from which
        something is left out
    """
    of_experiment: dict[str, list[str]] = {}
    for id in folder.ids():
        if (job := folder.job(id)).kind == "experiment":
            of_experiment.setdefault(job.name, []).append(id)
    written, missing = [], []
    for name, asked in of_experiment.items():
        ids = [id for id in asked if folder.job(id).origin == folder.job(asked[-1]).origin]
        if len(ids) < len(asked):
            missing.append(
                f"{name}: {len(asked) - len(ids)} of {len(asked)} runs are of other code, data or libraries than "
                "the last that were asked for, and not in its table"
            )
        done = [id for id in ids if folder.done(id)]
        if len(done) < len(ids):
            missing.append(f"{name}: {len(done)} of {len(ids)} runs; no table yet")
            continue
        settings = [{**folder.job(id).given, "seed": None} for id in ids]
        if differ := sorted({key for one in settings for key in one if one[key] != settings[0].get(key)}):
            missing.append(f"{name}: runs with different {', '.join(differ)}; no table, see runs.csv")
            continue
        ids.sort(key=lambda id: folder.job(id).given["seed"])
        tables = folder.path / "tables"
        tables.mkdir(exist_ok=True)
        # The origin goes first and comes last: a table without one does not count.
        (tables / f"{name}.yml").unlink(missing_ok=True)
        whole = pd.concat([read_rows(folder.out(id) / "rows.csv") for id in ids], ignore_index=True)
        write_whole(tables / f"{name}.csv", whole.to_csv(index=False))
        write_whole(tables / f"{name}.yml", yaml.safe_dump(_origin(folder, ids), sort_keys=False))
        written.append(name)
    return written, missing


def run_again(folder: SweepFolder, recorded: Traversable | None = None) -> list[str]:
    """Hold finished runs against the recorded tables: does today's code still give their numbers?

    For each experiment of the sweep that has a recorded table, ``tables/NAME.yml`` becomes the provenance of
    that table with the key "again": date, commit, processor and modules of these runs, their seeds, and the
    "largest_difference" of any number from the recorded one, 0.0 where all are the same bit for bit.

    Parameters
    ----------
    folder : of the sweep
    recorded : holds NAME.csv and NAME.yml, default: the package's own

    Returns
    -------
    list of str, a line for each experiment

    Raises
    ------
    ValueError : a run whose rows, columns or words are not those of the table
    """
    recorded = recorded or resources.files("lvlmva_lite.experiments").joinpath("results")
    of_experiment: dict[str, list[str]] = {}
    for id in folder.ids():
        if folder.job(id).kind == "experiment" and folder.done(id):
            of_experiment.setdefault(folder.job(id).name, []).append(id)
    lines = []
    for name, ids in of_experiment.items():
        file = recorded.joinpath(f"{name}.csv")
        if not file.is_file():
            lines.append(f"{name}: no table is recorded")
            continue
        ids.sort(key=lambda id: folder.job(id).given["seed"])
        table = read_rows(file)
        seeds = [folder.job(id).given["seed"] for id in ids]
        found = pd.concat([read_rows(folder.out(id) / "rows.csv") for id in ids], ignore_index=True)
        wanted = pd.concat([table[table["seed"] == seed] for seed in seeds], ignore_index=True)
        largest = _largest_difference(name, found, wanted)
        made = _origin(folder, ids)
        origin = yaml.safe_load(recorded.joinpath(f"{name}.yml").read_text("utf-8"))
        again = {key: made[key] for key in ("date", "commit", "processor", "modules") if key in made}
        again |= {"seeds": ", ".join(map(str, seeds)), "largest_difference": largest}
        (folder.path / "tables").mkdir(exist_ok=True)
        write_whole(
            folder.path / "tables" / f"{name}.yml",
            yaml.safe_dump(origin | {"again": again}, sort_keys=False),
        )
        lines.append(f"{name}: seeds {again['seeds']}, the largest difference is {largest:.3g}")
    return lines


def _largest_difference(name: str, found: pd.DataFrame, wanted: pd.DataFrame) -> float:
    """Of any number from its like; what is no number must be the same."""
    wanted = wanted.dropna(axis=1, how="all")  # a column that other seeds fill
    found = found.dropna(axis=1, how="all")
    if list(found) != list(wanted) or len(found) != len(wanted):
        raise ValueError(
            f"{name}: {len(found)} rows of {', '.join(found)}, where the recorded table has {len(wanted)} of "
            f"{', '.join(wanted)}; the experiment is another one now, record it anew"
        )
    largest = 0.0
    for column in wanted:
        ours, theirs = found[column], wanted[column]
        if not (pd.api.types.is_numeric_dtype(ours) and pd.api.types.is_numeric_dtype(theirs)):
            if not ours.equals(theirs):
                raise ValueError(
                    f"{name}: column {column} does not say what it says in the recorded table; "
                    "the experiment is another one now, record it anew"
                )
            continue
        away = (ours.astype(float) - theirs.astype(float)).abs()
        if not ours.isna().equals(theirs.isna()):
            away = away.fillna(float("inf"))
        largest = max(largest, float(away.max()))
    return largest


def _origin(folder: SweepFolder, ids: list[str]) -> dict[str, Any]:
    """Where the rows of several runs come from; what differs among them stands there once each."""
    jobs = [folder.job(id) for id in ids]
    origins = [json.loads((folder.out(id) / "origin.json").read_text("utf-8")) for id in ids]
    merged = {key: _each_once(one.get(key) for one in origins) for key in origins[0]}
    code = _each_once(job.origin["code"] for job in jobs)
    merged |= {"command": _command(jobs), "code": code}
    # Part by part while it can be told: as long as the code is still what the runs were made by.
    if origin_of(jobs[0])["code"] == code:
        merged["modules"] = code_ids(module_of(jobs[0].what))
    return merged


def _each_once(values: Iterable[Any]) -> Any:
    different = sorted(set(values), key=str)
    return different[0] if len(different) == 1 else "; ".join(map(str, different))


def _command(jobs: list[Job]) -> str:
    seeds = ",".join(str(job.given["seed"]) for job in jobs)
    # The folder's name is of this machine alone.
    root = " -p data_root=DIR" if any("data_root" in job.given for job in jobs) else ""
    return f"lvlmva sweep experiment {jobs[0].name} -p seed={seeds}{root} --out OUT"
