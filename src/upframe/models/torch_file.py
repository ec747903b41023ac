"""PyTorch's files read as data: the pickle of a checkpoint, and the bytes of its tensors beside it.

Two layouts are understood. Since torch 1.6 a file is a ZIP archive: `<root>/data.pkl` and uncompressed `<root>/data/<key>`
for each storage. Before that it was a row of pickles (a magic number, the protocol, facts on the system, the object, the
keys of its storages) followed by the length and the bytes of each storage.

`pickled` reads the pickles without running them. Here too a file is taken for hostile: the bytes of a tensor are read only when
they are asked for, and a tensor never has more values than its storage holds.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import torch
from torch import Tensor

from upframe.models.pickled import (
    MORE_THAN_WEIGHTS,
    MOST_PICKLE_BYTES,
    MalformedError,
    Pickles,
    Storage,
    StoredTensor,
    UnsafeError,
)

MOST_DIRECTORY_BYTES = 4 << 20
"""Largest directory of a ZIP archive: some 40,000 tensors."""

_SLACK_BYTES = 1 << 20
_MOST_READS = 8  # times that as many bytes as the file has may be read for its tensors
_PART_BYTES = 1 << 20  # read at once, so that the bytes of a storage are held once
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001


class _Bytes(Protocol):
    """Where the bytes of storages are."""

    def size(self, key: str) -> int: ...
    def read(self, key: str) -> bytearray: ...


class TorchFile:
    """The content of an open PyTorch file.

    Args:
        file: Open for reading in binary; has to stay open while tensors are read.
        size: Its length in bytes.

    Raises:
        MalformedError: it is damaged, cut off, or no PyTorch file.
        UnsafeError: it names something that could only be meant to run code.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        file.seek(0)
        is_archive = file.read(2) == b"PK"
        self._size = size
        self._made_bytes = 0
        self._last: tuple[str, Tensor] | None = None
        self._read_bytes = 0
        self._bytes: _Bytes
        if is_archive:
            archive = _Archive(file, size)
            self.content: object = Pickles(io.BytesIO(archive.pickle())).next()
            self._bytes = archive
        else:
            file.seek(0)
            self.content, self._bytes = _read_row(file, size)

    def tensor(self, stored: StoredTensor) -> Tensor:
        """The values of a tensor, of the data type that the file has for it.

        Tensors that look into one storage may share its memory.

        Raises:
            MalformedError: its storage is missing or too short, or its size and strides lead outside or repeat values.
        """
        itemsize = stored.dtype.itemsize
        # Each view of shared values is written out, in float32. A small file must not fill the memory that way.
        self._made_bytes += stored.values * max(itemsize, 4)
        if self._made_bytes > 2 * self._size + _SLACK_BYTES:
            raise MalformedError("its tensors hold far more values than the file")
        available = self._bytes.size(stored.storage.key) // itemsize
        last = stored.offset + sum((side - 1) * step for side, step in zip(stored.size, stored.stride, strict=True))
        if stored.values and (stored.values > available or not 0 <= last < available):
            raise MalformedError("a tensor reaches beyond its storage")
        try:
            if stored.values == 0:
                return torch.empty(stored.size, dtype=stored.dtype)
            typed = self._storage(stored.storage.key)[: available * itemsize].view(stored.dtype)
            made = typed.as_strided(stored.size, stored.stride, stored.offset)
            # A small view must not keep a large storage alive.
            return made.clone() if stored.values < available else made
        except RuntimeError as error:  # products of sides and strides beyond 64 bits
            raise MalformedError("a tensor is damaged") from error

    def _storage(self, key: str) -> Tensor:
        """The bytes of a storage. The last one is kept, since tensors that share a storage lie beside each other."""
        if self._last is None or self._last[0] != key:
            self._last = None
            length = self._bytes.size(key)
            self._read_bytes += length
            if self._read_bytes > _MOST_READS * self._size:
                raise MalformedError("its tensors take turns in sharing storages, as torch never writes them")
            values = self._bytes.read(key)
            if len(values) < length:
                raise MalformedError("a storage is cut off")
            self._last = key, torch.frombuffer(values, dtype=torch.uint8)
        return self._last[1]


