"""Which critic and which judge, made from settings that are checked before any work."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from lvlmva_lite.critic.budget import Budget, Price, price_of
from lvlmva_lite.critic.endpoint import (
    SettingsError,
    api_key,
    certificates,
    effective_url,
    http_client,
    require_consent,
    server_id,
)
from lvlmva_lite.critic.lexicon import LexiconCritic
from lvlmva_lite.critic.recordings import DEFAULT_PROMPT, RecordedCritic, Recording
from lvlmva_lite.critic.simulated import SimulatedCritic
from lvlmva_lite.critic.store import AnswerStore, StoreError
from lvlmva_lite.critic.text_judge import TextJudge
from lvlmva_lite.critic.types import Critic, Judge

ENTRY_POINT = "lvlmva_lite.critics"
"""Group of entry points by which other packages bring critics of their own."""

_OWN = ("lexicon", "openai", "recorded", "replay", "simulated")
_registered: dict[str, Callable[[CriticSettings], Critic | tuple[Critic, Judge]]] = {}


def register(name: str, factory: Callable[[CriticSettings], Critic | tuple[Critic, Judge]]) -> None:
    """Make a critic known by a name, as an entry point of the group ``ENTRY_POINT`` does.

    Parameters
    ----------
    name : for ``--critic`` and ``Config.critic``
    factory : given the settings, returns a critic, whose text the offline
        judge reads, or a critic and its judge

    Raises
    ------
    ValueError : the name is taken
    """
    if name in names():
        raise ValueError(f"there is a critic {name!r} already")
    _registered[name] = factory


def names() -> tuple[str, ...]:
    """Every critic there is: those of this package, registered ones and those of other packages."""
    return (*_OWN, *sorted({*_registered, *_entry_points()} - {*_OWN}))


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT)}


def _factory(name: str) -> Callable[[CriticSettings], Critic | tuple[Critic, Judge]]:
    """The factory of a critic that is not of this package."""
    if name in _registered:
        return _registered[name]
    point = _entry_points().get(name)
    if point is None:
        raise SettingsError(f"unknown critic {name!r}; choose one of: {', '.join(names())}")
    try:
        return point.load()
    except Exception as error:
        raise SettingsError(f"the critic {name!r} ({point.value}) cannot be loaded: {error}") from error


@dataclass(frozen=True)
class CriticSettings:
    """What decides the answers of a critic and its judge; part of a run's configuration.

    Attributes
    ----------
    model, judge_model : for openai and replay; the judge's defaults to the critic's
    samples : k >= 1 answers of the critic to each case, whose verdicts vote
    temperature : in [0, 2], or None for the server's own default
    max_answer_tokens : >= 1, after which an answer is cut
    simulated_accuracy : q in [0, 1], for the simulated critic
    reasoning_effort : "low", "medium", ... for models that reason; empty: the server's own
    extra_body : a JSON object, as text, of further fields of each request; empty: none
    prompt : version of the critic's prompt, for recorded; empty: critic-2
    """

    model: str = ""
    judge_model: str = ""
    samples: int = 1
    temperature: float | None = None
    max_answer_tokens: int = 2048
    simulated_accuracy: float = 0.9
    reasoning_effort: str = ""
    extra_body: str = ""
    prompt: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 99:
            raise SettingsError(f"--samples must lie between 1 and 99, got {self.samples}")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise SettingsError(f"--temperature must lie between 0 and 2, got {self.temperature}")
        if self.max_answer_tokens < 1:
            raise SettingsError(f"--max-answer-tokens must be at least 1, got {self.max_answer_tokens}")
        if not 0 <= self.simulated_accuracy <= 1:
            raise SettingsError(
                f"--simulated-accuracy must lie between 0 and 1, got {self.simulated_accuracy}"
            )
        if self.extra_body:
            try:
                fields = json.loads(self.extra_body)
            except ValueError:
                fields = None
            if not isinstance(fields, dict):
                raise SettingsError(
                    f"--extra-body must be a JSON object such as '{{\"top_k\": 1}}', got {self.extra_body!r}"
                )
            if taken := {"messages", "model", "stream", "n", "response_format"} & set(fields):
                raise SettingsError(f"--extra-body may not set {', '.join(sorted(taken))}")


@dataclass(frozen=True)
class Connection:
    """How to reach a model and what that may cost; changes no answer, and is written nowhere.

    Attributes
    ----------
    store : folder of recorded answers
    base_url : the server's address, None for OpenAI's
    max_cost : cap on what this command spends, in US dollars, None for none
    max_tokens_total : the same in tokens, in and out
    max_concurrency : requests at a time, 1 .. 256
    price : US dollars per million tokens (in, out), for models the list does not know
    no_cost : costs are not counted
    timeout : seconds without a byte after which a try has failed; five times that in all
    i_may_send_these_images : real images may go to a server on another machine
    batch : ask by the server's batch endpoint: half the price, an answer within a day
    """

    store: Path = Path("answers")
    base_url: str | None = None
    max_cost: float | None = None
    max_tokens_total: int | None = None
    max_concurrency: int = 4
    price: tuple[float, float] | None = None
    no_cost: bool = False
    timeout: float = 120.0
    i_may_send_these_images: bool = False
    batch: bool = False

    def __post_init__(self) -> None:
        for value, name in (
            (self.max_cost, "--max-cost"),
            (self.max_tokens_total, "--max-tokens-total"),
            (self.timeout, "--timeout"),
        ):
            if value is not None and not 0 < value < math.inf:
                raise SettingsError(f"{name} must be above 0, got {value}")
        if not 1 <= self.max_concurrency <= 256:
            raise SettingsError(f"--max-concurrency must lie between 1 and 256, got {self.max_concurrency}")
        if self.no_cost and (self.max_cost is not None or self.price is not None):
            raise SettingsError("--no-cost counts no money: leave out --max-cost and --price, or --no-cost")
        if self.price is not None and not all(0 <= amount < math.inf for amount in self.price):
            raise SettingsError(f"--price must be two numbers of at least 0, got {self.price}")


def prices(settings: CriticSettings, connection: Connection) -> dict[str, Price | None]:
    """The price of each model in play; None where costs are not counted.

    Raises
    ------
    SettingsError : a model has no known price and none was given
    """
    found: dict[str, Price | None] = {}
    for model in (settings.model, settings.judge_model or settings.model):
        listed = price_of(model)
        if connection.no_cost:
            found[model] = None
        elif connection.price is not None:
            found[model] = Price(*connection.price, **_image_tokens(listed))
        elif listed is not None:
            found[model] = listed
        else:
            raise SettingsError(
                f"no price is known for model {model!r}: give --price IN,OUT in US dollars per "
                "million tokens, or --no-cost"
            )
    return found


def check(name: str, settings: CriticSettings, connection: Connection, dataset: str) -> None:
    """Refuse what cannot work, or may not be done, before any work.

    Raises
    ------
    SettingsError : unknown provider, no model, no key, no price, no consent,
        nothing recorded to replay, or a package is missing
    """
    if name not in names():
        raise SettingsError(f"unknown critic {name!r}; choose one of: {', '.join(names())}")
    if name in ("openai", "replay", "recorded"):
        if not settings.model:
            raise SettingsError(f"--critic {name} needs --critic-model NAME")
        for package in {"openai": ("openai", "pydantic"), "replay": ("pydantic",)}.get(name, ()):
            if importlib.util.find_spec(package) is None:
                raise SettingsError(
                    f"--critic {name} needs the package {package}: pip install 'lvlmva-lite[openai]'"
                )
    elif name not in _OWN:
        _factory(name)
    elif settings.samples > 1:
        raise SettingsError(f"--samples is for models; the {name} critic always says the same")
    if connection.batch and name != "openai":
        raise SettingsError(f"--batch is for --critic openai, not for {name}")
    if name == "openai":
        url = effective_url(connection.base_url)
        prices(settings, connection)
        require_consent(dataset, url, connection.i_may_send_these_images)
        api_key(url)
        certificates()
        http_client(url, connection.timeout).close()
    if name in ("openai", "replay"):
        try:
            AnswerStore(connection.store, read_only=name == "replay").close()
        except StoreError as error:
            raise SettingsError(f"--store: {error}") from error


def make(
    name: str,
    settings: CriticSettings | None = None,
    connection: Connection | None = None,
    *,
    truth: Mapping[str, Sequence[int]] | None = None,
    recording: Recording | None = None,
    seed: int = 0,
    examples: list[dict] | None = None,
) -> tuple[Critic, Judge]:
    """The critic and the judge that ``name`` stands for.

    Parameters
    ----------
    name : one of :func:`names`
    settings, connection : as their classes say
    truth : ground truth by case id; for the simulated critic, and only there
    recording : cases and answers, for the recorded critic
    seed : of the simulated critic's errors
    examples : of the judge, default those that ship

    Raises
    ------
    SettingsError : see :func:`check`
    """
    settings, connection = settings or CriticSettings(), connection or Connection()
    if name == "lexicon":
        return LexiconCritic(), TextJudge(examples)
    if name == "recorded":
        if recording is None:
            raise SettingsError("the recorded critic needs its recording")
        prompt = settings.prompt or DEFAULT_PROMPT
        return RecordedCritic(recording, settings.model, prompt), TextJudge(examples)
    if name == "simulated":
        if truth is None:
            raise SettingsError("the simulated critic needs the ground truth")
        return SimulatedCritic(truth, settings.simulated_accuracy, seed), TextJudge(examples)

    if name not in _OWN:
        made = _factory(name)(settings)
        return made if isinstance(made, tuple) else (made, TextJudge(examples))

    from lvlmva_lite.critic.openai_critic import AnswerSettings, OpenAICritic, OpenAIJudge, VerdictList

    more: dict[str, object] = {"provider": name}
    if name == "replay":
        server = server_id(connection.base_url) if connection.base_url else None
        ask = partial(AnswerStore(connection.store, read_only=True).replay, server=server)
    else:
        from lvlmva_lite.critic.batches import BatchClient

        client = BatchClient(
            AnswerStore(connection.store),
            base_url=connection.base_url,
            prices=prices(settings, connection),
            budget=Budget(connection.max_cost, connection.max_tokens_total),
            schema=VerdictList.model_json_schema(),
            timeout=connection.timeout,
        )
        ask, server = client.ask, client.server_id
        more |= {"concurrency": connection.max_concurrency, "interrupt": client.interrupt}
        if connection.batch:
            more["ask_ahead"] = client.ask_ahead
    answers = AnswerSettings(
        settings.samples,
        settings.temperature,
        settings.max_answer_tokens,
        settings.reasoning_effort,
        settings.extra_body,
    )
    critic = OpenAICritic(settings.model, ask, settings=answers, server=server or "", **more)
    judge = OpenAIJudge(
        settings.judge_model or settings.model, ask, settings=answers, examples=examples, **more
    )
    return critic, judge


def _image_tokens(listed: Price | None) -> dict[str, int]:
    return {} if listed is None else {"tokens_per_image": listed.tokens_per_image}
