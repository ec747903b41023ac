"""A watch at work: files go from the folder through the book into the queue, and their outputs into the output folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from upframe.errors import Cancelled, OptionError, OutputError, UpframeError, UsageError, check_number
from upframe.files import Lock, writing
from upframe.service import wire
from upframe.service.announcing import Announcer
from upframe.service.crew import Child
from upframe.service.devices import devices_for, workers_for
from upframe.service.problems import wire_error
from upframe.service.queue import ENDED, JobQueue
from upframe.service.settings import ServiceLimits
from upframe.service.storage import Storage
from upframe.service.store import Store
from upframe.service.watching import delivery
from upframe.service.watching.ledger import Entry, Ledger, again_later, new_entry, new_key
from upframe.service.watching.tree import Settling, Stamp, Tree, digest_of, follow, tells_no_changes

log = logging.getLogger(__name__)

DATA = ".upframe-watch"
"""Folder of the queue, below the output's: finished files are renamed from there."""
POLL_S = 2.0
"""Least time between two looks at the whole folder where the system tells of no changes."""
CHECK_S = 300.0
"""Time between them where it does: what it tells may be cut short when very much happens at once."""
MOST_QUEUED = 50
"""Jobs in the queue at once; all others wait in the book."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 900.0
MOST_ATTEMPTS = 10
"""Of one file whose failure may pass; the pauses between them come to about an hour."""
MAY_PASS = frozenset(("OutputError", "BusyError", "ResourceError", "OutOfMemoryError", "ModelError"))
"""Errors that are not the input's: a full disk, another run, a lack of memory, weights that are not there."""
OF_FLAGS = frozenset(("UsageError", "OptionError", "MissingError"))
"""Errors of an input together with the flags, which the next start may have other ones of."""

_NO_LIMITS = 1 << 62

Tell = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class WatchSettings:
    """Settings of a watch.

    Raises:
        OptionError, UsageError: for values that are not valid.
    """

    folder: Path
    output: Path
    options: wire.Options = field(default_factory=wire.Options)
    devices: tuple[str, ...] = ()
    """Empty for all CUDA devices, else the CPU."""
    settle_s: float = 2.0
    """How long a file must be unchanged before it is taken."""
    once: bool = False
    """Whether the watch ends when nothing is left to do."""
    poll: bool = False
    """Whether the folder is looked at again and again, although the system could tell of changes."""
    overwrite: bool = False
    move_done: Path | None = None
    """Folder for inputs that are done; None leaves them where they are."""
    max_pixels: int = 500_000_000
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_number("settle", self.settle_s, above=0)
        if not self.folder.is_dir():
            raise UsageError(self.folder, "is not a folder", "name the folder to watch")
        for option, folder in (("output", self.output), ("move_done", self.move_done)):
            if folder is not None and self.folder.resolve().is_relative_to(folder.resolve()):
                raise OptionError(option, folder, "is the watched folder, or holds it", "choose another one")


def watch(settings: WatchSettings, *, stop: threading.Event, tell: Tell) -> dict[str, int]:
    """Make what comes into a folder, until `stop` is set.

    Args:
        tell: Called with the name and data of each event.

    Returns:
        Number of files that were `done` and `failed` in this run, and of those that are `left` for the next one.

    Raises:
        OutputError: if the output folder cannot be used, or another watch uses it.
    """
    return asyncio.run(_Watch(settings, stop, tell).run())


