"""Decode the Netpbm formats PBM, PGM and PPM, as text and binary, at their own depth. Source: Netpbm's pbm(5), pgm(5), ppm(5).

Pillow would read 16-bit colour as 8-bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from upframe.media.frames import Frame, MediaInfo, Pixels
from upframe.media.image.decoder import Reading
from upframe.media.image.metadata import Metadata

_HEAD_BYTES = 1 << 16
"""Most bytes of a header with its comments."""
_SPACE = rb"(?:\s|#[^\n]*\n)"
_SIDES = re.compile(rb"P([1-6])" + _SPACE + rb"+(\d{1,9})" + _SPACE + rb"+(\d{1,9})")
_RANGE = re.compile(_SPACE + rb"+(\d{1,5})")


class PnmDecoder:
    """Decodes one picture; see `decoder.Decoder`."""

    info: MediaInfo
    metadata: Metadata

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        head = reading.file.read(_HEAD_BYTES)
        sides = _SIDES.match(head)
        if sides is None:
            raise reading.error("is a Netpbm file of another kind than PBM, PGM and PPM", "convert it to PNG")
        kind, width, height = (int(text) for text in sides.groups())
        reading.check_pixels(height, width)
        self._is_text, self._is_bits = kind <= 3, kind in (1, 4)
        self._largest, self._start = 1, sides.end()
        if not self._is_bits:
            stated = _RANGE.match(head, sides.end())
            if stated is None or not 1 <= int(stated[1]) <= 65535:
                raise reading.damaged("it states no largest value")
            self._largest, self._start = int(stated[1]), stated.end()
        if self._is_bits:
            reading.changed("pixels", "depth", "1-bit picture, becomes 8-bit gray", "one-bit-to-gray")
        comments = re.findall(rb"#[ \t]?([^\n]*)", head[: self._start])
        self.metadata = Metadata(comment=b"\n".join(comments) or None)
        self.info = MediaInfo(
            path=reading.path,
            format="pnm",
            size=(height, width),
            channels=3 if kind in (3, 6) else 1,
            dtype=np.dtype(np.uint8 if self._largest < 256 else np.uint16),
        )

    def frames(self) -> Iterator[Frame]:
        (height, width), channels = self.info.size, self.info.channels
        stored = self._numbers if self._is_text else self._bits if self._is_bits else self._samples
        values = stored(self._reading.file, height, width * channels)
        full = np.iinfo(self.info.dtype).max
        if self._is_bits:
            values = 1 - values  # 1 is black
        if values.max(initial=0) > self._largest:
            raise self._reading.damaged(f"a sample above {self._largest}, the largest that its header states")
        if self._largest != full:
            values = (values.astype(np.uint32) * full + self._largest // 2) // self._largest
        pixels: Pixels = values.astype(self.info.dtype).reshape(height, width, channels)
        yield Frame(pixels)

    def _samples(self, file: BinaryIO, height: int, row: int) -> NDArray[np.unsignedinteger[Any]]:
        dtype = np.dtype(">u2" if self._largest > 255 else np.uint8)
        return np.frombuffer(self._read(file, height * row * dtype.itemsize), dtype)

    def _bits(self, file: BinaryIO, height: int, row: int) -> NDArray[np.uint8]:
        packed = np.frombuffer(self._read(file, height * -(-row // 8)), np.uint8).reshape(height, -1)
        return np.unpackbits(packed, axis=1)[:, :row]

    def _read(self, file: BinaryIO, count: int) -> bytes:
        """Read `count` bytes of samples behind the one space that ends the header; fill missing ones with zeros."""
        start = self._start + 1
        present = max(file.seek(0, 2) - start, 0)
        if present < count:
            self._reading.truncated(100 * present / count)
        file.seek(start)
        return file.read(count).ljust(count, b"\0")

    def _numbers(self, file: BinaryIO, height: int, row: int) -> NDArray[np.uint32]:
        """Read samples that are written as decimal numbers; those of a PBM need no spaces between them."""
        count = height * row
        file.seek(self._start)
        text = re.sub(rb"#[^\n]*", b"", file.read())
        words = re.findall(rb"[01]" if self._is_bits else rb"\d{1,5}", text)[:count]
        if len(words) < count:
            self._reading.truncated(100 * len(words) / count)
        made = np.zeros(count, np.uint32)
        made[: len(words)] = np.array(words, dtype="S5").astype(np.uint32) if words else 0
        return made
