"""The application: routes, refusals, the page, and what stands in front of them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from upframe.errors import OutputError, UpframeError, UsageError
from upframe.service.backend import Backend
from upframe.service.description import description
from upframe.service.faults import fault_error
from upframe.service.guard import Guard
from upframe.service.problems import Problem, Refused, status_of, wire_error
from upframe.service.routes import events, files, jobs, plans, service, uploads
from upframe.service.settings import Settings
from upframe.version import __version__

PAGE = Path(__file__).with_name("page")
"""Files of the page, as they are sent."""


def make_app(backend: Backend, settings: Settings) -> FastAPI:
    """The application for a backend, which it starts and ends with the server."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        try:
            yield
        finally:
            await backend.close()

    app = FastAPI(
        title="upframe",
        summary="Upscale photos and videos",
        version=__version__,
        license_info={"name": "Apache-2.0"},
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's own pages load their scripts from other hosts
        redoc_url=None,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False},
    )
    app.state.backend = backend
    for routes in (service, files, uploads, plans, jobs, events):
        app.include_router(routes.router)
    _describe(app)
    _refuse(app)
    app.mount("/", GZipMiddleware(StaticFiles(directory=PAGE, html=True)), name="page")  # alone: it holds no secrets
    app.add_middleware(Guard, settings=settings)
    return app


def _describe(app: FastAPI) -> None:
    @app.get("/api/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(description(app.openapi()))


def _refuse(app: FastAPI) -> None:
    """Give every refusal the same form: the command line's one line, and its parts."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _answer(status_of(error.error), error.error.model_dump())

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        if fault["type"] == "json_invalid":
            return _answer(422, wire_error(UsageError("body", "is not JSON", "see /api/docs")).model_dump())
        is_object = fault["loc"] == ("body",) and fault["type"] in ("model_attributes_type", "dict_type")
        if is_object and "json" not in request.headers.get("content-type", ""):
            advice = "send it with `Content-Type: application/json`"
            return _answer(415, wire_error(UsageError("body", "is not marked as JSON", advice)).model_dump())
        return _answer(422, wire_error(fault_error(fault, fault["loc"][1:] or fault["loc"])).model_dump())

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        made = error.error if isinstance(error, Problem) else UsageError(request.url.path[:200], str(error.detail).lower())
        return _answer(error.status_code, wire_error(made).model_dump(), error.headers)

    @app.exception_handler(UpframeError)
    async def failed(request: Request, error: UpframeError) -> Response:
        made = wire_error(error)
        return _answer(status_of(made), made.model_dump())

    @app.exception_handler(sqlite3.OperationalError)
    @app.exception_handler(OSError)
    async def no_room(request: Request, error: Exception) -> Response:
        """The disk of the data folder refuses; the paths that the system names are the server's."""
        made = OutputError("service", f"cannot write ({type(error).__name__})", "look at the disk of its data folder")
        return _answer(507, wire_error(made).model_dump())

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        happened = f"internal error ({type(error).__name__})"
        made = UpframeError(request.url.path[:200], happened, "report it; the server's log shows where it arose")
        return _answer(500, wire_error(made).model_dump())


def _answer(status: int, body: dict[str, Any], headers: Any = None) -> Response:
    return JSONResponse(body, status, headers=headers)
