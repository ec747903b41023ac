"""Read an LMDB file as data. The library maps the file and follows its numbers unchecked: one flipped bit ends the process.

Every number is checked before it is followed, pages are read and never mapped, and keys are compared byte by byte, as the
library does by default. Source of the layout: `mdb.c` of LMDB 0.9, for 64-bit little-endian machines.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from upframe.errors import InputError

_HEADER = struct.Struct("<QHHHH")  # number, padding, flags, end of the pointers, start of the nodes
_NODE = struct.Struct("<HHHH")  # low and high half of a size or page number, flags, bytes of the key
_META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
_DATABASE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, branch, leaf and overflow pages, entries, root
_MAGIC, _NO_PAGE = 0xBEEFC0DE, 2**64 - 1
_BRANCH, _LEAF, _OVERFLOW, _DIRTY = 0x01, 0x02, 0x04, 0x10
_BIG, _SUBTREE = 0x01, 0x06
"""Flags of nodes: the value lies on its own pages; the value is a database."""
_MOST_LEVELS = 32


@dataclass(frozen=True)
class _Tree:
    root: int
    depth: int
    entries: int


@dataclass(frozen=True)
class _Page:
    content: bytes
    is_leaf: bool
    nodes: tuple[int, ...]
    """Positions of the nodes in `content`."""


class LmdbFile:
    """The main database of an LMDB file: values by key.

    Args:
        path: The file `data.mdb`.

    Raises:
        InputError: if it is not an LMDB file; every method for a page whose numbers are wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file = path.open("rb", buffering=0)
            self._bytes = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise InputError(path, f"cannot be opened ({error.strerror})", "check the file") from error
        try:
            self._page_bytes, self._main, self._free = self._read_meta()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`; None if there is none."""
        if self._main.root == _NO_PAGE:
            return None
        number = self._main.root
        for _ in range(self._main.depth):
            page = self._page(number)
            at = self._position(page, key)
            if page.is_leaf:
                return self._value(page, page.nodes[at]) if at >= 0 and self._key(page, page.nodes[at]) == key else None
            number = self._child(page, page.nodes[at])
        raise self._damaged("a branch leads nowhere")

    def iter_keys(self) -> Iterator[bytes]:
        """Yield all keys in order."""
        for page in self._leaves(self._main):
            yield from (self._key(page, node) for node in page.nodes)

    def check(self) -> None:
        """Follow every number of the file, so that the library can, too; values are not read.

        Raises:
            InputError: naming the damage.
        """
        for tree in (self._main, self._free):
            count = 0
            for page in self._leaves(tree):
                for node in page.nodes:
                    self._span(page, node)
                count += len(page.nodes)
            if count != tree.entries:
                raise self._damaged(f"{count} entries, and it states {tree.entries}")

    # Structure --------------------------------------------------------------------------------------------------------
    def _read_meta(self) -> tuple[int, _Tree, _Tree]:
        """Read the newer of the two first pages: page size, main database, free pages."""
        first = self._meta(0, self._read(0, 4096))
        if first is None:
            raise InputError(
                self.path, "is not an LMDB file of a 64-bit machine, or its first page is damaged", "make it again"
            )
        size = first[0]
        second = self._meta(1, self._read(size, 4096))
        _, _, main, free = max((meta for meta in (first, second) if meta is not None), key=lambda meta: meta[1])
        return size, main, free

    def _meta(self, number: int, page: bytes) -> tuple[int, int, _Tree, _Tree] | None:
        """(page size, transaction, main database, free pages) of one of the first pages; None if it is invalid."""
        at = _HEADER.size
        if len(page) < at + _META.size + 2 * _DATABASE.size + 16:
            return None
        magic, version, _, _ = _META.unpack_from(page, at)
        free = _DATABASE.unpack_from(page, at + _META.size)
        main = _DATABASE.unpack_from(page, at + _META.size + _DATABASE.size)
        _, transaction = struct.unpack_from("<QQ", page, at + _META.size + 2 * _DATABASE.size)
        size = free[0]
        if (
            magic != _MAGIC
            or version != 1
            or size not in (4096, 8192, 16384, 32768, 65536)
            or _HEADER.unpack_from(page)[0] != number
        ):
            return None
        trees = [_Tree(root=facts[7], depth=facts[2], entries=facts[6]) for facts in (main, free)]
        if any(tree.depth > _MOST_LEVELS or (tree.root != _NO_PAGE) != (tree.depth > 0) for tree in trees):
            return None
        return size, transaction, trees[0], trees[1]

    def _leaves(self, tree: _Tree) -> Iterator[_Page]:
        if tree.root == _NO_PAGE:
            return
        left = self._bytes // self._page_bytes  # more pages than that are a circle
        waiting = [(tree.root, 1)]
        while waiting:
            number, level = waiting.pop()
            page, left = self._page(number), left - 1
            if left < 0 or level > tree.depth or page.is_leaf != (level == tree.depth):
                raise self._damaged("its pages are no tree")
            if page.is_leaf:
                yield page
            else:
                waiting += [(self._child(page, node), level + 1) for node in reversed(page.nodes)]

    def _page(self, number: int) -> _Page:
        content = self._read(number * self._page_bytes, self._page_bytes)
        if len(content) < self._page_bytes:
            raise self._damaged(f"page {number} lies beyond the end of the file")
        stated, _, flags, lower, upper = _HEADER.unpack_from(content)
        kind = flags & ~_DIRTY
        end = self._page_bytes
        if stated != number or kind not in (_BRANCH, _LEAF) or not _HEADER.size <= lower <= upper <= end or lower % 2:
            raise self._damaged(f"page {number} has a wrong header")
        nodes = struct.unpack_from(f"<{(lower - _HEADER.size) // 2}H", content, _HEADER.size)
        if any(not upper <= node <= end - _NODE.size for node in nodes) or (kind == _BRANCH and not nodes):
            raise self._damaged(f"page {number} has nodes outside it")
        return _Page(content, kind == _LEAF, nodes)

    def _position(self, page: _Page, key: bytes) -> int:
        """Index of the last node whose key is at most `key`; -1 if there is none. The first key of a branch is not compared."""
        low, high = (0 if page.is_leaf else 1), len(page.nodes)
        while low < high:
            middle = (low + high) // 2
            if self._key(page, page.nodes[middle]) <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def _key(self, page: _Page, node: int) -> bytes:
        *_, length = _NODE.unpack_from(page.content, node)
        start = node + _NODE.size
        if start + length > len(page.content):
            raise self._damaged("a key reaches beyond its page")
        return page.content[start : start + length]

    def _child(self, page: _Page, node: int) -> int:
        low, high, top, _ = _NODE.unpack_from(page.content, node)
        return int(low | high << 16 | top << 32)

    def _value(self, page: _Page, node: int) -> bytes:
        start, length = self._span(page, node)
        if start < 0:
            return page.content[-start : length - start]
        return self._read(start, length)

    def _span(self, page: _Page, node: int) -> tuple[int, int]:
        """Position and length of a value in the file; on its own page, the negative position in that page."""
        low, high, flags, key_bytes = _NODE.unpack_from(page.content, node)
        length, start = low | high << 16, node + _NODE.size + key_bytes
        if flags & _SUBTREE or flags & ~_BIG:
            raise self._damaged("a value is a database, or has unknown flags")
        if not flags & _BIG:
            if start + length > len(page.content):
                raise self._damaged("a value reaches beyond its page")
            return -start, length
        if start + 8 > len(page.content):
            raise self._damaged("a value reaches beyond its page")
        (number,) = struct.unpack_from("<Q", page.content, start)
        place = number * self._page_bytes
        head = self._read(place, _HEADER.size)
        if len(head) < _HEADER.size or place + _HEADER.size + length > self._bytes:
            raise self._damaged("a value lies beyond the end of the file")
        stated, _, kind, *pages = _HEADER.unpack(head)
        if stated != number or kind & ~_DIRTY != _OVERFLOW or (pages[0] | pages[1] << 16) * self._page_bytes < length:
            raise self._damaged(f"page {number} is no start of a value")
        return place + _HEADER.size, length

    def _read(self, start: int, count: int) -> bytes:
        """Read bytes of the file, fewer at its end."""
        if start >= self._bytes:
            return b""
        try:
            if hasattr(os, "pread"):  # leaves the position alone, which processes share after a fork
                return os.pread(self._file.fileno(), count, start)
            with self._lock:
                self._file.seek(start)
                return self._file.read(count) or b""
        except OSError as error:
            raise InputError(self.path, f"cannot be read ({error.strerror})", "check the disk") from error

    def _damaged(self, what: str) -> InputError:
        return InputError(self.path, f"is damaged ({what})", "make the store again")
