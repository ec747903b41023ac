"""The parts of picture files that no field of `Metadata` holds: each is recorded as changed or as lost.

Lists of known parts are lists of exceptions: what is on none of them is lost, with a notice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from upframe.media.image.decoder import Reading
from upframe.media.image.jpeg import Embedded, JpegStructure, Segment, is_zero

_CODING = "coding"
"""A part that says how pixels are stored, or that `Metadata` holds."""


# JPEG -----------------------------------------------------------------------------------------------------------------
_SEGMENTS: tuple[tuple[int, bytes, str], ...] = (
    (0xE0, b"JFIF\0", _CODING),
    (0xE1, b"Exif\0", _CODING),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0", _CODING),
    (0xE2, b"ICC_PROFILE\0", _CODING),
    (0xE2, b"MPF\0", _CODING),
    (0xEC, b"Ducky", _CODING),  # the quality of Photoshop's encoder
    (0xED, b"Photoshop 3.0\0", _CODING),
    (0xEE, b"Adobe", _CODING),
    (0xFE, b"", _CODING),
    (0xE1, b"http://ns.adobe.com/xmp/extension/\0", "extended XMP"),
    (0xEB, b"JP", "content credentials (JUMBF)"),
)
_GAIN_MAP = b"urn:iso:std:iso:ts:21496"


def account_jpeg(reading: Reading, picture: JpegStructure, embedded: Iterable[Embedded]) -> None:
    """Record segments that are not carried over, and what lies behind the picture."""
    lost = [name for segment in picture.segments if (name := _segment_name(segment)) != _CODING]
    gains = ["facts of its gain map"] if any(s.content.startswith(_GAIN_MAP) for s in picture.segments) else []
    if any(segment.content.startswith(b"JFXX\0") for segment in picture.segments):
        reading.changed("part", "thumbnail", "it is removed")
    if lost:
        reading.lost("metadata-dropped", list(dict.fromkeys(lost)))
    parts = list(embedded)
    gone = [part.name for part in parts if part.role not in ("picture", "padding")] + gains
    if gone:
        reading.lost("embedded-dropped", gone, kind="part")
    for part in parts:
        if part.role == "padding":
            reading.changed("part", part.name, "padding is not written")
        elif part.role == "picture":
            reading.changed("part", part.name, "only the first picture is read, as asked")


def _segment_name(segment: Segment) -> str:
    """The name of a segment that is lost; `_CODING` for the others."""
    if segment.content.startswith((_GAIN_MAP, b"JFXX\0")):
        return _CODING
    for marker, prefix, name in _SEGMENTS:
        if segment.marker == marker and segment.content.startswith(prefix):
            return name
    label = bytes(byte for byte in segment.content[:24].split(b"\0")[0] if 32 < byte < 127).decode()
    return f"segment APP{segment.marker - 0xE0}{f' {label}' if label else ''}"


def photoshop_block(picture: JpegStructure) -> bytes | None:
    """Join Photoshop's image resources."""
    prefix = b"Photoshop 3.0\0"
    return b"".join(s.content.removeprefix(prefix) for s in picture.segments if s.content.startswith(prefix)) or None


# PNG ------------------------------------------------------------------------------------------------------------------
_PNG_CHANGED = {
    "sBIT": "it told the depth of the original",
    "hIST": "it counted the colours of the original",
    "sPLT": "it listed colours for the original",
    "tIME": "the output has a date of its own",
    "iDOT": "it told how the original is stored",
}


def account_png(reading: Reading, names: Iterable[str]) -> None:
    """Record chunks of these names, which the decoder has no use for."""
    lost = []
    for name in dict.fromkeys(names):
        if name in _PNG_CHANGED:
            reading.changed("metadata", f"PNG chunk {name}", _PNG_CHANGED[name])
        else:
            lost.append("content credentials (caBX)" if name == "caBX" else f"PNG chunk {name}")
    if lost:
        reading.lost("metadata-dropped", lost)


# Others ---------------------------------------------------------------------------------------------------------------
def account_chunks(reading: Reading, names: Iterable[str], known: Iterable[str]) -> None:
    """Record named parts of a file that are not among the known ones."""
    lost = [name for name in dict.fromkeys(names) if name not in known]
    if lost:
        reading.lost("metadata-dropped", lost)


def account_tail(reading: Reading, end: int) -> None:
    """Record bytes behind the end of a file's own format."""
    size = reading.file.seek(0, 2)
    if end >= size:
        return
    if is_zero(reading.file, end, size):
        reading.changed("part", f"{size - end} zero bytes behind its end", "padding is not written")
    else:
        reading.lost("embedded-dropped", [f"{size - end} bytes behind its end"], kind="part")


_AUXILIARY = {"hdrgainmap": "its gain map", "depth": "its depth map", "disparity": "its depth map", "matte": "its mattes"}


def account_items(reading: Reading, urns: Iterable[str]) -> None:
    """Record auxiliary pictures of an AVIF or HEIC file by their types (ISO/IEC 23008-12, 6.5.8)."""
    lost = []
    for urn in dict.fromkeys(urns):
        if not urn.endswith(("alpha", "auxid:1")):  # alpha, also by the name that HEVC gives it, belongs to the pixels
            lost.append(next((name for mark, name in _AUXILIARY.items() if mark in urn.lower()), f"a picture {urn}"[:80]))
    if lost:
        reading.lost("embedded-dropped", list(dict.fromkeys(lost)), kind="part")


def riff_chunks(file: BinaryIO, end: int) -> Iterator[str]:
    """Names of the chunks of a WebP file that states `end` bytes."""
    at = 12
    while at + 8 <= end:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        name, length = head[:4], int.from_bytes(head[4:], "little")
        yield name.decode("latin-1")
        at += 8 + length + length % 2
