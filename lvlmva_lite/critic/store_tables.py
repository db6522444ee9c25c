"""The tables of a store of answers: how they are made, brought up to date, and read where nothing may be written."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

from lvlmva_lite.critic.answers import Answer, key_of
from lvlmva_lite.critic.png import repacked

VERSION = 3
"""Of the tables; 1 had no server, no case and no reason, and up to 2 Pillow packed the pictures."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT NOT NULL, server TEXT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL,
    prompt_version TEXT NOT NULL, parameters TEXT NOT NULL, messages TEXT NOT NULL, answer TEXT NOT NULL,
    recorded TEXT NOT NULL, unusable TEXT NOT NULL, PRIMARY KEY (key, server)
);
CREATE TABLE IF NOT EXISTS images (sha256 TEXT PRIMARY KEY, png BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cases (case_id TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (case_id, key));
CREATE TABLE IF NOT EXISTS batches (
    token TEXT PRIMARY KEY, server TEXT NOT NULL, number TEXT NOT NULL, keys TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL, reason TEXT NOT NULL, recorded TEXT NOT NULL
);
"""

ADD_ANSWER = (
    "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, server) DO UPDATE SET "
    "answer = excluded.answer, recorded = excluded.recorded, unusable = excluded.unusable "
    "WHERE answers.unusable != ''"
)
"""The first answer stays, unless it cannot be used."""

RECORDED = (
    "SELECT key, server, kind, model, prompt_version, parameters, messages, answer, recorded, unusable, "
    "(SELECT json_group_array(case_id) FROM cases WHERE cases.key = answers.key) FROM answers "
)
"""All that is known of an answer, its cases as JSON."""


def mend_tables(database: sqlite3.Connection) -> None:
    """Make the tables, and bring those of an older version up to date; within a transaction."""
    written_before = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone()
    version = version_of(database) if written_before else VERSION
    old = version < 2
    if old:
        database.execute("ALTER TABLE answers RENAME TO answers_1")
    for statement in _SCHEMA.split(";"):
        database.execute(statement)
    if old:
        columns = "kind, model, prompt_version, parameters, messages, answer, recorded"
        database.create_function("unusable_reason", 1, unusable_reason)
        database.execute(
            f"INSERT INTO answers SELECT key, '', {columns}, unusable_reason(answer) FROM answers_1"
        )
        database.execute("DROP TABLE answers_1")
        # What the first version wrote here could repeat a key with a line end.
        database.execute("DELETE FROM failures WHERE reason LIKE '%header value%'")
    if version < VERSION:
        _repack_pictures(database)
    database.execute(f"PRAGMA user_version = {VERSION}")


def _repack_pictures(database: sqlite3.Connection) -> None:
    """Pack the panels of questions as they are packed today; keys follow, since pictures' bytes are part of them."""
    names = {}
    for sha256, png in database.execute("SELECT sha256, png FROM images").fetchall():
        today = repacked(png)
        names[sha256] = hashlib.sha256(today).hexdigest()
        database.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (names[sha256], today))
    columns = "rowid, key, kind, model, prompt_version, messages, parameters"
    for row, key, kind, model, prompt, messages, parameters in database.execute(
        f"SELECT {columns} FROM answers WHERE kind = 'critic'"
    ).fetchall():
        words = json.loads(messages)
        for part in (part for message in words for part in message["content"] if isinstance(part, dict)):
            if part.get("sha256") in names:
                part["sha256"] = names[part["sha256"]]
        if json.dumps(words) == messages:
            continue
        today = key_of(kind, model, prompt, words, json.loads(parameters))
        database.execute(
            "UPDATE OR IGNORE answers SET key = ?, messages = ? WHERE rowid = ?",
            (today, json.dumps(words), row),
        )
        for table in ("cases", "failures"):
            database.execute(f"UPDATE OR IGNORE {table} SET key = ? WHERE key = ?", (today, key))
    database.execute(
        "DELETE FROM images WHERE NOT EXISTS (SELECT 1 FROM answers WHERE instr(messages, sha256))"
    )


def version_of(database: sqlite3.Connection) -> int:
    """Of its tables; 0 before there are any."""
    return database.execute("PRAGMA user_version").fetchone()[0]


def not_usable(database: sqlite3.Connection, read_only: bool) -> str:
    """Why this version of the package cannot use a store, in words that follow its path; empty if it can."""
    version = version_of(database)
    if version > VERSION:
        return "was written by a later version of lvlmva-lite; upgrade, or give another --store"
    if version == 2 and not read_only and database.execute("SELECT 1 FROM batches LIMIT 1").fetchone():
        return (
            "waits for a batch that an earlier version of lvlmva-lite sent, whose answers this one would not know; "
            "collect it with that version, by the command that sent it, then upgrade"
        )
    return ""


def opened_to_read(file: Path) -> sqlite3.Connection:
    """A database, on a disk that may be read-only; tables of a version before look like those of today."""
    address = file.resolve().as_uri() + "?mode=ro"
    database = sqlite3.connect(address, uri=True, timeout=60, isolation_level=None, check_same_thread=False)
    try:
        version = version_of(database)
    except sqlite3.OperationalError:
        # Its write-ahead log cannot be made here; without one there is nothing in it to miss.
        database.close()
        database = sqlite3.connect(
            address + "&immutable=1", uri=True, isolation_level=None, check_same_thread=False
        )
        version = version_of(database)
    if version < VERSION:
        kept = ["images", "failures"]
        if version < 2:
            database.create_function("unusable_reason", 1, unusable_reason)
            database.execute(
                "CREATE TEMP TABLE answers AS SELECT key, '' AS server, kind, model, prompt_version, parameters, "
                "messages, answer, recorded, unusable_reason(answer) AS unusable FROM main.answers"
            )
            database.execute("CREATE TEMP TABLE cases (case_id TEXT, key TEXT)")
        else:
            kept += ["answers", "cases"]
        for table in kept:
            database.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM main.{table}")
        _repack_pictures(database)
    return database


def unusable_reason(answer: str) -> str:
    """Why a recorded answer cannot be used, as far as it shows by itself."""
    try:
        fault = Answer(**json.loads(answer)).nothing
    except (ValueError, TypeError, AttributeError):
        return "unreadable"
    return fault.kind if fault else ""
