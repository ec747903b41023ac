"""Read image files: probe a header, stream the frames, or read all pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from upframe.errors import InputError, Notice
from upframe.media.frames import Frame, MediaInfo, Pixels
from upframe.media.image.decoder import Decoder, Limits, Reading, turn_upright, turns_sides
from upframe.media.image.formats import FORMATS, SNIFF_BYTES, UNSUPPORTED, format_of_name, sniff
from upframe.media.image.metadata import Metadata
from upframe.media.image.opening import Stamp, open_regular, stamp
from upframe.media.ledger import Ledger

RGB8 = NDArray[np.uint8]
"""(H, W, 3) uint8."""


def read_rgb8(path: Path) -> RGB8:
    """Read a picture as RGB, with gray repeated in three channels; `InputError` unless it is 8-bit gray or RGB."""
    picture = read_pixels(path)
    if picture.dtype != np.uint8 or picture.shape[2] not in (1, 3):
        kind = f"{picture.dtype} with {picture.shape[2]} channels"
        raise InputError(path, f"is {kind}", "the protocols are defined on 8-bit gray or RGB")
    return np.broadcast_to(picture, (*picture.shape[:2], 3)).copy()


def probe(
    path: str | Path, *, limits: Limits | None = None, allow_truncated: bool = False, first_frame: bool = False
) -> MediaInfo:
    """Read the header and structure of a file, without decoding pixels.

    Raises:
        InputError: if it is not a regular file, not a readable image, or larger than `limits` allow.
    """
    with ImageSource(path, limits=limits, allow_truncated=allow_truncated, first_frame=first_frame) as source:
        return replace(source.info, notices=tuple(source.notices))


class ImageSource:
    """Frames of one image file: upright, straight alpha, at the file's own depth. Implements `frames.Source`.

    The header is read when it is made; the file stays open until the end of the `with` block.

    Args:
        limits: Limits on the size of a picture.
        allow_truncated: Return the decodable part of a damaged file, with the notice `truncated`.
        first_frame: Read only the first frame of an animation, a stack of pages or a multi-picture JPEG.

    Raises:
        InputError: see `probe`; while iterating also for damaged data, NaN or infinite samples, and a file that changes.
    """

    info: MediaInfo
    """Facts with orientation applied, and the notices known from the header."""
    metadata: Metadata
    """Metadata to copy to the output."""

    def __init__(
        self, path: str | Path, *, limits: Limits | None = None, allow_truncated: bool = False, first_frame: bool = False
    ) -> None:
        self.path = Path(path)
        self._file: BinaryIO = open_regular(self.path)
        try:
            self._stamp: Stamp = stamp(self.path)
            self._reading = Reading(self.path, self._file, limits or Limits(), allow_truncated, first_frame)
            kind = self._recognise()
            self._decoder = _make_decoder(self._reading, kind)
            self.metadata, self._orientation = self._reading.carry(self._decoder.metadata)
            stored = self._decoder.info
            if any(notice.id == "converted-from-cmyk" for notice in self._reading.notices):
                # the profile described the inks, but the pixels are sRGB now
                if self.metadata.icc:
                    self._reading.changed("metadata", "colour profile", "the pixels are sRGB now")
                self.metadata = replace(self.metadata, icc=None, colour_chunks=(("sRGB", b"\0"),))
            height, width = stored.size
            size = (width, height) if turns_sides(self._orientation) else (height, width)
            self.metadata = replace(self.metadata, described=size)
            ledger = Ledger.of(self._reading.entries)
            self.info = replace(stored, size=size, notices=tuple(self._reading.notices), ledger=ledger)
        except BaseException:
            self._file.close()
            raise
        self._started = False

    @property
    def notices(self) -> tuple[Notice, ...]:
        """All notices so far; more may come while frames are read."""
        return tuple(self._reading.notices)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Frame]:
        if self._started:
            raise ValueError("a source is iterated once")
        self._started = True
        return self._frames()

    def _frames(self) -> Iterator[Frame]:
        frames = self._decoder.frames()
        while True:
            try:
                frame = next(frames, None)
            except InputError:
                self.check_unchanged()  # a change explains the damage better
                raise
            self.check_unchanged()
            if frame is None:
                return
            self._check_finite(frame.pixels)
            yield replace(frame, pixels=turn_upright(frame.pixels, self._orientation))

    def check_unchanged(self) -> None:
        """Raise InputError if the file has changed since it was opened."""
        try:
            now = stamp(self.path)
        except OSError as error:
            raise InputError(self.path, "changed while reading (it is gone)", "run it again") from error
        if now != self._stamp:
            raise InputError(self.path, "changed while reading", "run it again when nothing writes to it")

    def _check_finite(self, pixels: Pixels) -> None:
        if pixels.dtype.kind != "f":
            return
        bad = int((~np.isfinite(pixels)).any(axis=2).sum())
        if bad:
            count = pixels.shape[0] * pixels.shape[1]
            raise InputError(self.path, f"{bad} of {count} pixels are NaN or infinite", "repair them first")

    def _recognise(self) -> str:
        """Recognise the format of the content; add a notice if the name means another."""
        kind = sniff(self._file.read(SNIFF_BYTES))
        self._file.seek(0)
        named = format_of_name(self.path.suffix) if self.path.suffix else None
        if named == "raw" and kind in ("tiff", "unknown", "jpeg"):
            kind = "raw"
        if kind in UNSUPPORTED:
            expected = ", ".join(f.label for f in FORMATS.values() if f.name != "raw")
            raise self._reading.error(
                f"is not an image that upframe can read (it holds {UNSUPPORTED[kind]})", f"expected {expected}"
            )
        if kind == "raw":
            raise self._reading.error("is a camera RAW file", "develop it to a 16-bit TIFF or PNG first")
        if named is not None and named != kind:
            self._reading.notice("ext-mismatch", f"the content is {FORMATS[kind].label}, the name says {FORMATS[named].label}")
        return kind


def _make_decoder(reading: Reading, kind: str) -> Decoder:
    """Import the decoder of a format and its libraries, only if there is such a file."""
    if kind == "png":
        from upframe.media.image.png import PngDecoder

        return PngDecoder(reading)
    if kind == "tiff":
        from upframe.media.image.tiff import TiffDecoder

        return TiffDecoder(reading)
    if kind == "pnm":
        from upframe.media.image.pnm import PnmDecoder

        return PnmDecoder(reading)
    from upframe.media.image.pillow import PillowDecoder

    return PillowDecoder(reading, kind)


def read_pixels(path: str | Path, *, limits: Limits | None = None) -> Pixels:
    """Read the first frame of an image, upright: (H, W, C) uint8, uint16 or float32.

    Raises:
        InputError: if it cannot be read.
    """
    with ImageSource(path, limits=limits, first_frame=True) as source:
        return next(iter(source)).pixels
