"""Types and answers that several routes share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable

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

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []  # the whole file
        except RangeNotSatisfiable:
            headers = {"content-range": f"bytes */{file_size}"}
            raise Problem(416, "Range", f"is beyond the file's {file_size} bytes", headers=headers) from None


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
