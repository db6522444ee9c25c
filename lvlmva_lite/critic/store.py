"""Recorded requests and answers: nothing that was paid for is asked for twice.

One SQLite file.  A row is written, and on disk, the moment an answer arrives;
several threads and processes may share the file (write-ahead log, each write
waits its turn).  What is kept of a request is what was asked: the words, the
images' bytes and the parameters, and a digest of the server's address.  Keys,
headers and addresses never get here.

An answer that cannot be used (refused, empty, cut, ...) is kept with the
reason, and makes room for a later answer that can.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from lvlmva_lite.critic.answers import Answer, Recorded, Request, now, whole, without_images
from lvlmva_lite.critic.group_commit import GroupCommit
from lvlmva_lite.critic.question_locks import QuestionLocks
from lvlmva_lite.critic.store_tables import (
    ADD_ANSWER,
    RECORDED,
    mend_tables,
    not_usable,
    opened_to_read,
    unusable_reason,
)
from lvlmva_lite.files import write_whole


class StoreError(ValueError):
    """The store cannot be used, or does not hold what was asked of it."""


class _AnswerLost(StoreError):
    """Answers that were paid for could not be written; how many is known when it is told."""

    def __init__(self, store: AnswerStore, why: str) -> None:
        super().__init__(why)
        self._store = store

    def __str__(self) -> str:
        return (
            f"cannot record an answer in {self._store.path}: {self.args[0]}; {self._store.lost} paid answers "
            "are lost, those recorded before are kept; make room, then the same command goes on"
        )


class AnswerStore:
    """The file of recorded answers.

    Parameters
    ----------
    path : folder of the store, made if need be (the file in it is
        ``answers.sqlite``)
    read_only : open what is there, change nothing, and refuse to make a new one

    Attributes
    ----------
    lost : int, answers that could not be written
    locks : QuestionLocks, who asks what; not if read only

    Raises
    ------
    StoreError : the folder cannot be made, read, or is not a store
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only, self.lost = read_only, 0
        self._lock = threading.RLock()
        self._commit = GroupCommit(self._lock, self._transaction)
        file = self.path / "answers.sqlite"
        if read_only and not file.is_file():
            raise StoreError(f"{self.path} holds no recorded answers (no {file.name} in it)")
        try:
            if read_only:
                self._database = opened_to_read(file)
                self._require_known_version()
                return
            self.path.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                file, timeout=60, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA busy_timeout = 60000")
            self._database.execute("PRAGMA journal_mode = WAL")
            # FULL: an answer is on disk, not in a cache, when `add` returns.
            self._database.execute("PRAGMA synchronous = FULL")
            with self._transaction():  # a place that cannot be written is found here
                self._require_known_version()
                mend_tables(self._database)
            self.locks = QuestionLocks(self.path / "answers.lock")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"cannot use {self.path} as a store of answers: {error}; give --store a folder that can be written"
            ) from None

    def _require_known_version(self) -> None:
        if why := not_usable(self._database, self.read_only):
            raise StoreError(f"{self.path} {why}")

    def __len__(self) -> int:
        """Number of answers, those that cannot be used included."""
        return self._rows("SELECT COUNT(*) FROM answers")[0][0]

    def get(self, request: Request, server: str | None = None) -> Answer | None:
        """The recorded answer to this very request, or None.

        Parameters
        ----------
        request : Request
        server : digest of its address (:func:`endpoint.server_id`); an answer
            whose server was not recorded counts, too.  None: any server

        Raises
        ------
        StoreError : several servers have answered, differently, and none is named
        """
        query = "SELECT server, answer FROM answers WHERE key = ?"
        if server is None:
            rows = self._rows(query + " ORDER BY unusable, server", request.key)
        else:
            rows = self._rows(query + " AND server IN (?, '') ORDER BY server DESC", request.key, server)
        if not rows:
            return None
        answers = [self._answer(request.key, text) for _, text in rows]
        if server is None and len({(answer.text, answer.refusal) for answer in answers}) > 1:
            raise StoreError(
                f"{len(rows)} servers have answered the same request to {request.model!r} in {self.path}; "
                "say with --base-url whose answers to take"
            )
        if request.case_id and not self.read_only:
            known = self._rows(
                "SELECT 1 FROM cases WHERE case_id = ? AND key = ?", request.case_id, request.key
            )
            if not known:
                with self._lock, self._told():
                    self._note_case(request)
        return answers[0]

    def replay(self, request: Request, server: str | None = None) -> Answer:
        """The recorded answer, with no network at hand.

        Raises
        ------
        StoreError : it was never recorded; the message says how to record it
        """
        answer = self.get(request, server)
        if answer is None:
            raise StoreError(
                f"no recorded answer of {request.kind} {request.model!r} to this request in {self.path}; "
                "record it: run the same command with --critic openai and this --store, "
                "or `lvlmva critic cases` and `lvlmva critic import`"
            )
        return answer

    def add(self, request: Request, answer: Answer, server: str = "") -> Answer:
        """Record an answer; on disk when this returns.

        The first answer to a request stays, unless it cannot be used.

        Returns
        -------
        Answer, what the store now holds: another process may have been first

        Raises
        ------
        StoreError : it cannot be written, and is lost
        """
        words, images = without_images(request.messages)
        fault = request.fault(answer)
        row = (
            request.key, server, request.kind, request.model, request.prompt_version,
            json.dumps(dict(request.parameters), sort_keys=True), json.dumps(words),
            json.dumps(asdict(answer)), answer.date, fault.kind if fault else "",
        )  # fmt: skip

        def write() -> str:
            self._database.executemany("INSERT OR IGNORE INTO images VALUES (?, ?)", images.items())
            self._database.execute(ADD_ANSWER, row)
            if request.case_id:
                self._note_case(request)
            query = "SELECT answer FROM answers WHERE key = ? AND server = ?"
            return self._database.execute(query, row[:2]).fetchone()[0]

        try:
            held = self._commit(write)
        except sqlite3.Error as error:
            with self._lock:
                self.lost += 1
            raise _AnswerLost(self, str(error)) from None
        return answer if held == row[7] else self._answer(request.key, held)

    def add_failure(self, request: Request, reason: str) -> None:
        """Note a call that brought no answer but may have been billed (a connection lost on the way)."""
        with self._lock, self._told():
            self._database.execute(
                "INSERT INTO failures VALUES (?, ?, ?, ?, ?)",
                (request.key, request.kind, request.model, whole(reason), now()),
            )

    def begin_batch(self, token: str, server: str, keys: Sequence[str], number: str = "") -> None:
        """Note a batch of requests before it is sent, and again with the server's name for it."""
        with self._lock, self._told():
            self._database.execute(
                "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)",
                (token, server, number, json.dumps(keys)),
            )

    def batches(self, server: str) -> list[tuple[str, str, set[str]]]:
        """Token, number and keys of every batch of a server that was not collected yet."""
        rows = self._rows("SELECT token, number, keys FROM batches WHERE server = ? ORDER BY rowid", server)
        return [(token, number, set(json.loads(keys))) for token, number, keys in rows]

    def end_batch(self, token: str) -> None:
        """Forget a batch: its answers are recorded."""
        with self._lock, self._told():
            self._database.execute("DELETE FROM batches WHERE token = ?", (token,))

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
        for recorded in self._recorded("ORDER BY key, server"):
            yield recorded.request | {"answer": recorded.answer, "unusable": recorded.unusable}

    def list(self, case: str | None = None) -> list[Recorded]:
        """What is recorded, about one case or all, oldest first; all fields but the images' bytes."""
        about = "WHERE key IN (SELECT key FROM cases WHERE case_id = ?) " if case is not None else ""
        return list(self._recorded(about + "ORDER BY recorded, key", *(() if case is None else (case,))))

    def forget(
        self,
        *,
        unusable: bool = False,
        case: str | None = None,
        model: str | None = None,
        before: str | None = None,
    ) -> int:
        """Delete answers that meet every condition given, and images that no other answer needs.

        Parameters
        ----------
        unusable : those that cannot be used, or not even be read
        case, model : those about this case, or of this model
        before : those recorded before this day or time (ISO 8601)

        Returns
        -------
        int, how many were deleted

        Raises
        ------
        ValueError : no condition; delete the folder to forget everything
        """
        conditions = [
            ("unusable != ''" if unusable else None, ()),
            ("key IN (SELECT key FROM cases WHERE case_id = ?)", (case,)),
            ("model = ?", (model,)),
            ("recorded < ?", (before,)),
        ]
        meant = [(text, values) for text, values in conditions if text and None not in values]
        if not meant:
            raise ValueError("say what to forget: unusable, case, model or before")
        values = [value for _, given in meant for value in given]
        with self._lock, self._told(), self._transaction():
            if unusable:
                self._database.create_function("unusable_reason", 1, unusable_reason)
                self._database.execute(
                    "UPDATE answers SET unusable = 'unreadable' WHERE unusable_reason(answer) = 'unreadable'"
                )
            gone = self._database.execute(
                f"DELETE FROM answers WHERE {' AND '.join(text for text, _ in meant)}", values
            ).rowcount
            self._database.execute("DELETE FROM cases WHERE key NOT IN (SELECT key FROM answers)")
            self._database.execute(
                "DELETE FROM images WHERE NOT EXISTS "
                "(SELECT 1 FROM answers WHERE instr(answers.messages, images.sha256))"
            )
        return gone

    def export(self, file: Path) -> int:
        """Write :meth:`records` to a JSONL file, one a line, whole or not at all; returns how many.

        Raises
        ------
        StoreError : the file is one of the store's own, under whatever name,
            or cannot be written
        """
        ends = ("sqlite", "sqlite-wal", "sqlite-shm", "sqlite-journal", "lock")
        own = [self.path / f"answers.{end}" for end in ends]
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
            if not self.read_only:
                self.locks.close()

    def _note_case(self, request: Request) -> None:
        self._database.execute(
            "INSERT OR IGNORE INTO cases VALUES (?, ?)", (whole(request.case_id), request.key)
        )

    def _recorded(self, which: str, *values: object) -> Iterator[Recorded]:
        names = ("key", "server", "kind", "model", "prompt_version", "parameters", "messages")
        with self._lock, self._told():
            rows = self._database.execute(RECORDED + which, values)
        while True:
            with self._lock, self._told():
                row = rows.fetchone()
            if row is None:
                return
            request = dict(zip(names, row, strict=False))
            try:
                for name in ("parameters", "messages"):
                    request[name] = json.loads(request[name])
                answer = json.loads(row[7])
                cases = tuple(json.loads(row[10]))
            except ValueError:
                raise self._unreadable(row[0]) from None
            yield Recorded(cases, row[2], row[3], row[8], row[9], request, answer)

    def _answer(self, key: str, text: str) -> Answer:
        try:
            return Answer(**json.loads(text))
        except (ValueError, TypeError, AttributeError):
            raise self._unreadable(key) from None

    def _unreadable(self, key: str) -> StoreError:
        return StoreError(
            f"the answer {key[:12]} in {self.path} cannot be read; "
            f"`lvlmva critic forget --unusable --store {self.path}` takes it out, then it is asked for again"
        )

    def _rows(self, query: str, *values: object) -> list[tuple]:
        with self._lock, self._told():
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Any fault of the database as one line."""
        try:
            yield
        except sqlite3.Error as error:
            mend = (
                "make a new one with `sqlite3 answers.sqlite .recover`, or give another --store"
                if "malformed" in str(error) or "not a database" in str(error)
                else "what was recorded before is kept; mend that, then the same command goes on"
            )
            raise StoreError(f"the store {self.path} fails: {error}; {mend}") from None
