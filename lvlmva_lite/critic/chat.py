"""One question to an OpenAI-compatible server, until it is answered and on disk.

The ``openai`` package speaks the protocol; waiting and trying again is done
here and not by its ``max_retries``, for three reasons: every try that may be
billed has to fit under the cap, a body cut short is a fault to it only after
it has given up, and a server that asks for a wait of more than five minutes
deserves an answer in words.
"""

from __future__ import annotations

import email.utils
import importlib
import json
import random
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from lvlmva_lite.critic.answers import Answer, Request, whole
from lvlmva_lite.critic.budget import TOKENS_PER_IMAGE, Budget, Price, Reservation, prompt_tokens_at_most
from lvlmva_lite.critic.endpoint import (
    OPENAI_URL,
    SettingsError,
    api_key,
    certificates,
    effective_url,
    is_loopback,
    server_id,
    server_name,
)
from lvlmva_lite.critic.store import AnswerStore

LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more is not waited for."""

ANNOUNCED_WAIT = 10.0
"""Seconds; a longer wait is announced."""

GROWTH = 4
"""By how much the limit of an answer grows, once, when a model has spent it before it was done."""

DEADLINE = 5
"""A try takes at most so many times the silence that is borne."""

SHORTEST_KEY = 8
"""Characters; in place of a shorter "key", such as "none", an answer's own words would be struck out."""

_FORMATS = ("json_schema", "json_object", "none")
"""How a structured answer is asked for, the next one where a server rejects the last."""

_OF_FORMAT = re.compile(r"response_format|json_schema|json_object|structured|guided|grammar")
_NO_EYES = re.compile(
    r"image input is not supported|(?:not|n't) support (?:\w+ ){0,3}(?:image|vision|multimodal)"
    r"|(?:image|vision|multimodal)\w*(?: \w+){0,3} (?:is|are) not supported|mmproj"
)
_NO_SUCH_PAGE = re.compile(r"unexpected endpoint|^\s*<(?:!doctype|html|head|body)\b|<title>", re.IGNORECASE)


class ServerError(RuntimeError):
    """The server cannot or will not answer; the message says what it said and what to do.

    Attributes
    ----------
    of_case : bool, other questions may fare better
    """

    def __init__(self, message: str, *, of_case: bool = False) -> None:
        super().__init__(message)
        self.of_case = of_case


