"""A form with a file, written to the disk as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from upframe.files import parsed_json
from upframe.service import wire
from upframe.service.faults import OPTIONS, invalid_body
from upframe.service.problems import Problem
from upframe.service.uploads import Uploads

MOST_FIELD_BYTES = 1 << 16
_MOST_PARTS = 8


class _Form:
    """Callbacks of the parser: fields are kept, the bytes of the file are taken away after each chunk."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.file_name: str | None = None
        self._head: dict[str, bytes] = {}
        self._header, self._value = b"", b""
        self._field: str | None = None
        self._parts = 0
        self.is_whole = False
        """Whether the end of the form was seen."""
        self._pieces: list[bytes] = []

    def callbacks(self) -> dict[str, Any]:
        names = ("part_begin", "part_data", "header_field", "header_value", "header_end", "headers_finished", "end")
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def take(self) -> bytes:
        """Bytes of the file since the last call."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken

    def _end(self) -> None:
        self.is_whole = True

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise Problem(422, "form", f"has more than {_MOST_PARTS} fields")
        self._head = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._head[self._header.lower().decode("latin-1")] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._head.get("content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == "file":
            if self.file_name is not None:
                raise Problem(422, "file", "is there twice", "send one file with each request")
            self.file_name = options.get(b"filename", b"").decode("utf-8", "replace") or "file"
            self._field = None
        elif name in ("options", "batch"):
            self._field = name
            self.fields[name] = b""
        else:
            raise Problem(422, repr(name[:50]), "is no field of this form", "send `file`, `options` and `batch`")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._pieces.append(data[start:end])
            return
        self.fields[self._field] += data[start:end]
        if len(self.fields[self._field]) > MOST_FIELD_BYTES:
            raise Problem(413, self._field, f"has more than {MOST_FIELD_BYTES} bytes")


async def received_form(request: Request, uploads: Uploads) -> wire.NewJob:
    """Receive a form with `file`, `options` and `batch`; the file becomes an upload.

    Raises:
        Problem: if the form is damaged, too large, or comes too slowly; nothing of it is kept.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    form = _Form()
    try:
        parser = MultipartParser(options.get(b"boundary", b""), form.callbacks())  # type: ignore[arg-type]
    except FormParserError:
        raise _damaged() from None
    with uploads.receiving(_announced(request)) as receiver:
        async for chunk in uploads.timely(request.stream(), "form"):
            try:
                await asyncio.to_thread(parser.write, chunk)
            except FormParserError:
                raise _damaged() from None
            if piece := form.take():
                await receiver.write(piece)
        if not form.is_whole:
            raise _damaged()
        if form.file_name is None:
            raise Problem(422, "file", "is not in the form", "send `file=@photo.jpg`")
        new = _job_of(form.fields)
        return new.model_copy(update={"source": wire.Source(upload=receiver.finish(form.file_name).id)})


def _job_of(fields: Mapping[str, bytes]) -> wire.NewJob:
    try:
        options = parsed_json(fields.get("options") or b"{}")
    except ValueError:
        raise Problem(422, OPTIONS, "is not JSON", "see /api/docs") from None
    batch = fields["batch"].decode("utf-8", "replace") if fields.get("batch") else None
    try:
        return wire.NewJob.model_validate({"source": {}, OPTIONS: options, "batch": batch})
    except ValidationError as error:
        raise invalid_body(error) from None


def _announced(request: Request) -> int:
    """Bytes of the whole form, if the client tells: a little more than those of its file."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _damaged() -> Problem:
    return Problem(400, "form", "is damaged or incomplete", "send multipart/form-data")
