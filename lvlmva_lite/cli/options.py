"""What the commands share: options that follow from declarations, and how errors are told."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import Field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvlmva_lite.cli.idle import refuse_idle_of_critic
from lvlmva_lite.registry import RegistryError

if TYPE_CHECKING:
    from lvlmva_lite.critic import Critique, Verdict
    from lvlmva_lite.critic.providers import Connection, CriticSettings
    from lvlmva_lite.tasks import Task

DEFAULT_STORE = Path("answers")

CriticModel = Annotated[
    str, typer.Option(metavar="NAME", help="The model that looks; for openai, recorded and replay.")
]
CriticPrompt = Annotated[
    str,
    typer.Option(
        metavar="VERSION", help="For recorded: of the prompt answered, critic-1 or critic-2. [critic-2]"
    ),
]
JudgeModel = Annotated[
    str, typer.Option(metavar="NAME", help="The model that rules; default: the critic's model.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="An OpenAI-compatible server; default: OpenAI's. The key is OPENAI_API_KEY."
    ),
]
Store = Annotated[Path, typer.Option(metavar="DIR", help="Folder that keeps every answer of a model.")]
MaxCost = Annotated[
    float | None,
    typer.Option(metavar="USD", help="Stop before the call by which this command might spend more."),
]
MaxTokensTotal = Annotated[
    int | None, typer.Option(metavar="N", help="Stop before the call that might pass so many tokens.")
]
MaxConcurrency = Annotated[int, typer.Option(metavar="N", help="Requests at a time.")]
PriceInOut = Annotated[
    str | None,
    typer.Option(metavar="IN,OUT", help="US dollars per million tokens, where the price list has none."),
]
NoCost = Annotated[bool, typer.Option("--no-cost", help="Count no money (a server of your own).")]
Timeout = Annotated[
    float,
    typer.Option(
        metavar="S", help="Seconds of silence after which a try has failed; five times that in all."
    ),
]
Samples = Annotated[
    int, typer.Option(metavar="K", help="Answers to each case; the share that agrees is the confidence.")
]
Temperature = Annotated[
    float | None, typer.Option(metavar="T", help="Of the model; default: the server's own.")
]
MaxAnswerTokens = Annotated[
    int,
    typer.Option(metavar="N", help="Tokens after which an answer is cut; grows fourfold once if spent."),
]
ReasoningEffort = Annotated[
    str,
    typer.Option(metavar="LEVEL", help="For models that reason: low, medium, ...; default: the server's."),
]
ExtraBody = Annotated[
    str,
    typer.Option(metavar="JSON", help="An object of further fields of each request that the server knows."),
]
Consent = Annotated[
    bool,
    typer.Option(
        "--i-may-send-these-images", help="Real images may leave this machine and go to the server."
    ),
]
Batch = Annotated[
    bool,
    typer.Option("--batch", help="Ask by the server's batch endpoint: half the price, within a day."),
]
SimulatedAccuracy = Annotated[
    float, typer.Option(metavar="Q", help="How often the simulated critic is right, 0 to 1.")
]

NCases = Annotated[int, typer.Option("--n", help="Cases of the run's alignment set.", metavar="N")]
Shipped = Annotated[
    bool, typer.Option("--shipped", help="The answers of a real model that ship with the package.")
]
Dataset = Annotated[
    str,
    typer.Argument(help="The task: decoy-mnist, knee, skin, or one of another package.", metavar="TASK"),
]
Out = Annotated[Path, typer.Option(help="Folder for the results; new, or of this very run interrupted.")]
MAX_LOSS, MAX_CLASS_LOSS = 0.1, 0.3
"""What alignment may cost where nobody says otherwise."""

_SHARE = {"min": 0, "max": 1, "metavar": "X"}
MaxLoss = Annotated[
    float | None,
    typer.Option(
        help="What alignment may cost of the accuracy on the validation split, averaged over groups, or over "
        "classes where no groups are known; if it costs more, all numbers are written, and no aligned weights.",
        show_default=str(MAX_LOSS), **_SHARE,
    ),
]  # fmt: skip
MaxClassLoss = Annotated[
    float | None,
    typer.Option(
        help="The same of any one class, which the average may hide.",
        show_default=str(MAX_CLASS_LOSS), **_SHARE,
    ),
]  # fmt: skip
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]

CRITIC = {
    "critic_model": (CriticModel, ""),
    "critic_prompt": (CriticPrompt, ""),
    "judge_model": (JudgeModel, ""),
    "base_url": (BaseUrl, None),
    "store": (Store, DEFAULT_STORE),
    "max_cost": (MaxCost, None),
    "max_tokens_total": (MaxTokensTotal, None),
    "max_concurrency": (MaxConcurrency, 4),
    "price": (PriceInOut, None),
    "no_cost": (NoCost, False),
    "timeout": (Timeout, 120.0),
    "samples": (Samples, 1),
    "temperature": (Temperature, None),
    "max_answer_tokens": (MaxAnswerTokens, 2048),
    "reasoning_effort": (ReasoningEffort, ""),
    "extra_body": (ExtraBody, ""),
    "i_may_send_these_images": (Consent, False),
    "batch": (Batch, False),
    "simulated_accuracy": (SimulatedAccuracy, 0.9),
}
"""Options of a command that asks a critic: name -> type and default."""


def option_of(
    declared: Field, usual: Mapping[str, Any] = MappingProxyType({}), *, list_choices: bool = False
) -> tuple[Any, Any]:
    """Type and default of the option that a setting declares; None: not given.

    Parameters
    ----------
    declared : made by :func:`config.setting`
    usual : what a task has in place of the declared default, which is for the help alone
    list_choices : name all choices, also those that other packages registered
    """
    about = declared.metadata
    name = "--" + (about["option"] or declared.name).replace("_", "-")
    kind = str if declared.default is None else type(declared.default)
    if kind is bool:
        name += "/" + (about["off"] or f"--no-{name[2:]}")
    choices, help = about["choices"], about["help"].rstrip(".")
    if not isinstance(choices, tuple):
        choices = getattr(choices, "names", choices)() if list_choices else ()
    if choices:
        help += f": {', '.join(choices)}" if ":" not in help else ""
    default = usual.get(declared.name, declared.default)
    if default not in (None, "") and kind is not bool:
        help += f". [{default}]"
    made = typer.Option(name, help=help, metavar=about["metavar"])
    return Annotated[kind | None, made], None


def with_options(
    command: Callable[..., None], options: Mapping[str, tuple[Any, Any]]
) -> Callable[..., None]:
    """Give a command, in place of its ``**settings``, an option for each name."""
    signature = inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    parameters = [one.replace(kind=one.KEYWORD_ONLY) for one in own] + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
        if name not in signature.parameters
    ]

    def made(**given: Any) -> None:
        command(**given)

    made.__name__, made.__doc__ = command.__name__, command.__doc__
    made.__signature__ = signature.replace(parameters=parameters)
    made.__annotations__ = {one.name: one.annotation for one in parameters}
    return made


def of_config(
    *names: str, arguments: Sequence[str], list_choices: bool = False
) -> dict[str, tuple[Any, Any]]:
    """Options for fields of ``Config``; without names, for all of them."""
    from lvlmva_lite.config import Config

    task = _named(arguments)
    usual = {} if task is None else task().defaults
    return {
        one.name: option_of(one, usual, list_choices=list_choices)
        for one in fields(Config)
        if one.metadata and (not names or one.name in names)
    }


def of_tasks(arguments: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Options of the task that is named among a command's arguments, or of all where none is."""
    from lvlmva_lite import tasks

    task = _named(arguments)
    options: dict[str, tuple[Any, Any]] = {}
    for name in tasks.names() if task is None else ():
        with suppress(RegistryError):  # a package that cannot be loaded, of a task that nobody asks for
            options = {one.name: option_of(one) for one in tasks.options_of(tasks.get(name))} | options
    return options if task is None else {one.name: option_of(one) for one in tasks.options_of(task)}


