"""Closed captions in the frames: read from decoded frames, written into the packets of H.264 and H.265.

Captions are triplets of CEA-708 in an SEI message "user data registered by ITU-T T.35" (ATSC A/53 part 4, 6.2.3). PyAV cannot
attach side data to a frame, so the message is put before the first slice of each finished access unit.
"""

from __future__ import annotations

from typing import Any

import av

from upframe.media.video.frame_facts import side_data_kind, side_data_of

CODECS_WITH_CAPTIONS = ("h264", "h265")

_START = b"\x00\x00\x01"
_USER_DATA_REGISTERED = 4  # H.264 and H.265, D.1: payload types
_MOST_TRIPLETS = 31  # the number of triplets has five bits


def captions_of(frame: av.VideoFrame) -> bytes:
    """Triplets of closed captions of a frame; empty if it has none, or padding only."""
    found = side_data_of(frame).get("A53_CC", [])
    return b"".join(content for content in found if side_data_kind("A53_CC", content) == "A53_CC")


def captioned(packet: Any, captions: bytes, codec: str) -> Any:
    """A packet like `packet`, with closed captions; see `with_captions`."""
    made = av.Packet(with_captions(bytes(packet), captions, codec))
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.time_base, made.is_keyframe, made.stream = packet.time_base, packet.is_keyframe, packet.stream
    return made


def with_captions(unit: bytes, captions: bytes, codec: str) -> bytes:
    """An access unit with closed captions.

    Args:
        unit: An access unit of H.264 or H.265 in the form of a byte stream, with start codes.
        captions: From `captions_of`.
        codec: One of `CODECS_WITH_CAPTIONS`.
    """
    at = _first_slice(unit, codec)
    parts = [captions[start : start + 3 * _MOST_TRIPLETS] for start in range(0, len(captions), 3 * _MOST_TRIPLETS)]
    return unit[:at] + b"".join(_message(part, codec) for part in parts) + unit[at:]


def _first_slice(data: bytes, codec: str) -> int:
    """Position of the start code of the first slice."""
    at = data.find(_START)
    while at >= 0:
        head = data[at + 3]
        if (head >> 1 & 63) < 32 if codec == "h265" else (head & 31) in (1, 5):
            return at - 1 if at and data[at - 1] == 0 else at  # a start code may have four bytes
        at = data.find(_START, at + 3)
    raise ValueError("an access unit without a slice")


def _message(triplets: bytes, codec: str) -> bytes:
    count = len(triplets) // 3
    payload = b"\xb5\x00\x31GA94\x03" + bytes([0x40 | count, 0xFF]) + triplets + b"\xff"
    message = bytes([_USER_DATA_REGISTERED, len(payload)]) + payload + b"\x80"
    return b"\x00" + _START + (b"\x4e\x01" if codec == "h265" else b"\x06") + _escaped(message)


def _escaped(data: bytes) -> bytes:
    """Put a 3 after two zeros where a start code could be found (H.264, 7.4.1)."""
    out = bytearray()
    for byte in data:
        if byte <= 3 and out[-2:] == b"\x00\x00":
            out.append(3)
        out.append(byte)
    return bytes(out)
