"""The tables of a sweep's experiments, as they are kept with the package (see :mod:`experiments.tables`)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lvlmva_lite.experiments.import_closure import code_ids
from lvlmva_lite.experiments.run_origin import module_of, origin_of
from lvlmva_lite.experiments.sweep_folder import Job, SweepFolder
from lvlmva_lite.experiments.sweep_spec import values_of_words
from lvlmva_lite.files import to_json, write_whole

_OF_A_RUN = ("seed", "data_root")
"""Parameters that are no setting of an experiment: those of one table may differ in them."""


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
    of_experiment, missing = _newest(folder)
    written = []
    for name, ids in of_experiment.items():
        done = [id for id in ids if folder.done(id)]
        if len(done) < len(ids):
            missing.append(f"{name}: {len(done)} of {len(ids)} runs; no table yet")
            continue
        if differ := _differing([folder.job(id).given for id in ids], but=["seed"]):
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


def run_again(folder: SweepFolder, recorded: Traversable | None = None) -> tuple[list[str], list[str]]:
    """Hold finished runs against the recorded tables: does today's code still give their numbers?

    For each experiment that can be, ``again/NAME.yml`` becomes the provenance of its recorded table with the
    key "again": where these runs come from, their "seeds", and the "largest_difference" of any number from
    the recorded one, 0.0 where all are the same bit for bit. ``tables/`` stays as it is. As in
    :func:`write_tables`, runs are of one code, data and libraries, those of the newest request.

    Parameters
    ----------
    folder : of the sweep
    recorded : holds NAME.csv and NAME.yml, default: the package's own

    Returns
    -------
    held : a line for each experiment, and for each from which something is left out
    not_held : a line for each experiment that could not be held against its table, with the reason
    """
    recorded = recorded or resources.files("lvlmva_lite.experiments").joinpath("results")
    of_experiment, held = _newest(folder)
    not_held = []
    for name, asked in of_experiment.items():
        file = folder.path / "again" / f"{name}.yml"
        file.unlink(missing_ok=True)  # of an earlier time
        ids = [id for id in asked if folder.done(id)]
        if not ids:
            not_held.append(f"{name}: none of {len(asked)} runs is finished")
            continue
        ids.sort(key=lambda id: folder.job(id).given["seed"])
        try:
            origin = _held(folder, ids, name, recorded)
        except (ValueError, OSError) as error:
            not_held.append(f"{name}: {error}")
            continue
        file.parent.mkdir(exist_ok=True)
        write_whole(file, yaml.safe_dump(origin, sort_keys=False))
        again = origin["again"]
        held.append(
            f"{name}: seeds {again['seeds']}, the largest difference is {again['largest_difference']:.3g}"
        )
    return held, not_held


def _held(folder: SweepFolder, ids: list[str], name: str, recorded: Traversable) -> dict[str, Any]:
    """The provenance of a recorded table with "again", see :func:`run_again`; ValueError: it cannot be held."""
    table_file, origin_file = (recorded.joinpath(f"{name}.{ending}") for ending in ("csv", "yml"))
    if not table_file.is_file():
        raise ValueError("no table is recorded")
    if not origin_file.is_file():
        raise ValueError(f"the recorded table has no {name}.yml beside it; record it anew")
    table, origin = read_rows(table_file), yaml.safe_load(origin_file.read_text("utf-8"))
    asked = _settings_of(origin["command"])
    jobs = [folder.job(id) for id in ids]
    settings = [{key: values[0] for key, values in asked.items()}, *(job.given for job in jobs)]
    if differ := _differing(settings, but=_OF_A_RUN):
        raise ValueError(f"these runs have another {', '.join(differ)} than the recorded table")
    seeds = [job.given["seed"] for job in jobs]
    there = {*table["seed"], *asked.get("seed", ())}  # one may have no rows
    if strange := [str(seed) for seed in seeds if seed not in there]:
        raise ValueError(f"seed {', '.join(strange)} is not in the table")
    found = pd.concat([read_rows(folder.out(id) / "rows.csv") for id in ids], ignore_index=True)
    wanted = pd.concat([table[table["seed"] == seed] for seed in seeds], ignore_index=True)
    again = {key: value for key, value in _origin(folder, ids).items() if key not in ("command", "code")}
    again |= {
        "seeds": ", ".join(map(str, seeds)),
        "largest_difference": _largest_difference(found, wanted),
    }
    return origin | {"again": again}


def _newest(folder: SweepFolder) -> tuple[dict[str, list[str]], list[str]]:
    """Of each experiment the runs of one code, data and libraries, those of the newest request.

    Returns
    -------
    dict
        name -> ids
    list of str
        a line for each experiment from which others are left out
    """
    every: dict[str, list[str]] = {}
    for id in folder.ids():
        if (job := folder.job(id)).kind == "experiment":
            every.setdefault(job.name, []).append(id)
    newest, left_out = {}, []
    for name, asked in every.items():
        origin = folder.job(asked[-1]).origin
        newest[name] = [id for id in asked if folder.job(id).origin == origin]
        if n_others := len(asked) - len(newest[name]):
            left_out.append(
                f"{name}: {n_others} of {len(asked)} runs are of other code, data or libraries than the last "
                "that were asked for, and left out"
            )
    return newest, left_out


def _differing(settings: Sequence[Mapping[str, Any]], but: Sequence[str]) -> list[str]:
    """Names of what is not the same in all of them, or is not there in some."""
    names = {name for one in settings for name in one if name not in but}
    return sorted(
        name
        for name in names
        if any(name not in one or one[name] != settings[0].get(name) for one in settings)
    )


def _largest_difference(found: pd.DataFrame, wanted: pd.DataFrame) -> float:
    """Of any number from its like; what is no number must be the same."""
    wanted = wanted.dropna(axis=1, how="all")  # a column that other seeds fill
    found = found.dropna(axis=1, how="all")
    if list(found) != list(wanted) or len(found) != len(wanted):
        raise ValueError(
            f"{len(found)} rows of {', '.join(found)}, where the recorded table has {len(wanted)} of "
            f"{', '.join(wanted)}; the experiment is another one now, record it anew"
        )
    largest = 0.0
    for column in wanted:
        ours, theirs = found[column], wanted[column]
        if not (pd.api.types.is_numeric_dtype(ours) and pd.api.types.is_numeric_dtype(theirs)):
            if not ours.equals(theirs):
                raise ValueError(
                    f"column {column} does not say what it says in the recorded table; "
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
    given = [f"seed={','.join(str(job.given['seed']) for job in jobs)}"]
    for name, value in jobs[0].given.items():
        if name not in _OF_A_RUN:
            words = yaml.safe_dump([value], default_flow_style=True, width=float("inf"), allow_unicode=True)
            given.append(f"{name}={words.strip()[1:-1]}")  # as values_of_words reads it
    if any("data_root" in job.given for job in jobs):
        given.append("data_root=DIR")  # the folder's name is of this machine alone
    asked = [word for one in given for word in ("-p", one)]
    return shlex.join(["lvlmva", "sweep", "experiment", jobs[0].name, *asked, "--out", "OUT"])


def _settings_of(command: str) -> dict[str, list[Any]]:
    """What a recorded table's command gives by -p; one of an older kind gives nothing."""
    return values_of_words([word for before, word in pairwise(shlex.split(command)) if before == "-p"])
