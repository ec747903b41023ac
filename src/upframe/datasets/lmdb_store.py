"""LMDB stores of pictures, in the usual layout: encoded files by key, and `meta_info.txt` beside them.

A store is a folder `NAME.lmdb` with `data.mdb`, `lock.mdb` and `meta_info.txt`, one line for each picture: `000/00000000.png
(720,1280,3) 1`: name with extension, (height, width, channels), level of PNG compression. The key is the name without
extension. Sources: the documents of BasicSR and mmagic on data preparation.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from upframe.datasets.lmdb_file import LmdbFile
from upframe.datasets.stores import decode
from upframe.errors import InputError, OutputError, UsageError
from upframe.files import atomic_text, output_error, writing
from upframe.media.image.source import RGB8

log = logging.getLogger(__name__)

META_INFO = "meta_info.txt"
_DATA = "data.mdb"
COMPRESSION = 1
"""Third field of `meta_info.txt` for files stored unchanged; readers ignore it."""

_LINE = re.compile(r"(?P<name>.+?) \((?P<h>\d+),\s*(?P<w>\d+),\s*(?P<c>\d+)\) (?P<level>-?\d+)")
_COMMIT_EVERY = 500  # pictures; an interrupted run repeats at most this many


_OPEN: dict[Path, tuple[int, LmdbFile]] = {}
"""Inode and open file of each store that this process reads."""
_OPEN_LOCK = threading.Lock()


@dataclass(frozen=True)
class Entry:
    """One line of `meta_info.txt`."""

    name: str
    """Name with extension: `000/00000000.png`."""
    size: tuple[int, int]
    """(height, width)."""
    channels: int

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[0]

    def line(self) -> str:
        return f"{self.name} ({self.size[0]},{self.size[1]},{self.channels}) {COMPRESSION}"


def is_lmdb(path: Path) -> bool:
    return (path / _DATA).is_file()


class LmdbStore:
    """The pictures of an LMDB store; see `stores.FrameStore`. The file is opened when the first picture is read.

    Args:
        path: The `.lmdb` folder, of upframe or another framework. Without `meta_info.txt`, keys are read from the store.

    Raises:
        InputError: if it is not a store, or its list is damaged.
    """

    def __init__(self, path: Path) -> None:
        if not is_lmdb(path):
            raise InputError(path, "is not an LMDB store (no data.mdb in it)", "pass the folder that ends in .lmdb")
        self.path = path
        listing = path / META_INFO
        self._entries: dict[str, Entry | None]
        if listing.is_file():
            self._entries = {entry.key: entry for entry in read_meta_info(listing)}
        else:
            self._entries = dict.fromkeys(self._stored_keys())

    def names(self) -> Sequence[str]:
        return list(self._entries)

    def size(self, key: str) -> tuple[int, int]:
        entry = self._entries[key]
        if entry is not None:
            return entry.size
        height, width = self.read(key).shape[:2]
        return int(height), int(width)

    def read(self, key: str) -> RGB8:
        subject = self.path / key
        return decode(self.encoded(key), subject=subject)

    def encoded(self, key: str) -> bytes:
        """Return the encoded file as it was stored.

        Raises:
            InputError: if the key does not exist.
        """
        data = self._open().get(key.encode())
        if data is None:
            raise InputError(self.path, f"has no picture {key}, though {META_INFO} lists it", "make the store again")
        return data

    def close(self) -> None:
        """Close the file for all stores of this process that read it. Reading opens it again."""
        with _OPEN_LOCK:
            held = _OPEN.pop(self.path.resolve(), None)
        if held is not None:
            held[1].close()

    def _open(self) -> LmdbFile:
        """Return the open file, which all stores of this process share."""
        path = self.path.resolve()
        with _OPEN_LOCK:
            try:
                inode = (path / _DATA).stat().st_ino
            except OSError as error:
                raise InputError(self.path, f"cannot be opened as LMDB ({error.strerror})", "make the store again") from error
            if path in _OPEN and _OPEN[path][0] != inode:
                _OPEN.pop(path)[1].close()  # the store has been made again
            if path not in _OPEN:
                _OPEN[path] = inode, LmdbFile(path / _DATA)
            return _OPEN[path][1]

    def _stored_keys(self) -> list[str]:
        return [key.decode("utf-8", "replace") for key in self._open().iter_keys()]


def read_meta_info(path: Path) -> list[Entry]:
    """Read the lines of `meta_info.txt`.

    Raises:
        InputError: if a line, which the message names, is not of the form `name (h,w,c) compression`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error})", "make the store again") from error
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(path, f"line {number} is not 'name (h,w,c) compression': {line[:60]}", "make the store again")
        entries.append(Entry(match["name"], (int(match["h"]), int(match["w"])), int(match["c"])))
    if not entries:
        raise InputError(path, "lists no pictures", "make the store again")
    return entries


