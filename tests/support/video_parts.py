"""Parts of video files that PyAV does not write: messages in H.264 and H.265, boxes of MP4, elements of Matroska."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av

from video_files import Clip, make_clip

START = b"\x00\x00\x00\x01"
CAPTION = b"\xb5\x00\x31GA94\x03" + bytes([0x42, 0xFF, 0xFC, 0x94, 0x2C, 0xFD, 0x80, 0x80, 0xFF])
"""ATSC A/53 part 4: one pair of bytes of CEA-608, and one of padding."""
NO_CAPTION = b"\xb5\x00\x31GA94\x03" + bytes([0x42, 0xFF, 0xFC, 0x80, 0x80, 0xFD, 0x80, 0x80, 0xFF])


def stream_bytes(folder: Path, clip: Clip, name: str = "part.h264") -> bytes:
    """A bare stream of H.264 or H.265, by the extension of `name`."""
    path = make_clip(folder / name, clip)
    data = path.read_bytes()
    path.unlink()
    return data


def with_sei(data: bytes, payload: bytes | Callable[[int], bytes], *, kind: int = 4, hevc: bool = False) -> bytes:
    """A bare stream with an SEI message before the first slice of each picture (H.264, 7.3.2.3; H.265, 7.3.2.4).

    Args:
        payload: Of the message, or a function that makes it from the number of the picture.
    """
    made, number = b"", 0
    for unit in _units(data):
        if unit[2] & 0x80 and (unit[0] >> 1 & 63) < 32 if hevc else unit[1] & 0x80 and unit[0] & 31 in (1, 5):
            told = payload if isinstance(payload, bytes) else payload(number)
            made += START + (b"\x4e\x01" if hevc else b"\x06") + _escaped(bytes([kind, len(told)]) + told) + b"\x80"
            number += 1
        made += START + unit
    return made


def caption(number: int) -> bytes:
    """ATSC A/53 part 4: two triplets, one of which holds `number`, and zeros as in start codes."""
    return b"\xb5\x00\x31GA94\x03" + bytes([0x42, 0xFF, 0xFC, 0x14, number % 96 + 32, 0xFE, 0, 0, 0xFF])


def _units(data: bytes) -> list[bytes]:
    parts = data.replace(START, b"\x00\x00\x01").split(b"\x00\x00\x01")
    return [part for part in parts if part]


def _escaped(data: bytes) -> bytes:
    out = bytearray()
    for byte in data:
        if byte <= 3 and out[-2:] == b"\x00\x00":
            out.append(3)
        out.append(byte)
    return bytes(out)


def muxed(path: Path, streams: Iterable[bytes], *, rate: int = 25, suffix: str = ".h264") -> Path:
    """Write bare streams without B-frames one after another into a container."""
    numbers = itertools.count()
    bare = path.with_suffix(suffix)
    bare.write_bytes(b"".join(streams))
    with av.open(str(bare)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.time_base = Fraction(1, rate)
        stream.codec_context.framerate = Fraction(rate)
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts = packet.dts = next(numbers)
                packet.duration, packet.time_base, packet.stream = 1, Fraction(1, rate), stream
                out.mux(packet)
    bare.unlink()
    return path


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, name) + content


def add_to_sample_entry(path: Path, made: bytes) -> Path:
    """Add a box to the video's sample entry of an MP4 file whose `moov` lies at its end, so that no offset changes."""
    data = bytearray(path.read_bytes())
    assert data.find(b"moov") > data.find(b"mdat")
    entry = next(name for name in (b"avcC", b"hvcC") if name in data)
    at = data.find(entry) - 4
    for name in (b"avc1", b"hvc1", b"hev1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        where = data.rfind(name, 0, at) - 4
        if where >= 0:
            struct.pack_into(">I", data, where, struct.unpack_from(">I", data, where)[0] + len(made))
    data[at:at] = made
    path.write_bytes(data)
    return path


def dolby_vision(profile: int, compatibility: int) -> bytes:
    """Box of a Dolby Vision configuration record (Dolby Vision Streams within ISO base media, 3.2)."""
    flags = (profile << 9) | (1 << 3) | (1 << 2) | 1
    return box(b"dvcC", bytes([1, 0]) + struct.pack(">H", flags) + bytes([compatibility << 4]) + bytes(19))


def equirectangular() -> bytes:
    """Boxes of a 360° picture (Spherical Video V2)."""
    head = box(b"svhd", bytes(4) + b"upframe\x00")
    projection = box(b"prhd", bytes(16)) + box(b"equi", bytes(20))
    return box(b"sv3d", head + box(b"proj", projection))


def hide_rows(path: Path, rows: int) -> Path:
    """Hide the last rows of a Matroska video: PixelCropBottom replaces DisplayUnit (RFC 9559, 5.1.4.1.28)."""
    data = path.read_bytes()
    assert data.count(b"\x54\xb2\x81\x04") == 1
    path.write_bytes(data.replace(b"\x54\xb2\x81\x04", b"\x54\xaa\x81" + bytes([rows])))
    return path
