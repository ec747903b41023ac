"""The structure of a JPEG file: its segments, where its picture ends, and what lies behind it. Nothing is decoded.

Sources: ITU-T T.81, annex B; CIPA DC-007 (Multi-Picture Format); Adobe XMP, part 3; ISO 21496-1 (gain maps).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

_SOI, _EOI, _SOS, _COMMENT, _APP0 = 0xD8, 0xD9, 0xDA, 0xFE, 0xE0
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker in entropy-coded data: neither a stuffed byte, nor a fill byte, nor a restart."""
_BLOCK = 1 << 20
_MOST_SEGMENTS = 20_000
_HEAD_BYTES = 1 << 18
"""Bytes of an embedded picture that are looked at."""


@dataclass(frozen=True)
class Segment:
    marker: int
    content: bytes
    at: int
    """Position of the content in the file."""


@dataclass(frozen=True)
class JpegStructure:
    """One JPEG picture in a file."""

    size: tuple[int, int]
    """(height, width) of the frame header; (0, 0) if there is none."""
    components: int
    segments: tuple[Segment, ...]
    """Application segments and comments, in file order."""
    end: int | None
    """Position behind its end marker; None if the file ends before."""
    is_refined: bool
    """Whether scans for every coefficient of every component at full precision have begun."""
    is_sequential: bool
    """Whether one scan holds whole rows, so that the share of decoded rows is the share of the picture."""


def read_structure(file: BinaryIO, at: int = 0, limit: int | None = None) -> JpegStructure | None:
    """Read the structure of the JPEG picture at `at`; None if there is none.

    Args:
        limit: Position at which to stop.
    """
    stop = file.seek(0, 2) if limit is None else limit
    size, components, progressive, scans = (0, 0), 0, False, _Scans()
    segments: list[Segment] = []
    end = None
    for marker, content, position in _markers(file, at, stop):
        if marker in _FRAME_HEADERS and len(content) >= 6 and size == (0, 0):
            height, width, components = struct.unpack(">HHB", content[1:6])
            size, progressive = (height, width), marker in _PROGRESSIVE
        elif marker == _SOS:
            scans.add(content)
        elif marker == _EOI:
            end = position
        elif marker == _COMMENT or _APP0 <= marker <= _APP0 + 15:
            segments.append(Segment(marker, content, position))
    if end is None and not segments and size == (0, 0):
        return None
    is_refined, is_sequential = scans.are_complete(components), not progressive and scans.count == 1
    return JpegStructure(size, components, tuple(segments), end, is_refined, is_sequential)


class _Scans:
    """The scans of a picture: which coefficients they have brought to full precision (T.81, G.1.1.1)."""

    def __init__(self) -> None:
        self.count = 0
        self._full: dict[int, set[int]] = {}

    def add(self, header: bytes) -> None:
        self.count += 1
        number = header[0] if header else 0
        if len(header) < 4 + 2 * number:
            return
        first, last, bits = header[1 + 2 * number : 4 + 2 * number]
        if bits & 15 == 0 and last < 64:
            for index in range(number):
                self._full.setdefault(header[1 + 2 * index], set()).update(range(first, last + 1))

    def are_complete(self, components: int) -> bool:
        return components > 0 and sum(len(full) == 64 for full in self._full.values()) >= components


