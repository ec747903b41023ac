"""Everything behind the routes, made when the server starts and ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from upframe.files import Lock, writing
from upframe.service.announcing import Announcer
from upframe.service.crew import Child
from upframe.service.devices import devices_for, workers_for
from upframe.service.plans import Plans
from upframe.service.queue import JobQueue
from upframe.service.settings import Settings
from upframe.service.sources import Sources
from upframe.service.storage import Storage
from upframe.service.store import Store
from upframe.service.trials import Trials
from upframe.service.uploads import Uploads
from upframe.service.views import Views

log = logging.getLogger(__name__)

HOUSEKEEPING_S = 60.0


class Backend:
    """The parts of a server.

    Raises:
        OutputError: if the data folder cannot be used, or another server uses it.
        ResourceError: if this machine does not have one of the devices.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        devices = devices_for(settings.devices)
        self.began = time.time()
        with writing(settings.data):
            self.storage = Storage(settings.data)
            self._lock = Lock(self.storage.lock)
            self._lock.__enter__()
        limits = settings.limits
        self.store = Store(self.storage.database)
        self.announcer = Announcer()
        workers = [self._child(name, device) for name, device in workers_for(devices)]
        self.queue = JobQueue(self.store, self.storage, self.announcer, workers, limits)
        self.uploads = Uploads(self.store, self.storage, limits)
        self.sources = Sources(self.uploads, self.queue, settings.allow)
        planner = self._child("planner", devices[0])
        self.plans = Plans(planner, self.storage, limits)
        self.trials = Trials(self._child("trials", devices[0]), self.storage, limits)
        self.views = Views(self._child("views", "cpu"), self._child("view-videos", "cpu"), limits)
        self._children = (planner, self.trials.child, *self.views.children)
        self._planner = planner
        self._housekeeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.queue.start()
        self._housekeeping = asyncio.create_task(self._keep_house())

    async def expect_plans(self) -> None:
        """Start the planner, which takes seconds to load PyTorch. It is not started before somebody comes who will want plans:
        a service that is used by programs alone need not pay for its memory."""
        with contextlib.suppress(OSError):  # it is tried again with the first plan, which tells
            await self._planner.start()

    async def close(self) -> None:
        self.announcer.close()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        await asyncio.gather(self.queue.close(), *(child.end() for child in self._children))
        self.store.close()
        self._lock.release()

    def _child(self, name: str, device: str) -> Child:
        return Child(name, root=self.storage.root, logs=self.storage.logs, device=device)

    async def _keep_house(self) -> None:
        while True:
            now = time.time()
            for remove_expired in (
                self.queue.remove_expired,
                self.uploads.remove_expired,
                self.trials.remove_expired,
                lambda now: self.storage.remove_old_views(now - self.settings.limits.upload_keep_s),
            ):
                try:
                    remove_expired(now)
                except Exception:
                    log.exception("removing what has expired")
            await asyncio.sleep(HOUSEKEEPING_S)

    @property
    def root(self) -> Path:
        return self.storage.root
