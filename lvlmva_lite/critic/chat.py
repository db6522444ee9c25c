"""One question to an OpenAI-compatible server, until it is answered and on disk.

The ``openai`` package speaks the protocol; waiting and trying again is done
here and not by its ``max_retries``, for three reasons: every try that may be
billed has to fit under the cap, a body cut short is a fault to it only after
it has given up, and a server that asks for a wait of more than two minutes
deserves an answer in words.
"""

from __future__ import annotations

import email.utils
import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping

from lvlmva_lite.critic.budget import TOKENS_PER_IMAGE, Budget, Price, Reservation, prompt_tokens_at_most
from lvlmva_lite.critic.endpoint import OPENAI_URL, effective_url, is_loopback, server_name
from lvlmva_lite.critic.store import Answer, AnswerStore, Request

LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more is not waited for."""

_FORMATS = ("json_schema", "json_object", "none")
"""How a structured answer is asked for, the next one where a server rejects the last."""


class ServerError(RuntimeError):
    """The server cannot or will not answer; the message says what it said and what to do."""


class ChatClient:
    """Asks a server, and only what the store does not know yet.

    Parameters
    ----------
    store : where answers are kept
    base_url : address of the server, default that of the ``openai`` package
    prices : by model name; None: costs are not counted
    budget : caps on what is spent, default none
    schema : JSON schema for requests with the parameter "structured"
    timeout : seconds without a byte after which a try has failed
    tries : how often a request is sent before giving up
    sleep : how to wait so many seconds

    The key comes from the environment variable ``OPENAI_API_KEY`` and goes
    nowhere but to the server; a server on this machine needs none.
    """

    def __init__(
        self,
        store: AnswerStore,
        *,
        base_url: str | None = None,
        prices: Mapping[str, Price | None] | None = None,
        budget: Budget | None = None,
        schema: dict | None = None,
        timeout: float = 120.0,
        tries: int = 6,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import openai

        self.store, self.budget = store, budget or Budget()
        self.calls = 0
        self._openai = openai
        self._prices = prices or {}
        self._schema = schema
        self._tries, self._sleep = tries, sleep
        self._lock = threading.Lock()
        self._gates: dict[str, threading.Lock] = {}
        # What this server turned out to accept, and how far bounds fell short.
        self._format = 0
        url = effective_url(base_url)
        self._limit_name = "max_completion_tokens" if url == OPENAI_URL else "max_tokens"
        self._renamed = False
        self._scale: dict[str, float] = {}
        self._key = os.environ.get("OPENAI_API_KEY") or ("none" if is_loopback(url) else None)
        if self._key is None:
            raise ServerError("no key: set the environment variable OPENAI_API_KEY")
        self._server = server_name(base_url)
        # Images go to this server and nowhere else: no redirect is followed, and
        # what stays on this machine takes no proxy.
        http = openai.DefaultHttpxClient(
            follow_redirects=False, trust_env=not is_loopback(url), timeout=timeout
        )
        self._client = openai.OpenAI(
            api_key=self._key, base_url=url, max_retries=0, timeout=timeout, http_client=http
        )

    def ask(self, request: Request) -> Answer:
        """The answer to a request, from the store if it is there, else from the server.

        Raises
        ------
        ServerError : no answer after all tries, or the request was rejected
        CapReached : the call might break the cap; it was not made
        """
        with self._lock:
            gate = self._gates.setdefault(request.key, threading.Lock())
        with gate:  # two threads with the same question pay for one answer
            answer = self.store.get(request)
            if answer is None:
                answer = self._send(request)
                self.store.add(request, answer)
        return answer

    def _send(self, request: Request) -> Answer:
        tried, why = 0, ""
        while tried < self._tries:
            reserved = self._reserve(request)
            took: tuple[int | None, float | None] = (0, 0.0)
            pause: float | None = None
            body, sent_as = self._body(request), (self._format, self._limit_name)
            try:
                with self._lock:
                    self.calls += 1
                raw = self._client.chat.completions.with_raw_response.create(**body)
                answer = self._read(raw.http_response.text, request.model)
                took = self._count(request, reserved, answer)
                return answer
            except self._openai.APIStatusError as error:
                refusal = self._as_refusal(error)
                if refusal is not None:
                    return refusal
                if self._adapt(error, request, sent_as):
                    continue
                why = f"HTTP {error.status_code}"
                if not _worth_another_try(error):
                    raise ServerError(self._rejected(error)) from None
                pause = retry_after(error.response.headers)
            except (self._openai.APIConnectionError, _Unreadable) as error:
                # The server may have worked, and may charge for it.
                took = (None, None)
                why = self._plain(str(error.__cause__ or error) or type(error).__name__)
                self.store.add_failure(request, why)
            finally:
                self.budget.settle(reserved, *took)
            tried += 1
            if pause is not None and pause > LONGEST_WAIT:
                raise ServerError(
                    f"{self._server} asks to wait {pause:.0f} seconds; answers so far are kept, "
                    "run the same command again after that"
                )
            if tried < self._tries:
                self._sleep(
                    min(0.5 * 2 ** (tried - 1), 30) * random.uniform(0.75, 1) if pause is None else pause
                )
        raise ServerError(
            f"no answer from {self._server} in {tried} tries (last: {why}); "
            "answers so far are kept, the same command goes on from there"
        )

    def _body(self, request: Request) -> dict:
        parameters = request.parameters
        body = {"model": request.model, "messages": list(request.messages)}
        if "max_answer_tokens" in parameters:
            body[self._limit_name] = parameters["max_answer_tokens"]
        if "temperature" in parameters:
            body["temperature"] = parameters["temperature"]
        if "structured" in parameters and self._schema is not None:
            name = _FORMATS[self._format]
            if name == "json_schema":
                shape = {"name": parameters["structured"], "schema": self._schema, "strict": True}
                body["response_format"] = {"type": name, name: shape}
            elif name == "json_object":
                body["response_format"] = {"type": name}
        return body

    def _reserve(self, request: Request) -> Reservation:
        price = self._prices.get(request.model)
        per_image = price.tokens_per_image if price else TOKENS_PER_IMAGE
        prompt = prompt_tokens_at_most(request.messages, per_image)
        prompt = round(prompt * self._scale.get(request.kind, 1.0))
        answer = int(request.parameters.get("max_answer_tokens", 0))
        return self.budget.reserve(prompt + answer, price.of(prompt, answer) if price else 0.0)

    def _count(self, request: Request, reserved: Reservation, answer: Answer) -> tuple:
        """Tokens and dollars of an answer; a bound that proved too low is raised for what follows."""
        if answer.prompt_tokens is None or answer.completion_tokens is None:
            return None, None
        total = answer.prompt_tokens + answer.completion_tokens
        if total > reserved.tokens:
            with self._lock:
                scale = self._scale.get(request.kind, 1.0)
                self._scale[request.kind] = max(scale, 1.1 * scale * total / max(reserved.tokens, 1))
        return total, answer.cost or 0.0

    def _read(self, text: str, model: str) -> Answer:
        try:
            reply = json.loads(text)
            choice = reply["choices"][0]
            message = choice["message"]
            content = message.get("content") or ""
            if not isinstance(content, str):
                content = "".join(part.get("text", "") for part in content)
            usage = reply.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            counts = [count if isinstance(count, int) else None for count in counts]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _Unreadable("a reply cut short or of another form") from None
        price = self._prices.get(model)
        return Answer(
            text=self._without_key(content),
            refusal=self._without_key(str(message.get("refusal") or "")),
            finish_reason=str(choice.get("finish_reason") or ""),
            prompt_tokens=counts[0],
            completion_tokens=counts[1],
            cost=price.of(*counts) if price and None not in counts else None,
        )

    def _as_refusal(self, error) -> Answer | None:
        """The answer that a content filter's rejection stands for."""
        if error.status_code == 400 and error.code in ("content_filter", "content_policy_violation"):
            return Answer("", refusal=self._plain(_said(error)), finish_reason="content_filter")
        return None

    def _adapt(self, error, request: Request, sent_as: tuple[int, str]) -> bool:
        """Whether a rejected request can be put in a way that this server understands."""
        if error.status_code not in (400, 404, 415, 422, 501):
            return False
        said = _said(error).lower()
        with self._lock:
            if (self._format, self._limit_name) != sent_as:
                return True  # another thread has just found out
            if ("max_tokens" in said or "max_completion_tokens" in said) and not self._renamed:
                self._renamed = True
                self._limit_name = (
                    "max_tokens" if self._limit_name == "max_completion_tokens" else "max_completion_tokens"
                )
                return True
            if (
                "structured" in request.parameters
                and error.status_code != 404
                and self._format + 1 < len(_FORMATS)
            ):
                self._format += 1
                return True
        return False

    def _rejected(self, error) -> str:
        advice = {
            307: "give --base-url its new address",
            308: "give --base-url its new address",
            401: "check OPENAI_API_KEY",
            403: "check what this key may do",
            404: "check the model's name and --base-url",
            429: "check the account's quota",
        }.get(error.status_code, "answers so far are kept")
        return f"{self._server} rejects the request (HTTP {error.status_code}: {self._plain(_said(error))}); {advice}"

    def _plain(self, text: str) -> str:
        return self._without_key(" ".join(text.split()))[:300]

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key != "none" else text


class _Unreadable(Exception):
    """A reply that is no chat completion."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply's headers ask to wait (number or HTTP date), None if they do not say."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(date.timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None


def _said(error) -> str:
    """The server's own words in a rejection, whichever of the usual forms its body has.

    The ``openai`` package finds them in OpenAI's form alone.
    """
    said = error.body
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(name):
            said = said[name]
    return said if isinstance(said, str) else json.dumps(said)


def _worth_another_try(error) -> bool:
    if error.code == "insufficient_quota":
        return False
    return error.status_code in (408, 409, 429) or error.status_code >= 500
