"""What the commands share: options for critics, and how errors are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lvlmva_lite.critic import Critique, Verdict

DEFAULT_STORE = Path("answers")

CriticModel = Annotated[
    str, typer.Option(metavar="NAME", help="The model that looks; for openai, recorded and replay.")
]
DataRoot = Annotated[
    str,
    typer.Option(
        help="Folder of real knees or skin lesions (`The data` in the book); default: phantoms.",
        metavar="DIR",
    ),
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

Mask = Annotated[
    str, typer.Option(metavar="KINDS", help="Segments that are masked: spurious, spurious+background.")
]
MaskNear = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Of these, only pixels near those of at least this share of the segment's peak evidence, 0 to 1; "
        "0: whole segments. [0; knee and skin 0.5]",
    ),
]


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
    except (ConfigError, SettingsError, StoreError) as error:
        raise fail(error, 2) from None


@contextmanager
def failures_told() -> Iterator[None]:
    """What goes wrong on the way ends the command with one line and exit status 1."""
    from lvlmva_lite.critic.batch import NothingUsable
    from lvlmva_lite.critic.budget import CapReached
    from lvlmva_lite.critic.endpoint import SettingsError
    from lvlmva_lite.critic.failures import ServerError
    from lvlmva_lite.critic.store import StoreError
    from lvlmva_lite.datasets.mnist import DataFileError

    try:
        yield
    except (CapReached, DataFileError, NothingUsable, ServerError, SettingsError, StoreError) as error:
        raise fail(error, 1) from None


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