class _Watch:
    def __init__(self, settings: WatchSettings, stop: threading.Event, tell: Tell) -> None:
        self._settings, self._stop, self._tell = settings, stop, tell
        top, self._output = settings.folder.resolve(), settings.output.resolve()
        own = {self._output} | ({settings.move_done.resolve()} if settings.move_done is not None else set())
        self._tree = Tree(top, frozenset(own), settings.include, settings.exclude)
        self._settling = Settling(settings.settle_s)
        self._failures = delivery.Failures(self._output)
        self._counts = {"done": 0, "failed": 0}
        self._changed: set[Path] = set()
        self._polls = settings.poll or tells_no_changes(top)
        self._next_scan = 0.0

    async def run(self) -> dict[str, int]:
        with self._opened():
            self._queue.start()
            tasks = [asyncio.create_task(self._end_on_stop())]
            if not self._polls and not self._settings.once:
                tasks.append(asyncio.create_task(self._follow()))
            try:
                self._tell(
                    "watching",
                    {
                        "folder": str(self._tree.top),
                        "output": str(self._output),
                        "polls": self._polls,
                        "once": self._settings.once,
                    },
                )
                while not self._stop.is_set() and not await self._round():
                    pass
            finally:
                self._stop.set()  # the thread that waits for it ends
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._queue.close()
            counts = self._ledger.counts()
            return self._counts | {"left": counts["waiting"] + counts["making"] + counts["later"]}

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        """The files of the queue and the book, which one watch uses at a time."""
        with contextlib.ExitStack() as opened:
            with writing(self._output):
                self._output.mkdir(parents=True, exist_ok=True)
                self._storage = Storage(self._output / DATA)
                opened.enter_context(Lock(self._storage.lock))
            self._store = opened.enter_context(contextlib.closing(Store(self._storage.database)))
            self._ledger = opened.enter_context(contextlib.closing(Ledger(self._storage.root / "files.sqlite3")))
            self._announcer = Announcer()
            self._queue = JobQueue(self._store, self._storage, self._announcer, self._workers(), self._limits())
            self._reconcile()
            yield

    def _workers(self) -> list[Child]:
        devices = devices_for(self._settings.devices)
        root, logs = self._storage.root, self._storage.logs
        return [Child(name, root=root, logs=logs, device=device) for name, device in workers_for(devices)]

    def _limits(self) -> ServiceLimits:
        """Those of the command line: the user's own files have no others."""
        return ServiceLimits(pixels=self._settings.max_pixels, output_pixels=_NO_LIMITS, video_seconds=float(_NO_LIMITS))

    def _reconcile(self) -> None:
        """After a crash between two writes, let the book and the queue agree. What waits for better times is tried at once:
        whoever starts the watch again may have brought them."""
        self._ledger.wake(math.inf)
        keys = {stored.job.batch for stored in self._store.matching()[0]}
        for entry in self._ledger.in_state("making"):
            if entry.key not in keys:
                self._ledger.write(replace(entry, state="waiting"))
        for entry in self._ledger.in_state("done") if self._settings.move_done is not None else ():
            self._moved(entry)
        for entry in self._ledger.in_state("waiting"):
            if entry.key in keys:
                self._ledger.write(replace(entry, state="making"))

    async def _end_on_stop(self) -> None:
        await asyncio.to_thread(self._stop.wait)
        self._announcer.wake()

    async def _follow(self) -> None:
        """Hear of changes from the system; where it cannot tell, for instance of too many folders, look instead."""
        try:
            await follow(self._tree, self._hear)
        except (OSError, RuntimeError) as error:
            log.warning("%s: the system tells of no changes (%s); upframe looks by itself", self._tree.top, error)
            self._polls, self._next_scan = True, 0.0
            self._announcer.wake()

    def _hear(self, paths: set[Path]) -> None:
        self._changed |= paths
        self._announcer.wake()

    # One round
    async def _round(self) -> bool:
        """Do all that can be done now, then wait for the next event. Whether the watch is over."""
        beat = self._announcer.beat
        self._look(time.monotonic())
        for relative, stamp in self._settling.settled(self._tree, time.monotonic()):
            await self._take(relative, stamp)
        self._ledger.wake(time.time())
        await self._collect()
        await self._drop_vanished()
        self._submit()
        counts = self._ledger.counts()
        if self._settings.once and not self._settling and not counts["waiting"] and not counts["making"]:
            return True
        if self._announcer.beat == beat:  # or something has happened during the round
            await self._announcer.wait(self._pause())
        return False

    def _look(self, now: float) -> None:
        """See the files that have changed, or all of them."""
        changed, self._changed = self._changed, set()
        seen: Iterator[tuple[str, Stamp]]
        if now >= self._next_scan:
            # The second look finds what came between the first one and the system's first word.
            is_early = self._polls or not self._next_scan
            self._next_scan = now + (max(POLL_S, self._settings.settle_s / 2) if is_early else CHECK_S)
            seen = self._tree.files()
        else:
            seen = (found for path in sorted(changed) for found in self._tree.below(path))
        for relative, stamp in seen:
            known = self._ledger.get(relative)
            if known is None or known.stamp != stamp:
                self._settling.see(relative, stamp, now)

    def _pause(self) -> float:
        now = time.monotonic()
        retry = self._ledger.next_retry()
        moments = [self._next_scan - now, self._settling.next_look(now), None if retry is None else retry - time.time()]
        return max(min(moment for moment in moments if moment is not None), 0.01)

    # From the folder into the book
    async def _take(self, relative: str, stamp: Stamp) -> None:
        """Enter a file that has settled, unless its content is done already."""
        try:
            digest = await asyncio.to_thread(digest_of, self._tree.top / relative, self._stop)
        except OSError as error:
            if self._tree.stamp(relative) is not None:
                log.warning("%s: cannot be read (%s); it is tried again", relative, error.strerror)
                self._settling.see(relative, stamp, time.monotonic() + FIRST_PAUSE_S)
            return
        except Cancelled:
            return
        if self._tree.stamp(relative) != stamp:  # it has grown meanwhile
            self._settling.see(relative, self._tree.stamp(relative) or stamp, time.monotonic())
            return
        known = self._ledger.get(relative)
        if known is not None and known.digest == digest and known.state != "failed":
            self._ledger.write(known := replace(known, stamp=stamp))
            if known.state == "done":
                self._moved(known)
            return
        if known is None and (renamed := self._renamed(digest)) is not None:
            self._ledger.forget(renamed.path)
            self._ledger.write(replace(renamed, path=relative, stamp=stamp))
            self._tell("known", {"input": relative, "was": renamed.path, "output": renamed.output})
            return
        self._failures.remove(relative)
        self._ledger.write(new_entry(relative, stamp, digest, None if known is None else known.output))
        self._tell("found", {"input": relative})

    def _renamed(self, digest: str) -> Entry | None:
        """The entry of a file that is done and had another name; a copy whose original is still there is a file of its own.

        Where inputs are moved when they are done, all are gone, so that the same content again is a new file.
        """
        if self._settings.move_done is not None:
            return None
        done = (entry for entry in self._ledger.of_digest(digest) if entry.state == "done")
        return next((entry for entry in done if self._tree.stamp(entry.path) is None), None)

    # From the book into the queue
    def _submit(self) -> None:
        room = MOST_QUEUED - len(self._ledger.in_state("making"))
        for entry in self._ledger.in_state("waiting", limit=max(room, 0)):
            if not self._is_there(entry):
                continue
            source = self._tree.top / entry.path
            new = wire.NewJob(source=wire.Source(path=str(source)), options=self._settings.options, batch=entry.key)
            try:
                self._queue.add(source=source, is_own=False, name=Path(entry.path).name, new=new)
            except OSError as error:
                log.info("%s: cannot be queued (%s)", entry.path, error.strerror)
                continue
            self._ledger.write(replace(entry, state="making"))

    async def _drop_vanished(self) -> None:
        """Stop jobs whose input is gone or has changed."""
        for entry in self._ledger.in_state("making"):
            if not self._is_there(entry):
                for stored in self._store.matching(batch=entry.key)[0]:
                    await self._queue.delete(stored.job.id)

    def _is_there(self, entry: Entry) -> bool:
        """Whether an input is still the file that was entered.

        One that is gone is forgotten; one that has changed settles anew, and keeps the output that it replaces.
        """
        stamp = self._tree.stamp(entry.path)
        if stamp == entry.stamp:
            return True
        self._failures.remove(entry.path)
        if stamp is None:
            self._ledger.forget(entry.path)
            self._tell("gone", {"input": entry.path})
        else:
            self._ledger.write(replace(entry, stamp=Stamp(-1, 0), digest="", state="failed", reason="it has changed"))
            self._settling.see(entry.path, stamp, time.monotonic())
        return False

    # From the queue into the output folder
    async def _collect(self) -> None:
        """Deliver what is made, and settle what failed."""
        for stored in self._store.in_state(*ENDED):
            entry = self._ledger.of_key(stored.job.batch or "")
            was_moved = stored.output is not None and not delivery.exists(stored.output)  # by a watch that was killed then
            if entry is not None and (was_moved or self._is_there(entry)):
                if stored.job.error is not None or stored.output is None:
                    self._failed(entry, stored.job.error)
                else:
                    self._deliver(entry, stored.job, stored.output)
            await self._queue.delete(stored.job.id)

    def _deliver(self, entry: Entry, job: wire.Job, made: Path) -> None:
        name = delivery.output_name(entry, made, self._ledger)
        target = self._output / name
        if delivery.exists(made):  # else a watch was killed after it had moved the output
            is_known = entry.output == name
            try:
                if not is_known and not self._settings.overwrite and delivery.exists(target):
                    raise delivery.taken(target)
                entry = replace(entry, output=name)
                self._ledger.write(entry)  # first: after a crash it is known whose output stands there
                delivery.deliver(made, target, replace=is_known or self._settings.overwrite)
            except (OutputError, UsageError) as error:
                self._ledger.write(entry := replace(entry, output=name if is_known else None))
                self._failed(entry, wire_error(error))
                return
        self._ledger.write(replace(entry, state="done", reason=None))
        self._counts["done"] += 1
        self._failures.remove(entry.path)
        seconds = None if job.output is None else job.output.seconds
        notices = [notice.model_dump() for notice in job.notices]
        moved = self._moved(entry)
        self._tell("done", {"input": entry.path, "output": str(target), "seconds": seconds, "notices": notices, "moved": moved})

    def _moved(self, entry: Entry) -> str | None:
        """The new place of an input that is done, if the user wants it moved."""
        if self._settings.move_done is None or self._tree.stamp(entry.path) != entry.stamp:
            return None
        try:
            place = delivery.move_done(self._tree.top / entry.path, self._settings.move_done, entry.path)
        except UpframeError as error:
            log.warning("%s", error)
            return None
        return str(place)

    def _failed(self, entry: Entry, error: wire.Error | None) -> None:
        """Let a file wait if its failure may pass, else set it aside."""
        reason = "it was cancelled" if error is None else error.error
        may_pass = error is not None and error.kind in MAY_PASS
        if may_pass and entry.attempts + 1 < MOST_ATTEMPTS:
            pause = min(FIRST_PAUSE_S * 2**entry.attempts, LONGEST_PAUSE_S)
            self._ledger.write(replace(again_later(entry, reason, time.time(), pause), key=new_key()))
            self._tell("later", {"input": entry.path, "error": reason, "pause_s": pause})
            return
        self._counts["failed"] += 1
        is_of_flags = error is not None and error.kind in OF_FLAGS
        aside = replace(entry, state="failed", reason=reason)
        self._ledger.write(again_later(entry, reason, time.time(), math.inf) if is_of_flags else aside)
        try:
            self._failures.add(entry, reason)
        except OutputError as refused:
            log.warning("%s", refused)
        self._tell("failed", {"input": entry.path, "error": reason})
