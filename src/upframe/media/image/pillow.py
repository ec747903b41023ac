"""Decode JPEG, WebP, GIF, BMP, TGA, PCX, icons and AVIF by Pillow, and HEIC and JPEG XL by its plug-ins."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin

from upframe.media.frames import Frame, MediaInfo, Pixels
from upframe.media.image.cms import cmyk_profile, cmyk_to_rgb
from upframe.media.image.decoder import Reading, codec
from upframe.media.image.headers import GifHeader, gif_header, icon_sizes, iso_header, webp_header
from upframe.media.image.jpeg import JpegStructure, embedded_parts, read_structure
from upframe.media.image.metadata import EXIF_PREFIX, Metadata
from upframe.media.image.parts import account_chunks, account_items, account_jpeg, account_tail, photoshop_block, riff_chunks

_LOCK = threading.Lock()
_WEBP_CHUNKS = ("VP8X", "VP8 ", "VP8L", "ALPH", "ANIM", "ANMF", "ICCP", "EXIF", "XMP ")
_GIF_EXTENSIONS = ("GIF extension NETSCAPE2.0", "GIF extension ANIMEXTS1.0", "GIF extension f9")
_LARGEST_ICON = 2048  # Windows reads 256; web pages have larger ones
_LONGEST_GIF_SIDE = 65535
_LARGE_SIDE = 8192  # for a GIF: beyond it, a canvas that frames do not fill is taken for damage
_END_OF_IMAGE = b"\xff\xd9"

_PLUGINS = {"heif": "heif", "jxl": "jxl"}
"""Extra to install for the formats that need a plug-in."""

_NAMES = {
    "jpeg": ("JPEG",),
    "webp": ("WEBP",),
    "gif": ("GIF",),
    "bmp": ("BMP",),
    "tga": ("TGA",),
    "pcx": ("PCX",),
    "ico": ("ICO",),
    "avif": ("AVIF",),
    "heif": ("HEIF",),
    "jxl": ("JXL",),
}
"""Names of these formats in Pillow; no other decoder of Pillow is tried."""


@contextmanager
def _unlimited() -> Iterator[None]:
    """Lift Pillow's process-wide size limit for one call: upframe checks its own limit first, which the user can raise."""
    with _LOCK:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


