"""Types and answers that several routes share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from upframe.service import wire
from upframe.service.backend import Backend
from upframe.service.problems import Problem
from upframe.service.views import View


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Behind = Annotated[Backend, Depends(_backend)]

Responses = dict[int | str, dict[str, Any]]


def refusals(*statuses: int) -> Responses:
    """Refusals of a route, for its description."""
    return {status: {"model": wire.Error} for status in (400, 401, 403, 421, 422, *statuses)}


class _RangedFile(FileResponse):
    """A file that ignores ranges which are none, as HTTP demands, and refuses those beyond its end like all else."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: Message | None = None

        async def send_unless_refused(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refusal = message
            if refusal is None:
                await send(message)

        await super().__call__(scope, receive, send_unless_refused)
        if refusal is None:
            return
        if refusal["status"] == 416:
            span = Headers(raw=refusal["headers"])["content-range"]
            happened = f"is beyond the file's {span.rpartition('/')[2]} bytes"
            raise Problem(416, "Range", happened, headers={"content-range": span})
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]  # no range: the whole file
        await super().__call__({**scope, "headers": headers}, receive, send)


def sent_file(path: Path, *, type: str, name: str | None = None, inline: bool = False, immutable: bool = False) -> Response:
    """A file, in ranges if the request has them. Nothing in it can act as a page.

    Args:
        name: For the user's disk.
        inline: Whether a browser may show it instead of saving it.
        immutable: Whether it never changes under this address.
    """
    if not path.is_file():
        raise Problem(404, name or path.name, "is not here any more")
    headers = {
        "content-security-policy": "default-src 'none'; sandbox",
        "cache-control": "private, max-age=86400, immutable" if immutable else "no-cache",
    }
    if name is not None:
        kind = "inline" if inline else "attachment"
        ascii_name = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
        headers["content-disposition"] = f"{kind}; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"
    return _RangedFile(path, media_type=type, headers=headers)


def sent_view(view: View | float) -> Response:
    """A view, or 202 while it is being made."""
    if isinstance(view, View):
        return sent_file(view.path, type=view.type, immutable=False)
    return JSONResponse({"done": round(view, 4)}, 202, headers={"retry-after": "1"})