def _markers(file: BinaryIO, at: int, stop: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield (marker, content, position of the content) of one picture from its start to its end marker or to `stop`."""
    file.seek(at)
    if file.read(2) != b"\xff\xd8":
        return
    at += 2
    for _ in range(_MOST_SEGMENTS):
        marker, at = _next_marker(file, at, stop)
        if marker is None:
            return
        if marker == _EOI:
            yield marker, b"", at
            return
        if marker == _SOI or marker == 0x01 or 0xD0 <= marker <= 0xD7:  # without content
            continue
        file.seek(at)
        length = int.from_bytes(file.read(2), "big")
        if length < 2 or at + length > stop:
            return
        yield marker, file.read(length - 2), at + 2
        at += length


def _next_marker(file: BinaryIO, at: int, stop: int) -> tuple[int | None, int]:
    """Find the next marker from `at`; return it and the position behind it."""
    while at < stop:
        file.seek(at)
        block = file.read(min(_BLOCK, stop - at))
        found = _MARKER.search(block)
        if found is not None:
            return block[found.end() - 1], at + found.end()
        if len(block) < 2:
            break
        at += len(block) - 1  # a marker may begin with the last byte
    return None, stop


# What lies behind the picture -----------------------------------------------------------------------------------------
Role = Literal["preview", "gain map", "depth map", "picture", "video", "padding", "bytes"]


@dataclass(frozen=True)
class Embedded:
    """A part of the file behind its picture."""

    role: Role
    """"picture" is one in its own right, such as the other view of a stereo pair."""
    name: str
    """Description for messages."""


_THUMBNAILS = {0x010001, 0x010002, 0x010003, 0x010004, 0x010005}
_OWN = {0x020001: "a part of a panorama", 0x020002: "the other view of a stereo pair", 0x020003: "a view from another angle"}
_GAIN_MAP_MARKS = (b"ns.adobe.com/hdr-gain-map", b"HDRGainMap", b"urn:iso:std:iso:ts:21496")
_DEPTH_MARKS = (b"depth", b"Depth", b"isparity")


def embedded_parts(file: BinaryIO, picture: JpegStructure) -> list[Embedded]:
    """Describe all bytes behind the end marker of `picture`: previews, gain maps, other views, videos, records."""
    size = file.seek(0, 2)
    if picture.end is None or picture.end >= size:
        return []
    parts: list[Embedded] = []
    covered = picture.end
    for kind, start, length in sorted(multi_picture_entries(picture), key=lambda entry: entry[1]):
        if start < covered or length < 4 or start + length > size:
            continue
        parts += _gap(file, covered, start)
        parts.append(_described(file, kind, start, start + length, picture))
        covered = start + length
    return parts + _gap(file, covered, size)


def multi_picture_entries(picture: JpegStructure) -> list[tuple[int, int, int]]:
    """Read (type, position, bytes) of the further pictures that the MPF index of `picture` lists (DC-007, 5.2.3)."""
    index = next((s for s in picture.segments if s.marker == 0xE2 and s.content.startswith(b"MPF\0")), None)
    if index is None:
        return []
    tiff = index.content[4:]
    try:
        order = {b"II*\0": "<", b"MM\0*": ">"}[tiff[:4]]
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for i in range(count):
            tag, _, length, value = struct.unpack_from(f"{order}HHII", tiff, directory + 2 + 12 * i)
            if tag == 0xB002:
                rows = [struct.unpack_from(f"{order}IIIHH", tiff, value + 16 * n) for n in range(length // 16)]
                # Offsets count from the byte order mark; that of the first picture is 0.
                return [(row[0] & 0xFFFFFF, index.at + 4 + row[2], row[1]) for row in rows if row[2]]
    except (KeyError, struct.error):
        pass
    return []


def _described(file: BinaryIO, kind: int, start: int, stop: int, first: JpegStructure) -> Embedded:
    """Tell the role of a listed picture by its type, its metadata and its size."""
    found = read_structure(file, start, min(stop, start + _HEAD_BYTES))
    if found is None:
        return Embedded("bytes", f"{stop - start} bytes that its index lists as a picture")
    size = f"{found.size[1]}x{found.size[0]}"
    notes = b"".join(segment.content for segment in found.segments)
    if kind in _THUMBNAILS:
        return Embedded("preview", f"its preview of {size}")
    if any(mark in notes for mark in _GAIN_MAP_MARKS):
        return Embedded("gain map", f"its gain map of {size}")
    if any(mark in notes for mark in _DEPTH_MARKS):
        return Embedded("depth map", f"its depth map of {size}")
    if found.size == first.size and found.components == first.components:
        return Embedded("picture", _OWN.get(kind, "another picture of the same size"))
    if kind == 0x020002:
        return Embedded("depth map", f"its disparity map of {size}")
    return Embedded("picture", _OWN[kind]) if kind in _OWN else Embedded("preview", f"a smaller picture of {size}")


def _gap(file: BinaryIO, start: int, stop: int) -> list[Embedded]:
    """Describe the bytes from `start` to `stop`, which no index lists."""
    if start >= stop:
        return []
    file.seek(start)
    head = file.read(min(stop - start, _HEAD_BYTES))
    if not head.strip(b"\0") and is_zero(file, start + len(head), stop):
        return [Embedded("padding", f"{stop - start} zero bytes behind its end")]
    if head[4:8] == b"ftyp" or b"MotionPhoto_Data" in head or b"ftypmp4" in head or b"ftypisom" in head:
        return [Embedded("video", f"the video of its motion photo ({stop - start} bytes)")]
    if head[:3] == b"\xff\xd8\xff":
        return [Embedded("preview", f"a further JPEG of {stop - start} bytes")]
    return [Embedded("bytes", f"{stop - start} bytes behind its end")]


def is_zero(file: BinaryIO, at: int, stop: int) -> bool:
    """Whether all bytes from `at` to `stop` are zero."""
    while at < stop:
        file.seek(at)
        block = file.read(min(_BLOCK, stop - at))
        if not block or block.strip(b"\0"):
            return False
        at += len(block)
    return True
