"""Many questions in one file, answered within a day at half the price: the batch endpoint of OpenAI's protocol.

What is sent is noted in the store before it is sent, so that a command that
was stopped, at whatever moment, collects the same batch and pays once.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING

from lvlmva_lite.critic.answers import Request
from lvlmva_lite.critic.budget import DISCOUNT, Reservation
from lvlmva_lite.critic.chat import ChatClient
from lvlmva_lite.critic.failures import FailedTry, ServerError, parsed

if TYPE_CHECKING:
    from openai.types import Batch

LARGEST_FILE = 100_000_000
"""Bytes; half of what OpenAI takes."""

MOST_QUESTIONS = 50_000
"""In one batch, as OpenAI's limit stands."""

POLL = 30.0
"""Seconds between two looks at a batch under way."""

_OVER = ("completed", "failed", "expired", "cancelled")
_TOKEN = "lvlmva"


class BatchClient(ChatClient):
    """A client that can ask many questions ahead; :meth:`ask` then finds the answers in the store.

    A question that a batch leaves unanswered, or whose answer has to be asked
    for again, is asked alone, at the full price.
    """

    def ask_ahead(self, requests: Iterable[Request]) -> None:
        """Have questions answered in batches, as many as the cap allows; those that the store knows cost nothing.

        Batches of an earlier command on this store and server are collected
        first, where they hold any of these.  Requests wait on disk, so that
        memory does not grow with their images.

        Raises
        ------
        ServerError : the server knows no batches, or refuses this one
        CapReached : not one more question fits under the cap
        Interrupted : see :meth:`interrupt`; the batch goes on at the server
        StoreError : the store fails
        """
        with RequestsOnDisk() as wanted:
            for request in requests:
                if self._held(request) is None:
                    wanted.add(request)
            for token, number, keys in self.store.batches(self.server_id):
                if keys.isdisjoint(wanted):
                    continue
                number = number or self._found(token)
                if number:
                    self._notify(f"collecting the batch {number} of an earlier command")
                    self._collect(token, number, wanted, Reservation(0, 0.0))
                else:
                    self.store.end_batch(token)  # it never reached the server
            left = [key for key in wanted if self._held(wanted[key]) is None]
            while left:
                left = self._batch(left, wanted)

    def _batch(self, keys: list[str], wanted: RequestsOnDisk) -> list[str]:
        """Have the first of these answered, as many as fit; returns the rest."""
        tokens, dollars, count, size = 0, 0.0, 0, 0
        with tempfile.TemporaryFile() as file:
            for key in keys[:MOST_QUESTIONS]:
                request = wanted[key]
                line = self._line(request)
                more, cost = self.most(request)
                full = size + len(line) > LARGEST_FILE or not self.budget.allows(
                    tokens + more, dollars + DISCOUNT * cost
                )
                if count and full:
                    break
                tokens, dollars = tokens + more, dollars + DISCOUNT * cost
                size, count = size + file.write(line), count + 1
            reserved = self.budget.reserve(tokens, dollars, stop=self._stop)
            token = uuid.uuid4().hex
            try:
                number = self._sent(token, file, keys[:count])
            except BaseException:
                self.budget.settle(reserved, 0, 0.0)
                raise
        self._notify(
            f"the batch {number} is under way, {count} questions at half the price, within a day; "
            "stop this command when you like, the same command collects the answers"
        )
        self._collect(token, number, wanted, reserved)
        return keys[count:]

    def _line(self, request: Request) -> bytes:
        body = self.completions.body(request, self.completions.form()[0])
        body |= body.pop("extra_body", {})
        asked = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(asked).encode() + b"\n"

    def _sent(self, token: str, file: IO[bytes], keys: Sequence[str]) -> str:
        """The server's name for the batch made of a file."""

        def upload() -> str:
            file.seek(0)
            return self.api.files.create(file=("questions.jsonl", file), purpose="batch").id

        upload_id = self._done(upload)
        self.store.begin_batch(token, self.server_id, keys)

        def create() -> str:
            return self._found(token) or self.api.batches.create(
                input_file_id=upload_id, endpoint="/v1/chat/completions", completion_window="24h",
                metadata={_TOKEN: token},
            ).id  # fmt: skip

        number = self._done(create)
        self.store.begin_batch(token, self.server_id, keys, number)
        return number

    def _found(self, token: str) -> str:
        """The server's name for a batch that may have reached it; empty if it did not."""

        def look() -> str:
            for batch in self.api.batches.list(limit=100):
                if (batch.metadata or {}).get(_TOKEN) == token:
                    return batch.id
            return ""

        return self._done(look)

    def _collect(self, token: str, number: str, wanted: RequestsOnDisk, reserved: Reservation) -> None:
        """Wait for a batch and record its answers to questions that are ``wanted`` now."""
        # Stopped while it is under way, all of it may yet be charged for.
        took: tuple[int | None, float | None] = (None, None)
        try:
            batch = self._over(number)
            took, others = (0, 0.0), 0
            for name in filter(None, (batch.output_file_id, batch.error_file_id)):
                with tempfile.TemporaryFile() as file:
                    self._done(partial(self._download, name, file))
                    file.seek(0)
                    for line in file:
                        key, said = _parsed_line(line.decode("utf-8", "replace"))
                        if key in wanted:
                            tokens, dollars = self._recorded(wanted[key], said)
                            took = (took[0] + tokens, took[1] + dollars)
                        elif key:
                            others += 1
        finally:
            self.budget.settle(reserved, *took)
        if not others:
            self.store.end_batch(token)  # else they wait for a command that asks for them
        if batch.status == "failed":
            faults = batch.errors.data if batch.errors and batch.errors.data else []
            words = (
                self.failures.plain("; ".join(fault.message or "" for fault in faults))
                or "no reason is given"
            )
            raise ServerError(f"{self._server} could not do the batch {number}: {words}; leave out --batch")
        if batch.status != "completed":
            self._notify(f"the batch {number} is {batch.status}; what it left is asked one at a time")

    def _download(self, name: str, file: IO[bytes]) -> None:
        """Put a file of the server's in a file here; begun anew where it was cut."""
        file.seek(0)
        file.truncate()
        with self.api.files.with_streaming_response.content(name) as reply:
            for part in reply.iter_bytes():
                file.write(part)

    def _over(self, number: str) -> Batch:
        """A batch once it is over, whether done or not."""
        spoken = ""
        try:
            while (batch := self._done(lambda: self.api.batches.retrieve(number))).status not in _OVER:
                counts = batch.request_counts
                now = (
                    f"{batch.status}, {counts.completed} of {counts.total} answered"
                    if counts
                    else batch.status
                )
                if now != spoken:
                    self._notify(f"the batch {number}: {now}")
                    spoken = now
                self._pause(POLL, self._stop)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; the batch {number} goes on at the server") from None
        return batch

    def _recorded(self, request: Request, said: Mapping[str, object]) -> tuple[int, float]:
        """Record what a line of a batch says about a request; tokens and dollars that it took."""
        reply = said.get("response") or {}
        try:
            if reply.get("status_code") != 200:
                raise self.failures.of_status(
                    int(reply.get("status_code") or 500), reply.get("body") or said, {}
                )
            answer = self.completions.read(json.dumps(reply.get("body")), request.model, DISCOUNT)
        except FailedTry as failed:
            self.store.add_failure(request, f"batch: {failed}")
            return 0, 0.0
        fault = request.fault(answer)
        if fault and fault.kind in ("cut", "reasoning"):
            self.completions.grow(request.kind)  # asked for again, it gets more room at once
        self._look_at_model(request.model, answer.model)
        self.store.add(request, answer, self.server_id)
        if answer.prompt_tokens is None or answer.completion_tokens is None:
            tokens, dollars = self.most(request)
            return tokens, DISCOUNT * dollars
        return answer.prompt_tokens + answer.completion_tokens, answer.cost or 0.0

    def _done(self, call: Callable[[], object]) -> object:
        """What a call about files or batches returns, tried again where that may help."""
        tried = 0
        while True:
            try:
                return call()
            except self._openai.APIStatusError as error:
                failed = self.failures.of_status(
                    error.status_code, parsed(error.response.text), error.response.headers
                )
                if failed.status in (404, 405, 501):
                    raise ServerError(
                        f"{self._server} knows no batches ({failed.told}); leave out --batch"
                    ) from None
                if failed.final:
                    raise self.failures.rejected(failed) from None
            except (self._openai.APIConnectionError, self._http_library.HTTPError) as error:
                failed = self.failures.of_connection(error)
                if failed.final:
                    raise self.failures.rejected(failed) from None
            tried += 1
            if tried >= self._tries:
                raise ServerError(
                    f"no answer from {self._server} in {tried} tries (last: {failed}); "
                    "the same command collects the batch"
                )
            pause = self._backoff(tried) if failed.pause is None else failed.pause
            self._pause(pause, self._stop)


class RequestsOnDisk:
    """Requests by their key; their messages, with their images, in a temporary file while the block lasts."""

    def __enter__(self) -> RequestsOnDisk:
        self._file = tempfile.TemporaryFile()
        self._kept: dict[str, tuple[int, Request]] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, request: Request) -> None:
        """Keep a request, once."""
        if request.key not in self._kept:
            where = self._file.seek(0, 2)
            self._file.write(json.dumps(list(request.messages)).encode() + b"\n")
            self._kept[request.key] = where, replace(request, messages=())

    def __getitem__(self, key: str) -> Request:
        where, request = self._kept[key]
        self._file.seek(where)
        return replace(request, messages=json.loads(self._file.readline()))

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)


def _parsed_line(line: str) -> tuple[str, dict]:
    """The key of the request that a line of a batch is about, and the line; an empty key if it is none."""
    said = parsed(line)
    known = isinstance(said, dict) and isinstance(said.get("custom_id"), str)
    usable = known and isinstance(said.get("response") or {}, dict)
    return (said["custom_id"], said) if usable else ("", {})
