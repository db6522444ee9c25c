"""Requests and replies in the form of OpenAI's chat completions, as far as a server turns out to know it."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping

from lvlmva_lite.critic.answers import Answer, Request
from lvlmva_lite.critic.budget import Price
from lvlmva_lite.critic.failures import (
    NO_SUCH_PAGE,
    FailedTry,
    FailureReader,
    code_in,
    parsed,
    status_of,
)

GROWTH = 4
"""By how much the limit of an answer grows, once, when a model has spent it before it was done."""

_FORMATS = ("json_schema", "json_object", "none")
"""How a structured answer is asked for, the next one where a server rejects the last."""

_OF_FORMAT = re.compile(r"response_format|json_schema|json_object|structured|guided|grammar")


class Completions:
    """Writes requests and reads replies.

    Parameters
    ----------
    failures : says what an error within a reply means
    limit_name : of the field that limits an answer; the other name is taken
        where the server says that it knows no such field
    schema : JSON schema for requests with the parameter "structured"
    prices : by model name
    """

    def __init__(
        self,
        failures: FailureReader,
        limit_name: str = "max_tokens",
        schema: dict | None = None,
        prices: Mapping[str, Price | None] | None = None,
    ) -> None:
        self._failures, self._schema, self._prices = failures, schema, prices or {}
        self._lock = threading.Lock()
        # What this server turned out to accept.
        self._format, self._limit_name, self._renamed = 0, limit_name, False
        self._growth: dict[str, int] = {}

    @property
    def structured(self) -> str:
        """How the server takes the wish for JSON, as far as it has said: "json_schema", "json_object", "none"."""
        return _FORMATS[self._format]

    def form(self, at_least: int = 0) -> tuple[int, str]:
        """How a request is put now: place in ``_FORMATS`` and name of the limit."""
        with self._lock:
            return max(at_least, self._format), self._limit_name

    def grow(self, kind: str) -> None:
        """Give the answers to such requests more room from now on."""
        with self._lock:
            self._growth[kind] = GROWTH

    def body(self, request: Request, form: int = 0) -> dict:
        """A request as ``chat.completions`` takes it; ``form``: see ``_FORMATS``."""
        parameters = request.parameters
        body = {"model": request.model, "messages": list(request.messages)}
        if "max_answer_tokens" in parameters:
            body[self._limit_name] = self.limit(request)
        if "temperature" in parameters:
            body["temperature"] = parameters["temperature"]
        if "structured" in parameters and self._schema is not None:
            name = _FORMATS[form]
            if name == "json_schema":
                shape = {"name": parameters["structured"], "schema": self._schema, "strict": True}
                body["response_format"] = {"type": name, name: shape}
            elif name == "json_object":
                body["response_format"] = {"type": name}
        extra = dict(parameters.get("extra_body", {}))
        if "reasoning_effort" in parameters:
            extra["reasoning_effort"] = parameters["reasoning_effort"]
        return body | {"extra_body": extra} if extra else body

    def limit(self, request: Request) -> int:
        """Tokens after which the answer to a request is cut, as it is put now."""
        return int(request.parameters.get("max_answer_tokens", 0)) * self._growth.get(request.kind, 1)

    def read(self, text: str, model: str, share: float = 1.0) -> Answer:
        """The answer in a reply's body, at a share of the price.

        Raises
        ------
        FailedTry : it holds an error, or is no chat completion
        """
        reply = parsed(text)
        if isinstance(reply, dict) and reply.get("error"):
            failed = self._failures.of_status(status_of(code_in(reply)), reply, {})
            failed.billed = bool(reply.get("usage"))
            raise failed
        try:
            choice = reply["choices"][0]
            message = choice["message"]
            content = message.get("content") or ""
            if not isinstance(content, str):
                content = "".join(part.get("text") or "" for part in content)
            usage = reply.get("usage") or {}
            refusal = str(message.get("refusal") or "")
            finish_reason = str(choice.get("finish_reason") or "")
            reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
            prompt, completion, thought = _usage(usage)
        except (LookupError, TypeError, AttributeError):
            if isinstance(reply, str) and NO_SUCH_PAGE.search(reply):
                raise self._failures.of_status(200, reply, {}) from None
            head = " ".join(text.split())[:200]
            raise self._failures.failed(
                f"a reply cut short or of another form: {head}" if head else "an empty reply",
                of_case=True,
                advice="" if isinstance(reply, str) else "does --base-url end in /v1?",
            ) from None
        if choice.get("error") or finish_reason == "error":
            failed = self._failures.of_status(
                status_of(code_in(choice)), choice if choice.get("error") else "", {}
            )
            failed.words = failed.words or "the server broke off"
            failed.billed = True
            raise failed
        if (content or refusal or reasoning) and not (prompt or completion):
            prompt = completion = None  # something was said for nothing: it was not counted
        price = self._prices.get(model)
        counted = None not in (prompt, completion)
        return Answer(
            text=self._failures.without_key(content),
            refusal=self._failures.without_key(refusal),
            finish_reason=finish_reason,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost=share * price.of(prompt, completion) if price and counted else None,
            model=self._failures.without_key(str(reply.get("model") or "")),
            reasoning_tokens=max(thought, 1 if reasoning else 0),
        )

    def adapt(self, failed: FailedTry, request: Request, sent_as: tuple[int, str]) -> int | None:
        """In which form to ask again, where another one may be understood; None where none may.

        What the server says about a form holds for every later request; a
        rejection that does not speak of it changes the form for this one.
        """
        if failed.status not in (400, 404, 415, 422, 501):
            return None
        form, limit_name = sent_as
        said = f"{failed.words} {failed.code}".lower()
        with self._lock:
            if self._limit_name != limit_name or self._format > form:
                return self._format  # another thread has just found out
            if ("max_tokens" in said or "max_completion_tokens" in said) and not self._renamed:
                self._renamed = True
                self._limit_name = (
                    "max_tokens" if limit_name == "max_completion_tokens" else "max_completion_tokens"
                )
                return form
            last = form + 1 == len(_FORMATS)
            if (
                "structured" not in request.parameters
                or self._schema is None
                or failed.status == 404
                or last
            ):
                return None
            if "json_validate_failed" in said or "failed to generate" in said:
                return len(_FORMATS) - 1  # it knows the form; the model failed at it
            if _OF_FORMAT.search(said):
                self._format = form + 1
            return form + 1


def _usage(usage: Mapping[str, object]) -> tuple[int | None, int | None, int]:
    """Tokens in, out (reasoning included) and of reasoning alone; None where the server does not say."""

    def count(value: object) -> int | None:
        return int(value) if isinstance(value, int | float) and value >= 0 else None

    prompt, completion, total = (
        count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    details = usage.get("completion_tokens_details")
    thought = count(details.get("reasoning_tokens")) if isinstance(details, Mapping) else None
    if prompt is not None and completion is not None:
        if thought is not None and thought > completion:
            completion += thought  # counted beside the answer
        completion = max(completion, (total or 0) - prompt)
    return prompt, completion, thought or 0
