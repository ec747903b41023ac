"""PNG and APNG, written as the rows arrive. Source: Portable Network Graphics (Third Edition), W3C 2023."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upframe.frames import Pixels
from upframe.media.metadata import Metadata, exif_for_size, xmp_for_size
from upframe.media.png import SIGNATURE, XMP_KEYWORD

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_LEVEL = 4  # of zlib. A 4K photo: 1 takes 0.74 s, 4 takes 1.06 s and is 11 % smaller, 6 takes 1.9 s for 6 % more
_CHUNK_BYTES = 1 << 18
_ROWS = 64  # filtered at a time; bounds the working memory


class Writable(Protocol):
    """Where encoders put their bytes."""

    def write(self, data: bytes, /) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class PngWriter:
    """Writes one PNG, or an animation of `frames` frames.

    Holds a band of rows and a chunk of compressed bytes, never a picture.
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
        deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY)
        held = bytearray()
        previous = np.zeros(size[1] * pixel_bytes, np.uint8)
        for band in bands:
            for rows in _as_bytes(band):
                held += deflate.compress(filter_rows(rows, previous, pixel_bytes))
                previous = rows[-1]
                if len(held) >= _CHUNK_BYTES:
                    self._data(held)
                    held.clear()
        self._data(held + deflate.flush())
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
            if not (metadata.icc and name == "sRGB"):  # one or the other (PNG 11.3.2.5)
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
        if metadata.xmp:
            self._itxt(XMP_KEYWORD, xmp_for_size(metadata.xmp, size))
        texts = list(metadata.text)
        if metadata.comment and all(key != "Comment" for key, _ in texts):
            texts.append(("Comment", metadata.comment.decode("utf-8", "replace")))
        for key, value in texts:
            self._text(key, value)

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


def _as_bytes(band: Pixels) -> Iterator[NDArray[np.uint8]]:
    """A band as (rows, bytes) in network byte order, a few rows at a time."""
    for top in range(0, len(band), _ROWS):
        rows = np.ascontiguousarray(band[top : top + _ROWS])
        if rows.dtype.itemsize == 2:
            rows = rows.astype(">u2")
        yield rows.reshape(len(rows), -1).view(np.uint8)


def filter_rows(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel_bytes: int) -> bytes:
    """Rows (n, bytes) with the best of the filters Sub, Up and Paeth for each, ready to be compressed.

    The choice is the usual heuristic, the smallest sum of absolute differences (PNG 12.7). Filter None is left out: on
    photos it never wins, and flat rows compress well under any.

    Args:
        above: The row before the first, zeros at the top of the picture.
    """
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
    return best.tobytes()


def _delay(duration: Fraction) -> tuple[int, int]:
    """A frame delay as two 16-bit numbers: exact where possible, else to the millisecond."""
    if duration.numerator <= 65535 and duration.denominator <= 65535:
        return duration.numerator, duration.denominator
    milliseconds = round(duration * 1000)
    return (milliseconds, 1000) if milliseconds <= 65535 else (min(round(duration), 65535), 1)
