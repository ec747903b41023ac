"""EXIF, ICC and other metadata: copied from input to output, and corrected where pixels changed.

EXIF is edited in place, byte by byte, and not parsed and rewritten: maker notes hold offsets that stay valid only if nothing
moves. Source of the layout: CIPA DC-008 (Exif 2.32), 4.5 and TIFF 6.0, section 2.
"""

from __future__ import annotations

import binascii
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from upframe.media.image.xmp import xmp_for_size

EXIF_PREFIX = b"Exif\x00\x00"
"""Prefix of the TIFF structure in JPEG; `Metadata.exif` does not contain it."""

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003
_IMAGE_WIDTH, _IMAGE_LENGTH = 0x0100, 0x0101
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT, _LONG = 3, 4


@dataclass(frozen=True)
class Metadata:
    """Everything that is copied from the input to the output, besides pixels."""

    icc: bytes | None = None
    """Colour profile, unchanged; None if absent or damaged."""
    exif: bytes | None = None
    """TIFF structure without the "Exif" prefix; orientation 1, no thumbnail. The size tags are set when writing."""
    xmp: bytes | None = None
    """XMP packet."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, horizontal and vertical, as the input states them; the same numbers are written for the output's
    pixels."""
    text: tuple[tuple[str, str], ...] = ()
    """PNG text: keyword and value, in file order."""
    colour_chunks: tuple[tuple[str, bytes], ...] = ()
    """PNG chunks gAMA, cHRM, sRGB, cICP, mDCV, cLLI: name and content."""
    comment: bytes | None = None
    """JPEG or GIF comment."""
    loop: int | None = None
    """Number of plays of an animation; 0 is forever, None is not stated."""
    photoshop: bytes | None = None
    """Photoshop's image resources, among them IPTC, without thumbnails."""
    edits: tuple[tuple[str, str], ...] = ()
    """Changes made on reading: a field of this class, and how it was changed, as a clause."""
    described: tuple[int, int] | None = None
    """(height, width) of the picture that all this describes, upright."""

    def xmp_for(self, size: tuple[int, int]) -> bytes | None:
        """The XMP packet for an output of `size` (height, width)."""
        return xmp_for_size(self.xmp, size, self.described) if self.xmp else None


# EXIF -----------------------------------------------------------------------------------------------------------------
class _Entry(NamedTuple):
    tag: int
    kind: int
    number: int
    at: int
    """Start of the 12-byte entry."""
    value: int
    """The inline value, for SHORT and LONG of number 1; otherwise the offset."""


def _entries(exif: bytes | bytearray, order: str, at: int) -> tuple[list[_Entry], int]:
    """Read the entries of the directory at `at`; return them and the position of its pointer to the next directory."""
    (count,) = struct.unpack_from(f"{order}H", exif, at)
    entries = []
    for i in range(count):
        start = at + 2 + 12 * i
        tag, kind, number, value = struct.unpack_from(f"{order}HHII", exif, start)
        if kind == _SHORT and number == 1:
            (value,) = struct.unpack_from(f"{order}H", exif, start + 8)
        entries.append(_Entry(tag, kind, number, start, value))
    return entries, at + 2 + 12 * count


def _order(exif: bytes | bytearray) -> str:
    return {b"II*\x00": "<", b"MM\x00*": ">"}[bytes(exif[:4])]


@dataclass(frozen=True)
class CleanExif:
    """Cleaned EXIF, and the orientation that it stated."""

    exif: bytes | None
    """None if the input is not EXIF."""
    orientation: int
    """1 to 8: the turn that makes the stored pixels upright."""
    stated: str | None
    """The stated orientation as text if it is not 1 to 8, for the notice `bad-orientation`."""
    has_orientation: bool
    """Whether there was an orientation tag."""
    edits: tuple[str, ...] = ()
    """How it was changed, as clauses."""


def clean_exif(raw: bytes | None) -> CleanExif:
    """Set the orientation of EXIF to 1 and remove its thumbnail; return it with its former orientation."""
    nothing = CleanExif(None, 1, None, False)
    if not raw:
        return nothing
    exif = bytearray(raw.removeprefix(EXIF_PREFIX))
    orientation, stated, has_orientation = 1, None, False
    try:
        order = _order(exif)
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        entries, next_at = _entries(exif, order, first)
        had_thumbnail = _drop_thumbnail(exif, order, next_at)
        for entry in entries:
            if entry.tag != _ORIENTATION:
                continue
            has_orientation = True
            numeric = entry.kind in (_SHORT, _LONG) and entry.number == 1
            if numeric and 1 <= entry.value <= 8:
                orientation = entry.value
            else:
                stated = str(entry.value) if numeric else "not a number"
            struct.pack_into(f"{order}HHIHH", exif, entry.at, _ORIENTATION, _SHORT, 1, 1, 0)
    except (KeyError, struct.error):
        return nothing
    edits = ["its orientation is applied"] if orientation != 1 else []
    edits += ["its thumbnail is removed"] if had_thumbnail else []
    return CleanExif(bytes(exif), orientation, stated, has_orientation, tuple(edits))


