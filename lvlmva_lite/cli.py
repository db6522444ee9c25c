"""The command ``lvlmva``."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from lvlmva_lite import __version__, critic_cli
from lvlmva_lite import cli_options as options


class _Stopped(Exception):
    """Somebody pressed Ctrl-C; the message says what is kept."""


class _Commands(TyperGroup):
    """Hands Ctrl-C on with its message, which typer, by its version, drops or wraps."""

    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise _Stopped(str(interrupt) or "interrupted") from None


app = typer.Typer(
    name="lvlmva",
    cls=_Commands,
    help="Teach small vision models right from wrong with words (LVLM-VA, arXiv 2512.21985).",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(critic_cli.app, name="critic")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    dataset: Annotated[
        str, typer.Argument(help="The data set: decoy-mnist, knee or skin.", metavar="DATASET")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the results; new, or of this very run interrupted.")
    ],
    critic: Annotated[
        str, typer.Option(help="Who judges the segments: lexicon, openai, recorded, replay, simulated.")
    ] = "lexicon",
    critic_model: options.CriticModel = "",
    critic_prompt: options.CriticPrompt = "",
    judge_model: options.JudgeModel = "",
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
    description: Annotated[
        str | None,
        typer.Option(
            help="The expert's words, or a text file that holds them; default: those that ship.",
            metavar="TEXT|FILE",
        ),
    ] = None,
    data_root: options.DataRoot = "",
    method: Annotated[
        str,
        typer.Option(help="For knee and skin: lvlm-va, rrr-gt, subg, dfr, jtt, placebo, finetune."),
    ] = "lvlm-va",
    model: Annotated[
        str | None,
        typer.Option(help="For knee and skin: small_resnet, resnet50, efficientnet_lite0.", metavar="NAME"),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Of resnet50 and efficientnet_lite0: imagenet, none, or a file.", metavar="NAME|FILE"
        ),
    ] = "imagenet",
    image_size: Annotated[
        int | None, typer.Option(help="For knee and skin: side in pixels.", metavar="N")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu or cuda; auto takes a GPU for convolutions.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Draws decoys, phantoms, weights, batches and baselines.")] = 0,
    n_align: Annotated[
        int | None,
        typer.Option(
            help="N, size of the alignment set. [1000; phantoms 300; real images 200; recorded: its cases]",
            metavar="N",
        ),
    ] = None,
    n_segments: Annotated[int, typer.Option(help="J, segments of an image.", metavar="J")] = 6,
    segmenter: Annotated[
        str, typer.Option(help="ppeps-wgm, or superpixels: felzenszwalb, slic, sam.")
    ] = "ppeps-wgm",
    segmenter_checkpoint: Annotated[str, typer.Option(help="SAM's weights.", metavar="FILE")] = "",
    feature_weight: Annotated[
        float, typer.Option(help="Above 0: a mixture over coordinates and colours.", metavar="X")
    ] = 0.0,
    penalty_weight: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            metavar="X",
            help="Weight of the penalty on the input gradient: for decoy-mnist of its mean over samples "
            "and pixels, inputs in 0-1 [2]; for knee and skin in nats, and chosen on the validation split.",
        ),
    ] = None,
    sampling: Annotated[str, typer.Option(help="Alignment samples by entropy: low, random, high.")] = "low",
    balanced: Annotated[bool, typer.Option(help="Equally many alignment samples of each class.")] = True,
    explain: Annotated[
        str, typer.Option(help="contrast: the class against its runner-up; logit: the class alone.")
    ] = "contrast",
    mask: options.Mask = "spurious",
    mask_near: options.MaskNear = None,
    keep_unjudged: Annotated[
        bool | None,
        typer.Option(
            "--keep-unjudged/--drop-unjudged",
            help="Samples in which nothing was judged spurious: keep for knee and skin, drop for decoy-mnist.",
        ),
    ] = None,
    train_epochs: Annotated[int | None, typer.Option(help="Epochs before alignment.", metavar="N")] = None,
    align_epochs: Annotated[int | None, typer.Option(help="Epochs of alignment.", metavar="N")] = None,
    evaluate_on: Annotated[
        str, typer.Option(help="test, or validation when settings are being chosen.")
    ] = "test",
    threads: Annotated[
        int,
        typer.Option(help="Threads that compute; results depend on it. For large networks.", metavar="N"),
    ] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train on a shortcut, let the critic find it, unlearn it, and measure.

    Writes results.json, masks.npz, critiques.jsonl, verdicts.jsonl and
    aligned.safetensors to the folder --out.  Example:

    lvlmva run decoy-mnist --seed 1 --out results/seed-1

    Or on knee phantoms, with another method than LVLM-VA:

    lvlmva run knee --method subg --out results/knee-subg

    With the answers of a real model that ship with the package, offline:

    lvlmva run knee --critic recorded --critic-model claude --out results/knee-claude

    With a model (see `lvlmva critic estimate` first; the key is OPENAI_API_KEY):

    lvlmva run decoy-mnist --critic openai --critic-model gpt-4o --max-cost 5 --out results/gpt-4o
    """
    # Late, so that `lvlmva --help` answers at once.
    from lvlmva_lite import methods, pipeline
    from lvlmva_lite.critic import providers
    from lvlmva_lite.critic.endpoint import server_name
    from lvlmva_lite.critic.reading import read_description
    from lvlmva_lite.run_folder import RunFolder

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
        config = pipeline.Config(
            dataset=dataset,
            data_root=data_root,
            method=method,
            model=model,
            weights=weights,
            image_size=image_size,
            device=device,
            critic=critic,
            critic_settings=settings,
            description=options.text_or_file(description),
            seed=seed,
            n_align=n_align,
            n_segments=n_segments,
            segmenter=segmenter,
            segmenter_checkpoint=segmenter_checkpoint,
            feature_weight=feature_weight,
            penalty_weight=penalty_weight,
            sampling=sampling,
            balanced=balanced,
            explain=explain,
            mask=mask,
            mask_near=mask_near,
            keep_unjudged=keep_unjudged,
            train_epochs=train_epochs,
            align_epochs=align_epochs,
            threads=threads,
            evaluate_on=evaluate_on,
        )
        providers.check(critic, settings, connection, config.source)
        folder = RunFolder(out, config)
    if critic == "openai":
        typer.echo(f"images and words go to {server_name(base_url)}; answers are kept in {store}", err=True)
    if critic == "lexicon":
        for line in read_description(config.expert_description).lines():
            typer.echo(f"I read: {line}", err=True)
    if config.recording and (told := config.recording.told_of_another_network(vars(config))):
        typer.echo(told, err=True)
    # Some settings can be held against the data only once these are there.
    with folder, options.bad_settings_told(), options.failures_told():
        result = (pipeline if dataset == "decoy-mnist" else methods).run(
            config,
            connection=connection,
            known_critiques=folder.known_critiques(),
            on_critique=folder.add_critique,
            progress=not quiet,
        )
        folder.finish(result)
    summary = result.summary()
    if critic != "lexicon" and summary["critic"]:
        typer.echo(f"critic: {summary['critic']}; judge: {summary['judge']}")
    if summary["n_undecided"]:
        typer.echo(
            f"undecided: {summary['n_undecided']} segments in {summary['n_cases_undecided']} "
            f"of {summary['n_cases']} cases"
        )
    if dataset == "decoy-mnist":
        typer.echo(pipeline.format_table(result.scores))
    else:
        typer.echo(methods.format_table(result))
    if summary["critic"] and not summary["n_cases_judged_spurious"]:
        typer.echo(
            f"nothing was judged spurious in any of {summary['n_cases']} cases: "
            "no mask taught the model anything; does the description dismiss what is in the images?"
        )
    typer.echo(f"results: {out / 'results.json'}")
    options.tell_unusable(result.verdicts)


