"""Jobs: put into the queue, watched, stopped, fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import ValidationError

from upframe.service import wire
from upframe.service.archive import archive
from upframe.service.backend import Backend
from upframe.service.faults import invalid_body
from upframe.service.forms import received_form
from upframe.service.problems import Problem
from upframe.service.queue import ENDED
from upframe.service.routes.parts import Behind, Responses, refusals, sent_file, sent_view
from upframe.service.store import StoredJob

router = APIRouter(prefix="/api", tags=["jobs"])


_SCHEMA = wire.NewJob.model_json_schema(ref_template="#/components/schemas/{model}")
_NEW_JOB: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {key: value for key, value in _SCHEMA.items() if key != "$defs"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "options": {"type": "string", "description": "JSON, as `options` of the other form"},
                        "batch": {"type": "string"},
                    },
                }
            },
        },
    }
}


@router.post("/jobs", status_code=201, responses=refusals(404, 408, 409, 413, 415, 422, 429, 507), openapi_extra=_NEW_JOB)
async def create_job(backend: Behind, request: Request, response: Response) -> wire.Job:
    """Put a job into the queue: JSON that names a source, or a form with the file itself."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        new = await received_form(request, backend.uploads)
        assert new.source.upload is not None
        try:
            return _added(backend, new, response)
        finally:
            backend.uploads.delete(new.source.upload)
    if kind != "application/json":
        raise Problem(415, "Content-Type", f"is {kind[:100]!r}", "send application/json or multipart/form-data")
    try:
        new = wire.NewJob.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid_body(error) from None
    return _added(backend, new, response)


def _added(backend: Backend, new: wire.NewJob, response: Response) -> wire.Job:
    found = backend.sources.find(new.source)
    new = new.model_copy(update={"options": backend.sources.checked(new.options)})
    job = backend.queue.add(source=found.path, is_own=found.is_own, name=found.name, new=new)
    response.headers["location"] = f"/api/jobs/{job.id}"
    return job


@router.get("/jobs", responses=refusals())
async def list_jobs(
    backend: Behind,
    state: Annotated[list[wire.JobState] | None, Query()] = None,
    batch: wire.Word | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000)] = 0,
) -> wire.JobList:
    """Jobs in the order of the queue."""
    last_event = backend.store.last_event()
    found, total = backend.store.matching(states=state or (), batch=batch, limit=limit, offset=offset)
    for stored in found:
        stored.job.progress = backend.announcer.progress_of(stored.job.id)
    return wire.JobList(jobs=[stored.job for stored in found], total=total, last_event=last_event)


@router.get("/jobs/{id}", responses=refusals(404))
async def job(backend: Behind, id: wire.Id) -> wire.Job:
    """One job."""
    return backend.queue.get(id).job


@router.delete("/jobs/{id}", status_code=204, responses=refusals(404))
async def delete_job(backend: Behind, id: wire.Id) -> None:
    """Stop a job and remove it with its files."""
    await backend.queue.delete(id)


@router.post("/jobs/{id}/pause", responses=refusals(404, 409))
async def pause_job(backend: Behind, id: wire.Id) -> wire.Job:
    """Stop a job; a video keeps its finished segments."""
    return await backend.queue.pause(id)


@router.post("/jobs/{id}/resume", responses=refusals(404, 409))
async def resume_job(backend: Behind, id: wire.Id) -> wire.Job:
    """Go on with a paused job."""
    return backend.queue.resume(id)


@router.post("/jobs/{id}/cancel", responses=refusals(404, 409))
async def cancel_job(backend: Behind, id: wire.Id) -> wire.Job:
    """Stop a job for good and remove its unfinished work."""
    return await backend.queue.cancel(id)


@router.post("/jobs/{id}/retry", responses=refusals(404, 409))
async def retry_job(backend: Behind, id: wire.Id) -> wire.Job:
    """Put a failed or cancelled job back into the queue."""
    return backend.queue.retry(id)