def without_thumbnail(exif: bytes) -> bytes:
    """Remove the thumbnail of `exif`; damaged parts stay unchanged."""
    edited = bytearray(exif)
    try:
        order = _order(edited)
        (first,) = struct.unpack_from(f"{order}I", edited, 4)
        _drop_thumbnail(edited, order, _entries(edited, order, first)[1])
    except (KeyError, struct.error):
        return exif
    return bytes(edited)


def _drop_thumbnail(exif: bytearray, order: str, next_at: int) -> bool:
    """Unlink the second directory and blank its picture, which would show the small original and may reveal cropped parts.

    Returns:
        Whether there was one.
    """
    (second,) = struct.unpack_from(f"{order}I", exif, next_at)
    struct.pack_into(f"{order}I", exif, next_at, 0)
    if not second:
        return False
    try:
        entries, _ = _entries(exif, order, second)
    except struct.error:
        return False
    found = {entry.tag: entry.value for entry in entries}
    start, length = found.get(_THUMBNAIL_OFFSET, 0), found.get(_THUMBNAIL_LENGTH, 0)
    if 0 < start < len(exif) and length > 0:
        end = min(start + length, len(exif))
        if end == len(exif):
            del exif[start:]
        else:
            exif[start:end] = bytes(end - start)
    return True


def exif_for_size(exif: bytes, size: tuple[int, int]) -> bytes:
    """Set the existing size tags of `exif` to `size` (height, width)."""
    edited = bytearray(exif)
    try:
        order = _order(edited)
        (first,) = struct.unpack_from(f"{order}I", edited, 4)
        for entry in _with_exif_ifd(edited, order, first):
            if entry.tag in (_PIXEL_X, _PIXEL_Y, _IMAGE_WIDTH, _IMAGE_LENGTH):
                value = size[1] if entry.tag in (_PIXEL_X, _IMAGE_WIDTH) else size[0]
                struct.pack_into(f"{order}HHII", edited, entry.at, entry.tag, _LONG, 1, value)
    except (KeyError, struct.error):
        return exif  # a damaged sub-directory: no reader could find a tag to update in it
    return bytes(edited)


def _with_exif_ifd(exif: bytearray, order: str, first: int) -> Iterator[_Entry]:
    entries, _ = _entries(exif, order, first)
    yield from entries
    for entry in entries:
        if entry.tag == _EXIF_IFD:
            yield from _entries(exif, order, entry.value)[0]


def exif_with_dpi(dpi: tuple[float, float]) -> bytes:
    """Make a minimal EXIF block with the resolution, for formats that have no other place for it."""
    tags = ((0x011A, 5, 1, 50), (0x011B, 5, 1, 58))  # XResolution, YResolution: RATIONAL at these offsets
    block = b"MM\x00*" + struct.pack(">IH", 8, 3) + b"".join(struct.pack(">HHII", *tag) for tag in tags)
    block += struct.pack(">HHIHH", 0x0128, _SHORT, 1, 2, 0) + bytes(4)  # ResolutionUnit: inch; no next directory
    return block + b"".join(struct.pack(">II", round(value * 1000), 1000) for value in dpi)


def has_sizes(exif: bytes) -> bool:
    """Whether `exif_for_size` would change anything."""
    return exif_for_size(exif, (987_653, 987_659)) != exif


# Photoshop ------------------------------------------------------------------------------------------------------------
_THUMBNAILS = (0x0409, 0x040C)


def clean_photoshop(block: bytes) -> tuple[bytes, bool]:
    """Remove the thumbnails of Photoshop's image resources, which also hold IPTC; a damaged rest is dropped.

    Returns:
        The block, and whether it held a thumbnail. Source: Adobe Photoshop File Formats, image resource blocks.
    """
    kept, at, had = bytearray(), 0, False
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        name = (block[at + 6] + 2) // 2 * 2
        size = int.from_bytes(block[at + 6 + name : at + 10 + name], "big")
        stop = at + 10 + name + size + size % 2
        if stop > len(block) + 1:
            break
        is_thumbnail = int.from_bytes(block[at + 4 : at + 6], "big") in _THUMBNAILS
        kept += b"" if is_thumbnail else block[at:stop]
        at, had = stop, had or is_thumbnail
    return bytes(kept), had


def iptc_block(iptc: bytes) -> bytes:
    """Wrap an IPTC record as Photoshop's image resource 0x0404."""
    return b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc + bytes(len(iptc) % 2)


# ICC ------------------------------------------------------------------------------------------------------------------
def icc_is_sound(profile: bytes) -> bool:
    """Whether `profile` is a colour profile that a colour management system accepts. Source: ICC.1:2022, 7.2."""
    from PIL import ImageCms  # imported here: the import takes time, and most pictures have no profile

    if len(profile) < 132 or profile[36:40] != b"acsp" or int.from_bytes(profile[:4], "big") > len(profile):
        return False
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (OSError, ImageCms.PyCMSError):
        return False
    return True


def raw_profile(text: str) -> bytes | None:
    """Decode ImageMagick's "Raw profile type" PNG text: a name, a length, then hexadecimal digits."""
    lines = text.strip().split("\n")
    if len(lines) < 3:
        return None
    try:
        return binascii.unhexlify("".join(line.strip() for line in lines[2:]))
    except (binascii.Error, ValueError):
        return None
