"""Write PNG and APNG while rows arrive. Source: Portable Network Graphics (Third Edition), W3C 2023."""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from upframe.kernels import library
from upframe.media.frames import Pixels
from upframe.media.image.metadata import Metadata, exif_for_size
from upframe.media.image.png import SIGNATURE, XMP_KEYWORD

try:
    from isal import isal_zlib
except ImportError:  # no build of it for this machine
    isal_zlib = None  # type: ignore[assignment]

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
# A 4K photo, one thread: isal's level 2 takes 0.06 s; zlib's 1 takes 0.23 s for 5 % more bytes, 4 0.37 s for 3 % fewer, 6 1.8 s
# for 7 % fewer.
_ISAL_LEVEL, _ZLIB_LEVEL = 2, 4
_CHUNK_BYTES = 1 << 18
_PART_BYTES = 1 << 19  # bytes of rows that are compressed together; each part begins without a dictionary
_NUMPY_BYTES = 1 << 17  # bytes of rows that are filtered together without kernels; filtering needs some twenty times as many
_THREADS = min(4, os.cpu_count() or 1)
_RAW_DEFLATE, _MEMORY_LEVEL = -15, 9
_ZLIB_HEADER = b"\x78\x5e"
_LAST_BLOCK = b"\x03\x00"  # an empty one, marked as the last (RFC 1951, 3.2.6)


class Writable(Protocol):
    """The output of encoders."""

    def write(self, data: bytes, /) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class PngWriter:
    """Writes one PNG, or an animation of `frames` frames.

    Holds a few parts of rows and a chunk of compressed bytes, never a picture. Several threads filter and compress parts while
    the caller makes the next bands: a band must not change after it was passed.
    """

    def __init__(self, out: Writable, metadata: Metadata, *, frames: int = 1, animated: bool = False) -> None:
        self._out = out
        self._metadata = metadata
        self._frames = frames
        self._animated = animated
        self._written = 0
        self._sequence = 0

    def frame(
        self, bands: Iterable[Pixels], size: tuple[int, int], *, channels: int, dtype: np.dtype[Any], duration: Fraction
    ) -> None:
        """Write one frame of `size` (height, width); `bands` are checked by the caller."""
        if self._written == 0:
            self._head(size, channels, dtype)
        if self._animated:
            number, scale = _delay(duration)
            self._chunk(b"fcTL", struct.pack(">IIIIIHHBB", self._sequence, size[1], size[0], 0, 0, number, scale, 0, 0))
            self._sequence += 1
        pixel_bytes = channels * dtype.itemsize
        row_bytes = size[1] * pixel_bytes
        held, checksum = bytearray(_ZLIB_HEADER), 1
        threads = _THREADS if size[0] * row_bytes > _PART_BYTES else 0
        for part in _deflated_parts(bands, row_bytes, pixel_bytes, threads=threads):
            held += part.deflated
            checksum = _adler32_combined(checksum, part.checksum, part.length)
            if len(held) >= _CHUNK_BYTES:
                self._data(held)
                held.clear()
        self._data(held + _LAST_BLOCK + struct.pack(">I", checksum))
        self._written += 1

    def finish(self) -> None:
        self._chunk(b"IEND", b"")

    def _data(self, data: bytes | bytearray) -> None:
        if self._written == 0:
            self._chunk(b"IDAT", bytes(data))
        else:
            self._chunk(b"fdAT", struct.pack(">I", self._sequence) + data)
            self._sequence += 1

    def _head(self, size: tuple[int, int], channels: int, dtype: np.dtype[Any]) -> None:
        height, width = size
        self._out.write(SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, _COLOUR_TYPES[channels], 0, 0, 0))
        metadata = self._metadata
        # The order matters to old readers: colour before everything else (PNG 5.6).
        for name, content in metadata.colour_chunks:
            if not (metadata.icc and name == "sRGB"):  # a file has either of them, not both (PNG 11.3.2.5)
                self._chunk(name.encode(), content)
        if metadata.icc:
            self._chunk(b"iCCP", b"icc\0\0" + zlib.compress(metadata.icc))
        if metadata.dpi:
            x, y = (round(value / 0.0254) for value in metadata.dpi)
            self._chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
        if metadata.exif:
            self._chunk(b"eXIf", exif_for_size(metadata.exif, size))
        if self._animated:
            self._chunk(b"acTL", struct.pack(">II", self._frames, metadata.loop or 0))
        xmp = metadata.xmp_for(size)
        if xmp:
            self._itxt(XMP_KEYWORD, xmp)
        texts = list(metadata.text)
        if metadata.comment and all(key != "Comment" for key, _ in texts):
            texts.append(("Comment", metadata.comment.decode("utf-8", "replace")))
        for key, value in texts:
            self._text(key, value)
        if metadata.photoshop:
            self._text("Raw profile type iptc", f"\niptc\n{len(metadata.photoshop):8}\n{metadata.photoshop.hex()}\n")

    def _text(self, key: str, value: str) -> None:
        try:
            content = key.encode("latin-1") + b"\0" + value.encode("latin-1")
        except UnicodeEncodeError:
            self._itxt(key, value.encode())
        else:
            self._chunk(b"tEXt", content)

    def _itxt(self, key: str, value: bytes) -> None:
        self._chunk(b"iTXt", key.encode("latin-1", "replace") + b"\0\0\0\0\0" + value)

    def _chunk(self, name: bytes, content: bytes) -> None:
        self._out.write(struct.pack(">I", len(content)) + name)
        self._out.write(content)
        self._out.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(name))))


