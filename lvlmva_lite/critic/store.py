"""Recorded requests and answers: nothing that was paid for is asked for twice.

One SQLite file.  A row is written, and on disk, the moment an answer arrives;
several threads and processes may share the file (write-ahead log, each write
waits its turn).  What is kept of a request is what was asked: the words, the
images' bytes and the parameters.  Keys, headers and addresses never get here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from lvlmva_lite.critic.prompts import Message
from lvlmva_lite.files import write_whole

_DATA_URL = "data:image/png;base64,"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (sha256 TEXT PRIMARY KEY, png BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, model TEXT NOT NULL, prompt_version TEXT NOT NULL,
    parameters TEXT NOT NULL, messages TEXT NOT NULL, answer TEXT NOT NULL, recorded TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL, reason TEXT NOT NULL, recorded TEXT NOT NULL
);
"""


class StoreError(ValueError):
    """The store cannot be used, or does not hold what was asked of it."""


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
    """

    kind: str
    model: str
    prompt_version: str
    messages: Sequence[Message]
    parameters: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) over model, prompt version, words, images' bytes and parameters."""
        words, _ = _without_images(self.messages)
        what = [self.kind, self.model, self.prompt_version, words, dict(self.parameters)]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes
    ----------
    text : str, as the model wrote it; empty if it wrote nothing
    refusal : str, the server's word for having refused, else empty
    finish_reason : str, "stop", "length", "content_filter", ...; empty if unknown
    prompt_tokens, completion_tokens : int or None where the server did not say
    cost : US dollars, or None where no price is known
    source : "model", or who recorded it ("recorded by ...")
    date : str, day or time of the answer (ISO 8601, UTC)
    """

    text: str
    refusal: str = ""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    source: str = "model"
    date: str = field(default_factory=lambda: _now())


class AnswerStore:
    """The file of recorded answers.

    Parameters
    ----------
    path : folder of the store, made if need be (the file in it is
        ``answers.sqlite``)
    read_only : open what is there, and refuse to make a new one

    Raises
    ------
    StoreError : the folder cannot be made, read, or is not a store
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        file = self.path / "answers.sqlite"
        if read_only and not file.is_file():
            raise StoreError(f"{self.path} holds no recorded answers (no {file.name} in it)")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                file, timeout=60, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA busy_timeout = 60000")
            self._database.execute("PRAGMA journal_mode = WAL")
            # FULL: an answer is on disk, not in a cache, when `add` returns.
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot use {self.path} as a store of answers: {error}") from error

    def __len__(self) -> int:
        """Number of answers."""
        return self._rows("SELECT COUNT(*) FROM answers")[0][0]

    def get(self, request: Request) -> Answer | None:
        """The recorded answer to this very request, or None."""
        rows = self._rows("SELECT answer FROM answers WHERE key = ?", request.key)
        return Answer(**json.loads(rows[0][0])) if rows else None

    def replay(self, request: Request) -> Answer:
        """The recorded answer, with no network at hand.

        Raises
        ------
        StoreError : it was never recorded; the message says how to record it
        """
        answer = self.get(request)
        if answer is None:
            raise StoreError(
                f"no recorded answer of {request.kind} {request.model!r} to this request in {self.path}; "
                "record it: run the same command with --critic openai and this --store, "
                "or `lvlmva critic cases` and `lvlmva critic import`"
            )
        return answer

    def add(self, request: Request, answer: Answer) -> None:
        """Record an answer; on disk when this returns.  The first answer to a request stays."""
        words, images = _without_images(request.messages)
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany("INSERT OR IGNORE INTO images VALUES (?, ?)", images.items())
                self._database.execute(
                    "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        request.key, request.kind, request.model, request.prompt_version,
                        json.dumps(dict(request.parameters), sort_keys=True), json.dumps(words),
                        json.dumps(asdict(answer)), answer.date,
                    ),
                )  # fmt: skip
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def add_failure(self, request: Request, reason: str) -> None:
        """Note a call that brought no answer but may have been billed (a connection lost on the way)."""
        with self._lock:
            self._database.execute(
                "INSERT INTO failures VALUES (?, ?, ?, ?, ?)",
                (request.key, request.kind, request.model, reason, _now()),
            )

    def failures(self) -> list[tuple[str, str]]:
        """Key and reason of every call that brought no answer, oldest first."""
        return self._rows("SELECT key, reason FROM failures ORDER BY rowid")

    def image(self, sha256: str) -> bytes:
        """PNG bytes of a recorded request's image.

        Raises
        ------
        StoreError : no such image
        """
        rows = self._rows("SELECT png FROM images WHERE sha256 = ?", sha256)
        if not rows:
            raise StoreError(f"{self.path} holds no image {sha256}")
        return rows[0][0]

    def records(self) -> Iterator[dict]:
        """Every request with its answer as plain values, ordered by key.

        Images are named by their SHA-256 in the messages; :meth:`image` gives
        their bytes.
        """
        rows = self._rows(
            "SELECT key, kind, model, prompt_version, parameters, messages, answer FROM answers ORDER BY key"
        )
        for key, kind, model, version, parameters, messages, answer in rows:
            yield {
                "key": key,
                "kind": kind,
                "model": model,
                "prompt_version": version,
                "parameters": json.loads(parameters),
                "messages": json.loads(messages),
                "answer": json.loads(answer),
            }

    def export(self, file: Path) -> int:
        """Write :meth:`records` to a JSONL file, one a line, whole or not at all; returns how many.

        Raises
        ------
        StoreError : the file is one of the store's own, under whatever name,
            or cannot be written
        """
        own = [self.path / f"answers.sqlite{end}" for end in ("", "-wal", "-shm", "-journal")]
        for one in own:
            if file.resolve() == one.resolve() or (file.exists() and one.exists() and file.samefile(one)):
                raise StoreError(f"{file} is the store's own {one.name}; export to another file")
        records = [json.dumps(record, sort_keys=True) + "\n" for record in self.records()]
        try:
            write_whole(file, "".join(records))
        except OSError as error:
            raise StoreError(f"cannot write {file}: {error}") from error
        return len(records)

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        with self._lock:
            self._database.close()

    def _rows(self, query: str, *values: object) -> list[tuple]:
        with self._lock:
            return self._database.execute(query, values).fetchall()


def _without_images(messages: Sequence[Message]) -> tuple[list[Message], dict[str, bytes]]:
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