class PillowDecoder:
    """Decodes formats that Pillow supports; see `decoder.Decoder`."""

    info: MediaInfo
    metadata: Metadata

    def __init__(self, reading: Reading, kind: str) -> None:
        self._reading, self._kind = reading, kind
        self._delays_ms: tuple[int, ...] | None = None
        self._pad_bytes = 0
        self._plays: int | None = None
        self._structure: JpegStructure | None = None
        _require_plugin(reading, kind)
        channels = self._check_header()
        with codec(reading, "reading its header"):
            self._image = self._open()
        reading.check_pixels(self._image.height, self._image.width)
        frames = 1 if reading.first_frame else self._count_frames()
        animated = frames > 1 and kind in ("gif", "webp", "avif", "jxl")
        self.metadata = self._collect_metadata(animated)
        self._profile = cmyk_profile(self.metadata.icc) if self._image.mode == "CMYK" else None
        self._mode = _target_mode(self._image, channels)
        self._state_losses()
        self.info = MediaInfo(
            path=reading.path,
            format=kind,
            size=(self._image.height, self._image.width),
            channels=len(Image.new(self._mode, (1, 1)).getbands()),
            dtype=np.dtype(np.uint8),
            frames=frames,
            animated=animated,
        )

    # Facts ------------------------------------------------------------------------------------------------------------
    def _check_header(self) -> bool | None:
        """Check the size before the codec opens the file; return whether there is alpha, if only the header tells."""
        reading, file = self._reading, self._reading.file
        if self._kind == "webp":
            webp = webp_header(file)
            if webp is None:
                raise reading.damaged("its header is incomplete or invalid")
            reading.check_pixels(*webp.size)
            if webp.missing_bytes and webp.is_picture_whole:
                reading.end_damaged(f"{webp.missing_bytes} of {webp.stated_bytes} bytes are missing behind the picture")
                self._pad_bytes = min(webp.missing_bytes, 2**20)
            elif webp.missing_bytes:
                self._report_missing(webp.missing_bytes, webp.stated_bytes)
            account_chunks(reading, riff_chunks(file, webp.stated_bytes), _WEBP_CHUNKS)
            account_tail(reading, webp.stated_bytes)
            return webp.has_alpha
        if self._kind in ("avif", "heif"):
            iso = iso_header(file)
            if iso.largest != (0, 0):
                reading.check_pixels(*iso.largest)
            if iso.missing_bytes:
                self._report_missing(iso.missing_bytes, iso.stated_bytes)
            if iso.depth > 8:
                reading.changed("pixels", "depth", f"{iso.depth}-bit samples are read as 8-bit", "depth-reduced")
            account_items(reading, iso.auxiliary)
        elif self._kind == "jpeg":
            self._check_jpeg()
        elif self._kind == "ico":
            self._check_icon()
        elif self._kind == "gif":
            gif = gif_header(file)
            if gif is None or not gif.delays_cs:
                raise reading.error("is truncated, 0 % decoded (no complete frame)", "get the file again")
            self._check_gif(gif)
            self._delays_ms = tuple(10 * delay for delay in gif.delays_cs)
            self._plays = gif.plays
            if not gif.is_complete and gif.ends_between_blocks:
                reading.end_damaged("its closing byte is missing")
            elif not gif.is_complete:
                reading.truncated(None, f"the file ends after {len(gif.delays_cs)} complete frames")
            account_chunks(reading, gif.extensions, _GIF_EXTENSIONS)
            if gif.is_complete:
                account_tail(reading, gif.end)
            return gif.has_alpha
        return None

    def _check_gif(self, gif: GifHeader) -> None:
        """Refuse sizes that only damage explains: frames beyond any canvas, or a canvas far larger than all frames."""
        self._reading.check_pixels(*gif.size)
        if max(gif.covered) > _LONGEST_GIF_SIDE:
            raise self._reading.damaged(f"a frame reaches {gif.covered[1]}x{gif.covered[0]}, which no GIF can hold")
        if any(side > _LARGE_SIDE and side > 4 * used for side, used in zip(gif.size, gif.covered, strict=True)):
            frames = f"{gif.covered[1]}x{gif.covered[0]}"
            raise self._reading.damaged(f"it says it is {gif.size[1]}x{gif.size[0]}, but its frames need {frames}")

    def _check_icon(self) -> None:
        reading, sizes = self._reading, icon_sizes(self._reading.file)
        if not sizes:
            raise reading.damaged("its directory of pictures is cut")
        for size in sizes:
            reading.check_pixels(*size)
            if max(size) > _LARGEST_ICON:
                raise reading.damaged(f"a picture of {size[1]}x{size[0]}, which no icon holds")
        if len(sizes) > 1:
            smaller = f"{len(sizes) - 1} smaller {'picture' if len(sizes) == 2 else 'pictures'} of the icon"
            reading.lost("embedded-dropped", [smaller], kind="part")

    def _check_jpeg(self) -> None:
        """Refuse a file of several pictures in their own right; report parts that belong to the first, such as a preview."""
        reading = self._reading
        self._structure = read_structure(reading.file)
        if self._structure is None:
            raise reading.damaged("no picture behind its first bytes")
        parts = embedded_parts(reading.file, self._structure)
        own = [part.name for part in parts if part.role == "picture"]
        if own and not reading.first_frame:
            raise reading.error(
                f"is a multi-picture JPEG (MPO) of {len(own) + 1} pictures ({own[0]})",
                "pass `first_frame` to read the first, or split it into files",
            )
        account_jpeg(reading, self._structure, parts)

    def _report_missing(self, missing: int, stated: int) -> None:
        """Compare the file with the length that its container states; if the caller allows it, fill missing bytes with
        zeros."""
        self._reading.truncated(100 * (stated - missing) / stated, f"{missing} of {stated} bytes are missing")
        self._pad_bytes = min(missing, 2**28)

    def _open(self) -> Image.Image:
        file = self._reading.file
        file.seek(0)
        source: Any = file
        if self._pad_bytes:
            data = bytearray(file.read() + bytes(self._pad_bytes))
            if self._kind == "webp":  # the length that it states may be damaged itself
                data[4:8] = min(len(data) - 8, 2**32 - 2).to_bytes(4, "little")
            source = io.BytesIO(data)
        if self._kind == "jpeg":  # the class itself: `Image.open` would read an index of further pictures
            return JpegImagePlugin.JpegImageFile(source)
        with _unlimited():
            return Image.open(source, formats=_NAMES[self._kind])

    def _count_frames(self) -> int:
        return len(self._delays_ms) if self._delays_ms is not None else int(getattr(self._image, "n_frames", 1))

    def _collect_metadata(self, animated: bool) -> Metadata:
        info = self._image.info
        exif, xmp, comment, dpi = info.get("exif"), info.get("xmp"), info.get("comment"), info.get("dpi")
        loop = self._plays if self._kind == "gif" else info.get("loop")
        known = isinstance(dpi, tuple) and len(dpi) == 2 and all(np.isfinite(float(v)) and float(v) > 0 for v in dpi)
        if known and self._kind == "jpeg" and info.get("jfif_unit") not in (1, 2) and dpi == (72, 72):
            known = False  # Pillow's value if EXIF states no resolution
        return Metadata(
            icc=info.get("icc_profile") or None,
            exif=exif.removeprefix(EXIF_PREFIX) if isinstance(exif, bytes) and exif else None,
            xmp=xmp.encode() if isinstance(xmp, str) else xmp or None,
            dpi=(float(dpi[0]), float(dpi[1])) if known and dpi is not None else None,
            comment=comment.encode("utf-8", "replace") if isinstance(comment, str) else comment or None,
            loop=int(loop) if loop is not None and animated else None,
            photoshop=photoshop_block(self._structure) if self._structure is not None else None,
        )

    def _state_losses(self) -> None:
        reading = self._reading
        if self._image.mode == "CMYK":
            how = "its profile" if self._profile is not None else "the standard formula"
            reading.changed("pixels", "CMYK", f"CMYK was converted to sRGB through {how}", "converted-from-cmyk")
        elif self._image.mode == "1":
            reading.changed("pixels", "depth", "1-bit picture, becomes 8-bit gray", "one-bit-to-gray")
        elif self._kind == "jxl" and self._image.mode.startswith("I;16"):
            reading.changed("pixels", "depth", "16-bit samples are read as 8-bit", "depth-reduced")

    # Pixels -----------------------------------------------------------------------------------------------------------
    def frames(self) -> Iterator[Frame]:
        time = Fraction(0)
        for index in range(self.info.frames):
            with codec(self._reading, "decoding"):
                pixels = self._decode(index)
            duration = self._duration(index)
            yield Frame(pixels, time, duration)
            time += duration or 0

    def _duration(self, index: int) -> Fraction | None:
        if not self.info.animated:
            return None
        milliseconds = self._delays_ms[index] if self._delays_ms is not None else self._image.info.get("duration", 0)
        return Fraction(milliseconds) / 1000

    def _decode(self, index: int) -> Pixels:
        image = self._image
        if self._structure is not None and self._structure.end is None:
            return self._decode_unended_jpeg(self._structure)
        try:
            if index or self.info.frames > 1:
                image.seek(index)
            image.load()
        except (OSError, EOFError) as error:
            reason = str(error) or "the data ends early"
            if self._kind in ("bmp", "gif", "tga", "pcx") or "truncated" in reason:
                percent = self._bmp_percent() if self._kind == "bmp" else None
                self._reading.truncated(percent, reason)  # raises, unless allowed
                return self._partial(image)
            raise
        return self._convert(image)

    def _convert(self, image: Image.Image) -> Pixels:
        if image.mode == "CMYK":
            return cmyk_to_rgb(np.asarray(image), self._profile)
        pixels: NDArray[np.uint8] = np.asarray(image if image.mode == self._mode else image.convert(self._mode))
        return pixels.reshape(image.height, image.width, -1)

    def _partial(self, image: Image.Image) -> Pixels:
        """Return the pixels that an interrupted `load` has decoded; the others are zero."""
        if isinstance(image, ImageFile.ImageFile):
            image.tile = []  # nothing is left to load
        return self._convert(image)

    def _bmp_percent(self) -> float | None:
        """Share of the pixel bytes that exist; rows of a BMP are stored uncompressed, or nearly so."""
        self._reading.file.seek(0)
        head = self._reading.file.read(14)
        present = self._reading.file.seek(0, 2)
        stated, start = int.from_bytes(head[2:6], "little"), int.from_bytes(head[10:14], "little")
        return 100 * max(present - start, 0) / (stated - start) if stated > start else None

    def _decode_unended_jpeg(self, structure: JpegStructure) -> Pixels:
        """Decode a JPEG without end marker; raise if it lacks more than that, unless the caller allows it.

        libjpeg fills missing data with zero bits. Rows that come out the same with other bits in their place need none of them.
        """
        self._reading.file.seek(0)
        data = self._reading.file.read().rstrip(b"\xff")  # half a marker, or a byte whose other half is missing
        filled, otherwise = (_jpeg_image(data + tail) for tail in (_END_OF_IMAGE, b"\xaa" * 64 + _END_OF_IMAGE))
        same = (np.asarray(filled) == np.asarray(otherwise)).reshape(filled.height, -1).all(1)
        if same.all() and structure.is_refined:
            self._reading.end_damaged("its end marker is missing")
        else:
            rows = len(same) if same.all() else int(np.argmin(same))
            self._reading.truncated(min(100 * rows / len(same), 99) if structure.is_sequential else None)
        return self._convert(filled)


