"""The durable queue: jobs, events and uploads in one SQLite file.

Every change is on the disk before it is announced (write-ahead log, synchronous FULL). One process writes, which holds
`Storage.lock`. A job's facts are one JSON document, checked by `wire.Job`; what is searched for has columns of its own.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upframe.errors import OutputError
from upframe.service import wire

VERSION = 1
"""Of the tables; a file of another version is refused."""

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, state TEXT NOT NULL, position REAL NOT NULL, batch TEXT, created REAL NOT NULL, expires REAL,
  body TEXT NOT NULL, input TEXT NOT NULL, output TEXT, crashes INTEGER NOT NULL DEFAULT 0,
  reached REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, position);
CREATE INDEX IF NOT EXISTS jobs_by_batch ON jobs (batch);
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, time REAL NOT NULL, event TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_job ON events (job, id);
CREATE TABLE IF NOT EXISTS uploads (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, length INTEGER NOT NULL, expires REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass
class StoredJob:
    """A job and what only the server knows of it."""

    job: wire.Job
    input: Path
    output: Path | None = None
    crashes: int = 0
    """Crashes of workers in a row, none of which came further than the one before."""
    reached: float = 0.0
    """Share that was done at most when a worker crashed."""


@dataclass(frozen=True)
class StoredEvent:
    id: int
    job: str
    time: float
    event: str
    data: dict[str, Any]


class Store:
    """The queue's file. Methods take milliseconds; all are called by one thread.

    Raises:
        OutputError: if the file cannot be used; it is left as it is.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise OutputError(path, "was made by another version of upframe", "use that version, or another --data")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error as error:
            raise OutputError(path, f"cannot be used ({error})", "move it away, or use another --data") from error

    def close(self) -> None:
        self._db.close()

    # Jobs
    def add(self, stored: StoredJob, events: Sequence[tuple[str, dict[str, Any]]]) -> list[StoredEvent]:
        """Add a job together with its first events."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            job = stored.job
            self._db.execute(
                "INSERT INTO jobs (id, state, position, batch, created, expires, body, input) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (job.id, job.state, job.position, job.batch, job.created, job.expires, _body(job), str(stored.input)),
            )
            return [self._tell(job.id, event, data) for event, data in events]

    def save(self, stored: StoredJob, *events: tuple[str, dict[str, Any]]) -> list[StoredEvent]:
        """Write a changed job and the events that tell of it, both or neither."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            job = stored.job
            output = None if stored.output is None else str(stored.output)
            self._db.execute(
                "UPDATE jobs SET state=?, position=?, expires=?, body=?, output=?, crashes=?, reached=? WHERE id=?",
                (job.state, job.position, job.expires, _body(job), output, stored.crashes, stored.reached, job.id),
            )
            return [self._tell(job.id, event, data) for event, data in events]

    def remove(self, id: str) -> StoredEvent:
        """Remove a job and its events; one event remains, which tells of it."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM jobs WHERE id=?", (id,))
            self._db.execute("DELETE FROM events WHERE job=?", (id,))
            return self._tell(id, "deleted", {})

    def get(self, id: str) -> StoredJob | None:
        found = self._select("WHERE id=?", (id,))
        return found[0] if found else None

    def next_queued(self, *, besides: Sequence[str] = ()) -> StoredJob | None:
        """The first queued job that is none of `besides`."""
        marks = ", ".join("?" * len(besides))
        found = self._select(f"WHERE state='queued' AND id NOT IN ({marks}) ORDER BY position LIMIT 1", besides)
        return found[0] if found else None

    def in_state(self, *states: wire.JobState) -> list[StoredJob]:
        marks = ", ".join("?" * len(states))
        return self._select(f"WHERE state IN ({marks}) ORDER BY position", states)

    def matching(
        self, *, states: Sequence[str] = (), batch: str | None = None, limit: int = -1, offset: int = 0
    ) -> tuple[list[StoredJob], int]:
        """Jobs by position, and how many there are without the limit."""
        where, values = [], list[Any]()
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        if batch is not None:
            where.append("batch=?")
            values.append(batch)
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        (total,) = self._db.execute(f"SELECT count(*) FROM jobs {condition}", values).fetchone()  # noqa: S608 (no values)
        return self._select(f"{condition} ORDER BY position LIMIT ? OFFSET ?", (*values, limit, offset)), total

    def expired(self, now: float) -> list[str]:
        return [id for (id,) in self._db.execute("SELECT id FROM jobs WHERE expires < ?", (now,))]

    def ids(self) -> set[str]:
        return {id for (id,) in self._db.execute("SELECT id FROM jobs")}

    def counts(self) -> dict[str, int]:
        """Number of jobs by state."""
        return dict(self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state"))

    def last_position(self) -> float:
        (last,) = self._db.execute("SELECT max(position) FROM jobs").fetchone()
        return float(last or 0.0)

    def position_before(self, id: str) -> float | None:
        """A position right before this job's; None if there is no such job."""
        found = self._db.execute("SELECT position FROM jobs WHERE id=?", (id,)).fetchone()
        if found is None:
            return None
        (earlier,) = self._db.execute("SELECT max(position) FROM jobs WHERE position < ?", found).fetchone()
        low = found[0] - 1 if earlier is None else earlier
        middle = (low + found[0]) / 2
        return middle if low < middle < found[0] else None

    def renumber(self) -> None:
        """Give all jobs whole positions in their order, after many moves into one gap."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            ids = [id for (id,) in self._db.execute("SELECT id FROM jobs ORDER BY position")]
            for position, id in enumerate(ids, start=1):
                stored = self.get(id)
                assert stored is not None
                stored.job.position = float(position)
                self._db.execute("UPDATE jobs SET position=?, body=? WHERE id=?", (position, _body(stored.job), id))

    def _select(self, rest: str, values: Iterable[Any] = ()) -> list[StoredJob]:
        rows = self._db.execute(f"SELECT body, input, output, crashes, reached FROM jobs {rest}", tuple(values))  # noqa: S608
        return [
            StoredJob(wire.Job.model_validate_json(body), Path(input), Path(output) if output else None, crashes, reached)
            for body, input, output, crashes, reached in rows
        ]

    # Events
    def tell(self, job: str, event: str, data: dict[str, Any]) -> StoredEvent:
        return self._tell(job, event, data)

    def _tell(self, job: str, event: str, data: dict[str, Any]) -> StoredEvent:
        now = time.time()
        cursor = self._db.execute(
            "INSERT INTO events (job, time, event, data) VALUES (?, ?, ?, ?)", (job, now, event, json.dumps(data))
        )
        assert cursor.lastrowid is not None
        return StoredEvent(cursor.lastrowid, job, now, event, data)

    def events_after(self, id: int, *, job: str | None = None, limit: int = 500) -> list[StoredEvent]:
        condition, values = ("id > ?", (id,)) if job is None else ("id > ? AND job = ?", (id, job))
        rows = self._db.execute(
            f"SELECT id, job, time, event, data FROM events WHERE {condition} ORDER BY id LIMIT ?",  # noqa: S608
            (*values, limit),
        )
        return [StoredEvent(number, of, at, event, json.loads(data)) for number, of, at, event, data in rows]

    def last_event(self) -> int:
        (last,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name='events'").fetchone()
        return int(last)

    def forget_events(self, before: float) -> None:
        """Remove the events of deleted jobs that are older than this time."""
        self._db.execute("DELETE FROM events WHERE event='deleted' AND time < ?", (before,))

    # Uploads
    def add_upload(self, id: str, name: str, length: int, expires: float) -> None:
        self._db.execute("INSERT INTO uploads VALUES (?, ?, ?, ?)", (id, name, length, expires))

    def upload(self, id: str) -> tuple[str, int, float] | None:
        """Name, length and expiry."""
        found = self._db.execute("SELECT name, length, expires FROM uploads WHERE id=?", (id,)).fetchone()
        return None if found is None else (found[0], found[1], found[2])

    def uploads(self) -> list[tuple[str, str, int, float]]:
        """Id, name, length and expiry of all, the oldest first."""
        return list(self._db.execute("SELECT id, name, length, expires FROM uploads ORDER BY rowid"))

    def keep_upload(self, id: str, expires: float) -> None:
        self._db.execute("UPDATE uploads SET expires=? WHERE id=?", (expires, id))

    def remove_upload(self, id: str) -> None:
        self._db.execute("DELETE FROM uploads WHERE id=?", (id,))

    # Settings
    @property
    def paused(self) -> bool:
        found = self._db.execute("SELECT value FROM settings WHERE name='paused'").fetchone()
        return found is not None and found[0] == "yes"

    @paused.setter
    def paused(self, value: bool) -> None:
        self._db.execute("INSERT OR REPLACE INTO settings VALUES ('paused', ?)", ("yes" if value else "no",))


def _body(job: wire.Job) -> str:
    return job.model_dump_json(exclude={"progress"})
