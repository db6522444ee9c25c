"""The commands ``lvlmva critic ...``: what a critic costs, how good it is, what it said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvlmva_lite import cli_options as options

if TYPE_CHECKING:
    from lvlmva_lite.critic import Case
    from lvlmva_lite.critic.budget import Price
    from lvlmva_lite.critic.estimate import Estimate
    from lvlmva_lite.critic.openai_critic import AnswerSettings

app = typer.Typer(help="Critics: what they cost, how good they are, what they said.", rich_markup_mode=None)

Dataset = Annotated[str, typer.Argument(help="The data set: decoy-mnist, knee or skin.", metavar="DATASET")]
NCases = Annotated[int, typer.Option("--n", help="Cases of the run's alignment set.", metavar="N")]
NSegments = Annotated[int, typer.Option(help="J, segments of an image.", metavar="J")]
Seed = Annotated[int, typer.Option(help="Of the run that the cases come from.")]
Description = Annotated[
    str | None,
    typer.Option(
        help="The expert's words, or a text file that holds them; default: those that ship.",
        metavar="TEXT|FILE",
    ),
]


TrainEpochs = Annotated[
    int | None,
    typer.Option(help="Epochs of the model under scrutiny; default: those of `lvlmva run`."),
]
Shipped = Annotated[
    bool, typer.Option("--shipped", help="The answers of a real model that ship with the package.")
]


@app.command()
def estimate(
    critic_model: options.CriticModel,
    n_cases: NCases = 1000,
    judge_model: options.JudgeModel = "",
    dataset: Annotated[
        str, typer.Option(help="Whose images and description: decoy-mnist, knee or skin.")
    ] = "decoy-mnist",
    description: Description = None,
    n_segments: NSegments = 6,
    samples: options.Samples = 1,
    max_answer_tokens: options.MaxAnswerTokens = 2048,
    price: options.PriceInOut = None,
    no_cost: options.NoCost = False,
) -> None:
    """Say what asking a model about N cases would take; sends nothing.  Example:

    lvlmva critic estimate --critic-model gpt-4o --n 1000
    """
    from lvlmva_lite import pipeline
    from lvlmva_lite.critic.budget import price_list
    from lvlmva_lite.critic.estimate import estimate as estimated
    from lvlmva_lite.critic.openai_critic import AnswerSettings
    from lvlmva_lite.critic.providers import Connection, CriticSettings, prices

    with options.bad_settings_told():
        settings = CriticSettings(
            critic_model, judge_model, samples=samples, max_answer_tokens=max_answer_tokens
        )
        found = prices(settings, Connection(price=options.parse_price(price), no_cost=no_cost))
        config = pipeline.Config(
            dataset=dataset,
            description=options.text_or_file(description),
            n_align=n_cases,
            n_segments=n_segments,
            critic="replay",
        )
    case = _blank_case(n_segments, config.expert_description, config.image_size)
    likely = estimated(
        case, n_cases, AnswerSettings(samples, None, max_answer_tokens),
        found[critic_model], found[judge_model or critic_model],
    )  # fmt: skip
    for label, calls, tokens, dollars in (
        ("likely", likely.calls, likely.tokens, likely.dollars),
        ("at most", likely.calls_at_most, likely.tokens_at_most, likely.dollars_at_most),
    ):
        money = "" if dollars is None else f", {dollars:.2f} USD"
        typer.echo(f"{label}: {calls} calls, {tokens} tokens{money}")
    if likely.dollars_in_batches is not None:
        typer.echo(
            f"with --batch, where the server knows batches: likely {likely.dollars_in_batches:.2f} USD"
        )
    if likely.dollars is not None and price is None:
        typer.echo(f"prices as of {price_list()[0]}; look yours up, and give --price where they differ")


@app.command()
def evaluate(
    dataset: Dataset,
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
    n_segments: NSegments = 6,
    seed: Seed = 0,
    description: Description = None,
    train_epochs: TrainEpochs = None,
    data_root: options.DataRoot = "",
    critic_model: options.CriticModel = "",
    critic_prompt: options.CriticPrompt = "",
    judge_model: options.JudgeModel = "",
    against_model: Annotated[
        str, typer.Option(metavar="NAME", help="Model of the second critic and its judge.")
    ] = "",
    base_url: options.BaseUrl = None,
    store: options.Store = options.DEFAULT_STORE,
    max_cost: options.MaxCost = None,
    max_tokens_total: options.MaxTokensTotal = None,
    max_concurrency: options.MaxConcurrency = 4,
    price: options.PriceInOut = None,
    no_cost: options.NoCost = False,
    timeout: options.Timeout = 120.0,
    samples: options.Samples = 1,
    temperature: options.Temperature = None,
    max_answer_tokens: options.MaxAnswerTokens = 2048,
    reasoning_effort: options.ReasoningEffort = "",
    extra_body: options.ExtraBody = "",
    i_may_send_these_images: options.Consent = False,
    batch: options.Batch = False,
    simulated_accuracy: options.SimulatedAccuracy = 0.9,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Score a critic on cases whose truth is known.  Example:

    lvlmva critic evaluate decoy-mnist --critic simulated --against lexicon --out results/critics
    """
    from lvlmva_lite import evaluation, pipeline
    from lvlmva_lite.critic import providers
    from lvlmva_lite.critic.batch import criticise_all, judge_all
    from lvlmva_lite.critic.reading import read_description

    with options.bad_settings_told():
        settings = providers.CriticSettings(
            critic_model, judge_model, samples, temperature, max_answer_tokens, simulated_accuracy,
            reasoning_effort, extra_body, prompt=critic_prompt,
        )  # fmt: skip
        connection = providers.Connection(
            store=store,
            base_url=base_url,
            max_cost=max_cost,
            max_tokens_total=max_tokens_total,
            max_concurrency=max_concurrency,
            price=options.parse_price(price),
            no_cost=no_cost,
            timeout=timeout,
            i_may_send_these_images=i_may_send_these_images,
            batch=batch,
        )
        asked = [(critic, settings)]
        if against == "recorded" != critic:
            raise providers.SettingsError(
                "--against recorded answers its own cases alone; give --critic recorded and --against "
                + critic
            )
        if against:
            other = replace(settings, model=against_model, judge_model="") if against_model else settings
            offline = against in ("lexicon", "simulated")
            asked.append((against, replace(other, samples=1, prompt="") if offline else other))
        config = pipeline.Config(
            dataset=dataset,
            critic=critic,
            critic_settings=settings,
            description=options.text_or_file(description),
            seed=seed,
            n_align=n_cases if n_cases is not None or critic == "recorded" else 200,
            n_segments=n_segments,
            train_epochs=train_epochs,
            data_root=data_root,
        )
        if against == "lexicon":  # refuses words of which it understands nothing
            pipeline.Config(dataset=dataset, data_root=data_root, description=config.description)
        for name, of_name in asked:
            providers.check(name, of_name, connection, dataset)
        options.make_folder(out)
    if config.recording and (told := config.recording.told_of_another_network(vars(config))):
        typer.echo(told, err=True)
    if "lexicon" in (critic, against):
        for line in read_description(config.expert_description).lines():
            typer.echo(f"I read: {line}", err=True)
    with options.failures_told():
        found = pipeline.prepare(config, progress=not quiet).found
        evaluations, verdicts = [], []
        for name, of_name in asked:
            truth = found.truth_by_case() if name == "simulated" else None
            asking, judging = providers.make(
                name, of_name, connection, truth=truth, seed=seed, recording=config.recording
            )
            tally = evaluation.Tally.of(asking, judging)
            critiques = criticise_all(asking, found.cases, judge=judging, progress=not quiet)
            verdicts.append(judge_all(judging, critiques, n_segments, progress=not quiet))
            evaluations.append(
                evaluation.evaluate(found.cases, verdicts[-1], found.truth, critic=asking.name, tally=tally)
            )
    kappa = evaluation.cohen_kappa(found.cases, *verdicts) if against else None
    evaluation.write_evaluation(out, evaluations, kappa, dataset=dataset, seed=seed)
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