# The two layouts ------------------------------------------------------------------------------------------------------
class _Archive:
    """A ZIP archive as torch writes it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        try:
            self._archive = zipfile.ZipFile(cast("BinaryIO", _InParts(file)))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, EOFError) as error:
            raise MalformedError("its directory is damaged or cut off") from error
        members = self._archive.infolist()
        names = [member.filename for member in members]
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            raise UnsafeError("a TorchScript archive, which holds a program")
        found = next((name for name in names if name.endswith("/data.pkl")), None)
        if found is None:
            raise MalformedError("a ZIP archive but no PyTorch checkpoint")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members) or sum(m.file_size for m in members) > size:
            raise UnsafeError("its parts are compressed or overlap, as torch never writes them")
        self._root = found.removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        if order in names and self._read(order) != b"little":
            raise MalformedError("its values are big-endian")

    def pickle(self) -> bytes:
        name = f"{self._root}data.pkl"
        if self._member(name).file_size > MOST_PICKLE_BYTES:
            raise MalformedError(MORE_THAN_WEIGHTS)
        return bytes(self._read(name))  # as bytes, which `io.BytesIO` shares instead of copying them

    def size(self, key: str) -> int:
        return self._member(f"{self._root}data/{key}").file_size

    def read(self, key: str) -> bytearray:
        return self._read(f"{self._root}data/{key}")

    def _member(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._archive.getinfo(name)
        except KeyError:
            raise MalformedError(f"{name} is missing") from None

    def _read(self, name: str) -> bytearray:
        member = self._member(name)
        content = bytearray(member.file_size)  # checked against the file's size with all others
        view, at = memoryview(content), 0
        try:
            with self._archive.open(member) as file:
                while part := file.read(_PART_BYTES):
                    view[at : at + len(part)] = part
                    at += len(part)
            if at < len(content):
                raise EOFError
            return content
        except Exception as error:  # zipfile and zlib raise nearly anything on bytes made by anyone
            raise MalformedError(f"{name} is damaged") from error


class _InParts:
    """A file of which at most `MOST_DIRECTORY_BYTES` are read at once.

    `zipfile` reads the directory of an archive at once, wherever the several records of its place and length lead, and keeps
    some ten times as much; all else it reads in small parts.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(min(size, MOST_DIRECTORY_BYTES + 1) if size >= 0 else MOST_DIRECTORY_BYTES + 1)
        if len(part) > MOST_DIRECTORY_BYTES:
            raise MalformedError("its directory is larger than that of any checkpoint")
        return part


@dataclass(frozen=True)
class _Row:
    """Storages one after the other behind the pickles of a file before torch 1.6."""

    file: BinaryIO
    places: Mapping[str, tuple[int, int]]
    """Offset and length in bytes by key."""

    def size(self, key: str) -> int:
        return self._place(key)[1]

    def read(self, key: str) -> bytearray:
        offset, length = self._place(key)
        self.file.seek(offset)
        content = bytearray(length)  # no longer than the file, as checked when it was opened
        view, at = memoryview(content), 0
        while at < length and (part := self.file.read(min(_PART_BYTES, length - at))):
            view[at : at + len(part)] = part
            at += len(part)
        if at < length:
            raise MalformedError("a storage is cut off")
        return content

    def _place(self, key: str) -> tuple[int, int]:
        if key not in self.places:
            raise MalformedError(f"storage {key} is missing")
        return self.places[key]


def _read_row(file: BinaryIO, size: int) -> tuple[object, _Row]:
    pickles = Pickles(file)
    if pickles.next() != _MAGIC_NUMBER or pickles.next() != _PROTOCOL_VERSION:
        raise MalformedError("a pickle but no PyTorch checkpoint")
    system = pickles.next()
    if isinstance(system, Mapping) and system.get("little_endian") is False:
        raise MalformedError("its values are big-endian")
    storages: dict[str, Storage] = {}
    content = pickles.next(storages)
    keys = pickles.next()
    if not isinstance(keys, list):
        raise MalformedError("the list of its storages is missing")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        start = file.read(8)
        if not isinstance(key, str) or key not in storages or len(start) < 8:
            raise MalformedError("its storages are damaged or cut off")
        values, offset = struct.unpack("<q", start)[0], file.tell()
        length = values * storages[key].dtype.itemsize
        if values < 0 or offset + length > size:
            raise MalformedError("its storages are damaged or cut off")
        places[key] = (offset, length)
        file.seek(offset + length)
    return content, _Row(file, places)
