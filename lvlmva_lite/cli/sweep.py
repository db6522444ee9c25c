"""``lvlmva sweep``: many runs, on this machine or on a cluster, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvlmva_lite.cli import options

if TYPE_CHECKING:
    from lvlmva_lite.experiments.sweep_folder import Job, SweepFolder
    from lvlmva_lite.experiments.sweep_spec import Entry

PROGRAM = ("-m", "lvlmva_lite.cli.one_run")


def sweep(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT...",
            help="SPEC, or: run TASK, or: chapter NOTEBOOK, or: experiment NAME, or: status FOLDER.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for all runs; new, or of a sweep, which then goes on.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME=VALUE,...", help="Values of a parameter; may be repeated."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Runs at a time. [1; with --memory: all that fit]")
    ] = None,
    cores: Annotated[
        int | None, typer.Option(metavar="N", help="Of all runs together; default: the machine's.")
    ] = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="What one run needs, such as 4GB; no more are started.")
    ] = "",
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler, whose workers do the work.")
    ] = "",
    copy_to: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Copy finished runs there: whatever papermill writes to.")
    ] = "",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what failed before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and list the runs; start none.")
    ] = False,
) -> None:
    """Run chapters or experiments for all values of their parameters, each run once.

    What is finished is not run again, also after a crash or beside another sweep on the folder; what
    has failed keeps its log and its notebook.  Examples:

    lvlmva sweep run decoy-mnist -p seed=0,1 -p n_align=50,100 --jobs 2 --out results/sizes

    lvlmva sweep chapter notebooks/00_lvlm_va_in_ten_minutes.ipynb -p seed=0,1,2 --out results/ten

    lvlmva sweep spec.yml --out results/spec

    lvlmva sweep E2-paper --out results/E2, a spec that comes with the package; -p seed=0 changes it

    lvlmva sweep status results/spec, and in the end: lvlmva collect results/spec
    """
    from lvlmva_lite.experiments.sweep_copies import copy_run, require_writable
    from lvlmva_lite.experiments.sweep_folder import SweepFolder, SweepFolderError
    from lvlmva_lite.experiments.sweep_spec import SpecError
    from lvlmva_lite.experiments.sweep_workers import (
        LimitError,
        at_a_time,
        bytes_of,
        device_of_workers,
        run_here,
        run_on_dask,
    )

    try:
        if what[0] == "status" and len(what) == 2:
            _tell_status(SweepFolder(Path(what[1]), must_exist=True))
            return
        entries = _entries(what, parameter or ())
        if out is None and not dry_run:
            raise SpecError("give --out DIR, a folder for the runs")
        if scheduler and (jobs is not None or cores is not None or memory):
            raise LimitError(
                "--jobs, --cores and --memory are of this machine; with --scheduler its workers "
                "say how much they do at a time (`dask worker --nthreads`); leave them out"
            )
        device = device_of_workers(scheduler) if scheduler and not dry_run else None
        with options.bad_settings_told():
            planned = {job.id: job for entry in entries for job in _jobs(entry, device)}
        if dry_run:
            typer.echo("\n".join(f"{id} {job}" for id, job in planned.items()))
            return
        if scheduler:
            carry_out = partial(run_on_dask, address=scheduler)
        else:
            most = max(job.threads for job in planned.values())
            n = at_a_time(jobs, cores, bytes_of(memory) if memory else None, threads=most)
            carry_out = partial(run_here, jobs=n)
        if copy_to:
            require_writable(copy_to)
        folder = SweepFolder(out)
        ids = folder.add(planned.values())
        failed_before = [id for id in ids if folder.state(id) == "failed"]
        if retry_failed:
            for id in failed_before:
                folder.forget_failure(id)
            failed_before = []
        todo = [id for id in ids if folder.state(id) in ("waiting", "under way")]
        n_done = len(ids) - len(todo) - len(failed_before)
        typer.echo(f"{len(ids)} runs: {n_done} finished before, {len(todo)} to do", err=True)
        settled: Counter[str] = Counter()

        def tell(id: str, state: str) -> None:
            settled[state] += 1
            done = folder.done(id) or {}
            took = f" ({_duration(done['seconds'])})" if "seconds" in done else ""
            number = f"[{settled.total()}/{len(todo)}]"
            typer.echo(f"{number} {state}: {id} {folder.job(id)}{took}", err=True)

        try:
            if todo:
                carry_out(folder, todo, PROGRAM, tell)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; what is finished is kept in {out}") from None
        for id in ids if copy_to else ():
            if folder.done(id):
                copy_run(folder, id, copy_to)
    except (LimitError, SpecError, SweepFolderError) as error:
        raise options.fail(error, 2) from None
    if failed := [id for id in ids if folder.state(id) == "failed"]:
        _tell_failed(folder, failed)
        raise options.fail(f"{len(failed)} of {len(ids)} runs failed; --retry-failed runs them again", 1)
    typer.echo(f"{len(ids)} runs finished: {out}; now `lvlmva collect {out}`")


def settings_of_run(task: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What ``lvlmva run`` takes for these parameters: the method, and a value for each of its options.

    A parameter is called as its option or as its field, with dashes or underscores: ``lambda`` and
    ``penalty_weight``, ``n-align`` and ``n_align``.

    Raises
    ------
    RegistryError : there is no such task
    ConfigError : an unknown parameter, or one of another type
    """
    from lvlmva_lite import tasks
    from lvlmva_lite.config import Config, ConfigError
    from lvlmva_lite.experiments.sweep_spec import of_type

    declared = {one.name: one for kind in (Config, tasks.get(task)) for one in fields(kind) if one.metadata}
    names = {one.metadata["option"] or name: name for name, one in declared.items()}
    names = {name.replace("-", "_"): name for name in (*declared, "method", *options.CRITIC)} | names
    settings = dict.fromkeys(declared) | {name: default for name, (_, default) in options.CRITIC.items()}
    method = "lvlm-va"
    for key, value in given.items():
        name = names.get(key.replace("-", "_"))
        if name is None:
            raise ConfigError(
                f"`lvlmva run {task}` has no parameter {key!r}; it takes: {', '.join(sorted(names))}"
            )
        if name == "method" or (name in declared and isinstance(declared[name].default, str | None)):
            _require_text(key, value)
        if name == "method":
            method = value or method
        elif name in declared:
            settings[name] = of_type(value, declared[name].default)
        else:
            settings[name] = _of_critic(name, value, options.CRITIC[name][1])
    return method, settings


