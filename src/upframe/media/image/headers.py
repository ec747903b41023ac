"""Read headers of WebP, AVIF/HEIC, GIF and icons before their codecs do, which would allocate memory or round first."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class WebpHeader:
    size: tuple[int, int]
    """(height, width) of the canvas."""
    has_alpha: bool
    missing_bytes: int
    """Number of missing bytes, according to the RIFF header."""
    stated_bytes: int
    """File size as the RIFF header states it."""
    is_picture_whole: bool
    """Whether all missing bytes belong to metadata behind the picture."""


def webp_header(file: BinaryIO) -> WebpHeader | None:
    """Read size and length of a WebP file; None if its header is incomplete or invalid. Source: RFC 9649, 2.5 to 2.7."""
    file.seek(0)
    head = file.read(40)
    present = file.seek(0, 2)
    if len(head) < 30:
        return None
    stated = int.from_bytes(head[4:8], "little") + 8
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        alpha = bool(head[20] & 0x10)
    elif kind == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    elif kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height, alpha = int.from_bytes(head[26:28], "little") & 0x3FFF, head[28] | (head[29] & 0x3F) << 8, False
    else:
        return None
    return WebpHeader((height, width), alpha, max(stated - present, 0), stated, _ends_behind_picture(file, present))


def _ends_behind_picture(file: BinaryIO, present: int) -> bool:
    """Whether a still WebP of `present` bytes holds its picture whole; an animation may lack frames that nobody counts."""
    at = 12
    while at + 8 <= present:
        file.seek(at)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        at += 8 + length
        if name in (b"VP8 ", b"VP8L"):
            return at <= present
        at += length % 2
    return False


@dataclass(frozen=True)
class IsoHeader:
    """Facts of an AVIF or HEIC file (ISO/IEC 23008-12, MIAF)."""

    largest: tuple[int, int]
    """(height, width) of the largest item or track; (0, 0) if none is stated."""
    depth: int
    """Most bits per sample of any item."""
    missing_bytes: int
    """Number of bytes that the top-level boxes state beyond the end of the file."""
    stated_bytes: int
    auxiliary: tuple[str, ...]
    """Types of auxiliary pictures, each once; "tmap" stands for a gain map by ISO 21496-1."""


_CONTAINERS = {b"iinf": 6, b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0}
"""Boxes to enter, and the bytes of version and flags before their children."""


def iso_header(file: BinaryIO) -> IsoHeader:
    """Walk the boxes of an ISO base media file for picture sizes and bit depths; nothing is decoded."""
    present = file.seek(0, 2)
    height = width = 0
    depth, end = 8, 0
    auxiliary: dict[str, None] = {}
    for name, at, stop in _boxes(file, 0, present, 0):
        end = max(end, stop)
        file.seek(at)
        if name == b"ispe":
            body = file.read(12)
            if len(body) == 12:
                w, h = struct.unpack(">II", body[4:])
                if w * h >= height * width:
                    height, width = h, w
        elif name == b"tkhd":
            body = file.read(min(stop - at, 104))
            if len(body) >= 84:
                w, h = (value >> 16 for value in struct.unpack(">II", body[-8:]))
                if w * h >= height * width:
                    height, width = h, w
        elif name == b"pixi":
            body = file.read(min(stop - at, 16))
            depth = max([depth, *body[5 : 5 + body[4]]]) if len(body) > 5 else depth
        elif name == b"av1C":
            body = file.read(4)
            if len(body) == 4 and body[2] & 0x40:  # high_bitdepth, then twelve_bit (AV1-ISOBMFF 2.3)
                depth = max(depth, 12 if body[2] & 0x20 else 10)
        elif name == b"auxC" and len(auxiliary) < 64:
            auxiliary[file.read(min(stop - at, 132))[4:].split(b"\0")[0].decode("latin-1")] = None
        elif name == b"infe" and file.read(min(stop - at, 12))[8:12] == b"tmap":
            auxiliary["hdrgainmap (tmap)"] = None
    return IsoHeader((height, width), depth, max(end - present, 0), end, tuple(auxiliary))


def _boxes(file: BinaryIO, at: int, end: int, level: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, content start, box end) of all boxes from `at`, depth first; the last box may end beyond the file."""
    count = 0
    while at + 8 <= end and count < 4096 and level < 8:  # bounded, so that a hostile file cannot make this long
        count += 1
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        start = at + 8
        if size == 1:
            size, start = int.from_bytes(file.read(8), "big"), at + 16
        stop = end if size == 0 else at + size
        if stop < start:
            return
        yield name, start, stop
        if name in _CONTAINERS:
            yield from _boxes(file, start + _CONTAINERS[name], min(stop, end), level + 1)
        at = stop