class Interrupted(RuntimeError):
    """Somebody has asked to stop; nothing more is sent."""


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
        self._schema = schema
        self._timeout, self._deadline = timeout, deadline or DEADLINE * timeout
        self._tries, self._patience = tries, patience
        self._sleep, self._clock = sleep, clock
        self._notify = notify or (lambda line: tqdm.write(f"lvlmva: {line}", file=sys.stderr))
        self._lock = threading.Lock()
        self._gates: dict[str, list] = {}
        self._stop = threading.Event()
        self._not_before = 0.0
        self._told: set[str] = set()
        self._given_up: set[str] = set()
        # What this server turned out to accept, and how far bounds fell short.
        self._format = 0
        url = effective_url(base_url)
        self._limit_name = "max_completion_tokens" if url == OPENAI_URL else "max_tokens"
        self._renamed = False
        self._scale: dict[str, float] = {}
        self._growth: dict[str, int] = {}
        self._key = api_key(url) or "none"
        self.server_id, self._server = server_id(base_url), server_name(base_url)
        http = http_client(url, timeout)
        self._http_library = _library_of(http)
        self.api = openai.OpenAI(
            api_key=self._key, base_url=url, max_retries=0, timeout=timeout, http_client=http
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

    @property
    def structured(self) -> str:
        """How the server takes the wish for JSON, as far as it has said: "json_schema", "json_object", "none"."""
        return _FORMATS[self._format]

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
        used = self._limit(request)
        answer = self._send(request, stop)
        fault = request.fault(answer)
        if fault and fault.kind in ("cut", "reasoning") and answer.finish_reason in ("length", ""):
            base = int(request.parameters.get("max_answer_tokens", 0))
            if used <= base:
                with self._lock:
                    self._growth[request.kind] = GROWTH
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
            with self._lock:
                form = max(form, self._format)
                sent_as = (form, self._limit_name)
            try:
                if stop.is_set():
                    took = (0, 0.0)
                    raise Interrupted("interrupted")
                answer = self.read(self._call(self.body(request, form)), request.model)
                took = self._count(request, reserved, answer)
                return answer
            except _Failed as error:
                failed = error
                if not failed.billed:
                    took = (0, 0.0)
            finally:
                self.budget.settle(reserved, *took)
            if failed.billed:
                self.store.add_failure(request, failed.words)
            if failed.refusal:
                return Answer("", refusal=failed.words, finish_reason="content_filter")
            adapted = self._adapt(failed, request, sent_as)
            if adapted is not None:
                form = max(form, adapted)
                continue
            if failed.final:
                raise self._rejected(failed)
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

    def _hold_all(self, seconds: float, failed: _Failed) -> None:
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
            with self.api.chat.completions.with_streaming_response.create(**body) as reply:
                for part in reply.iter_bytes():
                    parts.append(part)
                    if time.monotonic() - begun > self._deadline:
                        raise self._failed(
                            f"no end after {self._deadline:g} seconds (--timeout gives more)"
                        )
            return b"".join(parts).decode("utf-8", "replace")
        except self._openai.APIStatusError as error:
            # Not error.body: the package understands some forms alone.
            raise self._status_failure(
                error.status_code, _parsed(error.response.text), error.response.headers
            ) from None
        except (self._openai.APIConnectionError, self._http_library.HTTPError) as error:
            raise self._connection_failure(error) from None

    def _failed(self, words: str, **more: object) -> _Failed:
        return _Failed(self.plain(words), **more)

    def _status_failure(self, status: int, body: object, headers: Mapping[str, str]) -> _Failed:
        """What a rejection means, whether it came as an HTTP status or within a 200."""
        said, code = _said(body), _code(body)
        quoted = said[:200]
        pause = retry_after(headers)
        pause = asked_pause(body) if pause is None else pause
        no_page, no_eyes = _NO_SUCH_PAGE.search(said), _NO_EYES.search(said.lower())
        advice = ""
        if no_eyes:
            advice = "the model does not see: choose one that does (llama.cpp: start it with --mmproj)"
        elif no_page:
            advice = "does --base-url end in /v1?"
        quota = code in ("insufficient_quota", "billing_hard_limit_reached")
        passing = (status in (408, 409, 425, 429) or status >= 500) and not (no_page and status == 200)
        of_server = status in (401, 402, 404, 405, 407) or 300 <= status < 400 or quota
        return self._failed(
            quoted,
            status=status,
            code=code,
            final=bool(no_eyes or no_page or quota or not passing),
            of_case=not (no_eyes or no_page or of_server),
            refusal=status == 400 and code in ("content_filter", "content_policy_violation"),
            pause=pause,
            advice=advice,
            billed=False,
        )

    def _connection_failure(self, error: Exception) -> _Failed:
        chain, cause = [], error
        while cause is not None and cause not in chain:
            chain.append(cause)
            cause = cause.__cause__ or cause.__context__
        words = str(chain[-1]) or type(chain[-1]).__name__
        library = self._http_library
        if any(
            isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(cause)
            for cause in chain
        ):
            return self._failed(
                words, final=True, billed=False,
                advice="set SSL_CERT_FILE to a file with the certificate of who signed the server's",
            )  # fmt: skip
        local = (library.LocalProtocolError, library.InvalidURL, library.UnsupportedProtocol)
        if any(isinstance(cause, local) for cause in chain):
            # Its text may repeat a header, and with it the key.
            return self._failed("the request cannot be put into HTTP", final=True, billed=False)
        never_sent = (library.ConnectError, library.ConnectTimeout, library.PoolTimeout, library.ProxyError)
        billed = not any(isinstance(cause, never_sent) for cause in chain)
        if any(isinstance(cause, library.TimeoutException) for cause in chain):
            words = f"timed out after {self._timeout:g} seconds of silence; --timeout bears more"
        return self._failed(words, billed=billed, of_case=True)

    def body(self, request: Request, form: int = 0) -> dict:
        """A request as ``chat.completions`` takes it; ``form``: see ``_FORMATS``."""
        parameters = request.parameters
        body = {"model": request.model, "messages": list(request.messages)}
        if "max_answer_tokens" in parameters:
            body[self._limit_name] = self._limit(request)
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

    def _limit(self, request: Request) -> int:
        return int(request.parameters.get("max_answer_tokens", 0)) * self._growth.get(request.kind, 1)

    def most(self, request: Request) -> tuple[int, float]:
        """Tokens and dollars that a request can take at most."""
        price = self.prices.get(request.model)
        per_image = price.tokens_per_image if price else TOKENS_PER_IMAGE
        prompt = prompt_tokens_at_most(request.messages, per_image)
        answer = self._limit(request)
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

    def read(self, text: str, model: str, share: float = 1.0) -> Answer:
        """The answer in a reply's body, at a share of the price.

        Raises
        ------
        _Failed : it holds an error, or is no chat completion
        """
        reply = _parsed(text)
        if isinstance(reply, dict) and reply.get("error"):
            failed = self._status_failure(_status_of(_code(reply)), reply, {})
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
            if isinstance(reply, str) and _NO_SUCH_PAGE.search(reply):
                raise self._status_failure(200, reply, {}) from None
            head = " ".join(text.split())[:200]
            raise self._failed(
                f"a reply cut short or of another form: {head}" if head else "an empty reply",
                of_case=True,
                advice="" if isinstance(reply, str) else "does --base-url end in /v1?",
            ) from None
        if choice.get("error") or finish_reason == "error":
            failed = self._status_failure(
                _status_of(_code(choice)), choice if choice.get("error") else "", {}
            )
            failed.words = failed.words or "the server broke off"
            failed.billed = True
            raise failed
        if (content or refusal or reasoning) and not (prompt or completion):
            prompt = completion = None  # something was said for nothing: it was not counted
        price = self.prices.get(model)
        counted = None not in (prompt, completion)
        return Answer(
            text=self.without_key(content),
            refusal=self.without_key(refusal),
            finish_reason=finish_reason,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost=share * price.of(prompt, completion) if price and counted else None,
            model=self.without_key(str(reply.get("model") or "")),
            reasoning_tokens=max(thought, 1 if reasoning else 0),
        )

    def _adapt(self, failed: _Failed, request: Request, sent_as: tuple[int, str]) -> int | None:
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

    def _rejected(self, failed: _Failed) -> ServerError:
        advice = failed.advice or {
            307: "give --base-url its new address",
            308: "give --base-url its new address",
            401: "check OPENAI_API_KEY",
            402: "check the account's balance",
            403: "check what this key may do",
            404: "check the model's name and --base-url (does it end in /v1?)",
            429: "check the account's quota",
        }.get(failed.status, "answers so far are kept")
        return ServerError(
            f"{self._server} rejects the request ({failed.told}); {advice}", of_case=failed.of_case
        )

    def _look_at_model(self, asked: str, answered: str) -> None:
        def stem(name: str) -> str:
            return name.lower().replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".gguf")

        one, other = stem(asked), stem(answered)
        if other and not (one.startswith(other) or other.startswith(one)):
            self._tell_once(
                f"model {answered}",
                f"{self._server} was asked for the model {asked!r} and answers as {self.plain(answered)!r}",
            )

    def _tell_once(self, what: str, line: str) -> None:
        with self._lock:
            new = what not in self._told
            self._told.add(what)
        if new:
            self._notify(line)

    def plain(self, text: str) -> str:
        """A server's words as part of one line, without the key."""
        return self.without_key(" ".join(whole(text).split()))[:300]

    def without_key(self, text: str) -> str:
        """The text with the key struck out."""
        return text.replace(self._key, "[key]") if len(self._key) >= SHORTEST_KEY else text


