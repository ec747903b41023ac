"""Uploads in chunks that can be resumed: the length of the file on the disk is the offset at which a client goes on."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from io import RawIOBase
from pathlib import Path

from upframe.errors import OutputError
from upframe.files import check_room, output_error, put_in_place, remove_quietly, sync_file
from upframe.media.names import is_video_name
from upframe.service import wire
from upframe.service.problems import Problem
from upframe.service.settings import ServiceLimits
from upframe.service.storage import Storage, new_id, plain_name
from upframe.service.store import Store

_ROOM_STEP = 4 << 20
"""Bytes for which a file of unknown length gets room at once."""


class Uploads:
    """All uploads of a server."""

    def __init__(self, store: Store, storage: Storage, limits: ServiceLimits) -> None:
        self._store, self._storage, self._limits = store, storage, limits
        self._busy: set[str] = set()
        self._receiving: dict[str, Receiver] = {}
        self.received_bytes = 0
        """Since the start, for figures."""

    def create(self, name: str, length: int) -> wire.Upload:
        """Make room for an upload.

        Raises:
            Problem: if it is too large, there are too many, or there is no room.
        """
        if length > self._limits.upload_bytes:
            raise self._too_large(name)
        missing = self._missing()
        if len(missing) >= self._limits.uploads:
            raise Problem(429, "uploads", f"{len(missing)} are unfinished", "wait until some are done, or delete them")
        self._check_room(name, length)
        id = new_id()
        path = self._storage.upload(id, plain_name(name))
        with _writing(path):
            path.touch()
        self._store.add_upload(id, plain_name(name), length, time.time() + self._limits.upload_keep_s)
        return self.get(id)

    def get(self, id: str) -> wire.Upload:
        """Raises: Problem, if there is none of that name."""
        found = self._store.upload(id)
        if found is None:
            raise Problem(404, f"upload {id}", "is not here", "it was deleted, or has expired")
        name, length, expires = found
        return self._described(id, name, length, expires)

    def all(self) -> list[wire.Upload]:
        """Every upload, the oldest first."""
        return [self._described(*found) for found in self._store.uploads()]

    def _described(self, id: str, name: str, length: int, expires: float) -> wire.Upload:
        kind: wire.Kind = "video" if is_video_name(name) else "photo"
        return wire.Upload(id=id, name=name, kind=kind, length=length, offset=self._offset(id, name), expires=expires)

    async def append(self, id: str, offset: int, body: AsyncIterator[bytes]) -> wire.Upload:
        """Add bytes that begin at `offset`.

        Raises:
            Problem: if the upload has another offset, is being written, would become too long, or nothing arrives for long.
        """
        upload = self.get(id)
        if id in self._busy:
            raise Problem(409, upload.name, "is being sent by another request", "wait for that one")
        if offset != upload.offset:
            raise Problem(409, upload.name, f"has {upload.offset} bytes, not {offset}", "go on at `Upload-Offset`")
        self._busy.add(id)
        try:
            path = self._storage.upload(id, upload.name)
            await self._write(path, upload, body)
            if self._offset(id, upload.name) == upload.length:
                await asyncio.to_thread(sync_file, path)
        finally:
            self._store.keep_upload(id, time.time() + self._limits.upload_keep_s)  # a large one takes days
            self._busy.discard(id)
        return self.get(id)

    async def _write(self, path: Path, upload: wire.Upload, body: AsyncIterator[bytes]) -> None:
        left = upload.length - upload.offset
        with _writing(path), path.open("ab", buffering=0) as file:
            async for chunk in self.timely(body, upload.name):
                left -= len(chunk)
                if left < 0:
                    raise Problem(413, upload.name, f"is longer than the {upload.length} bytes that were announced")
                await asyncio.to_thread(_write_all, file.write, chunk)
                self.received_bytes += len(chunk)

    @contextlib.contextmanager
    def receiving(self, announced: int) -> Iterator[Receiver]:
        """Receive a file of unknown name; what is not finished when the block ends is removed.

        Args:
            announced: Bytes for which room is kept from the start; 0 if the length is not known.

        Raises:
            Problem: if there is no room for them.
        """
        id = new_id()
        path = self._storage.uploads / id
        announced = min(announced, self._limits.upload_bytes)
        self._check_room("upload", announced)
        self._busy.add(id)
        try:
            with _writing(path), path.open("xb", buffering=0) as file:
                self._receiving[id] = receiver = Receiver(self, id, path, file, announced)
                yield receiver
        finally:
            self._receiving.pop(id, None)
            self._busy.discard(id)
            if self._store.upload(id) is None:
                remove_quietly(path)

    def adopt(self, id: str, path: Path, name: str) -> wire.Upload:
        """Make a received file an upload."""
        name = plain_name(name)
        length = path.stat().st_size
        if not length:
            raise Problem(422, name, "is empty", "send a picture or a video")
        place = self._storage.upload(id, name)
        with _writing(path):
            if place == path:
                sync_file(path)
            else:
                put_in_place(path, place)
        self._store.add_upload(id, name, length, time.time() + self._limits.upload_keep_s)
        self._busy.discard(id)
        return self.get(id)

    def count(self, received: int, so_far: int) -> None:
        """Take note of bytes of a file whose length was not announced.

        Raises:
            Problem: if it is too large.
        """
        self.received_bytes += received
        if so_far > self._limits.upload_bytes:
            raise self._too_large("file")

    def more_room(self, needed: int) -> int:
        """Bytes for which a file of unknown length may go on: those that it needs now, and some for what follows.

        Raises:
            Problem: if there is no room for `needed`.
        """
        self._check_room("file", needed)
        most = self._limits.data_bytes
        free = _ROOM_STEP if most is None else most - self._storage.used_bytes() - self._promised()
        return max(needed, min(free, _ROOM_STEP))

    async def timely(self, body: AsyncIterator[bytes], name: str) -> AsyncIterator[bytes]:
        """The body, as long as it keeps coming."""
        while True:
            try:
                chunk = await asyncio.wait_for(anext(body), self._limits.quiet_s)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Problem(
                    408, name, f"sent nothing for {self._limits.quiet_s:g} seconds", "go on where it stopped"
                ) from None
            yield chunk

    def finished(self, id: str) -> tuple[Path, str]:
        """Path and name of a complete upload.

        Raises:
            Problem: if it is not complete.
        """
        upload = self.get(id)
        if upload.offset != upload.length or id in self._busy:
            raise Problem(409, upload.name, f"has {upload.offset} of {upload.length} bytes", "send the rest first")
        return self._storage.upload(id, upload.name), upload.name

    def delete(self, id: str) -> None:
        name = self.get(id).name
        if id in self._busy:
            raise Problem(409, name, "is being sent", "end that request first")
        self._remove(id)

    def remove_expired(self, now: float) -> None:
        known = {id: expires for id, _, _, expires in self._store.uploads()}
        for id, expires in known.items():
            if expires < now and id not in self._busy:
                self._remove(id)
        for path in self._storage.uploads.iterdir():
            if path.name.partition(".")[0] not in (*known, *self._receiving):
                _remove(path)

    def _remove(self, id: str) -> None:
        self._store.remove_upload(id)
        for path in self._storage.uploads.glob(f"{id}*"):
            _remove(path)

    def _offset(self, id: str, name: str) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._storage.upload(id, name).stat().st_size
        return 0

    def _missing(self) -> list[int]:
        """Bytes that each unfinished upload still lacks."""
        return [left for id, of, whole, _ in self._store.uploads() if (left := whole - self._offset(id, of)) > 0]

    def _promised(self) -> int:
        """Bytes that are not on the disk yet, but have been given room."""
        return sum(self._missing()) + sum(receiver.promised for receiver in self._receiving.values())

    def _check_room(self, name: str, needed: int) -> None:
        """Refuse bytes for which there is no room beside all that is there and all that is on its way."""
        most, needed = self._limits.data_bytes, needed + self._promised()
        if most is not None and self._storage.used_bytes() + needed > most:
            raise Problem(507, name, "exceeds the quota of this service", "delete jobs that are done")
        try:
            check_room(self._storage.uploads, needed)
        except OutputError as error:
            raise Problem(507, name, error.happened, error.advice) from error

    def _too_large(self, name: str) -> Problem:
        return Problem(413, plain_name(name), f"is larger than {self._limits.upload_bytes} bytes", "send a smaller file")


class Receiver:
    """Takes the bytes of one file."""

    def __init__(self, uploads: Uploads, id: str, path: Path, file: RawIOBase, announced: int) -> None:
        self._uploads, self._id, self._path, self._file = uploads, id, path, file
        self._bytes = 0
        self.promised = announced
        """Bytes for which there is room and that are not written yet."""

    async def write(self, piece: bytes) -> None:
        """Write bytes for which there is room.

        Raises:
            Problem: if the file becomes too large, or there is no more room.
        """
        self._bytes += len(piece)
        self._uploads.count(len(piece), self._bytes)
        lacking = len(piece) - self.promised
        if lacking > 0:
            self.promised += self._uploads.more_room(lacking)
        await asyncio.to_thread(_write_all, self._file.write, piece)
        self.promised -= len(piece)

    def finish(self, name: str) -> wire.Upload:
        """Make it an upload that the user calls `name`."""
        return self._uploads.adopt(self._id, self._path, name)


def _remove(path: Path) -> None:
    """Remove the file of an upload, or the folder of its views."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        remove_quietly(path)


def _write_all(write: Callable[[bytes], int | None], chunk: bytes) -> None:
    while chunk:
        chunk = chunk[write(chunk) or 0 :]


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn errors of the disk into refusals."""
    try:
        yield
    except OSError as error:
        made = output_error(path, error)
        raise Problem(507, "upload", made.happened, made.advice) from error
