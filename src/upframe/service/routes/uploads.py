"""Uploads in chunks, after the manner of tus: an offset and a length."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from upframe.service import wire
from upframe.service.routes.parts import Behind, refusals, sent_view

router = APIRouter(prefix="/api/uploads", tags=["uploads"])


@router.get("", responses=refusals())
async def list_uploads(backend: Behind) -> wire.UploadList:
    """All uploads that no job has taken away, so that a page finds them again."""
    return wire.UploadList(uploads=backend.uploads.all())


@router.post("", status_code=201, responses=refusals(413, 429, 507))
async def create_upload(backend: Behind, new: wire.NewUpload, response: Response) -> wire.Upload:
    """Announce a file; then send its bytes with PATCH."""
    upload = backend.uploads.create(new.name, new.length)
    response.headers["location"] = f"/api/uploads/{upload.id}"
    return _told(upload, response)


@router.patch(
    "/{id}",
    responses=refusals(404, 408, 409, 413, 507),
    openapi_extra={
        "requestBody": {"content": {"application/offset+octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def send(
    backend: Behind, id: wire.Id, request: Request, response: Response, upload_offset: Annotated[int, Header(ge=0)]
) -> wire.Upload:
    """Send bytes that begin at `Upload-Offset`. What has arrived before an interruption is kept."""
    return _told(await backend.uploads.append(id, upload_offset, request.stream()), response)


@router.head("/{id}", responses=refusals(404))
async def offset(backend: Behind, id: wire.Id) -> Response:
    """Where to go on: `Upload-Offset` and `Upload-Length`."""
    response = Response(status_code=200)
    _told(backend.uploads.get(id), response)
    return response


@router.get("/{id}", responses=refusals(404))
async def upload(backend: Behind, id: wire.Id) -> wire.Upload:
    """One upload."""
    return backend.uploads.get(id)


@router.delete("/{id}", status_code=204, responses=refusals(404, 409))
async def delete_upload(backend: Behind, id: wire.Id) -> None:
    """Remove an upload; jobs that use it keep it."""
    backend.uploads.delete(id)


@router.get("/{id}/thumbnail", response_class=Response, responses=refusals(404, 409, 422))
async def upload_thumbnail(backend: Behind, id: wire.Id) -> Response:
    """A small picture of a complete upload."""
    path, name = backend.uploads.finished(id)
    return sent_view(await backend.views.thumbnail(path, name, backend.storage.uploads / f"{id}.views", "input"))


@router.get("/{id}/preview", response_class=Response, responses=refusals(404, 409, 422))
async def upload_preview(backend: Behind, id: wire.Id) -> Response:
    """A complete upload as something that browsers show: a picture, or H.264 in MP4; 202 while it is being made."""
    path, name = backend.uploads.finished(id)
    folder = backend.storage.uploads / f"{id}.views"
    return sent_view(await backend.views.preview(path, name, folder, "input", backend.uploads.get(id).kind))


def _told(upload: wire.Upload, response: Response) -> wire.Upload:
    response.headers["upload-offset"] = str(upload.offset)
    response.headers["upload-length"] = str(upload.length)
    return upload