@router.post("/jobs/{id}/move", responses=refusals(404))
async def move_job(backend: Behind, id: wire.Id, move: wire.Move) -> wire.Job:
    """Put a job before another one, or at the end of the queue."""
    return backend.queue.move(id, move.before)


@router.get("/queue", responses=refusals())
async def queue(backend: Behind) -> wire.Queue:
    """Whether the queue is paused."""
    return wire.Queue(paused=backend.store.paused)


@router.patch("/queue", responses=refusals())
async def set_queue(backend: Behind, wanted: wire.Queue) -> wire.Queue:
    """Stop all work, or go on."""
    await backend.queue.set_paused(wanted.paused)
    return wire.Queue(paused=backend.store.paused)


# Files ----------------------------------------------------------------------------------------------------------------
_FILE: Responses = {200: {"content": {"*/*": {}}}, 206: {"description": "a range of it", "content": {"*/*": {}}}}
_VIEW: Responses = {200: {"content": {"image/*": {}, "video/mp4": {}}}, 202: {"description": "it is being made"}}


@router.get("/jobs/{id}/output", response_class=Response, responses={**_FILE, **refusals(404, 409)})
async def output(backend: Behind, id: wire.Id, inline: bool = False) -> Response:
    """The output of a finished job, in ranges if asked."""
    stored = backend.queue.get(id)
    assert stored.job.output is not None or stored.output is None
    if stored.output is None or stored.job.output is None or stored.job.state != "done":
        raise no_output(stored.job)
    return sent_file(stored.output, type=stored.job.output.type, name=stored.job.output.name, inline=inline)


@router.get("/jobs/{id}/preview", response_class=Response, responses={**_VIEW, **refusals(404, 409, 422)})
async def preview(backend: Behind, id: wire.Id, of: wire.Of = "output") -> Response:
    """Something that browsers show: a picture, or H.264 in MP4."""
    stored = backend.queue.get(id)
    path, views = _file_of(stored, of), backend.queue.folder(id).views
    return sent_view(await backend.views.preview(path, stored.job.name, views, of, stored.job.kind))


@router.get("/jobs/{id}/thumbnail", response_class=Response, responses={**_VIEW, **refusals(404, 409, 422)})
async def thumbnail(backend: Behind, id: wire.Id, of: wire.Of = "output") -> Response:
    """A small picture of the output or the input."""
    stored = backend.queue.get(id)
    path, views = _file_of(stored, of), backend.queue.folder(id).views
    return sent_view(await backend.views.thumbnail(path, stored.job.name, views, of))


def no_output(job: wire.Job) -> Problem:
    """The refusal of what an unfinished or failed job does not have."""
    is_over = job.state in ENDED
    return Problem(409, job.name, f"{job.state}, so it has no output" if is_over else f"is {job.state} and has no output yet")


def _file_of(stored: StoredJob, of: wire.Of) -> Path:
    if of == "input":
        return stored.input
    if stored.output is None or stored.job.state != "done":
        raise no_output(stored.job)
    return stored.output


@router.get("/zip", response_class=StreamingResponse, responses={200: {"content": {"application/zip": {}}}, **refusals(404)})
async def zip_outputs(
    backend: Behind, job: Annotated[list[wire.Id] | None, Query(max_length=1000)] = None, batch: wire.Word | None = None
) -> StreamingResponse:
    """The outputs of jobs, or of all finished jobs of a batch, as one ZIP, made while it is sent."""
    if batch is not None:
        found, _ = backend.store.matching(states=("done",), batch=batch)
    else:
        found = [stored for id in job or () if (stored := backend.queue.get(id)).job.state == "done"]
    files = [(stored.output, stored.job.output.name) for stored in found if stored.output and stored.job.output]
    if not files:
        raise Problem(404, "zip", "none of these jobs has an output", "wait until they are done")
    headers = {"content-disposition": 'attachment; filename="upframe.zip"'}
    return StreamingResponse(archive(files), media_type="application/zip", headers=headers)
