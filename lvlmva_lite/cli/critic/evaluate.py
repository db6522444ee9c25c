"""``lvlmva critic evaluate``: how good a critic is, on cases whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lvlmva_lite.cli import options
from lvlmva_lite.cli.critic.cases import checked
from lvlmva_lite.cli.notes import warnings_told


def evaluate(
    dataset: options.Dataset,
    out: Annotated[Path, typer.Option(help="Folder for evaluation.json and evaluation.png.")],
    critic: Annotated[
        str, typer.Option(help="Who judges the segments: lexicon, openai, recorded, replay, simulated.")
    ] = "lexicon",
    against: Annotated[
        str, typer.Option(help="A second critic on the same cases, for the agreement.", metavar="CRITIC")
    ] = "",
    n_cases: Annotated[
        int | None,
        typer.Option(
            "--n", metavar="N", help="Cases of the run's alignment set; default: 200, or all recorded ones."
        ),
    ] = None,
    against_model: Annotated[
        str, typer.Option(metavar="NAME", help="Model of the second critic and its judge.")
    ] = "",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Score a critic on cases whose truth is known.  Example:

    lvlmva critic evaluate decoy-mnist --critic simulated --against lexicon --out results/critics
    """
    from lvlmva_lite import evaluation, pipeline
    from lvlmva_lite.critic import providers
    from lvlmva_lite.critic.batch import criticise_all, judge_all
    from lvlmva_lite.critic.reading import read_description
    from lvlmva_lite.tally import Tally

    with warnings_told(), options.bad_settings_told():
        answers, connection = options.critic_of(settings)
        asked = [(critic, answers)]
        if against == "recorded" != critic:
            raise providers.SettingsError(
                "--against recorded answers its own cases alone; give --critic recorded and --against "
                + critic
            )
        if against:
            other = replace(answers, model=against_model, judge_model="") if against_model else answers
            offline = against in ("lexicon", "simulated")
            asked.append((against, replace(other, samples=1, prompt="") if offline else other))
        n_align = n_cases if n_cases is not None or critic == "recorded" else 200
        task, config = checked(dataset, settings, critic=critic, critic_settings=answers, n_align=n_align)
        if against == "lexicon":  # refuses words of which it understands nothing
            task.config(description=config.description)
        for name, of_name in asked:
            providers.check(name, of_name, connection, task.source)
        options.make_folder(out)
    recording = task.recording(config)
    if recording and (told := recording.told_of_another_network(vars(config))):
        typer.echo(told, err=True)
    if "lexicon" in (critic, against):
        for line in read_description(config.description).lines():
            typer.echo(f"I read: {line}", err=True)
    # Some settings can be held against the data only once these are there.
    with warnings_told(), options.bad_settings_told(), options.failures_told():
        shown = pipeline.prepare(task, config, progress=not quiet).alignment_set
        evaluations, verdicts = [], []
        for name, of_name in asked:
            truth = shown.truth_by_case() if name == "simulated" else None
            asking, judging = providers.make(
                name, of_name, connection, truth=truth, seed=config.seed, recording=recording
            )
            tally = Tally.of(asking, judging)
            critiques = criticise_all(asking, shown.cases, judge=judging, progress=not quiet)
            verdicts.append(judge_all(judging, critiques, config.n_segments, progress=not quiet))
            evaluations.append(
                evaluation.evaluate(shown.cases, verdicts[-1], shown.truth, critic=asking.name, tally=tally)
            )
    kappa = evaluation.cohen_kappa(shown.cases, *verdicts) if against else None
    evaluation.write_evaluation(out, evaluations, kappa, dataset=dataset, seed=config.seed)
    for scored in evaluations:
        found_share, spared = (
            "-" if value is None else f"{value:.3f}" for value in (scored.sensitivity, scored.specificity)
        )
        cost = scored.cost_per_100_verdicts
        typer.echo(
            f"{scored.critic}: sensitivity {found_share}, specificity {spared}, "
            f"undecided {scored.undecided:.3f}, {scored.n_verdicts} verdicts"
            + ("" if cost is None else f", {cost:.4f} USD per 100")
        )
    if against:
        typer.echo(f"agreement (Cohen's kappa): {'-' if kappa is None else f'{kappa:.3f}'}")
    typer.echo(f"results: {out / 'evaluation.json'}, {out / 'evaluation.png'}")
    for ruled in verdicts:
        options.tell_unusable(ruled)