def write_lmdb(path: Path, files: Mapping[str, Path], *, shapes: Iterable[Entry]) -> None:
    """Write encoded pictures to the store at `path`, and list them.

    Files are stored unchanged and committed after every few hundred, so that a call after an interruption resumes with the
    missing files. The list is written last, so a store with a list is complete.

    Args:
        path: A folder; it is created if missing.
        files: Encoded files, by key.
        shapes: One entry for each key, in the order of the list.

    Raises:
        OutputError: if the store cannot be written.
        InputError: if a file cannot be read, or the store holds keys of another set.
    """
    lmdb = _lmdb()
    entries = list(shapes)
    assert {e.key for e in entries} == set(files)
    total = sum(file.stat().st_size for file in files.values())
    if is_lmdb(path):  # of an interrupted run: the library would follow whatever a damaged file says
        LmdbFile(path / _DATA).check()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    try:
        # The map is an upper bound and sparse: twice the content covers pages that files do not fill (4096 bytes each).
        environment = lmdb.open(str(path), map_size=2 * total + (8192 * len(files)) + (64 << 20))
        try:
            _fill(environment, files, subject=path)
            environment.sync(True)
        finally:
            environment.close()
        atomic_text(path / META_INFO, "".join(entry.line() + "\n" for entry in entries))
    except lmdb.Error as error:
        raise OutputError(path, f"cannot be written ({error})", "check the disk") from error
    except OSError as error:
        raise output_error(path, error) from error


def _fill(environment: Any, files: Mapping[str, Path], *, subject: Path) -> None:
    with environment.begin() as transaction, transaction.cursor() as cursor:
        present = {bytes(key).decode() for key in cursor.iternext(values=False)}
    foreign = present - files.keys()
    if foreign:
        raise InputError(subject, f"holds other pictures, such as {min(foreign)}", "remove it")
    missing = [key for key in files if key not in present]
    for start in range(0, len(missing), _COMMIT_EVERY):
        with environment.begin(write=True) as transaction:
            for key in missing[start : start + _COMMIT_EVERY]:
                transaction.put(key.encode(), files[key].read_bytes())
    if environment.stat()["entries"] != len(files):
        raise OutputError(subject, f"holds {environment.stat()['entries']} of {len(files)} pictures", "remove it and try again")


def png_entry(name: str, file: Path) -> Entry:
    """Return the list's line for a PNG file, from its header.

    Raises:
        InputError: if it is not an 8-bit gray or RGB PNG.
    """
    # PNG specification, 11.2.1: IHDR comes first, width and height in 4 bytes each, then depth and colour type.
    try:
        with file.open("rb") as opened:
            head = opened.read(26)
            opened.seek(-min(12, opened.seek(0, os.SEEK_END)), os.SEEK_END)
            tail = opened.read()
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "check the file") from error
    if len(head) < 26 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        raise InputError(file, "is not a PNG file", "only PNG files go into a store")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    if tail[4:8] != b"IEND":
        raise InputError(file, "is truncated (its end is missing)", "get the file again")
    if depth != 8 or colour not in (0, 2):
        raise InputError(file, f"is a PNG of depth {depth} and colour type {colour}", "use 8-bit gray or RGB")
    return Entry(name, (height, width), 3 if colour == 2 else 1)


def _lmdb() -> ModuleType:
    try:
        import lmdb
    except ImportError as error:
        raise UsageError("LMDB stores", "need an extra", 'pip install "upframe[train]"') from error
    return lmdb