def _named(arguments: Sequence[str]) -> type[Task] | None:
    """The task that is named among a command's arguments."""
    from lvlmva_lite import tasks

    there = tasks.names()
    for word in arguments:
        if word in there:
            with suppress(RegistryError):  # told when the command is run
                return tasks.get(word)
    return None


def task_of(name: str, settings: dict[str, Any]) -> Task:
    """The task, made with its own options, which are taken out of ``settings``.

    Raises
    ------
    RegistryError, ConfigError : there is none of this name, or an option cannot work
    """
    from lvlmva_lite import tasks
    from lvlmva_lite.config import Config, ConfigError

    kind = tasks.get(name)
    own = {one.name for one in tasks.options_of(kind)}
    of_the_method = {one.name for one in fields(Config)}
    given = {key: settings.pop(key) for key in [*settings] if key not in of_the_method}
    given = {key: value for key, value in given.items() if value is not None}
    if strange := given.keys() - own:
        raise ConfigError(f"{name} has no option {', '.join(sorted(strange))}; leave it out")
    return kind(**given)


def critic_of(settings: dict[str, Any]) -> tuple[CriticSettings, Connection]:
    """What the options of ``CRITIC`` amount to; they are taken out of ``settings``.

    Raises
    ------
    SettingsError : a value that cannot work, or does nothing with the critic chosen
    """
    from lvlmva_lite.critic.providers import Connection, CriticSettings

    if "critic" in settings:
        usual = {name: default for name, (_, default) in CRITIC.items()}
        refuse_idle_of_critic(settings["critic"] or "lexicon", settings, usual)
    given = {name: settings.pop(name) for name in CRITIC}
    given |= {"model": given.pop("critic_model"), "prompt": given.pop("critic_prompt")}
    of_answers = {one.name for one in fields(CriticSettings)}
    answers = CriticSettings(**{name: value for name, value in given.items() if name in of_answers})
    rest = {name: value for name, value in given.items() if name not in of_answers}
    return answers, Connection(**rest | {"price": parse_price(rest["price"])})


