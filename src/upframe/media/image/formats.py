"""The abilities of each image format. The content decides the format, never the name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Format:
    """Facts about one format, as read and written by upframe."""

    name: str
    label: str
    """Name in messages."""
    extensions: tuple[str, ...]
    """Lower case, with the dot; the first is the usual one."""
    writable: bool = False
    dtypes: tuple[str, ...] = ("uint8",)
    """Dtypes that it can hold when written, best last."""
    holds_alpha: bool = False
    holds_animation: bool = False
    holds_pages: bool = False
    max_side_px: int = 2**31 - 1
    """Largest side that the format, or its encoder, allows."""
    max_pixels: int | None = None
    """Most pixels that the encoder allows."""
    max_bytes: int | None = None
    """Most bytes of uncompressed samples that the format can address."""


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            "png", "PNG", (".png", ".apng"), True, ("uint8", "uint16"), holds_alpha=True, holds_animation=True
        ),  # sides: PNG specification, 11.2.1
        Format("jpeg", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), True, max_side_px=65500),  # JPEG_MAX_DIMENSION of libjpeg
        Format("webp", "WebP", (".webp",), True, holds_alpha=True, holds_animation=True, max_side_px=16383),  # 14-bit sides
        Format(
            "tiff",
            "TIFF",
            (".tif", ".tiff"),
            True,
            ("uint8", "uint16", "float32"),
            holds_alpha=True,
            holds_pages=True,
        ),
        Format("bmp", "BMP", (".bmp", ".dib"), True, max_bytes=2**32 - 2**16),  # 32-bit file size field
        Format(
            "avif",
            "AVIF",
            (".avif", ".avifs"),
            True,
            holds_alpha=True,
            holds_animation=True,
            max_side_px=32768,
            max_pixels=16384 * 16384,  # libavif's default limits, which most readers keep
        ),
        Format("gif", "GIF", (".gif",), True, holds_alpha=True, holds_animation=True, max_side_px=65535),
        Format("tga", "TGA", (".tga",)),
        Format("pcx", "PCX", (".pcx",)),
        Format("pnm", "PNM", (".ppm", ".pgm", ".pbm", ".pnm"), dtypes=("uint8", "uint16")),
        Format("ico", "Windows icon", (".ico",)),
        Format("heif", "HEIC", (".heic", ".heif", ".hif", ".heics")),
        Format("jxl", "JPEG XL", (".jxl",)),
        Format(
            "raw",
            "camera RAW",
            (".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".raw"),
        ),
    )
}

_BY_EXTENSION = {extension: f.name for f in FORMATS.values() for extension in f.extensions}

UNSUPPORTED: dict[str, str] = {
    "jp2": "JPEG 2000",
    "psd": "Photoshop",
    "exr": "OpenEXR",
    "hdr": "Radiance HDR",
    "dds": "DirectDraw surface",
    "pdf": "PDF",
    "video": "video",
    "archive": "archive",
    "html": "HTML",
    "svg": "SVG",
    "text": "text",
    "unknown": "unknown data",
}
"""Formats that upframe recognises only to name them in errors."""

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"II*\x00\x10\x00\x00\x00CR", "raw"),
    (0, b"II*\x00", "tiff"),
    (0, b"MM\x00*", "tiff"),
    (0, b"II+\x00", "tiff"),
    (0, b"MM\x00+", "tiff"),
    (0, b"FUJIFILMCCD-RAW", "raw"),
    (0, b"IIRO", "raw"),
    (0, b"IIU\x00", "raw"),
    (0, b"\xff\x0a", "jxl"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (0, b"\xff\x4f\xff\x51", "jp2"),
    (0, b"8BPS", "psd"),
    (0, b"v/1\x01", "exr"),
    (0, b"#?RADIANCE", "hdr"),
    (0, b"DDS ", "dds"),
    (0, b"\x00\x00\x01\x00", "ico"),
    (0, b"%PDF", "pdf"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (0, b"PK\x03\x04", "archive"),
    (0, b"\x1f\x8b", "archive"),
    (0, b"BM", "bmp"),
    (0, b"\x0a\x05\x01", "pcx"),
    (0, b"\x0a\x03\x01", "pcx"),
    (0, b"\x0a\x02\x01", "pcx"),
)

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}

SNIFF_BYTES = 512
"""Bytes of a file that `sniff` needs."""


def sniff(head: bytes) -> str:
    """Recognise the format of a file that starts with `head`: a key of `FORMATS` or of `UNSUPPORTED`."""
    if head[:4] == b"RIFF":
        return "webp" if head[8:12] == b"WEBP" else "video" if head[8:12] == b"AVI " else "unknown"
    if head[4:8] == b"ftyp":
        return _sniff_brands(head)
    for offset, magic, name in _SIGNATURES:
        if head.startswith(magic, offset):
            return name
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"1234567Ff" and head[2:3].isspace():
        return "pnm"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    if b"<svg" in start:
        return "svg"
    if _is_tga(head):
        return "tga"
    return "text" if head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head) and _is_utf8(head) else "unknown"


def _is_tga(head: bytes) -> bool:
    """Whether `head` is a plausible TGA header: the format has no signature (Truevision TGA 2.0, C.2)."""
    if len(head) < 18:
        return False
    mapped, kind, map_depth, depth, descriptor = head[1], head[2], head[7], head[16], head[17]
    if kind not in (1, 2, 3, 9, 10, 11) or mapped != (kind in (1, 9)) or (mapped and map_depth not in (15, 16, 24, 32)):
        return False
    depths = {1: (8,), 2: (15, 16, 24, 32), 3: (8, 16)}[kind & 7]
    return depth in depths and not descriptor & 0xC0 and any(head[12:14]) and any(head[14:16])


def _sniff_brands(head: bytes) -> str:
    """Recognise a format of the ISO base media family by its major brand, then its compatible ones (ISO/IEC 14496-12, 4.3)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, end - 3, 4))]
    if brands[0] == b"crx ":
        return "raw"
    if {b"avif", b"avis"} & set(brands):
        return "avif"
    return "heif" if _HEIF_BRANDS & set(brands) else "video"


def _is_utf8(data: bytes) -> bool:
    try:
        data[:-3].decode()  # the sample may end within a character
    except UnicodeDecodeError:
        return False
    return True


def format_of_name(name: str | Path) -> str | None:
    """The format that a file name or extension means ("photo.JPG", ".jpg", "jpg"); None if it means none."""
    text = str(name).lower()
    suffix = Path(text).suffix or (text if text.startswith(".") else f".{text}")
    if text in FORMATS:
        return text
    return _BY_EXTENSION.get(suffix)


_FOREIGN = {
    ".jp2": "jp2", ".j2k": "jp2", ".jpf": "jp2", ".psd": "psd", ".psb": "psd", ".exr": "exr", ".hdr": "hdr", ".dds": "dds",
    ".svg": "svg",
}  # fmt: skip


def foreign_format(name: str | Path) -> str | None:
    """The picture format, in words, that a name means though upframe does not read it; None for all other names."""
    kind = _FOREIGN.get(Path(name).suffix.lower())
    return UNSUPPORTED[kind] if kind is not None else None


def writable_names() -> str:
    """The formats that can be requested, for messages."""
    return ", ".join(f.name for f in FORMATS.values() if f.writable)
