"""What calls cost, and a cap that stops before the call that would break it."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import yaml

from lvlmva_lite.critic.prompts import Message

TOKENS_PER_IMAGE = 2000
"""Assumed for a panel where the price list says nothing; generous for most servers."""

DISCOUNT = 0.5
"""What a batch costs, as a share of the price of single questions."""

_TOKENS_PER_MESSAGE = 16


class CapReached(RuntimeError):
    """The next call might break the cap, so it is not made."""


@dataclass(frozen=True)
class Price:
    """What a model charges.

    Attributes
    ----------
    input, output : US dollars per million tokens
    tokens_per_image : tokens that one panel counts for, at most
    """

    input: float
    output: float
    tokens_per_image: int = TOKENS_PER_IMAGE

    def __post_init__(self) -> None:
        for value in (self.input, self.output, self.tokens_per_image):
            if not 0 <= value < math.inf:
                raise ValueError(f"a price must be a number of at least 0, got {value}")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars for so many tokens in and out."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


def price_list() -> tuple[str, str, dict[str, Price]]:
    """Date and source of ``critic/prices.yml``, and its prices by model name."""
    file = resources.files("lvlmva_lite.critic").joinpath("prices.yml")
    listed = yaml.safe_load(file.read_text("utf-8"))
    prices = {model: Price(**price) for model, price in listed["models"].items()}
    return str(listed["date"]), listed["source"], prices


def price_of(model: str) -> Price | None:
    """The listed price of a model, or None."""
    return price_list()[2].get(model)


def prompt_tokens_at_most(messages: Sequence[Message], tokens_per_image: int) -> int:
    """Upper bound of what a prompt counts for: a token is at least one byte of text.

    About four times too high for English prose, which matters only for the
    calls under way: what an answer says it took replaces this bound.
    """
    total = 0
    for message in messages:
        total += _TOKENS_PER_MESSAGE
        parts = message["content"]
        if isinstance(parts, str):
            parts = [{"type": "text", "text": parts}]
        for part in parts:
            total += len(part["text"].encode()) if part["type"] == "text" else tokens_per_image
    return total


@dataclass(frozen=True)
class Reservation:
    """Tokens and dollars set aside for a call under way."""

    tokens: int
    dollars: float


class Budget:
    """Keeps the sum of what was spent and of what is under way below two caps.

    A call is let through only if it fits even when it turns out as large as
    it can.  Safe to use from several threads.

    Parameters
    ----------
    max_dollars, max_tokens : caps, None for none
    """

    def __init__(self, max_dollars: float | None = None, max_tokens: int | None = None) -> None:
        self.max_dollars, self.max_tokens = max_dollars, max_tokens
        self.spent_dollars, self.spent_tokens = 0.0, 0
        self._held_dollars, self._held_tokens = 0.0, 0
        self._changed = threading.Condition()

    def reserve(self, tokens: int, dollars: float, *, stop: threading.Event | None = None) -> Reservation:
        """Set aside the most that a call can take.

        Where it would fit but for calls under way, those are waited for: they
        mostly take less than was set aside for them.

        Parameters
        ----------
        tokens, dollars : the most that the call can take
        stop : ends the wait

        Raises
        ------
        CapReached : it might not fit; the message says which cap and how to go on
        """
        with self._changed:
            while True:
                self._require(self.spent_tokens + tokens, self.spent_dollars + dollars, tokens, dollars)
                if self.allows(tokens, dollars) or (stop is not None and stop.is_set()):
                    break
                self._changed.wait(0.2)
            self._held_dollars += dollars
            self._held_tokens += tokens
        return Reservation(tokens, dollars)

    def allows(self, tokens: int, dollars: float) -> bool:
        """Whether so much fits beside what is spent and set aside."""
        with self._changed:
            return (
                self.max_tokens is None or self.spent_tokens + self._held_tokens + tokens <= self.max_tokens
            ) and (
                self.max_dollars is None
                or self.spent_dollars + self._held_dollars + dollars <= self.max_dollars
            )

    def _require(self, all_tokens: int, all_dollars: float, tokens: int, dollars: float) -> None:
        if self.max_dollars is not None and all_dollars > self.max_dollars:
            raise CapReached(
                f"stopped before a call that might break --max-cost {self.max_dollars:g}: "
                f"{self.spent_dollars:.4f} USD spent, {dollars:.4f} the most it could cost; "
                "answers so far are kept, the same command with a higher cap goes on"
            )
        if self.max_tokens is not None and all_tokens > self.max_tokens:
            raise CapReached(
                f"stopped before a call that might break --max-tokens-total {self.max_tokens}: "
                f"{self.spent_tokens} tokens used, {tokens} the most it could use; "
                "answers so far are kept, the same command with a higher cap goes on"
            )

    def settle(self, reserved: Reservation, tokens: int | None, dollars: float | None) -> None:
        """Replace a reservation by what the call took; None: unknown, so all that was set aside."""
        with self._changed:
            self._held_dollars -= reserved.dollars
            self._held_tokens -= reserved.tokens
            self.spent_dollars += reserved.dollars if dollars is None else dollars
            self.spent_tokens += reserved.tokens if tokens is None else tokens
            self._changed.notify_all()
