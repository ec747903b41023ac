"""Write the formats that Pillow encodes: JPEG, WebP, GIF, BMP and AVIF.

Pillow needs a whole 8-bit frame, and only one frame is held at a time: this module assembles animations from frames that were
encoded one by one. This also keeps equal neighbouring frames, which Pillow and libwebp would merge. AVIF sequences are the
exception: their encoder needs all frames at once.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO

from PIL import Image

from upframe.media.frames import Pixels
from upframe.media.image.fates import JPEG_SEGMENT
from upframe.media.image.metadata import EXIF_PREFIX, Metadata, exif_for_size, exif_with_dpi
from upframe.media.image.plan import OutputPlan

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _gather(bands: Iterable[Pixels], size: tuple[int, int], channels: int) -> Image.Image:
    """Join all bands to one 8-bit Pillow image; beside it no more than a band is held."""
    image = Image.new(_MODES[channels], size[::-1])
    top = 0
    for band in bands:
        image.paste(Image.fromarray(band[..., 0] if channels == 1 else band), (0, top))
        top += len(band)
    return image


def _save_options(plan: OutputPlan, metadata: Metadata, size: tuple[int, int], quality: int) -> dict[str, Any]:
    """Pillow's keyword arguments for one format, including the metadata that the format can hold."""
    kind = plan.format
    if kind == "bmp":
        return {"dpi": metadata.dpi} if metadata.dpi else {}
    if kind == "gif":
        comment = metadata.comment or dict(metadata.text).get("Comment", "").encode()
        return {"comment": comment[:255]} if comment else {}
    exif = exif_for_size(metadata.exif, size) if metadata.exif else None
    if exif is None and metadata.dpi and kind in ("webp", "avif"):
        exif = exif_with_dpi(metadata.dpi)
    xmp = metadata.xmp_for(size)
    options: dict[str, Any] = {"quality": quality}
    if kind == "jpeg":
        options |= {"subsampling": "4:4:4"}  # not "optimize": on noise Pillow then runs out of its buffer and fails
        options |= {"dpi": tuple(round(value) for value in metadata.dpi)} if metadata.dpi else {}
        comment = metadata.comment or dict(metadata.text).get("Comment", "").encode()
        options |= {"comment": comment[:65533]} if comment else {}
        options |= {"extra": _photoshop_segments(metadata.photoshop)} if metadata.photoshop else {}
    elif kind == "webp":
        options |= {"method": 4, "exact": True}  # exact: keep colours under alpha 0, or edges change when blended later
    elif kind == "avif":
        options |= {"subsampling": "4:0:0" if plan.channels == 1 else "4:4:4", "speed": 6}
    options |= {"icc_profile": metadata.icc} if metadata.icc else {}
    options |= {"exif": EXIF_PREFIX + exif} if exif else {}
    options |= {"xmp": xmp} if xmp else {}
    return options


def _photoshop_segments(block: bytes) -> bytes:
    """Photoshop's image resources as APP13 segments."""
    parts = [block[at : at + JPEG_SEGMENT] for at in range(0, len(block), JPEG_SEGMENT)]
    return b"".join(b"\xff\xed" + struct.pack(">H", len(part) + 16) + b"Photoshop 3.0\0" + part for part in parts)


class StillEncoder:
    """One picture of any format through Pillow."""

    def __init__(self, out: BinaryIO, plan: OutputPlan, metadata: Metadata, quality: int) -> None:
        self._out, self._plan, self._metadata, self._quality = out, plan, metadata, quality

    def frame(self, bands: Iterator[Pixels], size: tuple[int, int], duration: Fraction) -> None:
        plan = self._plan
        image = _gather(bands, size, plan.channels)
        options = _save_options(plan, self._metadata, size, self._quality)
        if plan.format == "gif":
            image = _quantize(image)
            options |= {"transparency": 255} if plan.channels in (2, 4) else {}
        elif plan.format in ("webp", "avif") and image.mode == "LA":
            image = image.convert("RGBA")
        image.save(self._out, plan.format.upper(), **options)

    def finish(self) -> None:
        pass


class AvifSequenceEncoder:
    """An AVIF sequence. The encoder needs all frames at once, so they are held, in 8 bits."""

    def __init__(self, out: BinaryIO, plan: OutputPlan, metadata: Metadata, quality: int) -> None:
        self._out, self._plan, self._metadata, self._quality = out, plan, metadata, quality
        self._images: list[Image.Image] = []
        self._durations: list[int] = []
        self._size = (0, 0)

    def frame(self, bands: Iterator[Pixels], size: tuple[int, int], duration: Fraction) -> None:
        image = _gather(bands, size, self._plan.channels)
        self._images.append(image.convert("RGBA") if image.mode == "LA" else image)
        self._durations.append(round(duration * 1000))
        self._size = size

    def finish(self) -> None:
        options = _save_options(self._plan, self._metadata, self._size, self._quality)
        first, *rest = self._images
        first.save(self._out, "AVIF", save_all=True, append_images=rest, duration=self._durations, **options)


