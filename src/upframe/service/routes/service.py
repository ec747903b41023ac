"""The service itself: health, figures, models, limits, log-in."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from upframe.service import wire
from upframe.service.catalogue import choices, models, presets
from upframe.service.figures import figures
from upframe.service.guard import COOKIE, is_equal, session_of
from upframe.service.problems import Problem
from upframe.service.routes.parts import Behind, refusals
from upframe.version import __version__

router = APIRouter(tags=["service"])


@router.get("/healthz", responses=refusals())
async def healthz() -> wire.Health:
    """Whether the server lives."""
    return wire.Health(status="ok", version=__version__)


@router.get("/metrics", response_class=PlainTextResponse, responses=refusals())
async def metrics(backend: Behind) -> str:
    """Figures in Prometheus's text form."""
    return figures(backend, used_bytes=await asyncio.to_thread(backend.storage.used_bytes))


@router.get("/api/service", responses=refusals())
async def service(backend: Behind) -> wire.Service:
    """Version, limits, presets, choices of options, and room."""
    await backend.expect_plans()  # the page asks this first
    counts, limits = backend.store.counts(), backend.settings.limits
    used = await asyncio.to_thread(backend.storage.used_bytes)
    return wire.Service(
        version=__version__,
        limits=wire.Limits(
            upload_bytes=limits.upload_bytes,
            pixels=limits.pixels,
            output_pixels=limits.output_pixels,
            jobs=limits.jobs,
            video_seconds=limits.video_seconds,
            data_bytes=limits.data_bytes,
            keep_seconds=limits.keep_s,
        ),
        choices=choices(),
        presets=presets(),
        allow=[str(folder) for folder in backend.settings.allow],
        paused=backend.store.paused,
        used_bytes=used,
        waiting=counts.get("queued", 0) + counts.get("paused", 0),
        running=counts.get("running", 0),
    )


@router.get("/api/models", responses=refusals())
def list_models() -> list[wire.Model]:
    """The models that upframe knows, those first whose weights are here."""
    return models()


@router.post("/api/login", status_code=204, responses=refusals())
async def login(backend: Behind, request: Request, given: wire.Login) -> Response:
    """Set a cookie for a browser that shows the token."""
    token = backend.settings.token
    if token is not None and not is_equal(given.token, token):
        raise Problem(401, "token", "is not the service's", "look into the file of --token-file")
    response = Response(status_code=204)
    if token is not None:
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, session_of(token), httponly=True, samesite="strict", secure=secure, max_age=30 * 86_400)
    return response


@router.post("/api/logout", status_code=204, responses=refusals())
async def logout() -> Response:
    """Remove the cookie."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response
