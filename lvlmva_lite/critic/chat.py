"""One question to an OpenAI-compatible server, until it is answered and on disk.

The ``openai`` package speaks the protocol; waiting and trying again is done
here and not by its ``max_retries``, for three reasons: every try that may be
billed has to fit under the cap, a body cut short is a fault to it only after
it has given up, and a server that asks for a wait of more than five minutes
deserves an answer in words.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from lvlmva_lite.critic.answers import Answer, Request
from lvlmva_lite.critic.budget import TOKENS_PER_IMAGE, Budget, Price, Reservation, prompt_tokens_at_most
from lvlmva_lite.critic.completions import GROWTH, Completions
from lvlmva_lite.critic.endpoint import (
    OPENAI_URL,
    api_key,
    effective_url,
    http_client,
    library_of,
    server_id,
    server_name,
)
from lvlmva_lite.critic.failures import FailedTry, FailureReader, Interrupted, ServerError, parsed
from lvlmva_lite.critic.store import AnswerStore

LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more is not waited for."""

ANNOUNCED_WAIT = 10.0
"""Seconds; a longer wait is announced."""

DEADLINE = 5
"""A try takes at most so many times the silence that is borne."""


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
    deadline : seconds after which a try has failed whatever comes, default ``DEADLINE * timeout``
    tries : how often a request is sent before giving up
    patience : seconds that a request waits in all for a server that is busy (429)
    sleep : how to wait so many seconds; default: until then or an interrupt
    clock : seconds, monotonic
    notify : takes one line for the user; default: to stderr

    The key comes from the environment variable ``OPENAI_API_KEY`` and goes
    nowhere but to the server; a server on this machine needs none.

    Raises
    ------
    SettingsError : no usable key, certificates or proxy
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
        deadline: float | None = None,
        tries: int = 6,
        patience: float = 600.0,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        notify: Callable[[str], object] | None = None,
    ) -> None:
        import openai

        self.store, self.budget = store, budget or Budget()
        self.calls = 0
        self._openai = openai
        self.prices = prices or {}
        self._deadline = deadline or DEADLINE * timeout
        self._tries, self._patience = tries, patience
        self._sleep, self._clock = sleep, clock
        self._notify = notify or (lambda line: tqdm.write(f"lvlmva: {line}", file=sys.stderr))
        self._lock = threading.Lock()
        self._gates: dict[str, list] = {}
        self._stop = threading.Event()
        self._not_before = 0.0
        self._told: set[str] = set()
        self._given_up: set[str] = set()
        # How far bounds fell short.
        self._scale: dict[str, float] = {}
        url = effective_url(base_url)
        key = api_key(url) or "none"
        self.server_id, self._server = server_id(base_url), server_name(base_url)
        http = http_client(url, timeout)
        self._http_library = library_of(http)
        self.api = openai.OpenAI(
            api_key=key, base_url=url, max_retries=0, timeout=timeout, http_client=http
        )
        self.failures = FailureReader(self._server, key, timeout, self._http_library)
        self.completions = Completions(
            self.failures, "max_completion_tokens" if url == OPENAI_URL else "max_tokens", schema, prices
        )

    def ask(self, request: Request) -> Answer:
        """The answer to a request, from the store if it is there, else from the server.

        Where another process is asking the very same, its answer is waited
        for.  What is returned is what the store holds.

        Raises
        ------
        ServerError : no answer after all tries, or the request was rejected
        CapReached : the call might break the cap; it was not made
        Interrupted : see :meth:`interrupt`
        StoreError : the store fails
        """
        stop = self._stop
        with self._gate(request.key):  # two threads with the same question pay for one answer
            while True:
                answer = self._held(request)
                if answer is None:
                    with self.store.locks.lock(request) as mine:
                        if mine and (answer := self._held(request)) is None:
                            answer = self._asked(request, stop)
                if answer is not None:
                    return answer
                self._pause(0.25, stop)

    def interrupt(self) -> None:
        """End the waits of all calls under way; they raise :class:`Interrupted`.  Later calls are free."""
        with self._lock:
            stop, self._stop = self._stop, threading.Event()
        stop.set()

    @contextmanager
    def _gate(self, key: str) -> Iterator[None]:
        with self._lock:
            gate = self._gates.setdefault(key, [threading.Lock(), 0])
            gate[1] += 1
        try:
            with gate[0]:
                yield
        finally:
            with self._lock:
                gate[1] -= 1
                if not gate[1]:
                    del self._gates[key]

    def _held(self, request: Request) -> Answer | None:
        """What the store holds, unless nothing was said and this run has not asked yet."""
        answer = self.store.get(request, self.server_id)
        if answer is None or request.key in self._given_up:
            return answer
        fault = request.fault(answer)
        closed = request.last or answer.finish_reason == "length"
        said_nothing = fault and (fault.kind == "cut" or (fault.kind in ("empty", "reasoning") and closed))
        return None if said_nothing else answer

    def _asked(self, request: Request, stop: threading.Event) -> Answer:
        used = self.completions.limit(request)
        answer = self._send(request, stop)
        fault = request.fault(answer)
        if fault and fault.kind in ("cut", "reasoning") and answer.finish_reason in ("length", ""):
            base = int(request.parameters.get("max_answer_tokens", 0))
            if used <= base:
                self.completions.grow(request.kind)
                self._tell_once(
                    f"grown {request.kind}",
                    f"the {request.kind} {request.model} did not finish within {used} tokens ({fault.words}); "
                    f"asking again with {GROWTH * base}; --max-answer-tokens sets this, "
                    "--reasoning-effort low shortens the reasoning",
                )
                self.store.add_failure(request, f"{fault.kind}: {fault.words}")
                answer = self._send(request, stop)
        if request.fault(answer):
            with self._lock:
                self._given_up.add(request.key)
        self._look_at_model(request.model, answer.model)
        return self.store.add(request, answer, self.server_id)

    def _send(self, request: Request, stop: threading.Event) -> Answer:
        tried, waited, form = 0, 0.0, 0
        while True:
            self._hold(stop)
            reserved = self._reserve(request, stop)
            took: tuple[int | None, float | None] = (None, None)
            form, limit_name = self.completions.form(form)
            try:
                if stop.is_set():
                    took = (0, 0.0)
                    raise Interrupted("interrupted")
                answer = self.completions.read(
                    self._call(self.completions.body(request, form)), request.model
                )
                took = self._count(request, reserved, answer)
                return answer
            except FailedTry as error:
                failed = error
                if not failed.billed:
                    took = (0, 0.0)
            finally:
                self.budget.settle(reserved, *took)
            if failed.billed:
                self.store.add_failure(request, failed.words)
            if failed.refusal:
                return Answer("", refusal=failed.words, finish_reason="content_filter")
            adapted = self.completions.adapt(failed, request, (form, limit_name))
            if adapted is not None:
                form = max(form, adapted)
                continue
            if failed.final:
                raise self.failures.rejected(failed)
            pause = failed.pause
            if pause is not None and pause > LONGEST_WAIT:
                raise ServerError(
                    f"{self._server} asks to wait {pause:.0f} seconds ({failed}); answers so far are kept, "
                    "run the same command again after that"
                )
            if failed.status == 429:
                # Busy, not broken: a quota of so much a minute is waited for.
                pause = self._backoff(tried) if pause is None else pause
                tried, waited = tried + 1, waited + pause
                if waited > self._patience:
                    raise ServerError(
                        f"{self._server} was busy for {self._patience:.0f} seconds ({failed}); answers so far "
                        "are kept, the same command goes on from there; a smaller --max-concurrency asks less"
                    )
                self._hold_all(pause, failed)
                continue
            tried += 1
            if tried >= self._tries:
                raise ServerError(
                    f"no answer from {self._server} in {tried} tries (last: {failed}); "
                    "answers so far are kept, the same command goes on from there",
                    of_case=True,
                )
            pause = self._backoff(tried - 1) if pause is None else pause
            if pause > ANNOUNCED_WAIT:
                self._notify(f"{self._server}: {failed}; trying again in {pause:.0f} seconds")
            self._pause(pause, stop)

    @staticmethod
    def _backoff(number: int) -> float:
        return min(0.5 * 2**number, 30) * random.uniform(0.75, 1)

    def _pause(self, seconds: float, stop: threading.Event) -> None:
        """Wait, or raise Interrupted."""
        if not stop.is_set():
            (self._sleep or stop.wait)(seconds)
        if stop.is_set():
            raise Interrupted("interrupted")

    def _hold_all(self, seconds: float, failed: FailedTry) -> None:
        """Let every worker wait that long before it sends again."""
        with self._lock:
            until = self._clock() + seconds
            longer = until - max(self._not_before, self._clock())
            self._not_before = max(self._not_before, until)
        if seconds > ANNOUNCED_WAIT and longer > 1:
            self._notify(f"{self._server} is busy ({failed}); waiting {seconds:.0f} seconds")

    def _hold(self, stop: threading.Event) -> None:
        while True:
            with self._lock:
                pause = self._not_before - self._clock()
            if pause <= 0:
                break
            self._pause(pause, stop)
        if stop.is_set():
            raise Interrupted("interrupted")

    def _call(self, body: dict) -> str:
        """The body of the server's reply to one try."""
        with self._lock:
            self.calls += 1
        begun, parts = time.monotonic(), []
        try:
            # As further fields the messages are sent as they are; else the package looks into every part
            # of them for fields to rename, which takes it longer than all the rest.
            more = {"messages": body["messages"], **(body.get("extra_body") or {})}
            with self.api.chat.completions.with_streaming_response.create(
                **{**body, "messages": [], "extra_body": more}
            ) as reply:
                for part in reply.iter_bytes():
                    parts.append(part)
                    if time.monotonic() - begun > self._deadline:
                        raise self.failures.failed(
                            f"no end after {self._deadline:g} seconds (--timeout gives more)"
                        )
            return b"".join(parts).decode("utf-8", "replace")
        except self._openai.APIStatusError as error:
            # Not error.body: the package understands some forms alone.
            raise self.failures.of_status(
                error.status_code, parsed(error.response.text), error.response.headers
            ) from None
        except (self._openai.APIConnectionError, self._http_library.HTTPError) as error:
            raise self.failures.of_connection(error) from None

    def most(self, request: Request) -> tuple[int, float]:
        """Tokens and dollars that a request can take at most."""
        price = self.prices.get(request.model)
        per_image = price.tokens_per_image if price else TOKENS_PER_IMAGE
        prompt = prompt_tokens_at_most(request.messages, per_image)
        answer = self.completions.limit(request)
        # What went beyond a bound so far may have been of either kind; outputs cost more.
        scale = self._scale.get(request.kind, 1.0)
        prompt, answer = round(prompt * scale), round(answer * scale)
        return prompt + answer, price.of(prompt, answer) if price else 0.0

    def _reserve(self, request: Request, stop: threading.Event) -> Reservation:
        return self.budget.reserve(*self.most(request), stop=stop)

    def _count(
        self, request: Request, reserved: Reservation, answer: Answer
    ) -> tuple[int | None, float | None]:
        """Tokens and dollars of an answer; a bound that proved too low is raised for what follows."""
        if answer.prompt_tokens is None or answer.completion_tokens is None:
            return None, None
        total = answer.prompt_tokens + answer.completion_tokens
        cost = answer.cost or 0.0
        beyond = max(total / max(reserved.tokens, 1), cost / reserved.dollars if reserved.dollars else 0.0)
        if beyond > 1:
            with self._lock:
                scale = self._scale.get(request.kind, 1.0)
                self._scale[request.kind] = max(scale, 1.1 * scale * beyond)
        return total, cost

    def _look_at_model(self, asked: str, answered: str) -> None:
        def stem(name: str) -> str:
            return name.lower().replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".gguf")

        one, other = stem(asked), stem(answered)
        if other and not (one.startswith(other) or other.startswith(one)):
            self._tell_once(
                f"model {answered}",
                f"{self._server} was asked for the model {asked!r} and answers as {self.failures.plain(answered)!r}",
            )

    def _tell_once(self, what: str, line: str) -> None:
        with self._lock:
            new = what not in self._told
            self._told.add(what)
        if new:
            self._notify(line)
