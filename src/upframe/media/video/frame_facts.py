"""Facts that a decoded frame states about itself: colour tags, side data, static HDR metadata, the display matrix."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from upframe.media.video.stated import UNKNOWN

UNSPECIFIED = 2  # H.273: primaries, transfer and matrix

Matrix = tuple[int, ...]
"""Nine integers in FFmpeg's layout: a, b, u, c, d, v, x, y, w, as 16.16 and 2.30 fixed point."""

_ENCODERS = (
    bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef"),  # x264
    bytes.fromhex("2ca2de09b51747dbbb55a4fe7fc2fc4e"),  # x265
)
"""UUIDs of SEI messages in which encoders write their version and options."""

_GOP_FLAGS = 1 << 24 | 1 << 12
"""The drop frame flag and the marker bit of a time code of ISO/IEC 13818-2, 6.2.2.6."""


@dataclass(frozen=True)
class ColourTags:
    """Colour as stated by the stream, in numbers of H.273; 2 is unspecified and stays unspecified."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0
    """0 unspecified, 1 limited, 2 full."""


@dataclass(frozen=True)
class Hdr10:
    """Static HDR metadata (SMPTE ST 2086 and CTA-861.3); each part is None if absent."""

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    """CIE x, y of the mastering display's red, green, blue and white."""
    luminance: tuple[Fraction, Fraction] | None = None
    """Lowest and highest luminance of the mastering display, cd/m²."""
    light_level: tuple[int, int] | None = None
    """MaxCLL and MaxFALL, cd/m²."""


def colour_tags(frame: av.VideoFrame, fallback: Any) -> ColourTags:
    """Colour of a frame; of `fallback`, a codec context, where the frame does not state it."""

    def tag(of_frame: Any, of_stream: Any, unknown: int) -> int:
        return next((int(v) for v in (of_frame, of_stream) if int(v) != unknown), unknown)

    return ColourTags(
        primaries=tag(frame.color_primaries, fallback.color_primaries, UNSPECIFIED),
        transfer=tag(frame.color_trc, fallback.color_trc, UNSPECIFIED),
        matrix=tag(frame.colorspace, fallback.colorspace, UNSPECIFIED),
        range=tag(frame.color_range, fallback.color_range, 0),
    )


def side_data_of(frame: av.VideoFrame) -> dict[str, list[bytes]]:
    """Side data of a frame by name; names that PyAV does not know, and all that comes with them, count as UNKNOWN."""
    found: dict[str, list[bytes]] = {}
    try:
        held: Any = frame.side_data
        for key in range(len(held)):
            found.setdefault(held[key].type.name, []).append(bytes(held[key]))
    except ValueError:  # a type that is newer than PyAV
        return {UNKNOWN: [b""]}
    return found


def side_data_kind(name: str, content: bytes) -> str:
    """The name of side data, with an addition in parentheses for content that holds nothing of the picture's own."""
    if name == "A53_CC" and not _has_captions(content):
        return "A53_CC (padding)"
    if name == "SEI_UNREGISTERED" and content[:16] in _ENCODERS:
        return "SEI_UNREGISTERED (encoder)"
    if name == "PANSCAN" and not any(content[12:24]):  # AVPanScan: id, width, height, then three positions
        return "PANSCAN (centred)"
    if name == "GOP_TIMECODE" and not int.from_bytes(content[:8], sys.byteorder) & ~_GOP_FLAGS:
        return "GOP_TIMECODE (zero)"
    if name == "AFD" and content[:1] in (b"\x08", b"\x00"):  # ATSC A/53 part 4, table 6.14: the whole coded frame
        return "AFD (whole frame)"
    if name == "STEREO3D" and content[:4] == bytes(4):
        return "STEREO3D (2D)"
    return name


def _has_captions(content: bytes) -> bool:
    """Whether triplets of CEA-708 hold a valid pair of bytes that is not padding (CTA-708-E, 4.3.5; CEA-608-E, 8.4)."""
    triplets = (content[at : at + 3] for at in range(0, len(content) - 2, 3))
    return any(one[0] & 4 and (one[1] & 0x7F or one[2] & 0x7F) for one in triplets)


def timecode_of(side: dict[str, list[bytes]]) -> str | None:
    """Time code of a group of pictures of MPEG-2 (ISO/IEC 13818-2, 6.3.8); None if there is none, or it counts from zero."""
    content = side.get("GOP_TIMECODE", [b""])[0]
    if not content or side_data_kind("GOP_TIMECODE", content) != "GOP_TIMECODE":
        return None
    bits = int.from_bytes(content[:8], sys.byteorder)
    is_dropping = bits >> 24 & 1
    return f"{bits >> 19 & 31:02}:{bits >> 13 & 63:02}:{bits >> 6 & 63:02}{';' if is_dropping else ':'}{bits & 63:02}"


def matrix_of(side: dict[str, list[bytes]]) -> Matrix | None:
    """The display matrix of a frame, without its offset: players place the picture by its size. None for the identity."""
    raw = side.get("DISPLAYMATRIX", [b""])[0]
    if len(raw) < 36:
        return None
    a, b, u, c, d, v, _, _, w = struct.unpack_from("9i", raw)
    return None if (a, b, u, c, d, v) == (1 << 16, 0, 0, 0, 1 << 16, 0) else (a, b, u, c, d, v, 0, 0, w)


def hdr10_of(side: dict[str, list[bytes]]) -> Hdr10 | None:
    """Read ST 2086 and CTA-861.3 from FFmpeg's structures, AVMasteringDisplayMetadata and AVContentLightMetadata."""
    primaries = luminance = level = None
    raw = side.get("MASTERING_DISPLAY_METADATA", [b""])[0]
    if len(raw) >= 88:
        numbers = struct.unpack_from("22i", raw)
        pairs = [Fraction(numbers[i], numbers[i + 1]) if numbers[i + 1] else Fraction(0) for i in range(0, 20, 2)]
        has_primaries, has_luminance = numbers[20:22]
        if has_primaries:
            primaries = tuple((pairs[i], pairs[i + 1]) for i in range(0, 8, 2))
        if has_luminance:
            luminance = (pairs[8], pairs[9])
    raw = side.get("CONTENT_LIGHT_LEVEL", [b""])[0]
    if len(raw) >= 8:
        cll, fall = struct.unpack_from("2I", raw)
        level = (cll, fall)
    return Hdr10(primaries, luminance, level) if primaries or luminance or level else None