@app.command()
def chapter(
    notebook: Annotated[Path, typer.Argument(help="A chapter, notebooks/NN_name.ipynb.")],
    out: Annotated[Path, typer.Option(help="Folder for the executed notebook, its numbers and figures.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter; may be repeated."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Execute a chapter with papermill and check its claims.

    With parameters set, the claims (which are about the defaults) are not
    checked.  Example:

    lvlmva chapter notebooks/00_lvlm_va_in_ten_minutes.ipynb -p seed=3 --out results/seed-3
    """
    import yaml

    from lvlmva_lite.experiments.chapters import ChapterError, run_chapter
    from lvlmva_lite.experiments.claims import contradicted, load_claims

    parameters = {}
    for setting in parameter or ():
        name, given, value = setting.partition("=")
        if not given:
            raise options.fail(f"-p takes NAME=VALUE, got {setting!r}", 2)
        parameters[name] = yaml.safe_load(value)
    try:
        values = run_chapter(notebook, parameters, out, progress=not quiet)
    except ChapterError as error:
        raise options.fail(error, 1) from None
    if "table" in values:
        typer.echo(values["table"])
    typer.echo(f"executed notebook: {out / notebook.name}")
    typer.echo(f"numbers: {out / notebook.with_suffix('.json').name}; figures: {out / 'figures'}")
    if not parameters and (lines := contradicted(load_claims(), notebook.stem, values)):
        raise options.fail("\n".join(["claims that no longer hold:", *lines]), 1)


def _leave(status: int) -> NoReturn:
    """End at once: all that is kept is on disk, and the interpreter's own end waits for calls under way."""
    atexit._run_exitfuncs()  # a chapter's kernel is ended by one of these
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Entry point: bad usage is answered in one line, with exit status 2."""
    try:
        status = app(sys.argv[1:] or ["--help"], prog_name="lvlmva", standalone_mode=False)
    except _Stopped as stopped:
        typer.echo(f"lvlmva: {stopped}; the same command takes it up again", err=True)
        _leave(130)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        # typer carries its own copy of click, so its usage errors are told by their shape.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "lvlmva"
        typer.echo(f"lvlmva: {error.format_message()} (`{command} --help` explains)", err=True)
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(status or 0)