def parse_price(text: str | None) -> tuple[float, float] | None:
    """The two numbers of --price.

    Raises
    ------
    SettingsError : not two numbers with a comma between them
    """
    if text is None:
        return None
    from lvlmva_lite.critic.endpoint import SettingsError

    try:
        amount_in, amount_out = map(float, text.split(","))
    except ValueError:
        raise SettingsError(f"--price must be IN,OUT such as 2.5,10, got {text!r}") from None
    return amount_in, amount_out


def fail(message: object, status: int) -> typer.Exit:
    """Say what is wrong in one line; raise what this returns."""
    typer.echo(f"lvlmva: {message}", err=True)
    return typer.Exit(status)


@contextmanager
def bad_settings_told() -> Iterator[None]:
    """Settings that cannot work end the command with one line and exit status 2."""
    from lvlmva_lite.config import ConfigError
    from lvlmva_lite.critic.endpoint import SettingsError
    from lvlmva_lite.critic.store import StoreError

    try:
        yield
    except (ConfigError, RegistryError, SettingsError, StoreError) as error:
        raise fail(error, 2) from None


@contextmanager
def failures_told() -> Iterator[None]:
    """What goes wrong on the way ends the command with one line and exit status 1."""
    from urllib.error import URLError

    from lvlmva_lite.completeness import CompletenessError
    from lvlmva_lite.critic.batch import NothingUsable
    from lvlmva_lite.critic.budget import CapReached
    from lvlmva_lite.critic.endpoint import SettingsError
    from lvlmva_lite.critic.failures import ServerError
    from lvlmva_lite.critic.store import StoreError
    from lvlmva_lite.datasets.mnist import DataFileError
    from lvlmva_lite.models import NetworkError
    from lvlmva_lite.pretrained_weights import no_download

    try:
        yield
    except (
        CapReached, CompletenessError, DataFileError, NetworkError, NothingUsable, ServerError, SettingsError,
        StoreError,
    ) as error:  # fmt: skip
        raise fail(error, 1) from None
    except URLError as error:  # all that is fetched by an address of its own
        raise fail(no_download(error), 1) from None


def tell_unusable(said: Sequence[Critique | Verdict]) -> None:
    """Say how many cases have no usable answer, and why.

    Raises
    ------
    typer.Exit : with status 1, where the server failed and may answer next time
    """
    from lvlmva_lite.critic.batch import unusable_counts

    counts = unusable_counts(said)
    if not counts:
        return
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    typer.echo(
        f"no usable answer in {sum(counts.values())} of {len(said)} cases ({told}); they are undecided"
    )
    if "failed" in counts:
        words = next(one.reason for one in said if one.reason.startswith("failed"))
        raise fail(
            f"{counts['failed']} cases were set aside ({words.partition(': ')[2]}); "
            "the same command with a new --out asks for these alone",
            1,
        )


def text_or_file(text: str | None) -> str | None:
    """The text itself, or the contents of the file that it names; None stays None.

    Raises
    ------
    ConfigError : it looks like a file that cannot be read
    """
    from lvlmva_lite.config import ConfigError

    if text is None:
        return None
    path = Path(text)
    looks_like_a_file = text and " " not in text.strip() and path.suffix
    try:
        if looks_like_a_file or (text and len(text) < 256 and path.exists()):
            return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the description file {text} ({error}); give a text file") from error
    return text


def make_folder(path: Path) -> None:
    """Make a folder for results, before any work.

    Raises
    ------
    ConfigError : it cannot be made
    """
    from lvlmva_lite.config import ConfigError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot use {path} as --out: {error}") from error
