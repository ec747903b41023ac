"""Files of the server below its `--allow`: lists of folders, thumbnails and previews."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from upframe.service import wire
from upframe.service.folders import kind_of, listed
from upframe.service.routes.parts import Behind, refusals, sent_view

router = APIRouter(prefix="/api/files", tags=["files"])


@router.get("", responses=refusals(404))
def files(
    backend: Behind,
    path: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000)] = 0,
) -> wire.Folder:
    """The allowed folders, or the folders, pictures and videos in one of them."""
    return listed(backend.sources, path, limit=limit, offset=offset)


@router.get("/thumbnail", response_class=Response, responses=refusals(404))
async def file_thumbnail(backend: Behind, path: wire.Name) -> Response:
    """A small picture of a file."""
    found = backend.sources.find(wire.Source(path=path))
    return sent_view(await backend.views.thumbnail(found.path, found.name, backend.storage.views_of(found.path), "input"))


@router.get("/preview", response_class=Response, responses=refusals(404))
async def file_preview(backend: Behind, path: wire.Name) -> Response:
    """A file as something that browsers show: a picture, or H.264 in MP4; 202 while it is being made."""
    found = backend.sources.find(wire.Source(path=path))
    folder, kind = backend.storage.views_of(found.path), kind_of(found.path)
    return sent_view(await backend.views.preview(found.path, found.name, folder, "input", kind))
