"""The fate of each piece of metadata in each format. Writers get what `fitted` returns and write all of it.

So a piece either reaches the writer or has an entry that says it is lost: there is no third way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from upframe.media.image.formats import Format
from upframe.media.image.metadata import Metadata
from upframe.media.image.metadata import has_sizes as exif_has_sizes
from upframe.media.image.xmp import has_sizes as xmp_has_sizes
from upframe.media.ledger import Entry

JPEG_SEGMENT = 65533 - 29
"""Bytes that an application segment holds after the longest prefix, that of XMP."""
_GIF_COMMENT = 255
"""Bytes of one sub-block, which is all that the writer makes."""
NOTES = ("edits", "described")
"""Fields of `Metadata` that are about the others and no metadata themselves."""


@dataclass(frozen=True)
class _Case:
    """One output, as far as it decides what can be written."""

    metadata: Metadata
    format: Format
    channels: int
    animated: bool

    @property
    def name(self) -> str:
        return self.format.name


@dataclass(frozen=True)
class _Fate:
    """The part of one field that the format holds, and what happens to the pieces of the field."""

    kept: Any
    pieces: tuple[str, ...]
    lost: tuple[str, ...] = ()
    changed: str = ""
    """How all kept pieces are changed."""
    why: str = ""
    """Why the lost ones are, as a clause; empty: the format cannot hold them."""


_NO_METADATA = ("bmp", "gif")


def _icc(case: _Case) -> _Fate:
    icc = case.metadata.icc
    assert icc is not None
    space, gray = icc[16:20], case.channels < 3
    if case.name in _NO_METADATA:
        return _Fate(None, (), ("colour profile",))
    if case.name == "png" and space != (b"GRAY" if gray else b"RGB "):  # PNG 11.3.2.3
        pixels = "gray" if gray else "colour"
        return _Fate(None, (), ("colour profile",), why=f"a {pixels} PNG cannot hold its {_word(space)} profile")
    return _Fate(icc, ("colour profile",))


def _word(space: bytes) -> str:
    return space.decode("latin-1").strip() or "unnamed"


def _exif(case: _Case) -> _Fate:
    exif = case.metadata.exif
    assert exif is not None
    if case.name in _NO_METADATA or (case.name == "jpeg" and len(exif) > JPEG_SEGMENT):
        return _Fate(None, (), ("EXIF",))
    return _Fate(exif, ("EXIF",), changed="its sizes are those of the output" if exif_has_sizes(exif) else "")


def _xmp(case: _Case) -> _Fate:
    xmp = case.metadata.xmp
    assert xmp is not None
    if case.name in _NO_METADATA or (case.name == "jpeg" and len(xmp) > JPEG_SEGMENT - 200):  # its numbers may grow
        return _Fate(None, (), ("XMP",))
    return _Fate(xmp, ("XMP",), changed="its sizes are those of the output" if xmp_has_sizes(xmp) else "")


def _photoshop(case: _Case) -> _Fate:
    pieces = ("IPTC and Photoshop's records",)
    return _Fate(case.metadata.photoshop, pieces) if case.name in ("png", "jpeg", "tiff") else _Fate(None, (), pieces)


def _dpi(case: _Case) -> _Fate:
    return _Fate(None, (), ("resolution",)) if case.name == "gif" else _Fate(case.metadata.dpi, ("resolution",))


_TEXTS = {"jpeg": "Comment", "gif": "Comment", "tiff": "Description"}
"""The PNG text for which another format has a place."""


def _text(case: _Case) -> _Fate:
    kept = tuple(item for item in case.metadata.text if case.name in ("png", _holder(case.name, item[0])))
    keys = sorted({key for key, _ in case.metadata.text if key not in dict(kept)})
    lost = (f"text ({', '.join(keys)[:80]})",) if keys else ()
    return _Fate(kept, tuple(f"text {key}"[:80] for key, _ in kept), lost)


def _holder(format: str, key: str) -> str | None:
    return format if _TEXTS.get(format) == key else None


def _comment(case: _Case) -> _Fate:
    comment = case.metadata.comment
    assert comment is not None
    if case.name == "gif" and len(comment) > _GIF_COMMENT:
        return _Fate(comment[:_GIF_COMMENT], ("comment",), (f"comment beyond {_GIF_COMMENT} bytes",))
    if case.name in ("png", "jpeg", "gif"):
        return _Fate(comment, ("comment",))
    return _Fate(None, (), ("comment",))


def _loop(case: _Case) -> _Fate:
    if case.animated and case.name == "avif" and case.metadata.loop:
        return _Fate(None, (), ("loop count",))
    return _Fate(case.metadata.loop, ("loop count",))


_USUAL = ("sRGB", "gAMA", "cHRM")
"""Chunks that say no more than what an untagged picture is taken for, unless the gamma is unusual."""


def _colour_chunks(case: _Case) -> _Fate:
    chunks = case.metadata.colour_chunks
    if case.name == "png":
        return _Fate(chunks, tuple(f"PNG chunk {name}" for name, _ in chunks))
    names = [name for name, _ in chunks]
    usual = [name for name in names if name in _USUAL and (case.metadata.icc or not _is_unusual_gamma(dict(chunks)))]
    others = [name for name in names if name not in usual and not (name == "cICP" and case.metadata.icc)]
    same = tuple(f"PNG chunk {name}" for name in names if name not in others)
    lost = (f"colour chunks ({', '.join(others)})",) if others else ()
    return _Fate((), same, lost, changed="the output means the same without it")


def _is_unusual_gamma(chunks: dict[str, bytes]) -> bool:
    """Whether gAMA states another gamma than sRGB's 1/2.2, with which untagged pictures are shown (PNG 11.3.2.2)."""
    return "sRGB" not in chunks and "gAMA" in chunks and not 44000 <= int.from_bytes(chunks["gAMA"], "big") <= 47000


_RULES: dict[str, Callable[[_Case], _Fate]] = {
    "icc": _icc,
    "exif": _exif,
    "xmp": _xmp,
    "photoshop": _photoshop,
    "dpi": _dpi,
    "text": _text,
    "colour_chunks": _colour_chunks,
    "comment": _comment,
    "loop": _loop,
}


def fitted(metadata: Metadata, format: Format, *, channels: int, animated: bool) -> tuple[Metadata, tuple[Entry, ...]]:
    """Reduce `metadata` to what `format` holds; return it with an entry for each piece that came in."""
    case = _Case(metadata, format, channels, animated)
    present = [field.name for field in fields(Metadata) if field.name not in NOTES and getattr(metadata, field.name)]
    present += ["loop"] if metadata.loop == 0 else []  # 0 is forever
    fates = {name: _RULES[name](case) for name in dict.fromkeys(present)}
    kept = replace(metadata, **{name: fate.kept for name, fate in fates.items()})
    return kept, tuple(_entries(case, fates))


def _entries(case: _Case, fates: dict[str, _Fate]) -> Iterator[Entry]:
    unheld = [piece for fate in fates.values() if not fate.why for piece in fate.lost]
    for name, fate in fates.items():
        edits = [edit for field, edit in case.metadata.edits if field == name] + ([fate.changed] if fate.changed else [])
        for piece in fate.pieces:
            yield Entry("metadata", piece, "changed" if edits else "carried", "; ".join(edits))
        for piece in fate.lost:
            why = fate.why or f"{case.format.label} cannot hold its {', '.join(unheld)}"
            yield Entry("metadata", piece, "lost", why, "metadata-dropped")
