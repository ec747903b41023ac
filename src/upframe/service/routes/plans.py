"""Plans and trials: what a job would make, before it is paid for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import StringConstraints

from upframe.service import wire
from upframe.service.catalogue import suitable
from upframe.service.media_types import media_type
from upframe.service.routes.parts import Behind, refusals, sent_file

router = APIRouter(prefix="/api", tags=["plans and trials"])

TrialFile = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}\.(png|mp4)$")]


@router.post("/plans", responses=refusals(404, 409, 422, 507))
async def plan(backend: Behind, new: wire.NewPlan) -> wire.Plan:
    """Sizes, time, memory, disk room and losses. Nothing is computed but a small picture, for the time."""
    found = backend.sources.find(new.source)
    return await backend.plans.plan(found, backend.sources.checked(new.options))


@router.post("/trials", status_code=202, responses=refusals(404, 409, 422, 429))
async def start_trial(backend: Behind, new: wire.NewTrial) -> wire.Trial:
    """Begin to make one crop, or a short clip, by several models."""
    found = backend.sources.find(new.source)
    options = backend.sources.checked(new.options)
    names = new.models if new.models is not None else suitable(found, options, clip=new.clip_seconds is not None)
    checked = [backend.sources.checked(wire.Options(model=name)).model or name for name in names]
    return backend.trials.start(found, new.model_copy(update={"options": options}), checked)


@router.get("/trials/{id}", responses=refusals(404))
async def trial(backend: Behind, id: wire.Id, wait_s: Annotated[float, Query(ge=0, le=30)] = 0) -> wire.Trial:
    """The results so far; with `wait_s`, once there is one more."""
    return await backend.trials.get(id, wait_s)


@router.delete("/trials/{id}", status_code=204, responses=refusals(404))
async def delete_trial(backend: Behind, id: wire.Id) -> None:
    """Stop a trial and remove its files."""
    await backend.trials.delete(id)


@router.get("/trials/{id}/{file}", response_class=Response, responses=refusals(404))
async def trial_file(backend: Behind, id: wire.Id, file: TrialFile) -> Response:
    """A result: a PNG, or an MP4 with H.264."""
    path = backend.trials.file(id, file)
    return sent_file(path, type=media_type(path), immutable=True)
