"""The finished runs of a sweep as one tidy table, and what it says of means over seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lvlmva_lite.experiments.paper_figures import of_runs, of_tables, supervision
from lvlmva_lite.experiments.recording import read_rows, write_tables
from lvlmva_lite.experiments.sweep_folder import Job, SweepFolder
from lvlmva_lite.files import write_whole
from lvlmva_lite.metrics import mean_interval, paired_test
from lvlmva_lite.registry import METHODS
from lvlmva_lite.results import ROWS, Score

MEASURES = tuple(one.name for one in fields(Score) if one.name != "seconds")
"""Of each arm of a run."""

ARMS = ("before", "after", *(name for name in ROWS if name != "before"))
"""Endings by which the numbers that a chapter records tell their arm, as ``accuracy_before``."""

COSTS = {"seconds": 3, "critic_tokens": 0, "critic_dollars": 4}
"""What an arm of a run took -> decimal places; no measure of a method.  Of critic and judge see :func:`tally.cost_of`."""

_ABOUT = ("id", "kind", "name", "arm")
_ORIGIN = (
    "supervision", "code", "libraries", "data", "device", "commit", "date", "processor", "host",
    "run_seconds", "peak_memory",
)  # fmt: skip


@dataclass(frozen=True)
class Collected:
    """A sweep's numbers.

    Attributes
    ----------
    table : DataFrame, one row per finished run and arm: "id", "kind" ("run", "chapter" or
        "experiment"), "name" (task, chapter or experiment), "arm" ("before", "after", those of the bounds; empty for what a chapter records of
        no arm), parameters, measures and, of runs, what they took (``COSTS``), "supervision" (what the
        method of a run reads), fingerprints of "code", "libraries" and "data", "device", "commit", "date", "processor", "host",
        "run_seconds" and "peak_memory" (bytes)
    parameters, measures : names of its columns
    """

    table: pd.DataFrame
    parameters: tuple[str, ...]
    measures: tuple[str, ...]


def collect(folder: SweepFolder, *, older: bool = False) -> Collected:
    """Gather the finished runs; ``older``: also those that other code, data or libraries have left there."""
    rows, parameters, measures = [], {}, {}
    ids = folder.ids() + (folder.ids(older=True) if older else [])
    for id in ids:
        if (done := folder.done(id)) is None:
            continue
        job = folder.job(id)
        # A chapter's parameter may be called like a column that is there in any case.
        own = {*_ABOUT, *_ORIGIN}
        settings = {
            f"{name}_parameter" if name in own else name: _plain(value)
            for name, value in job.parameters.items()
        }
        parameters |= dict.fromkeys(settings)
        origin = dict(job.origin) | {"host": done["host"], "run_seconds": done["seconds"]}
        origin["peak_memory"] = done["peak_memory"]
        origin |= {"commit": done.get("commit"), "processor": done.get("processor")}
        origin["date"] = datetime.fromtimestamp(done["finished"], UTC).date().isoformat()
        if (
            job.kind == "run" and job.parameters["method"] in METHODS.names()
        ):  # it may be of a package not here
            origin["supervision"] = supervision(job.parameters["method"])
        for arm, found in _arms(job, folder.out(id) / job.last_file):
            # What a chapter records may be called like one of its parameters.
            taken = {*settings, *own}
            scores = {f"{name}_recorded" if name in taken else name: _plain(v) for name, v in found.items()}
            measures |= dict.fromkeys(scores)
            about = {"id": id, "kind": job.kind, "name": job.name, "arm": arm}
            rows.append(about | settings | scores | origin)
    measures = {name: None for name in measures if name not in parameters}
    columns = dict.fromkeys([*_ABOUT, *parameters, *measures, *_ORIGIN])
    return Collected(pd.DataFrame(rows, columns=[*columns]), tuple(parameters), tuple(measures))


def _arms(job: Job, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each arm of a run, and its measures."""
    if job.kind == "experiment":  # what tells its rows apart is its own: see its table
        for row in read_rows(file).to_dict("records"):
            yield str(row.get("arm", "")), {name: row[name] for name in row if name not in ("arm", "seed")}
        return
    values = json.loads(file.read_text("utf-8"))
    if job.kind == "run":
        method = values["method"]  # its scores stand there under its own name, too
        for arm, scores in values["scores"].items():
            if arm not in (method, method.replace("-", "_")):
                # The method's arm alone asks; an older run does not say what that took.
                asked = {name: values.get(name) for name in COSTS if arm == "after" and name != "seconds"}
                yield arm, scores | asked
        return
    of_arms: dict[str, dict[str, Any]] = {}
    rest = {}
    for name, value in values.items():
        arm = next((arm for arm in ARMS if name.endswith(f"_{arm}")), "")
        if (measure := name.removesuffix(f"_{arm}")) in MEASURES and arm:
            of_arms.setdefault(arm, {})[measure] = value
        else:
            rest[name] = value
    yield from of_arms.items()
    if rest or not of_arms:
        yield "", rest


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def write(collected: Collected, folder: SweepFolder) -> list[str]:
    """Write ``runs.csv``, with pyarrow also ``runs.parquet``, and ``summary.md``; their names.

    Of experiments also their tables, and what of the paper's figures and tables these and the runs allow.
    """
    names = ["runs.csv"]
    write_whole(folder.path / "runs.csv", collected.table.to_csv(index=False))
    texts = {
        name: column.map(lambda value: None if pd.isna(value) else str(value))
        for name, column in collected.table.items()
        if column.dtype == object
    }
    try:
        write_whole(folder.path / "runs.parquet", collected.table.assign(**texts).to_parquet(index=False))
    except ImportError:
        pass
    else:
        names.append("runs.parquet")
    recorded, missing = write_tables(folder)
    tables = {name: read_rows(folder.path / "tables" / f"{name}.csv") for name in recorded}
    figures, words = of_tables(tables)
    of_the_runs, more_words = of_runs(collected.table, collected.parameters)
    figures |= of_the_runs
    for name, content in figures.items():
        write_whole(folder.path / name, content)
    parts = ["".join(f"{line}\n" for line in missing), words, more_words]
    write_whole(folder.path / "summary.md", "\n".join(filter(None, [summary(collected), *parts])))
    return [*names, "summary.md", *(f"tables/{name}.csv" for name in recorded), *figures]


