"""The picture data of a PNG: the stream of its chunks, and the filters of its rows. Source: as for `png`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from upframe.kernels import library

_READ = 1 << 18


@dataclass(frozen=True)
class Chunk:
    name: bytes
    at: int
    """Start of the content."""
    length: int


class DataStream:
    """Decompressed bytes of a run of chunks, in order, with verified checksums."""

    def __init__(self, file: object, chunks: list[Chunk]) -> None:
        self._source = self._compressed(file, chunks)
        self._inflate = zlib.decompressobj()
        self._held = bytearray()
        self.damage: str | None = None
        """The reason why the data ends early, once it has."""
        self.end_damage: str | None = None
        """Damage behind the last byte that is needed; the checksum of the decompressed data was right."""

    def _compressed(self, file: object, chunks: list[Chunk]) -> Iterator[bytes]:
        assert hasattr(file, "seek") and hasattr(file, "read")
        for chunk in chunks:
            skip = 4 if chunk.name == b"fdAT" else 0  # the checksum covers the sequence number, too
            file.seek(chunk.at - skip)
            check = zlib.crc32(file.read(skip), zlib.crc32(chunk.name)) if skip else zlib.crc32(chunk.name)
            left = chunk.length
            while left:
                data: bytes = file.read(min(left, _READ))
                if not data:
                    break
                left -= len(data)
                check = zlib.crc32(data, check)
                yield data
            stated: bytes = file.read(4)
            if len(stated) < 4:
                self.damage = "the data ends early"
                return
            if int.from_bytes(stated, "big") != check:
                self.damage = "a checksum is wrong"
                return

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer if the data ends or is damaged; allocate no more than that."""
        while len(self._held) < count and not self._inflate.eof:
            data = self._inflate.unconsumed_tail or next(self._source, b"")
            if not data:
                self.damage = self.damage or "the data ends early"
                break
            try:
                self._held += self._inflate.decompress(data, count - len(self._held))
            except zlib.error:
                self.damage = self.damage or "the compressed data is corrupt"
                break
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def finish(self) -> None:
        """Read to the end, so that the last checksums are verified, too; ignore surplus data."""
        try:
            while not self._inflate.eof:
                data = self._inflate.unconsumed_tail or next(self._source, b"")
                if not data:
                    self.damage = self.damage or "the compressed data has no end"
                    return
                self._inflate.decompress(data, _READ)
        except zlib.error:
            self.damage = self.damage or "the compressed data is corrupt"
            return
        for _ in self._source:
            pass
        self.end_damage, self.damage = self.damage, None


def unfilter(coded: NDArray[np.uint8], bpp: int, previous: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo PNG row filters (PNG 9.2).

    Args:
        coded: (rows, 1 + bytes): the filter type of each row, 0 to 4 (the caller has checked), then its filtered bytes.
        bpp: Bytes per pixel, at least 1.
        previous: The unfiltered row before the first, (bytes,).

    Returns:
        (rows, bytes), a new array.
    """
    kinds, data = coded[:, 0], coded[:, 1:]
    kernels = library()
    if kernels is not None:
        coded, previous = np.ascontiguousarray(coded), np.ascontiguousarray(previous)
        plain = np.empty(data.shape, np.uint8)
        kernels.upframe_png_unfilter(coded.ctypes.data, previous.ctypes.data, *data.shape, bpp, plain.ctypes.data)
        return plain
    if kinds.max(initial=0) > 2:
        return _unfilter_wavefront(kinds, data, bpp, previous)
    out = data.copy()
    for y, kind in enumerate(kinds):
        if kind == 1:
            out[y] = np.add.accumulate(data[y].reshape(-1, bpp), axis=0, dtype=np.uint8).ravel()
        elif kind == 2:
            out[y] += out[y - 1] if y else previous
    return out


def _unfilter_wavefront(
    kinds: NDArray[np.uint8], data: NDArray[np.uint8], bpp: int, previous: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Undo all filters together, one anti-diagonal of pixels per step.

    A pixel needs its left, upper and upper-left neighbours, so pixels with the same x + y are independent. Rows are
    stored skewed, `skew[2 + x + y, y]` being pixel x of row y, which makes every diagonal a contiguous slice; two leading zeros
    represent the neighbours outside the picture.
    """
    rows, width = len(data) + 1, data.shape[1] // bpp  # row 0 is the row before
    skew = np.zeros((width + rows + 1, rows, bpp), np.uint8)
    slot, row = skew.strides[:2]
    view = as_strided(skew[2:], (rows, width, bpp), (slot + row, slot, 1))
    view[0] = previous.reshape(width, bpp)
    view[1:] = data.reshape(-1, width, bpp)
    types = np.concatenate([[0], kinds])[:, None]
    is_sub, is_up, is_average, is_paeth = ((types == k).astype(np.int16) for k in (1, 2, 3, 4))
    for s in range(1, width + rows - 1):
        low, high = max(1, s - width + 1), min(rows, s + 1)
        part, above = slice(low, high), slice(low - 1, high - 1)
        a = skew[s + 1, part].astype(np.int16)
        b = skew[s + 1, above].astype(np.int16)
        c = skew[s, above].astype(np.int16)
        from_b, from_a = np.abs(a - c), np.abs(b - c)
        from_c = np.abs(a + b - c - c)
        paeth = np.where((from_a <= from_b) & (from_a <= from_c), a, np.where(from_b <= from_c, b, c))
        guess = is_sub[part] * a + is_up[part] * b + is_average[part] * ((a + b) >> 1) + is_paeth[part] * paeth
        skew[s + 2, part] += guess.astype(np.uint8)
    return np.ascontiguousarray(view[1:]).reshape(len(data), -1)
