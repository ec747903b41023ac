"""The queue at work: takes jobs to the workers, and carries out what users ask of it.

A job is `queued`, `running`, `paused`, `done`, `failed` or `cancelled`. Each change is written with the event that tells of it.
Only this module changes states, in one thread, so that no two requests can disagree.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from upframe.service import wire
from upframe.service.announcing import Announcer
from upframe.service.crew import Child
from upframe.service.problems import Gone, Problem, Refused
from upframe.service.requests import request_for, room_for
from upframe.service.settings import ServiceLimits
from upframe.service.storage import JobFolder, Storage, new_id, plain_name
from upframe.service.store import Store, StoredJob

log = logging.getLogger(__name__)

MOST_CRASHES = 3
"""Crashes of a worker with one job, none of which came further than the one before, after which the job fails."""
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
ROOM_LOOK_S = 2.0
"""Between two looks whether a job that waits for room has it; files of the data folder go in many ways."""
ENDED: tuple[wire.JobState, ...] = ("done", "failed", "cancelled")

Wish = Literal["pause", "cancel", "delete", "requeue"]
"""Why a running job was stopped: "requeue" when the whole queue pauses or the server ends."""


class JobQueue:
    """The jobs of a server and the workers that carry them out."""

    def __init__(
        self, store: Store, storage: Storage, announcer: Announcer, workers: Sequence[Child], limits: ServiceLimits
    ) -> None:
        self._store, self._storage, self._announcer = store, storage, announcer
        self._workers, self._limits = workers, limits
        self._running: dict[str, Child] = {}
        self._begun: set[str] = set()
        """Running jobs whose worker has started with them."""
        self._reached: dict[str, float] = {}
        """Share of the running jobs that was done at most."""
        self._bad_starts = 0
        """Workers in a row that ended before they started with a job."""
        self._needs: dict[str, int] = {}
        """Bytes that queued jobs need which found less room; they stand back until there is enough."""
        self._wishes: dict[str, Wish] = {}
        self._stops: dict[str, asyncio.Task[None]] = {}
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._has_failed = False
        """Whether the queue itself met an error, and may have left a job behind."""
        self.finished: dict[str, int] = {"done": 0, "failed": 0, "cancelled": 0, "crashed": 0}
        """Counts since the start, for figures."""
        self.input_bytes = 0
        self.seconds = 0.0
        self._put_back()

    # Start and end
    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._serve(worker)) for worker in self._workers]

    async def close(self) -> None:
        """Put running jobs back and end the workers."""
        self._is_closing = True
        for id in self._running:
            self._wishes.setdefault(id, "requeue")
        for worker in self._workers:
            await worker.end()
        for task in (*self._tasks, *self._stops.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._stops.values(), return_exceptions=True)
        self._put_back()

    def _put_back(self) -> None:
        """Jobs that ran when a server ended wait again; their unfinished work is kept."""
        for stored in self._store.in_state("running"):
            if stored.job.id not in self._running:
                self._change(stored, "queued", "queued", reason="the server ended")
        self._has_failed = False

    # Wishes of users
    def add(self, *, source: Path, is_own: bool, name: str, new: wire.NewJob) -> wire.Job:
        """Put a job into the queue.

        Args:
            source: The input.
            is_own: Whether the input lies in the data folder, and is linked into the job's folder.
        """
        counts = self._store.counts()
        if counts.get("queued", 0) + counts.get("paused", 0) >= self._limits.jobs:
            raise Problem(429, "queue", f"{self._limits.jobs} jobs are waiting", "wait until some are done")
        id = new_id()
        taken = self._storage.job(id).take(source, name) if is_own else source
        job = wire.Job(
            id=id,
            name=plain_name(name),
            state="paused" if new.paused else "queued",
            batch=new.batch,
            position=self._store.last_position() + 1,
            options=new.options,
            created=time.time(),
            input_bytes=taken.stat().st_size,
        )
        try:
            self._store.add(StoredJob(job, taken), [("paused" if new.paused else "queued", {})])
        except BaseException:
            self._storage.job(id).remove()
            raise
        self._tell()
        return job

    def get(self, id: str) -> StoredJob:
        """A job with its progress.

        Raises:
            Problem: if there is none of that name.
        """
        stored = self._store.get(id)
        if stored is None:
            raise Problem(404, f"job {id}", "is not here", "it was deleted, or has expired")
        stored.job.progress = self._announcer.progress_of(id)
        return stored

    async def pause(self, id: str) -> wire.Job:
        stored = self.get(id)
        if stored.job.state == "running":
            await self._stop(id, "pause")
        elif stored.job.state == "queued":
            self._change(stored, "paused", "paused")
        elif stored.job.state != "paused":
            raise _not_in_state(stored.job, "be paused")
        return self.get(id).job

    def resume(self, id: str) -> wire.Job:
        stored = self.get(id)
        if stored.job.state == "paused":
            self._change(stored, "queued", "queued")
        elif stored.job.state not in ("queued", "running"):
            raise _not_in_state(stored.job, "go on")
        return self.get(id).job

    async def cancel(self, id: str) -> wire.Job:
        """Stop a job and remove its unfinished work. Takes less than two seconds."""
        stored = self.get(id)
        if stored.job.state == "running":
            await self._stop(id, "cancel")
        elif stored.job.state in ("queued", "paused"):
            self._cancelled(stored)
        elif stored.job.state != "cancelled":
            raise _not_in_state(stored.job, "be cancelled")
        return self.get(id).job

    def retry(self, id: str) -> wire.Job:
        stored = self.get(id)
        if stored.job.state not in ("failed", "cancelled"):
            raise _not_in_state(stored.job, "be tried again")
        stored.crashes, stored.reached = 0, 0.0
        stored.job.position = self._store.last_position() + 1
        self._change(stored, "queued", "queued")
        return self.get(id).job

    def move(self, id: str, before: str | None) -> wire.Job:
        """Put a job before another one, or at the end."""
        stored = self.get(id)
        if before == id:
            return stored.job
        if before is None:
            stored.job.position = self._store.last_position() + 1
        else:
            self.get(before)
            position = self._store.position_before(before)
            if position is None:
                self._store.renumber()
                stored = self.get(id)
                position = self._store.position_before(before)
            assert position is not None
            stored.job.position = position
        self._store.save(stored, ("moved", {"before": before}))
        self._tell()
        return self.get(id).job

    async def delete(self, id: str) -> None:
        """Stop a job and remove it with all its files."""
        if self.get(id).job.state == "running":
            await self._stop(id, "delete")
        if self._store.get(id) is not None:
            self._remove(id)

    async def set_paused(self, paused: bool) -> None:
        """Stop all running jobs, which wait then, or go on with them."""
        self._store.paused = paused
        if paused:
            await asyncio.gather(*(self._stop(id, "requeue") for id in tuple(self._running)))
        self._tell()

    def remove_expired(self, now: float) -> None:
        """Remove ended jobs that have expired, and folders that belong to no job."""
        for id in self._store.expired(now):
            self._remove(id)
        for id in self._storage.job_ids() - self._store.ids():
            self._storage.job(id).remove()
        self._store.forget_events(now - self._limits.keep_s)

    def folder(self, id: str) -> JobFolder:
        return self._storage.job(id)

    @property
    def pids(self) -> list[int]:
        """Processes of the workers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    # Work
    async def _serve(self, worker: Child) -> None:
        """Carry out one job after the other."""
        with contextlib.suppress(OSError):
            await worker.start()
        while not self._is_closing:
            try:
                if self._has_failed:
                    self._put_back()
                self._work.clear()
                stored = await self._next()
                if stored is None:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._work.wait(), ROOM_LOOK_S if self._needs else None)
                else:
                    await self._carry_out(worker, stored)
            except Exception:
                # An error of the queue itself, such as a full disk below its file, must not end the loop or lose the job.
                log.exception("%s", worker.name)
                await worker.end()
                await asyncio.sleep(_PAUSE_S)
                self._has_failed = True

    async def _next(self) -> StoredJob | None:
        """The first queued job for which there is room, as far as is known."""
        most, lacking = self._limits.data_bytes, list[str]()
        if most is not None and self._needs:
            used = await asyncio.to_thread(self._storage.used_bytes)
            lacking = [id for id, needed in self._needs.items() if needed > room_for(self.folder(id).outputs, most, used)]
        return None if self._store.paused else self._store.next_queued(besides=lacking)

    async def _carry_out(self, worker: Child, stored: StoredJob) -> None:
        job = stored.job
        job.started, job.attempts = time.time(), job.attempts + 1
        job.notices, job.ledger = [], []
        self._running[job.id] = worker
        self._announcer.set_progress(job.id, wire.Progress(done=0, stage="starting"))
        self._change(stored, "running", "started")
        error: wire.Error | None = None
        result: dict[str, Any] = {}
        crash: Gone | None = None
        try:
            result = await worker.ask("render", self._request(stored), on_event=lambda e, d: self._heard(job.id, e, d))
            error = wire.Error.model_validate(result["error"]) if "error" in result else None
        except Refused as refused:
            error = refused.error
        except Gone as gone:
            crash = gone
        finally:
            self._running.pop(job.id, None)
            self._announcer.set_progress(job.id, None)
        has_begun, wish = job.id in self._begun, self._wishes.pop(job.id, None)
        self._begun.discard(job.id)
        reached = self._reached.pop(job.id, 0.0)
        ended = self._store.get(job.id)
        if ended is None or self._is_closing:
            return
        if crash is not None and not has_begun and wish is None:
            await self._wait_for_better_times(ended, crash)
        else:
            self._bad_starts = 0
            self._settle(ended, wish, result, error, crash, reached)

    async def _wait_for_better_times(self, stored: StoredJob, crash: Gone) -> None:
        """A worker cannot even start, for instance for lack of memory. That is no fault of the job, and would be every other
        one's, too: it keeps its place and waits."""
        self._bad_starts += 1
        log.warning("a worker %s before it started with a job", crash.reason)
        self._change(stored, "queued", "queued", reason=f"a worker {crash.reason}")
        await asyncio.sleep(min(_PAUSE_S * 2 ** (self._bad_starts - 1), _LONGEST_PAUSE_S))

    def _settle(
        self,
        stored: StoredJob,
        wish: Wish | None,
        result: dict[str, Any],
        error: wire.Error | None,
        crash: Gone | None,
        reached: float,
    ) -> None:
        """Decide what becomes of a job that no longer runs."""
        if "output" in result:
            self._done(stored, result)
        elif wish == "cancel":
            self._cancelled(stored)
        elif wish == "pause":
            self._change(stored, "paused", "paused")
        elif wish == "requeue":
            self._change(stored, "queued", "queued", reason="the queue was paused")
        elif wish == "delete":
            self._remove(stored.job.id)
        elif crash is not None:
            self._crashed(stored, crash, reached)
        else:
            assert error is not None
            self._failed(stored, error, needed=result.get("needed_bytes"))

    def _request(self, stored: StoredJob) -> dict[str, Any]:
        folder = self._storage.job(stored.job.id)
        folder.outputs.mkdir(parents=True, exist_ok=True)
        return request_for(
            stored.input, stored.job.name, folder.outputs, stored.job.options, limits=self._limits, storage=self._storage
        )

    def _heard(self, id: str, event: str, data: dict[str, Any]) -> None:
        """Write an event of a running job, or remember its progress."""
        if event == "progress":
            self._announcer.set_progress(id, wire.Progress.model_validate(data))
            self._reached[id] = max(self._reached.get(id, 0.0), data["done"])
            return
        if event == "begun":
            self._begun.add(id)
            return
        stored = self._store.get(id)
        if stored is None:
            return
        if event == "planned":
            stored.job.plan = wire.Plan.model_validate(data)
            stored.job.kind = stored.job.plan.kind
            self._store.save(stored)
        elif event == "notice":
            stored.job.notices.append(wire.Notice.model_validate(data))
            self._store.save(stored, ("notice", data))
        else:
            self._store.save(stored, (event, data))
        self._announcer.wake()

    async def _stop(self, id: str, wish: Wish) -> None:
        """Stop a running job and wait until it has stopped. The strongest wish holds."""
        strength: dict[Wish | None, int] = {None: 0, "requeue": 1, "pause": 2, "cancel": 3, "delete": 4}
        worker = self._running.get(id)
        if worker is None:
            return
        if strength[wish] > strength[self._wishes.get(id)]:
            self._wishes[id] = wish
        if id not in self._stops:
            self._stops[id] = asyncio.create_task(worker.cancel())
        try:
            await asyncio.shield(self._stops[id])
            while id in self._running:
                await self._announcer.wait(0.05)
        finally:
            self._stops.pop(id, None)

    # Changes of state
    def _change(
        self, stored: StoredJob, state: wire.JobState, event: str, *, because: wire.Error | None = None, **data: Any
    ) -> None:
        stored.job.state, stored.job.error = state, because
        self._needs.pop(stored.job.id, None)
        if state in ENDED:
            stored.job.ended = time.time()
            stored.job.expires = stored.job.ended + self._limits.keep_s
        else:
            stored.job.ended = stored.job.expires = None
        if state in self.finished:
            self.finished[state] += 1
        self._store.save(stored, (event, data))
        self._tell()

    def _done(self, stored: StoredJob, result: dict[str, Any]) -> None:
        stored.output = Path(result["path"])
        stored.job.output = wire.Output.model_validate(result["output"])
        stored.job.ledger = [wire.LedgerEntry.model_validate(entry) for entry in result["ledger"]]
        self.input_bytes += stored.job.input_bytes
        self.seconds += stored.job.output.seconds
        self._change(stored, "done", "done", output=stored.job.output.name)

    def _cancelled(self, stored: StoredJob) -> None:
        self._storage.job(stored.job.id).remove_outputs()
        self._change(stored, "cancelled", "cancelled")

    def _failed(self, stored: StoredJob, error: wire.Error, *, needed: int | None = None) -> None:
        """A job failed, or waits for room if that is all it lacks.

        Args:
            needed: Bytes of its output, if the server's quota has no room for them now.
        """
        most = self._limits.data_bytes
        if needed is not None and most is not None and needed + self._own_bytes(stored) <= most:
            self._change(stored, "queued", "queued", because=error, reason=error.error)
            self._needs[stored.job.id] = needed
        else:
            self._change(stored, "failed", "failed", because=error, error=error.error)

    def _own_bytes(self, stored: StoredJob) -> int:
        """Bytes of a job's input in the data folder, which stay as long as the job does."""
        return stored.job.input_bytes if stored.input.is_relative_to(self._storage.root) else 0

    def _crashed(self, stored: StoredJob, crash: Gone, reached: float) -> None:
        stored.crashes = 1 if reached > stored.reached else stored.crashes + 1
        stored.reached = max(stored.reached, reached)
        self.finished["crashed"] += 1
        log.warning("job %s: its worker %s", stored.job.id, crash.reason)
        if stored.crashes < MOST_CRASHES:
            self._change(stored, "queued", "queued", reason=f"its worker {crash.reason}")
        else:
            self._failed(stored, crash.as_error(stored.job.name))

    def _remove(self, id: str) -> None:
        self._store.remove(id)
        self._needs.pop(id, None)
        self._storage.job(id).remove()
        self._tell()

    def _tell(self) -> None:
        self._announcer.wake()
        self._work.set()


def _not_in_state(job: wire.Job, wish: str) -> Problem:
    return Problem(409, job.name, f"is {job.state} and cannot {wish}")
