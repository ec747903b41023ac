"""The book of a watch: every file that it has met, what became of it, and when it is tried again.

It lies in an SQLite file beside the queue's, and outlives the jobs there. A row's `key` is the `batch` of its job, so that
after a crash neither is without the other for long.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from upframe.errors import OutputError
from upframe.service.watching.tree import Stamp

VERSION = 1

State = Literal["waiting", "making", "later", "done", "failed"]
"""`waiting` for a place in the queue, `making` there, `later` after a failure that may pass, `done` or `failed` for good."""

_TABLE = """
CREATE TABLE IF NOT EXISTS files (
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, digest TEXT NOT NULL, state TEXT NOT NULL,
  key TEXT NOT NULL UNIQUE, attempts INTEGER NOT NULL, retry_at REAL NOT NULL, output TEXT, reason TEXT
);
CREATE INDEX IF NOT EXISTS files_by_state ON files (state, retry_at);
CREATE INDEX IF NOT EXISTS files_by_digest ON files (digest);
"""


@dataclass(frozen=True)
class Entry:
    """One file."""

    path: str
    """Below the watched folder."""
    stamp: Stamp
    digest: str
    state: State
    key: str
    attempts: int = 0
    retry_at: float = 0.0
    """Unix time."""
    output: str | None = None
    """Below the output folder."""
    reason: str | None = None
    """Why it failed last."""


def new_entry(path: str, stamp: Stamp, digest: str, output: str | None) -> Entry:
    return Entry(path, stamp, digest, "waiting", new_key(), output=output)


def new_key() -> str:
    """A key that no job has had, so that the end of an earlier one is not taken for that of the next."""
    return secrets.token_hex(8)


class Ledger:
    """The book's file; all methods are called by one thread.

    Raises:
        OutputError: if it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise OutputError(path, "was made by another version of upframe", "use that version, or another --output")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLE)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error as error:
            raise OutputError(path, f"cannot be used ({error})", "move it away, or use another --output") from error

    def close(self) -> None:
        self._db.close()

    def write(self, entry: Entry) -> None:
        """Add a file, or replace what is known of it."""
        self._db.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(entry.path, entry.stamp.size, entry.stamp.mtime_ns, entry.digest, entry.state),
                *(entry.key, entry.attempts, entry.retry_at, entry.output, entry.reason),
            ),
        )

    def forget(self, path: str) -> None:
        self._db.execute("DELETE FROM files WHERE path=?", (path,))

    def get(self, path: str) -> Entry | None:
        return next(self._select("WHERE path=?", path), None)

    def of_key(self, key: str) -> Entry | None:
        return next(self._select("WHERE key=?", key), None)

    def of_output(self, output: str) -> Entry | None:
        return next(self._select("WHERE output=?", output), None)

    def of_digest(self, digest: str) -> list[Entry]:
        return list(self._select("WHERE digest=?", digest))

    def in_state(self, state: State, *, limit: int = -1) -> list[Entry]:
        return list(self._select("WHERE state=? ORDER BY rowid LIMIT ?", state, limit))

    def wake(self, now: float) -> None:
        """Let files wait whose pause is over."""
        self._db.execute("UPDATE files SET state='waiting' WHERE state='later' AND retry_at <= ?", (now,))

    def next_retry(self) -> float | None:
        (at,) = self._db.execute("SELECT min(retry_at) FROM files WHERE state='later'").fetchone()
        return None if at is None else float(at)

    def counts(self) -> dict[State, int]:
        found = dict(self._db.execute("SELECT state, count(*) FROM files GROUP BY state"))
        return {state: found.get(state, 0) for state in get_args(State)}

    def _select(self, rest: str, *values: object) -> Iterator[Entry]:
        columns = "path, size, mtime_ns, digest, state, key, attempts, retry_at, output, reason"
        for row in self._db.execute(f"SELECT {columns} FROM files {rest}", values).fetchall():  # noqa: S608 (no values)
            path, size, mtime_ns, *others = row
            yield Entry(path, Stamp(size, mtime_ns), *others)


def again_later(entry: Entry, reason: str, now: float, pause_s: float) -> Entry:
    return replace(entry, state="later", attempts=entry.attempts + 1, retry_at=now + pause_s, reason=reason)