@dataclass(frozen=True)
class GifHeader:
    """Facts of a GIF file, from its blocks; nothing is decompressed (GIF89a specification)."""

    size: tuple[int, int]
    delays_cs: tuple[int, ...]
    """Duration of each frame in hundredths of a second."""
    has_alpha: bool
    """Whether any frame has a transparent colour; without one, uncovered areas show the background colour."""
    plays: int
    """Number of plays; 0 is forever."""
    is_complete: bool
    """Whether the file has its closing byte."""
    ends_between_blocks: bool
    """Whether nothing but that byte is missing."""
    covered: tuple[int, int]
    """(height, width) of the smallest canvas that holds all frames."""
    extensions: tuple[str, ...]
    """Names of the extensions besides timing, repetition and comments, each once."""
    end: int
    """Position behind the last block that was read."""


def gif_header(file: BinaryIO) -> GifHeader | None:
    """Read the blocks of a GIF file; None if its screen descriptor is incomplete."""
    file.seek(0)
    head = file.read(13)
    if len(head) < 13:
        return None
    width, height = struct.unpack("<HH", head[6:10])
    if head[10] & 0x80:
        file.seek(3 << ((head[10] & 7) + 1), 1)
    delays: list[int] = []
    covered, extensions = (0, 0), dict[str, None]()
    delay, plays, alpha, between = 0, 1, False, True
    while (kind := file.read(1)) not in (b"", b";"):
        between = False
        if kind == b"!":
            label = file.read(1)
            blocks = _sub_blocks(file)
            if blocks is None:
                break
            if label == b"\xf9" and blocks and len(blocks[0]) >= 4:
                flags, delay = blocks[0][0], int.from_bytes(blocks[0][1:3], "little")
                alpha = alpha or bool(flags & 1)
            elif label == b"\xff" and len(blocks) > 1 and blocks[0] == b"NETSCAPE2.0" and len(blocks[1]) >= 3:
                # It counts repetitions: n of them make n + 1 plays.
                repeats = int.from_bytes(blocks[1][1:3], "little")
                plays = repeats + 1 if repeats else 0
            elif label != b"\xfe" and len(extensions) < 64:
                name = blocks[0].decode("latin-1", "replace") if blocks and label == b"\xff" else label.hex()
                extensions[f"GIF extension {name}"] = None
        elif kind == b",":
            area = file.read(9)
            if len(area) < 9:
                break
            if area[8] & 0x80:
                file.seek(3 << ((area[8] & 7) + 1), 1)
            left, top, frame_width, frame_height = struct.unpack("<4H", area[:8])
            covered = max(covered[0], top + frame_height), max(covered[1], left + frame_width)
            file.read(1)  # code size
            if _sub_blocks(file) is None:
                break
            delays.append(delay)
            delay = 0
        else:
            break
        between = True
    return GifHeader(
        (height, width),
        tuple(delays),
        alpha,
        plays,
        kind == b";",
        between and delay == 0,
        covered,
        tuple(extensions),
        file.tell(),
    )


def _sub_blocks(file: BinaryIO) -> list[bytes] | None:
    """Read a run of sub-blocks to its end and return the first ones; None if the file ends within it."""
    blocks: list[bytes] = []
    while True:
        size = file.read(1)
        if not size:
            return None
        if size == b"\0":
            return blocks
        if len(blocks) < 2:
            block = file.read(size[0])
            if len(block) < size[0]:
                return None
            blocks.append(block)
        else:
            file.seek(size[0], 1)


def icon_sizes(file: BinaryIO) -> list[tuple[int, int]]:
    """(height, width) of each picture of a Windows icon, as its own header states it; empty if the directory is cut."""
    file.seek(0)
    head = file.read(6)
    rows = [file.read(16) for _ in range(min(int.from_bytes(head[4:6], "little"), 256))]
    sizes = []
    for row in rows:
        if len(row) < 16:
            return []
        file.seek(int.from_bytes(row[12:16], "little"))
        picture = file.read(24)
        if picture[:8] == b"\x89PNG\r\n\x1a\n" and len(picture) == 24:
            width, height = struct.unpack(">II", picture[16:24])
        elif len(picture) == 24:  # a bitmap, with a mask below it
            width, height = struct.unpack("<ii", picture[4:12])
            height = abs(height) // 2
        else:
            return []
        sizes.append((height, width))
    return sizes
