"""``lvlmva run``: a task, a method, a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvlmva_lite.cli import options
from lvlmva_lite.cli.idle import refuse_idle
from lvlmva_lite.cli.notes import warnings_told

if TYPE_CHECKING:
    from lvlmva_lite.config import Config
    from lvlmva_lite.critic.providers import Connection
    from lvlmva_lite.results import Result
    from lvlmva_lite.tasks import Task


def run(
    dataset: options.Dataset,
    out: options.Out,
    method: Annotated[
        str,
        typer.Option(
            help="lvlm-va, rrr-gt, cdep, counterexamples, rr-clarc, subg, group-dro, dfr, jtt, afr, placebo, finetune, look, or one of another package."
        ),
    ] = "lvlm-va",
    max_loss: options.MaxLoss = None,
    max_class_loss: options.MaxClassLoss = None,
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Train on a shortcut, let the critic find it, unlearn it, and measure.

    Writes results.json, masks.npz, critiques.jsonl, verdicts.jsonl and
    aligned.safetensors to the folder --out.  Example:

    lvlmva run decoy-mnist --seed 1 --out results/seed-1

    Or on knee phantoms, with another method than LVLM-VA (`lvlmva run knee --help`
    shows what there is for knees):

    lvlmva run knee --method subg --out results/knee-subg

    With the answers of a real model that ship with the package, offline:

    lvlmva run knee --critic recorded --critic-model claude --out results/knee-claude

    With a model (see `lvlmva critic estimate` first; the key is OPENAI_API_KEY):

    lvlmva run decoy-mnist --critic openai --critic-model gpt-4o --max-cost 5 --out results/gpt-4o
    """
    made(dataset, out, method, quiet, settings, most=(max_loss, max_class_loss))


def made(
    dataset: str,
    out: Path,
    method: str,
    quiet: bool,
    settings: dict[str, Any],
    figures: bool = False,
    most: tuple[float | None, float | None] = (None, None),
) -> None:
    """Do one run by the options given, and tell of it.

    Parameters
    ----------
    figures : draw what it did to one's own network, and tell of its answers
    most : what it may cost on the validation split, of the mean and of any one class; None: as usual
    """
    with warnings_told() as told:
        _made(dataset, out, method, quiet, settings, figures, most, told)


def _made(
    dataset: str,
    out: Path,
    method: str,
    quiet: bool,
    settings: dict[str, Any],
    figures: bool,
    most: tuple[float | None, float | None],
    told: list[str],
) -> None:
    # Late, so that `lvlmva --help` answers at once.
    from lvlmva_lite import methods
    from lvlmva_lite.config import ConfigError
    from lvlmva_lite.critic.endpoint import server_name
    from lvlmva_lite.critic.reading import read_description
    from lvlmva_lite.run_folder import RunFolder
    from lvlmva_lite.tally import cost_of

    with options.bad_settings_told():
        if method == "look" and most != (None, None):
            raise ConfigError(
                "--max-loss and --max-class-loss do nothing with --method look; leave them out"
            )
        settings = in_full(settings)
        task, config, connection = checked(dataset, method, settings)
        folder = RunFolder(out, task, config, method)
    if config.critic == "openai":
        server = server_name(connection.base_url)
        typer.echo(f"images and words go to {server}; answers are kept in {connection.store}", err=True)
    if config.critic == "lexicon":
        for line in read_description(config.description).lines():
            typer.echo(f"I read: {line}", err=True)
    recording = task.recording(config)
    if recording and (other := recording.told_of_another_network(vars(config))):
        typer.echo(other, err=True)
    # Some settings can be held against the data only once these are there.
    with folder, options.bad_settings_told(), options.failures_told():
        result = methods.run(
            task,
            config,
            method=method,
            connection=connection,
            known_critiques=folder.known_critiques(),
            on_critique=folder.add_critique,
            progress=not quiet,
        )
        usual = options.MAX_LOSS, options.MAX_CLASS_LOSS
        refused = result.too_costly(*(u if m is None else m for m, u in zip(most, usual, strict=True)))
        folder.finish(
            result, notes=told, cost=cost_of(result, connection),
            figures=_drawn(result) if figures else {}, refused=bool(refused),
        )  # fmt: skip
    summary = result.summary()
    if config.critic != "lexicon" and summary["critic"]:
        typer.echo(f"critic: {summary['critic']}; judge: {summary['judge']}")
    if result.verdicts and summary["n_undecided"]:
        typer.echo(
            f"undecided: {summary['n_undecided']} segments in {summary['n_cases_undecided']} "
            f"of {summary['n_cases']} cases"
        )
    typer.echo(result.table("after" if figures else None))
    if figures:
        if n := summary["n_cases_judged_spurious"]:
            typer.echo(
                f"something was judged spurious on {n} of {summary['n_cases']} training images looked at"
            )
        typer.echo(result.changes())
        if lost := result.told_losses():
            typer.echo(f"look: {lost}")
    if summary["critic"] and not summary["n_cases_judged_spurious"]:
        typer.echo(
            f"nothing was judged spurious in any of {summary['n_cases']} cases: "
            "no mask taught the model anything; does the description dismiss what is in the images?"
        )
    if odds := at_odds(result):
        typer.echo(f"at odds: {odds}; `lvlmva report {out}` shows where")
    typer.echo(f"results: {out / 'results.json'}" + (f"; look at {out / 'cases.png'}" if figures else ""))
    options.tell_unusable(result.verdicts)
    if refused:
        cost, bound, most_of_it = refused
        option = f"--{bound.replace('_', '-')}"
        look = "look at the verdicts, and at what the words dismiss; " if result.verdicts else ""
        raise options.fail(
            f"alignment costs {cost}, more than {option} {most_of_it:g}, so that its weights are not written: {look}"
            f"where the shortcut itself made the answers right there, a greater {option} and a new --out take them",
            1,
        )


