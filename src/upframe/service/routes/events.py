"""Server-sent events, with replay."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from upframe.service import wire
from upframe.service.backend import Backend
from upframe.service.routes.parts import Behind, refusals

router = APIRouter(prefix="/api", tags=["events"])

BEAT_S = 10.0
"""Silence after which a comment shows that the connection lives."""
AT_ONCE = 200

After = Annotated[int | None, Query(ge=0, le=2**62, description="as Last-Event-ID")]
LastEventId = Annotated[str | None, Header(max_length=30, pattern=r"^\s*[0-9]*\s*$")]


@router.get("/events", response_class=EventSourceResponse, responses=refusals())
async def all_events(backend: Behind, after: After = None, last_event_id: LastEventId = None) -> AsyncIterator[ServerSentEvent]:
    """Events of all jobs: those after `Last-Event-ID`, then each as it happens. Without one, those from now on."""
    async for event in _events(backend, _start(after, last_event_id, backend.store.last_event()), None):
        yield event


async def _known(backend: Behind, id: wire.Id) -> str:
    """The id of a job that is here; asked before the stream begins, while a refusal can still be answered."""
    return backend.queue.get(id).job.id


@router.get("/jobs/{id}/events", response_class=EventSourceResponse, responses=refusals(404))
async def job_events(
    backend: Behind, id: Annotated[str, Depends(_known)], after: After = None, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Events of one job, from its first or after `Last-Event-ID`, until it has ended."""
    async for event in _events(backend, _start(after, last_event_id, 0), id):
        yield event


def _start(after: int | None, last_event_id: str | None, default: int) -> int:
    given = last_event_id.strip() if last_event_id else ""
    if given:
        return min(int(given), 2**62)
    return default if after is None else after


async def _events(backend: Backend, last: int, job: str | None) -> AsyncIterator[ServerSentEvent]:
    """Events after `last`. A slow listener holds nothing back and costs no memory: each reads the queue's file by itself."""
    count = 0
    announcer, store = backend.announcer, backend.store
    yield ServerSentEvent(comment="upframe", retry=1000)
    while not announcer.is_closed:
        stored = store.events_after(last, job=job, limit=AT_ONCE)
        states: dict[str, wire.Job | None] = {}
        for event in stored:
            if event.job not in states:
                states[event.job] = _state(backend, event.job)
            yield _sent(wire.Event.model_validate(vars(event) | {"state": states[event.job]}))
            last = event.id
        if stored:
            continue
        count, changed = announcer.progress_since(count, job)
        for id in changed:
            state = _state(backend, id)
            if state is not None and state.progress is not None:
                data = state.progress.model_dump()
                yield _sent(wire.Event(id=None, job=id, time=time.time(), event="progress", data=data, state=state))
        if job is not None and _has_ended(backend, job):
            return
        before = announcer.beat
        await announcer.wait(BEAT_S)
        if announcer.beat == before:
            yield ServerSentEvent(comment="still here")


def _state(backend: Backend, id: str) -> wire.Job | None:
    stored = backend.store.get(id)
    if stored is None:
        return None
    stored.job.progress = backend.announcer.progress_of(id)
    return stored.job


def _has_ended(backend: Backend, id: str) -> bool:
    stored = backend.store.get(id)
    return stored is None or stored.job.state in ("done", "failed", "cancelled")


def _sent(event: wire.Event) -> ServerSentEvent:
    return ServerSentEvent(raw_data=event.model_dump_json(), event=event.event, id=None if event.id is None else str(event.id))