class AnimatedWebpEncoder:
    """An animated WebP, assembled from still ones. Source: RFC 9649, 2.7."""

    def __init__(self, out: BinaryIO, plan: OutputPlan, metadata: Metadata, quality: int) -> None:
        self._out, self._plan, self._metadata, self._quality = out, plan, metadata, quality
        self._size = (0, 0)

    def frame(self, bands: Iterator[Pixels], size: tuple[int, int], duration: Fraction) -> None:
        if self._size == (0, 0):
            self._head(size)
        buffer = io.BytesIO()
        image = _gather(bands, size, self._plan.channels)
        image = image.convert("RGBA") if image.mode == "LA" else image
        image.save(buffer, "WEBP", quality=self._quality, method=4, exact=True)
        pictures = b"".join(data for name, data in _riff_chunks(buffer.getvalue()) if name in (b"ALPH", b"VP8 ", b"VP8L"))
        milliseconds = min(round(duration * 1000), 2**24 - 1)
        place = bytes(6) + _u24(size[1] - 1) + _u24(size[0] - 1) + _u24(milliseconds) + b"\x02"  # replace, keep
        self._chunk(b"ANMF", place + pictures)

    def _head(self, size: tuple[int, int]) -> None:
        self._size = size
        options = _save_options(self._plan, self._metadata, size, self._quality)
        self._exif, self._xmp = options.get("exif", b"").removeprefix(EXIF_PREFIX), options.get("xmp", b"")
        icc = self._metadata.icc or b""
        alpha = self._plan.channels in (2, 4)
        flags = 0x20 * bool(icc) | 0x10 * alpha | 0x08 * bool(self._exif) | 0x04 * bool(self._xmp) | 0x02
        self._out.write(b"RIFF\0\0\0\0WEBP")
        self._chunk(b"VP8X", bytes([flags, 0, 0, 0]) + _u24(size[1] - 1) + _u24(size[0] - 1))
        if icc:
            self._chunk(b"ICCP", icc)
        self._chunk(b"ANIM", bytes(4) + struct.pack("<H", min(self._metadata.loop or 0, 65535)))

    def finish(self) -> None:
        if self._exif:
            self._chunk(b"EXIF", self._exif)
        if self._xmp:
            self._chunk(b"XMP ", self._xmp)
        length = self._out.tell()
        self._out.seek(4)
        self._out.write(struct.pack("<I", length - 8))
        self._out.seek(length)

    def _chunk(self, name: bytes, content: bytes) -> None:
        self._out.write(name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2))


def _u24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and bytes, with header and padding, of each chunk of a RIFF file."""
    at = 12
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        end += end % 2
        yield data[at : at + 4], data[at:end]
        at = end


# GIF ------------------------------------------------------------------------------------------------------------------
def _quantize(image: Image.Image) -> Image.Image:
    """Reduce a picture to its best 255 colours; index 255 marks pixels with alpha below one half."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    reduced = image.convert("RGB").quantize(255, Image.Quantize.MEDIANCUT)
    palette = (reduced.getpalette() or [])[: 255 * 3]
    reduced.putpalette(palette + [0] * (768 - len(palette)))
    if alpha is not None:
        reduced.paste(255, mask=alpha.point([255] * 128 + [0] * 128))
    return reduced


class AnimatedGifEncoder:
    """An animated GIF, assembled from still ones, each with its own colours. Source: GIF89a specification."""

    def __init__(self, out: BinaryIO, plan: OutputPlan, metadata: Metadata) -> None:
        self._out, self._plan, self._metadata = out, plan, metadata
        self._started = False

    def frame(self, bands: Iterator[Pixels], size: tuple[int, int], duration: Fraction) -> None:
        if not self._started:
            self._head(size)
        buffer = io.BytesIO()
        _quantize(_gather(bands, size, self._plan.channels)).save(buffer, "GIF", optimize=False)
        table, data = _gif_parts(buffer.getvalue())
        alpha = self._plan.channels in (2, 4)
        delay = min(round(duration * 100), 65535)
        # Clear the frame before the next one (2) if that may have transparent pixels, else keep it (1).
        flags = (2 << 2 | 1) if alpha else 1 << 2
        self._out.write(b"!\xf9\x04" + struct.pack("<BHB", flags, delay, 255 if alpha else 0) + b"\0")
        bits = (len(table) // 3 - 1).bit_length() - 1
        self._out.write(b"," + struct.pack("<HHHHB", 0, 0, size[1], size[0], 0x80 | bits) + table + data)

    def _head(self, size: tuple[int, int]) -> None:
        self._started = True
        self._out.write(b"GIF89a" + struct.pack("<HHBBB", size[1], size[0], 0x70, 0, 0))
        plays = self._metadata.loop
        if plays != 1:  # the number of repetitions after the first play; 0 is forever
            self._out.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", min((plays or 1) - 1, 65535)) + b"\0")
        comment = _save_options(self._plan, self._metadata, size, 100).get("comment", b"")
        if comment:
            self._out.write(b"!\xfe" + bytes([len(comment)]) + comment + b"\0")

    def finish(self) -> None:
        self._out.write(b";")


def _gif_parts(gif: bytes) -> tuple[bytes, bytes]:
    """Extract the colour table and the compressed data (code size and sub-blocks) of a GIF of one frame."""
    table_bytes = 3 << ((gif[10] & 7) + 1)
    table, at = gif[13 : 13 + table_bytes], 13 + table_bytes
    while gif[at : at + 1] == b"!":
        at = _skip_sub_blocks(gif, at + 2)
    local = gif[at + 9]
    at += 10
    if local & 0x80:
        size = 3 << ((local & 7) + 1)
        table, at = gif[at : at + size], at + size
    return table, gif[at : _skip_sub_blocks(gif, at + 1)]


def _skip_sub_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1