def _jpeg_image(data: bytes) -> Image.Image:
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    image.load()
    return image


def _target_mode(image: Image.Image, header_alpha: bool | None) -> str:
    """Choose the mode of frames from the header: L, LA, RGB or RGBA."""
    mode = image.mode
    if header_alpha is not None:
        return "RGBA" if header_alpha else "RGB"
    if mode in ("1", "L", "I;16", "I", "F"):
        return "LA" if "transparency" in image.info else "L"
    if mode in ("LA", "La"):
        return "LA"
    if mode in ("RGBA", "PA", "RGBa") or "transparency" in image.info:
        return "RGBA"
    return "RGB"


def _require_plugin(reading: Reading, kind: str) -> None:
    """Load the plug-in of a format that Pillow alone does not read.

    Raises:
        InputError: if the plug-in is not installed; the message names the extra.
    """
    if kind not in _PLUGINS:
        return
    extra = _PLUGINS[kind]
    try:
        if kind == "heif":
            import pillow_heif

            pillow_heif.register_heif_opener()
        else:
            import pillow_jxl  # noqa: F401  (importing it registers the format)
    except Exception as error:  # any: a broken binary wheel raises more than ImportError
        label = {"heif": "HEIC", "jxl": "JPEG XL"}[kind]
        raise reading.error(f"is {label}, which needs an extra", f'pip install "upframe[{extra}]"') from error
