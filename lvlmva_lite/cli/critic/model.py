"""``lvlmva critic estimate`` and ``check``: what a model costs, and whether it sees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvlmva_lite.cli import options

if TYPE_CHECKING:
    from lvlmva_lite.critic import Case
    from lvlmva_lite.critic.budget import Price
    from lvlmva_lite.critic.estimate import Estimate
    from lvlmva_lite.critic.openai_critic import AnswerSettings


def estimate(
    critic_model: options.CriticModel,
    dataset: Annotated[
        str, typer.Argument(help="Whose cases: decoy-mnist, knee, skin, folder, ...", metavar="TASK")
    ] = "decoy-mnist",
    n_cases: options.NCases = 1000,
    judge_model: options.JudgeModel = "",
    samples: options.Samples = 1,
    max_answer_tokens: options.MaxAnswerTokens = 2048,
    price: options.PriceInOut = None,
    no_cost: options.NoCost = False,
    **settings_of_the_run: Any,
) -> None:
    """Say what asking a model about N cases would take; sends nothing.  Example:

    lvlmva critic estimate knee --critic-model gpt-4o --n 1000
    """
    from lvlmva_lite.critic.budget import price_list
    from lvlmva_lite.critic.estimate import estimate as estimated
    from lvlmva_lite.critic.openai_critic import AnswerSettings
    from lvlmva_lite.critic.providers import Connection, CriticSettings, prices

    with options.bad_settings_told():
        settings = CriticSettings(
            critic_model, judge_model, samples=samples, max_answer_tokens=max_answer_tokens
        )
        found = prices(settings, Connection(price=options.parse_price(price), no_cost=no_cost))
        task = options.task_of(dataset, settings_of_the_run)
        settings_of_the_run["description"] = options.text_or_file(settings_of_the_run["description"])
        config = task.config(**settings_of_the_run, n_align=n_cases, critic="replay")
    side = task.options().get("image_size", 28) or 64
    case = _blank_case(config.n_segments, config.description, side)
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
