"""A ZIP that is made while it is sent: nothing of it lies on the disk or, beyond a chunk, in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from upframe.service.storage import plain_name

CHUNK_BYTES = 1 << 18


class _Tray(io.RawIOBase):
    """A file that can only be written; what it holds is taken away piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # all that zipfile passes
        self._held += data
        return len(data)

    def take(self) -> bytes:
        taken, self._held = bytes(self._held), bytearray()
        return taken


def archive(files: Iterable[tuple[Path, str]]) -> Iterator[bytes]:
    """The bytes of a ZIP with these files under these names; a name that occurs twice gets a number.

    Files are stored as they are, since pictures and videos do not get smaller. Names cannot lead out of the folder into which
    the ZIP is unpacked. A file that is gone is skipped.
    """
    tray, taken = _Tray(), set[str]()
    with zipfile.ZipFile(tray, "w", zipfile.ZIP_STORED, allowZip64=True) as made:
        for path, name in files:
            try:
                file = path.open("rb")
            except OSError:
                continue
            with file, made.open(_entry(path, _free_name(name, taken)), "w", force_zip64=True) as entry:
                while chunk := file.read(CHUNK_BYTES):
                    entry.write(chunk)
                    yield tray.take()
    yield tray.take()


def _entry(path: Path, name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
    info.compress_type = zipfile.ZIP_STORED
    info.external_attr = 0o644 << 16
    return info


def _free_name(name: str, taken: set[str]) -> str:
    wanted = PurePosixPath(plain_name(name))
    free, number = wanted.name, 2
    while free.casefold() in taken:
        free, number = f"{wanted.stem} ({number}){wanted.suffix}", number + 1
    taken.add(free.casefold())
    return free
