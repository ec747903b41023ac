"""Trials: one crop of a picture, or a moment of a video, by several models."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upframe.service import wire
from upframe.service.announcing import Announcer
from upframe.service.crew import Child
from upframe.service.problems import Gone, Problem, Refused
from upframe.service.requests import request_for
from upframe.service.settings import ServiceLimits
from upframe.service.sources import Found
from upframe.service.storage import Storage, new_id

KEEP_S = 3600.0
MOST = 20
"""Trials that wait at once."""


@dataclass
class _Running:
    trial: wire.Trial
    folder: Path
    began: float = field(default_factory=time.time)
    changed: Announcer = field(default_factory=Announcer)
    task: asyncio.Task[None] | None = None


class Trials:
    """All trials of a server. They are not kept over a restart."""

    def __init__(self, child: Child, storage: Storage, limits: ServiceLimits) -> None:
        self.child, self._storage, self._limits = child, storage, limits
        self._trials: dict[str, _Running] = {}

    def start(self, found: Found, new: wire.NewTrial, models: list[str]) -> wire.Trial:
        """Begin a trial.

        Args:
            models: Names of the models to try, all ready.
        """
        if sum(one.trial.state == "running" for one in self._trials.values()) >= MOST:
            raise Problem(429, "trials", f"{MOST} are running", "wait until some are done")
        id = new_id()
        results = [wire.TrialResult(model=name, state="waiting") for name in ("before", *models)]
        running = _Running(wire.Trial(id=id, state="running", results=results), self._storage.trials / id)
        running.folder.mkdir()
        self._trials[id] = running
        running.task = asyncio.create_task(self._run(running, found, new, models))
        return running.trial

    async def get(self, id: str, wait_s: float) -> wire.Trial:
        """A trial, once one more of its results is there, or after so long."""
        running = self._get(id)
        if running.trial.state == "running" and wait_s > 0:
            await running.changed.wait(wait_s)
        return running.trial

    def file(self, id: str, name: str) -> Path:
        path = self._get(id).folder / name
        if not path.is_file():
            raise Problem(404, name, "is not here")
        return path

    async def delete(self, id: str) -> None:
        running = self._get(id)
        await self._end(running)
        del self._trials[id]
        shutil.rmtree(running.folder, ignore_errors=True)

    def remove_expired(self, now: float) -> None:
        for id, running in tuple(self._trials.items()):
            if running.began + KEEP_S < now and running.trial.state != "running":
                del self._trials[id]
        for folder in self._storage.trials.iterdir():
            if folder.name not in self._trials:
                shutil.rmtree(folder, ignore_errors=True)

    def _get(self, id: str) -> _Running:
        if id not in self._trials:
            raise Problem(404, f"trial {id}", "is not here", "start it again")
        return self._trials[id]

    async def _end(self, running: _Running) -> None:
        if running.task is not None and not running.task.done():
            running.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running.task

    async def _run(self, running: _Running, found: Found, new: wire.NewTrial, models: list[str]) -> None:
        trial = running.trial
        request = request_for(found.path, found.name, running.folder, new.options, limits=self._limits, storage=self._storage)
        request |= {"models": models, "spot": new.spot.model_dump(), "side": new.side}
        request |= {"time": new.time, "clip_seconds": new.clip_seconds}

        def hear(event: str, data: dict[str, Any]) -> None:
            if event == "facts":
                trial.kind = data["kind"]
                trial.scores = None if data["scores"] is None else wire.Scores.model_validate(data["scores"])
            else:
                result = wire.TrialResult.model_validate(data)
                if result.url is not None:
                    result.url = f"/api/trials/{trial.id}/{result.url}"
                trial.results = [result if one.model == result.model else one for one in trial.results]
            running.changed.wake()

        try:
            answer = await self.child.ask("trial", request, on_event=hear)
            error = answer.get("error")
            trial.error = None if error is None else wire.Error.model_validate(error)
        except Refused as refused:
            trial.error = refused.error
        except Gone as gone:
            trial.error = gone.as_error(found.name)
        trial.state = "done" if trial.error is None else "failed"
        running.changed.wake()