def summary(collected: Collected) -> str:
    """Means over seeds with their 95 % intervals, changes, and methods against each other, as Markdown."""
    parts = []
    for (kind, name), table in collected.table.groupby(["kind", "name"], sort=False):
        if kind == "experiment":
            n_runs = table["id"].nunique()
            parts.append(f"# experiment {name}\n\n{n_runs} runs: `tables/{name}.csv`\n\n{_made(table)}")
            continue
        varied = [
            one for one in collected.parameters if one != "seed" and table[one].nunique(dropna=False) > 1
        ]
        measures = [one for one in collected.measures if _is_number(table[one])]
        # A run that differs by what is no parameter is no other seed of the same.
        varied += [one for one in ("code", "libraries", "data", "device") if table[one].nunique() > 1]
        parts += [f"# {kind} {name}\n\n{_made(table)}", _means(table, varied, measures)]
        compared = [one for one in measures if one not in COSTS]
        parts += [_changes(table, varied, compared), _methods(table, varied, compared)]
    return "\n".join(filter(None, parts)) or "no run has finished yet\n"


def _made(table: pd.DataFrame) -> str:
    """Where the numbers of a block come from, and what its runs took, in a line."""
    runs = table.drop_duplicates("id")
    of_what = {
        name: sorted(map(str, runs[name].dropna().unique())) for name in ("commit", "processor", "date")
    }
    where = ", ".join(f"{name} {' and '.join(values) or 'unknown'}" for name, values in of_what.items())
    seconds, memory = runs["run_seconds"], runs["peak_memory"].dropna()
    most = f", at most {max(memory) / 1e9:.2f} GB of memory" if len(memory) else ""
    return f"Made at {where}; {seconds.mean():.1f} seconds a run{most}.\n"


