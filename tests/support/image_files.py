"""Image files made by hand, byte by byte, so that what is tested does not also make its own input."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def filtered(raw: NDArray[np.uint8], bpp: int, kinds: list[int]) -> bytes:
    """PNG filters written as plainly as the specification says them: one byte at a time."""
    out = bytearray()
    previous = [0] * raw.shape[1]
    for y, row in enumerate(raw.tolist()):
        kind = kinds[y % len(kinds)]
        out.append(kind)
        for i, x in enumerate(row):
            a, b, c = (row[i - bpp] if i >= bpp else 0), previous[i], (previous[i - bpp] if i >= bpp else 0)
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out.append((x - [0, a, b, (a + b) // 2, nearest][kind]) % 256)
        previous = row
    return bytes(out)


def png(
    samples: NDArray[Any],
    *,
    depth: int | None = None,
    colour: int | None = None,
    kinds: tuple[int, ...] = (0, 1, 2, 3, 4),
    before: bytes = b"",
    after: bytes = b"",
    idat_bytes: int = 300,
) -> bytes:
    """A PNG of (H, W, C) samples with all row filters in turn and many small IDAT chunks."""
    height, width, channels = samples.shape
    depth = depth or samples.dtype.itemsize * 8
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels] if colour is None else colour
    data = zlib.compress(filtered(packed(samples, depth), max(1, channels * depth // 8), list(kinds)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(chunk(b"IDAT", data[i : i + idat_bytes]) for i in range(0, len(data), idat_bytes))
    return PNG_SIGNATURE + head + before + body + after + chunk(b"IEND", b"")


def packed(samples: NDArray[Any], depth: int) -> NDArray[np.uint8]:
    """Rows of (H, W, C) samples as PNG bytes."""
    height = samples.shape[0]
    if depth == 16:
        return samples.astype(">u2").reshape(height, -1).view(np.uint8)
    if depth == 8:
        return samples.astype(np.uint8).reshape(height, -1)
    bits = (samples.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)


def interlaced_png(samples: NDArray[Any]) -> bytes:
    """An Adam7 PNG (PNG 8.1) of (H, W, C) samples."""
    height, width, channels = samples.shape
    depth = samples.dtype.itemsize * 8
    data = b""
    for y, x, dy, dx in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        part = samples[y::dy, x::dx]
        if part.size:
            data += filtered(packed(part, depth), channels * depth // 8, [4, 3, 2, 1, 0])
    head = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 1)
    return PNG_SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def noise(height: int, width: int, channels: int, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.random((height, width, channels), np.float32)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def exif(orientation: tuple[int, int, bytes] | None = (3, 1, b"\0\6\0\0"), *, size: tuple[int, int] = (20, 30)) -> bytes:
    """Big-endian EXIF: orientation (type, count, 4 value bytes), camera, pixel dimensions, a maker note, a thumbnail."""
    maker, thumbnail, make = b"MAKERNOTE-with-offset", b"\xff\xd8THUMBNAIL\xff\xd9", b"Acme\0"
    ifd0 = [(0x010F, 2, len(make), None), (0x8769, 4, 1, None)]
    if orientation is not None:
        ifd0.insert(1, (0x0112, orientation[0], orientation[1], orientation[2]))
    make_at = 8 + 2 + 12 * len(ifd0) + 4
    sub_at = make_at + len(make) + 1
    maker_at = sub_at + 2 + 12 * 3 + 4
    ifd1_at = maker_at + len(maker) + 1
    thumbnail_at = ifd1_at + 2 + 12 * 2 + 4
    values = {0x010F: struct.pack(">I", make_at), 0x8769: struct.pack(">I", sub_at)}
    out = b"MM\x00*" + struct.pack(">IH", 8, len(ifd0))
    out += b"".join(struct.pack(">HHI", t, k, n) + (v if v is not None else values[t]) for t, k, n, v in ifd0)
    out += struct.pack(">I", ifd1_at) + make + b"\0"
    out += struct.pack(">H", 3) + struct.pack(">HHII", 0x927C, 7, len(maker), maker_at)
    out += struct.pack(">HHIHH", 0xA002, 3, 1, size[1], 0) + struct.pack(">HHIHH", 0xA003, 3, 1, size[0], 0) + bytes(4)
    out += maker + b"\0"
    out += struct.pack(">H", 2) + struct.pack(">HHII", 0x0201, 4, 1, thumbnail_at)
    return out + struct.pack(">HHII", 0x0202, 4, 1, len(thumbnail)) + bytes(4) + thumbnail


# JPEG files with more in them than a picture ---------------------------------------------------------------------------
PREVIEW, PANORAMA, DISPARITY, UNDEFINED = 0x010002, 0x020001, 0x020002, 0x000000
"""Types of pictures in an MPF index (CIPA DC-007, 5.2.3.3)."""
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\x02\0free" + bytes(504)
"""The beginning of a video."""


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def multi_picture(first: bytes, *others: tuple[int, bytes], order: str = ">") -> bytes:
    """A JPEG with an MPF index that lists further pictures (type, JPEG) behind it."""
    count, head = 1 + len(others), 2  # the index comes at once, behind the start marker

    def index(rows: list[tuple[int, int, int]]) -> bytes:
        tiff = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}IH", 8, 3)
        tiff += struct.pack(f"{order}HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(f"{order}HHII", 0xB001, 4, 1, count)
        tiff += struct.pack(f"{order}HHIII", 0xB002, 7, 16 * count, 50, 0)
        return segment(0xE2, b"MPF\0" + tiff + b"".join(struct.pack(f"{order}IIIHH", *row, 0, 0) for row in rows))

    length = len(first) + len(index([(0, 0, 0)] * count))
    rows, at = [(0x20030000, length, 0)], length
    for kind, data in others:
        rows.append((kind, len(data), at - (head + 8)))
        at += len(data)
    return first[:head] + index(rows) + first[head:] + b"".join(data for _, data in others)


def photo_xmp(properties: str, inside: str = "") -> bytes:
    """An XMP packet with properties as attributes, and elements inside the description."""
    names = {
        "GCamera": "http://ns.google.com/photos/1.0/camera/",
        "Container": "http://ns.google.com/photos/1.0/container/",
        "Item": "http://ns.google.com/photos/1.0/container/item/",
        "GPano": "http://ns.google.com/photos/1.0/panorama/",
        "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
        "dc": "http://purl.org/dc/elements/1.1/",
        "tiff": "http://ns.adobe.com/tiff/1.0/",
        "xmp": "http://ns.adobe.com/xap/1.0/",
        "xmpNote": "http://ns.adobe.com/xmp/note/",
    }
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in names.items())
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {spaces} {properties}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()
