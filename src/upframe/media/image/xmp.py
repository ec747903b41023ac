"""XMP packets: found properties are changed or removed in place; all other bytes stay as they are.

Source: ISO 16684-1 (XMP), Google's panorama, motion photo, depth map and Ultra HDR formats, MWG 2.0 (regions).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from xml.parsers import expat

_TIFF, _EXIF, _XMP = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/xap/1.0/"
_GOOGLE = "http://ns.google.com/photos/1.0/"
_PANORAMA, _CAMERA = _GOOGLE + "panorama/", _GOOGLE + "camera/"
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"

_CONVENTIONAL = {"tiff": _TIFF, "exif": _EXIF, "xmp": _XMP, "GPano": _PANORAMA, "GCamera": _CAMERA, "stDim": _DIMENSIONS}
"""Namespaces of prefixes that a packet does not declare."""

_EMBEDDED = {
    _GOOGLE + "container/": "the list of parts in the file",
    _GOOGLE + "depthmap/": "a depth map",
    _GOOGLE + "image/": "a copy of the original picture",
    _GOOGLE + "audio/": "a sound",
    "http://ns.adobe.com/hdr-gain-map/1.0/": "facts of a gain map",
    "http://ns.apple.com/HDRGainMap/1.0/": "facts of a gain map",
}
"""Namespaces whose properties hold or describe parts of the file that are not carried over."""
_DATA = ("a depth map", "a copy of the original picture", "a sound")
"""Those of them that hold the part itself."""

_ATTRIBUTE = re.compile(rb"""\s+([^\s=<>"'/]+)\s*=\s*("[^"]*"|'[^']*')""")
_TAG_END = re.compile(rb"""(?:[^"'>]|"[^"]*"|'[^']*')*>""")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

Name = tuple[str, str]
"""Namespace and local name of a property."""


@dataclass(frozen=True)
class _Found:
    """One property in a packet."""

    name: Name
    value: str
    """Its text; empty for a structure."""
    span: tuple[int, int]
    """Bytes from its start to its end, as attribute or as element."""
    inner: tuple[int, int]
    """Bytes of its value."""
    within: tuple[str, ...]
    """Local names of the elements around it, outermost first."""


def _properties(xmp: bytes) -> Iterator[_Found]:
    """Find all attributes and elements of a packet.

    Raises:
        ValueError: if it is not well-formed XML, or has a document type with its own entities.
    """
    found: list[_Found] = []
    spaces: dict[str, str] = dict(_CONVENTIONAL)
    stack: list[tuple[str, int, int]] = []  # tag, start, end of the start tag
    parser = expat.ParserCreate()

    def split(tag: str) -> Name:
        prefix, colon, local = tag.partition(":")
        return (spaces.get(prefix, ""), local) if colon else ("", tag)

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        spaces.update({key[6:]: value for key, value in attributes.items() if key.startswith("xmlns:")})
        at = parser.CurrentByteIndex
        matched = _TAG_END.match(xmp, at)
        stop = matched.end() if matched else len(xmp)
        within = tuple(name.rpartition(":")[2] for name in (*(one for one, _, _ in stack), tag))
        for one in _ATTRIBUTE.finditer(xmp, at, stop):
            name = one[1].decode("utf-8", "replace")
            found.append(_Found(split(name), attributes.get(name, ""), one.span(), (one.start(2) + 1, one.end(2) - 1), within))
        stack.append((tag, at, stop))

    def end(tag: str) -> None:
        name, at, stop = stack.pop()
        close = parser.CurrentByteIndex
        is_empty = xmp[stop - 2 : stop] == b"/>"
        last = stop if is_empty else xmp.find(b">", close) + 1
        inner = (stop, stop) if is_empty else (stop, close)
        text = xmp[slice(*inner)].decode("utf-8", "replace").strip()
        within = tuple(name.rpartition(":")[2] for name, _, _ in stack)
        found.append(_Found(split(name), "" if "<" in text else text, (at, last), inner, within))

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type")

    parser.StartElementHandler, parser.EndElementHandler, parser.StartDoctypeDeclHandler = start, end, refuse
    try:
        parser.Parse(xmp.rstrip(b"\0"), True)
    except expat.ExpatError as error:
        raise ValueError(f"it is no XML ({error})") from error
    yield from found


def _edited(xmp: bytes, change: Callable[[_Found], bytes | None]) -> tuple[bytes, list[_Found]]:
    """Replace the value of each property by what `change` returns for it, remove it for b"", keep it for None.

    Returns:
        The packet, and the properties that were changed or removed.
    """
    edits: list[tuple[int, int, bytes]] = []
    touched: list[_Found] = []
    for found in _properties(xmp):
        made = change(found)
        if made is not None and (made == b"" or made != xmp[slice(*found.inner)]):
            edits.append((*(found.inner if made else found.span), made))
            touched.append(found)
    out, at = [], 0
    for start, stop, made in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
        if start >= at:  # else it lies within something that was removed
            out += [xmp[at:start], made]
            at = stop
    return b"".join([*out, xmp[at:]]), touched


@dataclass(frozen=True)
class CleanXmp:
    """A cleaned packet."""

    xmp: bytes
    edits: tuple[str, ...]
    """How it was changed, as clauses."""
    lost: tuple[str, ...]
    """Parts of the file that it held and that are not carried over."""


def clean_xmp(xmp: bytes, *, upright: bool) -> CleanXmp:
    """Remove properties that describe parts of the file which are not carried over; set the orientation to 1 if `upright`.

    Raises:
        ValueError: if `xmp` is not well-formed.
    """
    xmp = xmp.decode("utf-16").encode() if xmp[:2] in _UTF16 else xmp

    def change(found: _Found) -> bytes | None:
        space, local = found.name
        if found.name == (_TIFF, "Orientation"):
            return b"1" if upright else None
        return b"" if _describes_a_part(space, local) else None

    made, touched = _edited(xmp, change)
    edits, lost = [], []
    for found in touched:
        space, local = found.name
        part = _EMBEDDED.get(space, "")
        if local == "Orientation":
            edits.append("its orientation is applied")
        elif (space, local) == (_XMP, "Thumbnails"):
            edits.append("its thumbnail is removed")
        else:
            edits.append(f"{part or ('what it says of a motion photo' if space == _CAMERA else local)} is removed")
        if part in _DATA and local.endswith("Data"):
            lost.append(part)
    return CleanXmp(made, tuple(dict.fromkeys(edits)), tuple(dict.fromkeys(lost)))


def _describes_a_part(space: str, local: str) -> bool:
    if space == _CAMERA:
        return local.startswith(("MotionPhoto", "MicroVideo"))
    is_note = (space, local) == ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP")
    return space in _EMBEDDED or is_note or (space, local) == (_XMP, "Thumbnails")


_WIDTHS = {(_EXIF, "PixelXDimension"), (_TIFF, "ImageWidth")}
_HEIGHTS = {(_EXIF, "PixelYDimension"), (_TIFF, "ImageLength")}
_PANORAMA_WIDTHS = ("FullPanoWidthPixels", "CroppedAreaImageWidthPixels", "CroppedAreaLeftPixels")
_PANORAMA_HEIGHTS = ("FullPanoHeightPixels", "CroppedAreaImageHeightPixels", "CroppedAreaTopPixels")


def xmp_for_size(xmp: bytes, size: tuple[int, int], described: tuple[int, int] | None = None) -> bytes:
    """Set the existing size properties of `xmp` to `size` (height, width), and scale those of panoramas and regions.

    Args:
        described: (height, width) of the picture that `xmp` describes; None leaves what would have to be scaled.
    """
    height, width = size
    ratios = (height / described[0], width / described[1]) if described else None

    def change(found: _Found) -> bytes | None:
        space, local = found.name
        if found.name in _WIDTHS | _HEIGHTS:
            return str(width if found.name in _WIDTHS else height).encode()
        if ratios is None:
            return None
        if space == _PANORAMA and local in _PANORAMA_WIDTHS + _PANORAMA_HEIGHTS:
            return _scaled(found.value, ratios[local in _PANORAMA_WIDTHS])
        if space == _DIMENSIONS and local in ("w", "h") and "AppliedToDimensions" in found.within:
            return _scaled(found.value, ratios[local == "w"])
        return None

    try:
        return _edited(xmp, change)[0]
    except ValueError:  # from a caller's own image: carried as it is
        return xmp


def has_sizes(xmp: bytes) -> bool:
    """Whether `xmp_for_size` would change anything."""
    return xmp_for_size(xmp, (987_653, 987_659), (1, 1)) != xmp


def _scaled(value: str, ratio: float) -> bytes | None:
    try:
        return str(round(float(value) * ratio)).encode()
    except (ValueError, OverflowError):
        return None