def at_odds(result: Result) -> str:
    """What the critic called spurious in some cases and relevant in others; empty if nothing."""
    from lvlmva_lite.report import judged_cases, leaning

    if not result.critiques:
        return ""
    cases = judged_cases(
        [verdict.case_id for verdict in result.verdicts],
        [result.class_names[label] for label in result.case_labels.tolist()],
        [verdict.kinds for verdict in result.verdicts],
        result.segments.shares.tolist(),
        ((critique.case_id, critique.text) for critique in result.critiques),
    )
    found = leaning(cases, result.config.description, result.class_names)
    return "; ".join(thing.odds for thing in found.at_odds)


def _drawn(result: Result) -> dict[str, bytes]:
    """What `align` shows before and after: name of the file -> PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from lvlmva_lite import plots, result_figures

    plots.set_theme()
    return result_figures.as_png(result)


def in_full(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, files and folders by their full path, so that the run is found again from elsewhere."""
    full = dict(settings)
    for name in ("data", "splits", "annotations", "groups", "weights", "model", "segmenter_checkpoint"):
        value = full.get(name)
        # A network of one's own is FILE.py:NAME.
        file, colon, rest = value.partition(".py:") if name == "model" and value else (value, "", "")
        file = f"{file}.py" if colon else file
        if file and Path(file).exists() and (name != "model" or colon):
            full[name] = str(Path(file).absolute()) + (f":{rest}" if colon else "")
    return full


def checked(dataset: str, method: str, settings: dict[str, Any]) -> tuple[Task, Config, Connection]:
    """What the command's arguments amount to, checked before any work.

    Parameters
    ----------
    settings : a value for each option of the task, of ``Config`` and of ``options.CRITIC``

    Raises
    ------
    RegistryError, ConfigError, SettingsError, StoreError : something that cannot work
    """
    from lvlmva_lite.critic import providers
    from lvlmva_lite.methods.run import check
    from lvlmva_lite.methods.words import name_explainer
    from lvlmva_lite.pretrained_weights import check_weights

    settings = name_explainer(settings)
    answers, connection = options.critic_of(settings)
    task = options.task_of(dataset, settings)
    given = {name for name, value in settings.items() if value is not None}
    settings["description"] = options.text_or_file(settings["description"])
    config = task.config(**settings, critic_settings=answers)
    refuse_idle(task, config, method, given)
    providers.check(config.critic, answers, connection, task.source)
    check(task, config, method, connection)
    check_weights(task, config)
    return task, config, connection


def command(arguments: Sequence[str]) -> Callable[..., None]:
    """The command with an option for every setting, and for those of the task that is named."""
    if arguments[:1] != ["run"]:
        return options.with_options(run, {})
    words, list_choices = arguments[1:], "--help" in arguments
    of_config = options.of_config(arguments=words, list_choices=list_choices)
    return options.with_options(run, options.CRITIC | options.of_tasks(words) | of_config)
