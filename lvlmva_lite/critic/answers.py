"""A question to a model, what came back, and why that cannot be used."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

from lvlmva_lite.critic.prompts import Message

_DATA_URL = "data:image/png;base64,"


class Unusable(NamedTuple):
    """Why an answer cannot be used.

    Attributes
    ----------
    kind : "refused", "empty", "reasoning" (nothing but reasoning), "cut",
        "malformed" or "blind" (the model says that it sees no image)
    words : for people and for the model that is asked again
    """

    kind: str
    words: str


@dataclass(frozen=True)
class Request:
    """One question to a model, in the terms that decide its answer.

    Attributes
    ----------
    kind : "critic" or "judge"
    model : str, the model's name as the server knows it
    prompt_version : str, versions of the templates that the messages are made of
    messages : list of chat messages, images as PNG data URLs
    parameters : dict of plain values that change the answer (temperature,
        number of the sample, ...)
    case_id : str, what it is about; not part of the key
    fault : says why an answer to this cannot be used, None if it can; not
        part of the key
    last : nobody asks again after an unusable answer; not part of the key
    """

    kind: str
    model: str
    prompt_version: str
    messages: Sequence[Message]
    parameters: Mapping[str, object] = field(default_factory=dict)
    case_id: str = ""
    fault: Callable[[Answer], Unusable | None] = field(default=lambda answer: answer.nothing, compare=False)
    last: bool = False

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) over model, prompt version, words, images' bytes and parameters."""
        words, _ = without_images(self.messages)
        return key_of(self.kind, self.model, self.prompt_version, words, dict(self.parameters))


@dataclass(frozen=True)
class Answer:
    """What came back.  Lone surrogates, which no file can hold, become U+FFFD.

    Attributes
    ----------
    text : str, as the model wrote it; empty if it wrote nothing
    refusal : str, the server's word for having refused, else empty
    finish_reason : str, "stop", "length", "content_filter", ...; empty if unknown
    prompt_tokens, completion_tokens : int or None where the server did not say;
        reasoning is part of the latter
    cost : US dollars, or None where no price is known
    source : "model", or who recorded it ("recorded by ...")
    date : str, day or time of the answer (ISO 8601, UTC)
    model : str, who the server says has answered; empty if it does not
    reasoning_tokens : int, at least so many of the completion's were reasoning
    """

    text: str
    refusal: str = ""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    source: str = "model"
    date: str = field(default_factory=lambda: now())
    model: str = ""
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("text", "refusal", "finish_reason", "model"):
            object.__setattr__(self, name, whole(getattr(self, name)))

    @property
    def said(self) -> str:
        """The text without the model's reasoning; see :func:`without_reasoning`."""
        return without_reasoning(self.text)[0]

    @property
    def nothing(self) -> Unusable | None:
        """Why there is nothing to read here; None if there is."""
        said, open_ended = without_reasoning(self.text)
        if self.refusal or self.finish_reason == "content_filter":
            return Unusable("refused", "it was refused")
        if open_ended:
            return Unusable("cut", "it was cut off while the model was still reasoning")
        if said.strip():
            return None
        if self.reasoning_tokens or self.text.strip():
            count = f"{self.reasoning_tokens} tokens" if self.reasoning_tokens > 1 else "its answer"
            return Unusable("reasoning", f"it spent {count} on reasoning and gave no answer")
        if self.finish_reason == "length":
            return Unusable("cut", "it was cut off before its first word")
        return Unusable("empty", "it is empty")


_REASONING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)
"""What opens and what closes a model's reasoning, where a server leaves it in the text."""


def without_reasoning(text: str) -> tuple[str, bool]:
    """What follows the last end of reasoning, and whether reasoning was begun and never ended.

    A template may have opened the reasoning, so that the text holds its end alone.
    """
    for opening, closing in _REASONING:
        text = text.rpartition(closing)[2]
        if opening in text:
            return "", True
    return text, False


def whole(text: str) -> str:
    """The text with U+FFFD in place of lone surrogates."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True)
class Recorded:
    """One line about a recorded answer.

    Attributes
    ----------
    cases : tuple of str, the cases it is about
    kind : "critic" or "judge"
    model : as it was asked for
    date : day or time of the answer
    unusable : why it cannot be used, a kind of :class:`Unusable`; empty if it can
    request, answer : dict, as :meth:`AnswerStore.records` has them
    """

    cases: tuple[str, ...]
    kind: str
    model: str
    date: str
    unusable: str
    request: dict
    answer: dict


def key_of(kind: str, model: str, prompt_version: str, words: list[Message], parameters: dict) -> str:
    """:attr:`Request.key`; ``words`` are the messages :func:`without_images`."""
    what = [kind, model, prompt_version, words, parameters]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def without_images(messages: Sequence[Message]) -> tuple[list[Message], dict[str, bytes]]:
    """The messages with each image's SHA-256 in its place, and the images by SHA-256."""
    images: dict[str, bytes] = {}

    def part_without(part: Message) -> Message:
        address = part.get("image_url", {}).get("url", "")
        if not address.startswith(_DATA_URL):
            return part
        png = base64.b64decode(address.removeprefix(_DATA_URL))
        sha256 = hashlib.sha256(png).hexdigest()
        images[sha256] = png
        return {"type": "image_sha256", "sha256": sha256}

    words = [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [part_without(part) for part in message["content"]]}
        for message in messages
    ]
    return words, images


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
