"""Sound with a RIFF tag (WMA, ADPCM, GSM, A-law) in Matroska, bit by bit.

Matroska's codec "A_MS/ACM" holds such sound; its private data is the WAVEFORMATEX header of WAV and AVI files. FFmpeg's muxer
can write it, but PyAV lets no codec in that has no name of Matroska's own. So the track is declared as a stand-in codec with a
name as long and with this header as its private data, and the finished file gets the right name. IDs and types of elements are
those of RFC 9559 (Matroska) and RFC 8794 (EBML).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

import av
import av.error

_STAND_IN, _ACM = b"A_TRUEHD", b"A_MS/ACM"
assert len(_STAND_IN) == len(_ACM)

_SEGMENT, _TRACKS, _ENTRY, _CODEC, _PRIVATE, _CRC = 0x18538067, 0x1654AE6B, 0xAE, 0x86, 0x63A2, 0xBF
_CRC_BYTES = 4  # without its head of two bytes


def wave_header(template: Any) -> bytes | None:
    """The WAVEFORMATEX header of a stream, as FFmpeg's WAV muxer writes it; None for a codec without a RIFF tag."""
    made = io.BytesIO()
    try:
        with av.open(made, "w", format="wav") as out:
            out.add_stream_from_template(template, opaque=True)
            out.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return None
    data = made.getvalue()
    at = data.index(b"fmt ")
    return data[at + 8 : at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")]


def stand_in(wave: bytes) -> Any:
    """Open a Matroska file in memory, whose only stream is the template of a track with this WAVEFORMATEX header.

    The caller closes it once the output has been opened.
    """
    channels, rate = struct.unpack_from("<HI", wave, 2)
    audio = _element(0xB5, struct.pack(">d", rate)) + _element(0x9F, _number(channels))
    about = _element(0xD7, _number(1)) + _element(0x73C5, _number(1)) + _element(0x83, _number(2))  # number, UID, audio
    track = _element(_ENTRY, about + _element(_CODEC, _STAND_IN) + _element(_PRIVATE, wave) + _element(0xE1, audio))
    info = _element(0x1549A966, _element(0x2AD7B1, _number(1_000_000)))  # ticks of a millisecond
    cluster = _element(0x1F43B675, _element(0xE7, _number(0)))  # FFmpeg opens no file without one
    header = _element(0x1A45DFA3, _element(0x4282, b"matroska") + _element(0x4287, _number(4)) + _element(0x4285, _number(2)))
    file = header + _element(_SEGMENT, info + _element(_TRACKS, track) + cluster)
    return av.open(io.BytesIO(file), format="matroska")


def name_riff_tracks(file: BinaryIO, waves: Collection[bytes]) -> None:
    """Give the tracks that were made from `stand_in(wave)` their right codec.

    Args:
        file: A finished Matroska file, open to read and write.
    """
    file.seek(0)
    at, end = _find(file, 0, file.seek(0, io.SEEK_END), _SEGMENT)
    at, end = _find(file, at, end, _TRACKS)
    file.seek(at)
    tracks = bytearray(file.read(end - at))
    for id, start, stop in _children(tracks):
        if id == _ENTRY:
            held = {id: (first, last) for id, first, last in _children(tracks, start, stop)}
            private = slice(*held.get(_PRIVATE, (0, 0)))
            if tracks[slice(*held[_CODEC])] == _STAND_IN and bytes(tracks[private]) in waves:
                tracks[slice(*held[_CODEC])] = _ACM
    first_id, start, stop = next(_children(tracks))
    if first_id == _CRC:
        tracks[start:stop] = zlib.crc32(tracks[stop:]).to_bytes(_CRC_BYTES, "little")
    file.seek(at)
    file.write(tracks)


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _element(id: int, data: bytes) -> bytes:
    return id.to_bytes((id.bit_length() + 7) // 8, "big") + (1 << 56 | len(data)).to_bytes(8, "big") + data


def _children(data: bytes | bytearray, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yield the elements between two positions: ID, begin and end of the content."""
    at, stop = start, len(data) if stop is None else stop
    while at < stop:
        id, begin, size = _head(data[at : at + 12])
        yield id, at + begin, min(at + begin + size, stop)
        at += begin + size


def _find(file: BinaryIO, start: int, stop: int, wanted: int) -> tuple[int, int]:
    """Begin and end of the content of the first element `wanted` between two positions of a file."""
    at = start
    while at < stop:
        file.seek(at)
        id, begin, size = _head(file.read(12))
        if id == wanted:
            return at + begin, min(at + begin + size, stop)
        at += begin + size
    raise ValueError(f"no element {wanted:X}")


def _head(data: bytes | bytearray) -> tuple[int, int, int]:
    """ID, length of the head, and size of the content of the element that begins with `data`."""
    id_length = 9 - data[0].bit_length()
    size_length = 9 - data[id_length].bit_length()
    size = int.from_bytes(data[id_length : id_length + size_length], "big") & ((1 << 7 * size_length) - 1)
    return int.from_bytes(data[:id_length], "big"), id_length + size_length, size