def _is_number(column: pd.Series) -> bool:
    there = column.dropna()
    return len(there) > 0 and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in there
    )


def _groups(table: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows that agree in these columns, and what they agree in, in words."""
    if not by:
        yield "", table
        return
    for values, rows in table.groupby([*by], sort=False, dropna=False):
        yield ", ".join(f"{one} {value}" for one, value in zip(by, values, strict=True)), rows


def _means(table: pd.DataFrame, varied: Sequence[str], measures: Sequence[str]) -> str:
    rows = []
    for words, group in _groups(table, varied):
        for arm, of_arm in group.groupby("arm", sort=False):
            for measure in measures:
                if values := of_arm[measure].dropna().tolist():
                    rows.append(
                        [
                            words,
                            arm,
                            measure,
                            str(len(values)),
                            _interval(values, digits=COSTS.get(measure, 3)),
                        ]
                    )
    return _markdown("Means", ["runs", "arm", "measure", "seeds", "mean [95 % interval]"], rows)


def _changes(table: pd.DataFrame, varied: Sequence[str], measures: Sequence[str]) -> str:
    rows = []
    for words, group in _groups(table, varied):
        before, after = (group[group["arm"] == arm] for arm in ("before", "after"))
        for measure in measures:
            if compared := _paired(after, before, measure):
                rows.append([words, measure, *compared, _of_the_paper(group.iloc[0], measure)])
    head = ["runs", "measure", "seeds", "after - before [95 % interval]", "p", "paper"]
    return _markdown("Changes by the method, seed by seed", head, rows)


def _methods(table: pd.DataFrame, varied: Sequence[str], measures: Sequence[str]) -> str:
    if "method" not in varied:
        return ""
    rows = []
    after = table[table["arm"] == "after"]
    for words, group in _groups(after, [one for one in varied if one != "method"]):
        methods = dict(list(group.groupby("method", sort=False)))
        for one, other in combinations(sorted(methods, key=lambda name: (name != "lvlm-va", name)), 2):
            for measure in measures:
                if compared := _paired(methods[one], methods[other], measure):
                    rows.append([words, f"{one} - {other}", measure, *compared])
    head = ["runs", "methods", "measure", "seeds", "difference [95 % interval]", "p"]
    return _markdown("Methods after alignment, seed by seed", head, rows)


def _paired(one: pd.DataFrame, other: pd.DataFrame, measure: str) -> list[str]:
    """Seeds, difference and exact p of what two tables share; empty where they share fewer than two seeds."""
    if "seed" not in one or one["seed"].duplicated().any() or other["seed"].duplicated().any():
        return []
    first, second = (table.set_index("seed")[measure].dropna() for table in (one, other))
    seeds = [seed for seed in first.index if seed in second.index]
    if len(seeds) < 2:
        return []
    first, second = first[seeds].astype(float).tolist(), second[seeds].astype(float).tolist()
    test = paired_test(first, second)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    return [
        str(len(seeds)),
        _interval(differences, sign="+"),
        f"{test.p:.3g} (least {test.smallest_p:.3g})",
    ]


def _interval(values: Sequence[float], sign: str = "", digits: int = 3) -> str:
    form = f"{sign}.{digits}f"
    if len(values) < 2:
        return f"{values[0]:{form}}"
    mean, low, high = mean_interval(values)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def _of_the_paper(row: pd.Series, measure: str) -> str:
    """What the paper reports of runs like this one."""
    file = resources.files("lvlmva_lite.experiments").joinpath("paper_numbers.yml")
    known = yaml.safe_load(file.read_text("utf-8"))
    fitting = [
        one
        for one in known
        if one["measure"] == measure and all(row.get(name) == value for name, value in one["when"].items())
    ]
    return "; ".join(f"{one['change']}: {one['where']}" for one in fitting)


def _markdown(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    # A column in which nothing stands is none.
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    lines = [[head[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in rows)]
    return f"## {title}\n\n" + "".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |\n"
        for line in lines
    )