class _Part(NamedTuple):
    """Rows, compressed independently to whole bytes."""

    deflated: bytes
    checksum: int
    """Adler-32 of the `length` uncompressed bytes."""
    length: int


def _deflated_parts(bands: Iterable[Pixels], row_bytes: int, pixel_bytes: int, *, threads: int) -> Iterator[_Part]:
    """Yield the parts of a picture in order; with `threads` 0 this thread makes them."""
    above = np.zeros(row_bytes, np.uint8)
    if threads == 0:
        for rows in _parts(bands, row_bytes):
            yield _deflated(rows, above, pixel_bytes)
            above = rows[-1]
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="upframe-png") as pool:
        waiting: deque[Future[_Part]] = deque()
        for rows in _parts(bands, row_bytes):
            waiting.append(pool.submit(_deflated, rows, above, pixel_bytes))
            above = rows[-1]
            while waiting and (len(waiting) > 2 * threads or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _parts(bands: Iterable[Pixels], row_bytes: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the rows as (rows, bytes) in network byte order, in blocks of equal height for bands of any height."""
    count = max(1, _PART_BYTES // row_bytes)
    held: list[NDArray[np.uint8]] = []
    lacking = count
    for band in bands:
        rows = np.ascontiguousarray(band)
        if rows.dtype.itemsize == 2:
            rows = rows.astype(">u2")
        coded = rows.reshape(len(rows), -1).view(np.uint8)
        while len(coded):
            held.append(coded[:lacking])
            coded = coded[lacking:]
            lacking -= len(held[-1])
            if lacking == 0:
                yield held[0] if len(held) == 1 else np.concatenate(held)
                held, lacking = [], count
    if held:
        yield np.concatenate(held)


def _deflated(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel_bytes: int) -> _Part:
    filtered = filter_rows(rows, above, pixel_bytes)
    if isal_zlib is not None:
        deflate = isal_zlib.compressobj(_ISAL_LEVEL, isal_zlib.DEFLATED, _RAW_DEFLATE)
    else:
        deflate = zlib.compressobj(_ZLIB_LEVEL, zlib.DEFLATED, _RAW_DEFLATE, _MEMORY_LEVEL)
    # to whole bytes, so that parts can be joined
    made = deflate.compress(filtered) + deflate.flush(zlib.Z_SYNC_FLUSH)
    adler32 = zlib.adler32 if isal_zlib is None else isal_zlib.adler32  # takes a third of the time
    return _Part(made, adler32(filtered.data), filtered.size)


def _adler32_combined(first: int, second: int, length: int) -> int:
    """Adler-32 of two joined strings, from the sums of both and the length of the second (RFC 1950, 8.2)."""
    base = 65521
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)
    return high % base << 16 | low % base


def filter_rows(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel_bytes: int) -> NDArray[np.uint8]:
    """Filter rows (n, bytes), each with the best of Sub, Up and Paeth: (n, 1 + bytes).

    The choice is the usual heuristic, the smallest sum of absolute differences (PNG 12.7). Filter None is not tried: on photos
    it never wins, and flat rows compress well under any filter.

    Args:
        above: The row before the first, zeros at the top of the picture.
    """
    kernels = library()
    if kernels is not None:
        rows, above = np.ascontiguousarray(rows), np.ascontiguousarray(above)
        made = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
        if kernels.upframe_png_filter(rows.ctypes.data, above.ctypes.data, *rows.shape, pixel_bytes, made.ctypes.data):
            raise MemoryError("not enough memory for a row of a PNG")
        return made
    made = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    count = max(1, _NUMPY_BYTES // rows.shape[1])
    for top in range(0, len(rows), count):
        some = rows[top : top + count]
        made[top : top + count] = _filtered_in_numpy(some, above, pixel_bytes)
        above = some[-1]
    return made


def _filtered_in_numpy(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel_bytes: int) -> NDArray[np.uint8]:
    count, length = rows.shape
    out = np.empty((3, count, length + 1), np.uint8)
    up = np.empty_like(rows)
    up[0], up[1:] = above, rows[:-1]
    left = np.zeros_like(rows)
    left[:, pixel_bytes:] = rows[:, :-pixel_bytes]
    corner = np.zeros_like(rows)
    corner[:, pixel_bytes:] = up[:, :-pixel_bytes]
    # |p − a| for p = a + b − c is |b − c|, and so on; the third only needs comparing (PNG 9.4)
    rise, run = np.subtract(up, corner, dtype=np.int16), np.subtract(left, corner, dtype=np.int16)
    from_left, from_up, from_corner = np.abs(rise), np.abs(run), np.abs(rise + run)
    paeth = np.where(from_up <= from_corner, up, corner)
    np.copyto(paeth, left, where=(from_left <= from_up) & (from_left <= from_corner))
    for i, (kind, guess) in enumerate(((1, left), (2, up), (4, paeth))):
        out[i, :, 0] = kind
        np.subtract(rows, guess, out=out[i, :, 1:])
    cost = np.abs(out[:, :, 1:].view(np.int8).astype(np.int16)).sum(2, dtype=np.int64)
    best: NDArray[np.uint8] = out[np.argmin(cost, axis=0), np.arange(count)]
    return best


def _delay(duration: Fraction) -> tuple[int, int]:
    """Express a frame delay by two 16-bit numbers: exact if possible, else to the millisecond."""
    if duration.numerator <= 65535 and duration.denominator <= 65535:
        return duration.numerator, duration.denominator
    milliseconds = round(duration * 1000)
    return (milliseconds, 1000) if milliseconds <= 65535 else (min(round(duration), 65535), 1)
