"""Decode JPEG, WebP, GIF, BMP and AVIF by Pillow, and HEIC and JPEG XL by its plug-ins."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from upframe.media.frames import Frame, MediaInfo, Pixels
from upframe.media.image.cms import cmyk_profile, cmyk_to_rgb
from upframe.media.image.decoder import Reading, codec
from upframe.media.image.headers import gif_header, iso_header, webp_header
from upframe.media.image.metadata import EXIF_PREFIX, Metadata

_LOCK = threading.Lock()

_PLUGINS = {"heif": "heif", "jxl": "jxl"}
"""Extra to install for the formats that need a plug-in."""

_NAMES = {
    "jpeg": ("JPEG", "MPO"),
    "webp": ("WEBP",),
    "gif": ("GIF",),
    "bmp": ("BMP",),
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
        self._size: tuple[int, int] | None = None
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
            if webp.missing_bytes:
                self._report_missing(webp.missing_bytes, webp.stated_bytes)
            return webp.has_alpha
        if self._kind in ("avif", "heif"):
            iso = iso_header(file)
            if iso.largest != (0, 0):
                reading.check_pixels(*iso.largest)
            if iso.missing_bytes:
                self._report_missing(iso.missing_bytes, iso.stated_bytes)
            if iso.depth > 8:
                reading.notice("depth-reduced", f"{iso.depth}-bit samples are read as 8-bit")
        elif self._kind == "gif":
            gif = gif_header(file)
            if gif is None or not gif.delays_cs:
                raise reading.error("is truncated, 0 % decoded (no complete frame)", "get the file again")
            reading.check_pixels(*gif.size)
            self._delays_ms = tuple(10 * delay for delay in gif.delays_cs)
            self._plays = gif.plays
            if not gif.is_complete:
                reading.truncated(None, f"the file ends after {len(gif.delays_cs)} complete frames")
            return gif.has_alpha
        return None

    def _report_missing(self, missing: int, stated: int) -> None:
        """Compare the file with the length that its container states; if the caller allows it, fill missing bytes with
        zeros."""
        self._reading.truncated(100 * (stated - missing) / stated, f"{missing} of {stated} bytes are missing")
        self._pad_bytes = min(missing, 2**28)

    def _open(self) -> Image.Image:
        file = self._reading.file
        file.seek(0)
        source: Any = io.BytesIO(file.read() + bytes(self._pad_bytes)) if self._pad_bytes else file
        with _unlimited():
            return Image.open(source, formats=_NAMES[self._kind])

    def _count_frames(self) -> int:
        if self._delays_ms is not None:
            return len(self._delays_ms)
        frames = int(getattr(self._image, "n_frames", 1))
        if self._image.format == "MPO":
            raise self._reading.error(
                f"is a multi-picture JPEG (MPO) of {frames} pictures, such as a stereo pair",
                "pass `first_frame` to read the first, or split it into files",
            )
        return frames

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
        )

    def _state_losses(self) -> None:
        reading = self._reading
        if self._image.mode == "CMYK":
            how = "its profile" if self._profile is not None else "the standard formula"
            reading.notice("converted-from-cmyk", f"CMYK was converted to sRGB through {how}")
        elif self._image.mode == "1":
            reading.notice("one-bit-to-gray", "1-bit picture, becomes 8-bit gray")
        elif self._kind == "jxl" and self._image.mode.startswith("I;16"):
            reading.notice("depth-reduced", "16-bit samples are read as 8-bit")

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
        try:
            if index or self.info.frames > 1:
                image.seek(index)
            image.load()
        except (OSError, EOFError) as error:
            if self._kind == "jpeg" and "truncated" in str(error):
                return self._decode_truncated_jpeg()
            reason = str(error) or "the data ends early"
            if self._kind in ("bmp", "gif") or "truncated" in reason:
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

    def _decode_truncated_jpeg(self) -> Pixels:
        """Raise, or return the decoded rows: libjpeg fills the rest after an end-of-image marker.

        The decoded rows are those in which the interrupted and the completed decoding agree.
        """
        interrupted = self._image
        if isinstance(interrupted, ImageFile.ImageFile):
            interrupted.tile = []
        self._reading.file.seek(0)
        data = self._reading.file.read() + b"\xff\xd9"  # end of image
        with _unlimited():
            completed = Image.open(io.BytesIO(data), formats=_NAMES["jpeg"])
        completed.load()
        same = (np.asarray(interrupted) == np.asarray(completed)).reshape(completed.height, -1).all(1)
        decoded = len(same) if same.all() else int(np.argmin(same))
        self._reading.truncated(min(100 * decoded / len(same), 99))
        return self._convert(completed)


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