@app.command()
def export(
    out: Annotated[
        Path, typer.Option(help="File to write, one request and answer a line.", metavar="JSONL")
    ],
    store: options.Store = options.DEFAULT_STORE,
) -> None:
    """Write every recorded request and answer to a JSONL file.  Example:

    lvlmva critic export --store answers --out answers.jsonl
    """
    from lvlmva_lite.critic.store import AnswerStore

    with options.bad_settings_told():
        answers = AnswerStore(store, read_only=True)
        options.make_folder(out.parent)
        count = answers.export(out)
    typer.echo(f"{count} answers: {out}")


@app.command()
def cases(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="New folder for the cases.")],
    n_cases: NCases = 20,
    n_segments: NSegments = 6,
    seed: Seed = 0,
    description: Description = None,
    train_epochs: TrainEpochs = None,
    data_root: options.DataRoot = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Write the cases of a run as pictures and text, for anybody to answer.  Example:

    lvlmva critic cases decoy-mnist --n 20 --out cases
    """
    from lvlmva_lite import pipeline
    from lvlmva_lite.critic.case_files import CaseFilesError, export_cases, require_new_folder

    with options.bad_settings_told():
        config = pipeline.Config(
            dataset=dataset,
            critic="replay",
            description=options.text_or_file(description),
            seed=seed,
            n_align=n_cases,
            n_segments=n_segments,
            train_epochs=train_epochs,
            data_root=data_root,
        )
    try:
        require_new_folder(out)
        with options.failures_told():
            found = pipeline.prepare(config, progress=not quiet).found
        export_cases(found.cases, out)
    except CaseFilesError as error:
        raise options.fail(error, 2) from None
    typer.echo(f"{len(found.cases)} cases: {out}; {out / 'README.md'} says how to answer them")


@app.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(help="Made by `lvlmva critic cases`, and answered.", metavar="DIR")
    ],
    store: options.Store = options.DEFAULT_STORE,
    model: Annotated[str, typer.Option(help="Who answered, where an answer does not say.")] = "",
    date: Annotated[str, typer.Option(help="When, YYYY-MM-DD, where an answer does not say.")] = "",
) -> None:
    """Read answered cases into the store, for --critic replay; bad answers are named.  Example:

    lvlmva critic import cases --store answers
    """
    from lvlmva_lite.critic.case_files import CaseFilesError, import_answers
    from lvlmva_lite.critic.store import AnswerStore

    with options.bad_settings_told():
        answers = AnswerStore(store)
    try:
        imported = import_answers(folder, answers, model=model, date=date)
    except CaseFilesError as error:
        raise options.fail(error, 2) from None
    typer.echo(imported.summary())
    if imported.refused:
        raise typer.Exit(1)


@app.command()
def check(
    critic_model: options.CriticModel,
    base_url: options.BaseUrl = None,
    price: options.PriceInOut = None,
    timeout: options.Timeout = 120.0,
    max_answer_tokens: options.MaxAnswerTokens = 2048,
    reasoning_effort: options.ReasoningEffort = "",
    extra_body: options.ExtraBody = "",
) -> None:
    """Ask a model two small questions about pictures of known content.  Example:

    lvlmva critic check --base-url http://localhost:8000/v1 --critic-model my-model
    """
    import tempfile

    from lvlmva_lite.critic import trial
    from lvlmva_lite.critic.budget import Price, price_of
    from lvlmva_lite.critic.chat import ChatClient
    from lvlmva_lite.critic.openai_critic import AnswerSettings
    from lvlmva_lite.critic.providers import Connection, CriticSettings
    from lvlmva_lite.critic.providers import check as checked
    from lvlmva_lite.critic.store import AnswerStore

    with tempfile.TemporaryDirectory() as folder:
        with options.bad_settings_told():
            settings = CriticSettings(
                critic_model,
                max_answer_tokens=max_answer_tokens,
                reasoning_effort=reasoning_effort,
                extra_body=extra_body,
            )
            connection = Connection(store=Path(folder), base_url=base_url, no_cost=True, timeout=timeout)
            checked("openai", settings, connection, "decoy-mnist")
            given = options.parse_price(price)
            priced = price_of(critic_model) if given is None else Price(*given)
            store = AnswerStore(folder)
            client = ChatClient(store, base_url=base_url, schema=trial.SCHEMA, timeout=timeout)
        answers = AnswerSettings(1, None, max_answer_tokens, reasoning_effort, extra_body)
        try:
            with options.failures_told():
                found = trial.try_model(client, critic_model, answers)
        finally:
            store.close()
    typer.echo(f"answered by: {found.model or 'the server does not say'}")
    typer.echo(f"sees: {found.right} of 2 pictures named right")
    form = found.structured if found.structured != "none" else "not known to this server"
    typer.echo(f"structured output: {form}; the answer {'is' if found.is_json else 'is not'} plain JSON")
    counted = f", {found.reasoning_tokens} tokens or more in 2 answers" if found.reasoning_tokens else ""
    typer.echo(f"reasons before it answers: {'yes' + counted if found.reasons else 'no'}")
    likely = _likely(100, answers, priced)
    tokens = likely.tokens + 100 * found.reasoning_tokens
    money = ""
    if priced is not None:
        dollars = likely.dollars + priced.of(0, 100 * found.reasoning_tokens)
        money = f", {dollars:.2f} USD"
    typer.echo(
        f"100 cases of DecoyMNIST, critic and judge: about {likely.calls} calls, {tokens} tokens{money}"
    )
    if found.right < 2:
        raise options.fail(
            f"the model {critic_model!r} does not see what is in a picture; it said: "
            + " | ".join(" ".join(said.split())[:100] or "(nothing)" for said in found.said),
            1,
        )


def _likely(n_cases: int, answers: AnswerSettings, price: Price | None) -> Estimate:
    """What so many cases of DecoyMNIST would take, critic and judge the same model."""
    from lvlmva_lite.critic import class_description
    from lvlmva_lite.critic.estimate import estimate as estimated

    case = _blank_case(6, class_description("decoy-mnist"))
    return estimated(case, n_cases, answers, price, price)


def _blank_case(n_segments: int, description: str, side: int = 28) -> Case:
    """A case of ``side`` pixels, by default as large as one of DecoyMNIST, with nothing in it."""
    import torch

    from lvlmva_lite.critic import Case

    rows = torch.arange(side) * n_segments // side  # bands, as even as can be
    labels = rows[:, None].expand(side, side)
    return Case(
        "", torch.zeros(1, side, side), labels, n_segments, "0", description, torch.ones(side, side)
    )


CaseId = Annotated[str | None, typer.Option("--case", metavar="CASE", help="Only about this case.")]
Unusable = Annotated[bool, typer.Option("--unusable", help="Only answers that cannot be used.")]


@app.command("list")
def list_(
    store: options.Store = options.DEFAULT_STORE,
    case: CaseId = None,
    unusable: Unusable = False,
    shipped: Shipped = False,
) -> None:
    """List recorded answers, one a line: day, who, which case, and why it cannot be used.  Examples:

    lvlmva critic list --store answers --unusable

    lvlmva critic list --shipped
    """
    from lvlmva_lite.critic.recordings import shipped_answers
    from lvlmva_lite.critic.store import AnswerStore

    if shipped:
        found = list(shipped_answers(case))
        for recording, prompt, answer in found:
            typer.echo(
                f"{answer.date}  {prompt}  {answer.model}  {recording.source}-{answer.index}"
                f"  seed {recording.seed}"
            )
        typer.echo(f"{len(found)} shown")
        return

    with options.bad_settings_told():
        listed = AnswerStore(store, read_only=True).list(case)
    shown = [one for one in listed if one.unusable or not unusable]
    for one in shown:
        cases = ", ".join(one.cases[:3]) + (f" and {len(one.cases) - 3} more" if len(one.cases) > 3 else "")
        typer.echo("  ".join((one.date[:10], one.kind, one.model, cases or "-", one.unusable or "ok")))
    bad = sum(bool(one.unusable) for one in listed)
    typer.echo(f"{len(shown)} shown; {len(listed)} answers, {bad} of them cannot be used")


@app.command()
def show(
    case: Annotated[str, typer.Argument(metavar="CASE", help="As `lvlmva critic list` names it.")],
    store: options.Store = options.DEFAULT_STORE,
    shipped: Shipped = False,
) -> None:
    """Show what was said about one case.  Examples:

    lvlmva critic show decoy-mnist-123 --store answers

    lvlmva critic show knee-phantom-42 --shipped
    """
    from lvlmva_lite.critic.recordings import shipped_answers
    from lvlmva_lite.critic.store import AnswerStore

    if shipped:
        answers = list(shipped_answers(case))
        if not answers:
            raise options.fail(
                f"no answer about {case!r} ships; `lvlmva critic list --shipped` names the cases", 2
            )
        for recording, prompt, answer in answers:
            typer.echo(f"## {prompt} {answer.model}, {answer.date}, {recording.name}\n{answer.critique}")
        return

    with options.bad_settings_told():
        found = AnswerStore(store, read_only=True).list(case)
    if not found:
        raise options.fail(
            f"{store} holds no answer about {case!r}; `lvlmva critic list` names the cases", 2
        )
    for one in found:
        typer.echo(
            f"## {one.kind} {one.model}, {one.date}" + (f" ({one.unusable})" if one.unusable else "")
        )
        typer.echo(one.answer["text"] or one.answer["refusal"] or "(nothing)")


@app.command()
def forget(
    store: options.Store = options.DEFAULT_STORE,
    unusable: Unusable = False,
    case: CaseId = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this model.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only those recorded before it.")
    ] = None,
) -> None:
    """Delete recorded answers that meet every condition, so that they are asked for again.  Example:

    lvlmva critic forget --store answers --unusable
    """
    from lvlmva_lite.critic.store import AnswerStore, StoreError

    with options.bad_settings_told():
        if not (store / "answers.sqlite").is_file():
            raise StoreError(f"{store} holds no recorded answers")
        try:
            gone = AnswerStore(store).forget(unusable=unusable, case=case, model=model, before=before)
        except ValueError as error:
            if isinstance(error, StoreError):
                raise
            raise options.fail(f"{error} (--unusable, --case, --model or --before)", 2) from None
    typer.echo(f"{gone} answers forgotten")
