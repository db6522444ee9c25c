"""What a failed try means: whether another one may help, what the server said, what to do; never the key."""

from __future__ import annotations

import email.utils
import json
import re
import ssl
import time
from collections.abc import Mapping
from types import ModuleType

from lvlmva_lite.critic.answers import whole

SHORTEST_KEY = 8
"""Characters; in place of a shorter "key", such as "none", an answer's own words would be struck out."""

NO_EYES = re.compile(
    r"image input is not supported|(?:not|n't) support (?:\w+ ){0,3}(?:image|vision|multimodal)"
    r"|(?:image|vision|multimodal)\w*(?: \w+){0,3} (?:is|are) not supported|not a (?:multimodal|vision)|mmproj"
)
NO_SUCH_PAGE = re.compile(r"unexpected endpoint|^\s*<(?:!doctype|html|head|body)\b|<title>", re.IGNORECASE)


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


class FailedTry(Exception):
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


class FailureReader:
    """Makes something of what went wrong with a try.

    Parameters
    ----------
    server : its name, for people
    key : goes into no text that is made here
    timeout : seconds of silence that are borne
    http_library : the package that HTTP is spoken with, httpx or httpx2
    """

    def __init__(self, server: str, key: str, timeout: float, http_library: ModuleType) -> None:
        self._server, self._key, self._timeout = server, key, timeout
        self._http_library = http_library

    def failed(self, words: str, **more: object) -> FailedTry:
        """A failure in these words, less the key."""
        return FailedTry(self.plain(words), **more)

    def of_status(self, status: int, body: object, headers: Mapping[str, str]) -> FailedTry:
        """What a rejection means, whether it came as an HTTP status or within a 200."""
        said, code = said_in(body), code_in(body)
        quoted = said[:200]
        pause = retry_after(headers)
        pause = asked_pause(body) if pause is None else pause
        no_page, no_eyes = NO_SUCH_PAGE.search(said), NO_EYES.search(said.lower())
        advice = ""
        if no_eyes:
            advice = "the model does not see: choose one that does (llama.cpp: start it with --mmproj)"
        elif no_page:
            advice = "does --base-url end in /v1?"
        quota = code in ("insufficient_quota", "billing_hard_limit_reached")
        passing = (status in (408, 409, 425, 429) or status >= 500) and not (no_page and status == 200)
        of_server = status in (401, 402, 404, 405, 407) or 300 <= status < 400 or quota
        return self.failed(
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

    def of_connection(self, error: Exception) -> FailedTry:
        """What it means that a reply did not come, or not whole."""
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
            return self.failed(
                words, final=True, billed=False,
                advice="set SSL_CERT_FILE to a file with the certificate of who signed the server's",
            )  # fmt: skip
        local = (library.LocalProtocolError, library.InvalidURL, library.UnsupportedProtocol)
        if any(isinstance(cause, local) for cause in chain):
            # Its text may repeat a header, and with it the key.
            return self.failed("the request cannot be put into HTTP", final=True, billed=False)
        never_sent = (library.ConnectError, library.ConnectTimeout, library.PoolTimeout, library.ProxyError)
        billed = not any(isinstance(cause, never_sent) for cause in chain)
        if any(isinstance(cause, library.TimeoutException) for cause in chain):
            words = f"timed out after {self._timeout:g} seconds of silence; --timeout bears more"
        return self.failed(words, billed=billed, of_case=True)

    def rejected(self, failed: FailedTry) -> ServerError:
        """What ends a run, or is told of a case."""
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

    def plain(self, text: str) -> str:
        """A server's words as part of one line, without the key."""
        return self.without_key(" ".join(whole(text).split()))[:300]

    def without_key(self, text: str) -> str:
        """The text with the key struck out."""
        return text.replace(self._key, "[key]") if len(self._key) >= SHORTEST_KEY else text


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


def parsed(text: str) -> object:
    """The JSON value that a body is, else the body itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def said_in(body: object) -> str:
    """The server's own words in a rejection, whichever of the usual forms its body has."""
    while isinstance(body, list) and len(body) == 1:
        body = body[0]
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(name):
            body = body[name]
            while isinstance(body, list) and len(body) == 1 and name == "error":
                body = body[0]
    return body if isinstance(body, str) else json.dumps(body)


def code_in(body: object) -> str:
    """The code in an error's body, as text; empty if there is none."""
    while isinstance(body, list) and len(body) == 1:
        body = body[0]
    if isinstance(body, dict):
        error = body.get("error")
        for part in (error, body):
            if isinstance(part, dict) and part.get("code") not in (None, ""):
                return str(part["code"])
    return ""


def status_of(code: str) -> int:
    """The HTTP status that an error within a 200 stands for; 500, which is tried again, if it says none."""
    if code.isdigit() and 400 <= int(code) <= 599:
        return int(code)
    return 429 if "rate_limit" in code.lower() or code == "RESOURCE_EXHAUSTED" else 500