class _Failed(Exception):
    """A try that brought no answer.

    Attributes
    ----------
    words : in one line, without the key
    status, code : of HTTP and of the body; 0 and "" where there is none
    final : another try will not help
    of_case : other questions may fare better
    refusal : a content filter has spoken
    pause : seconds that the server asks to wait, None if it does not say
    advice : what to do
    billed : it may have been charged for
    """

    def __init__(
        self,
        words: str,
        *,
        status: int = 0,
        code: str = "",
        final: bool = False,
        of_case: bool = False,
        refusal: bool = False,
        pause: float | None = None,
        advice: str = "",
        billed: bool = True,
    ) -> None:
        super().__init__(words)
        self.words, self.status, self.code = words, status, code
        self.final, self.of_case, self.refusal = final, of_case, refusal
        self.pause, self.advice, self.billed = pause, advice, billed

    @property
    def told(self) -> str:
        """Status and words."""
        return ": ".join(
            part for part in (f"HTTP {self.status}" if self.status else "", self.words) if part
        )

    def __str__(self) -> str:
        return f"{self.told}; {self.advice}" if self.advice else self.told


def http_client(url: str, timeout: float):
    """The HTTP client for a server: no redirects, and no proxy for what stays on this machine.

    Raises
    ------
    SettingsError : a proxy or certificates of the environment cannot be used
    """
    import openai

    trusted = certificates()
    try:
        return openai.DefaultHttpxClient(
            follow_redirects=False, trust_env=not is_loopback(url), timeout=timeout, verify=trusted
        )
    except (ImportError, ValueError, RuntimeError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(
            f"a proxy named in the environment (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) cannot be used: {words}"
        ) from None


def _library_of(http):
    """The package that the client is of: httpx, or its successor httpx2."""
    name = next(kind.__module__ for kind in type(http).__mro__ if kind.__module__.startswith("httpx"))
    return importlib.import_module(name.partition(".")[0])


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


_DURATION = re.compile(
    r"(?:retrydelay|try again in|retry in|retry after|wait)\W{0,5}"
    r"((?:\d+h)?(?:\d+m(?!s))?(?:\d+(?:\.\d+)?\s*(?:ms|s(?:ec(?:ond)?s?)?\b)?)?)",
    re.IGNORECASE,
)
_UNITS = {"h": 3600.0, "m": 60.0, "ms": 0.001}


def asked_pause(body: object) -> float | None:
    """Seconds that a reply's body asks to wait ("retryDelay": "41s", "try again in 1m2.5s"), else None."""
    text = body if isinstance(body, str) else json.dumps(body)
    for found in _DURATION.finditer(text):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|[hm])?", found[1])
        if parts:
            return sum(float(number) * _UNITS.get(unit, 1.0) for number, unit in parts)
    return None


def _parsed(text: str) -> object:
    """The JSON value that a body is, else the body itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _said(body: object) -> str:
    """The server's own words in a rejection, whichever of the usual forms its body has."""
    while isinstance(body, list) and len(body) == 1:
        body = body[0]
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(name):
            body = body[name]
            while isinstance(body, list) and len(body) == 1 and name == "error":
                body = body[0]
    return body if isinstance(body, str) else json.dumps(body)


def _code(body: object) -> str:
    """The code in an error's body, as text; empty if there is none."""
    while isinstance(body, list) and len(body) == 1:
        body = body[0]
    if isinstance(body, dict):
        error = body.get("error")
        for part in (error, body):
            if isinstance(part, dict) and part.get("code") not in (None, ""):
                return str(part["code"])
    return ""


def _status_of(code: str) -> int:
    """The HTTP status that an error within a 200 stands for; 500, which is tried again, if it says none."""
    if code.isdigit() and 400 <= int(code) <= 599:
        return int(code)
    return 429 if "rate_limit" in code.lower() or code == "RESOURCE_EXHAUSTED" else 500


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
