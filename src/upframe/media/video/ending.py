"""Evidence that a file ends early, in its outermost structure."""

from __future__ import annotations

from typing import Any

from upframe.media.image.opening import open_regular
from upframe.media.video.info import VideoInfo

_TS_PACKET = 188  # bytes (ISO/IEC 13818-1, 2.4.3.2)


def cut_short(info: VideoInfo) -> str | None:
    """Find evidence in the file's outermost structure that the file ends early; None if it seems complete. Decodes nothing."""
    with open_regular(info.path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        if info.format.startswith("matroska"):
            return _ebml_shortage(file, size)
        if info.format.startswith("mov"):
            return _box_shortage(file, size)
        if info.format == "avi":
            head = file.read(8)
            stated = int.from_bytes(head[4:8], "little") + 8
            return f"{stated - size} bytes are missing" if head[:4] == b"RIFF" and stated > size else None
    return None


def has_cut_packet(info: VideoInfo) -> bool:
    """Whether a transport stream ends within a packet, as recordings do: nothing in it says how long it should be."""
    if info.format != "mpegts":
        return False
    with open_regular(info.path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(_TS_PACKET + 1)
    return head[:1] == b"G" and head[_TS_PACKET:] == b"G" and size % _TS_PACKET != 0


def _box_shortage(file: Any, size: int) -> str | None:
    """ISO/IEC 14496-12, 4.2: top-level boxes must end where the file does."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        if length == 0:
            return None  # to the end of the file
        if length < 8:
            return None  # not a box: some writers append padding
        at += length
        if at > size:
            return f"{at - size} bytes are missing"
    return None


def _ebml_shortage(file: Any, size: int) -> str | None:
    """RFC 8794, 4.4: the Segment states its size, unless it was streamed."""
    at = 0
    for _ in range(2):  # the EBML header, then the Segment
        file.seek(at)
        head = file.read(12)
        id_length = _vint_length(head[0]) if head else 0
        length = _vint_length(head[id_length]) if 0 < id_length < len(head) else 0
        if not length or id_length + length > len(head):
            return None
        mask = (1 << (7 * length)) - 1
        value = int.from_bytes(head[id_length : id_length + length], "big") & mask
        if value == mask:
            return None  # unknown size
        at += id_length + length + value
    return f"{at - size} bytes are missing" if at > size else None


def _vint_length(first: int) -> int:
    return 9 - first.bit_length() if first else 0
