"""Who listens to events is woken here, and finds them in the queue's file; progress is only in memory."""

from __future__ import annotations

import asyncio
import contextlib

from upframe.service import wire


class Announcer:
    """Wakes listeners, and holds the latest progress of running jobs."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._progress: dict[str, tuple[int, wire.Progress]] = {}
        self._count = 0
        self.beat = 0
        """Number of times that listeners were woken."""
        self.is_closed = False
        """Whether the server ends; listeners leave then."""

    def wake(self) -> None:
        self.beat += 1
        self._event.set()
        self._event = asyncio.Event()

    def close(self) -> None:
        self.is_closed = True
        self.wake()

    async def wait(self, timeout_s: float) -> None:
        """Wait until something happens, or for so long."""
        event = self._event
        if not self.is_closed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), timeout_s)

    def progress_of(self, job: str) -> wire.Progress | None:
        found = self._progress.get(job)
        return None if found is None else found[1]

    def set_progress(self, job: str, progress: wire.Progress | None) -> None:
        """Remember the progress of a job; None once it no longer runs."""
        self._count += 1
        if progress is None:
            self._progress.pop(job, None)
        else:
            self._progress[job] = (self._count, progress)
            self.wake()

    def progress_since(self, count: int, job: str | None) -> tuple[int, list[str]]:
        """Jobs whose progress changed after `count`, and the count now."""
        changed = [id for id, (when, _) in self._progress.items() if when > count and job in (None, id)]
        return self._count, changed