def _require_text(name: str, value: Any) -> None:
    """Raise ConfigError where a text is meant and something else is given; None is none."""
    from lvlmva_lite.config import ConfigError

    if not isinstance(value, str | None):
        hint = "" if isinstance(value, list | dict) else "; put it in quotation marks, '\"...\"'"
        raise ConfigError(f"{name} must be a text; got {value!r}{hint}")


def _of_critic(name: str, value: Any, default: Any) -> Any:
    """An option of the critic's, held against the type of its default.

    Raises
    ------
    ConfigError : it is of another type
    """
    from lvlmva_lite.config import ConfigError
    from lvlmva_lite.experiments.sweep_spec import of_type

    numbers = {"max_cost": 0.0, "max_tokens_total": 0, "temperature": 0.0}
    like = numbers.get(name, "" if default is None or isinstance(default, Path) else default)
    value = of_type(value, like)
    if value is None and default is None:
        return None
    wanted = int | float if isinstance(like, float) else type(like)
    if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(like, bool)):
        raise ConfigError(f"{name} must be of the kind of {like!r}; got {value!r}")
    return Path(value) if isinstance(default, Path) else value


def _entries(what: list[str], parameters: list[str] | tuple[str, ...]) -> list[Entry]:
    from lvlmva_lite.experiments.sweep_spec import (
        KINDS,
        Entry,
        SpecError,
        read_spec,
        values_of_words,
        with_parameters,
    )

    values = values_of_words(parameters)
    if len(what) == 2 and what[0] in KINDS:
        return [Entry(what[0], what[1], values)]
    if len(what) != 1 or what[0] in (*KINDS, "status"):
        raise SpecError(
            "give SPEC, or run TASK, chapter NOTEBOOK, experiment NAME or status FOLDER, "
            f"not {' '.join(what)!r}"
        )
    return with_parameters(read_spec(Path(what[0])), values)


def _jobs(entry: Entry, device: str | None) -> list[Job]:
    """The runs of an entry, each checked as its command would check it.

    Parameters
    ----------
    device : on which they will be run, see :func:`run_origin.origin_of`

    Raises
    ------
    SpecError, RegistryError, ConfigError, SettingsError, StoreError : something that cannot work
    """
    from dataclasses import replace

    from lvlmva_lite.cli.run import checked
    from lvlmva_lite.critic.endpoint import server_id
    from lvlmva_lite.experiments.run_origin import origin_of
    from lvlmva_lite.experiments.sweep_folder import Job
    from lvlmva_lite.experiments.sweep_spec import chapter_parameters, experiment_parameters
    from lvlmva_lite.results import settings_of

    made = []
    for given in entry.runs():
        if entry.kind == "run":
            what = entry.what
            method, settings = settings_of_run(what, given)
            task, config, connection = checked(what, method, settings)
            parameters = settings_of(task, config, method)
            answers = parameters.pop("critic_settings")
            parameters |= {f"critic_{name}": value for name, value in answers.items()}
            if config.critic in ("openai", "replay"):  # two servers may give a model of one name
                parameters["critic_server"] = server_id(connection.base_url)
            if config.critic == "replay":
                parameters["critic_store"] = str(connection.store)
            if not task.network_named(config.model).gpu:
                parameters["device"] = "cpu"  # "auto" is nothing else for it
        elif entry.kind == "experiment":
            what = entry.what
            parameters = experiment_parameters(what, given)
        else:
            what = str(Path(entry.what).absolute())
            parameters = chapter_parameters(Path(what), given)
            given = {name: parameters[name] for name in given}
        job = Job(entry.kind, what, given, parameters, str(Path.cwd()))
        made.append(replace(job, origin=origin_of(job, device)))
    return made


def _tell_failed(folder: SweepFolder, ids: list[str]) -> None:
    for id in ids:
        typer.echo(f"failed: {id} {folder.job(id)}: {folder.failure(id)['error']}", err=True)
        typer.echo(f"        {folder.log(id)}", err=True)


def _tell_status(folder: SweepFolder) -> None:
    import time

    from lvlmva_lite.experiments.sweep_folder import seconds_left

    ids = folder.ids()
    states = {id: folder.state(id) for id in ids}
    counts = Counter(states.values())
    words = ", ".join(
        f"{counts[state]} {state}" for state in ("finished", "failed", "under way", "waiting")
    )
    typer.echo(f"{len(ids)} runs: {words}")
    if older := folder.ids(older=True):
        finished = sum(folder.done(id) is not None for id in older)
        typer.echo(f"beside them {finished} finished by older code, data or libraries")
    for id, state in states.items():
        if state == "under way":
            began = folder.began(id)
            since = f", for {_duration(time.time() - began)}" if began else ""
            typer.echo(f"under way: {id} {folder.job(id)}{since}")
    _tell_failed(folder, [id for id, state in states.items() if state == "failed"])
    left = seconds_left(folder, states, time.time())
    if left is not None:
        at_work = max(counts["under way"], 1)
        more = "" if counts["under way"] else ", one at a time; nothing runs now"
        typer.echo(f"about {_duration(left / at_work)} left{more}")
    elif counts["under way"] or counts["waiting"]:
        typer.echo("time left: not known before the first run has finished")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
