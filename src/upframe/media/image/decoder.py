"""The protocol of decoders, and their input: one interface for PNG, TIFF and everything that Pillow reads."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from upframe.errors import InputError, Notice, ResourceError, UpframeError, check_whole, one_line
from upframe.media.frames import Frame, MediaInfo, Pixels
from upframe.media.image.metadata import Metadata, clean_exif, clean_xmp, icc_is_sound


@dataclass(frozen=True)
class Limits:
    """Limits on the size of an input; its header is checked before anything is allocated."""

    max_pixels: int = 500_000_000
    """Pixels of one frame (the option `limits.max_pixels`)."""

    def __post_init__(self) -> None:
        check_whole("limits.max_pixels", self.max_pixels, least=1)


@dataclass
class Reading:
    """A file while it is read: its handle, the caller's options, and the notices so far."""

    path: Path
    file: BinaryIO
    limits: Limits = field(default_factory=Limits)
    allow_truncated: bool = False
    first_frame: bool = False
    notices: list[Notice] = field(default_factory=list)

    def notice(self, kind: str, message: str) -> None:
        """Add a notice, once per id."""
        if all(notice.id != kind for notice in self.notices):
            self.notices.append(Notice(kind, str(self.path), message))

    def error(self, happened: str, advice: str = "") -> InputError:
        return InputError(self.path, happened, advice)

    def damaged(self, what: str) -> InputError:
        return self.error(f"is damaged ({what})", "get the file again")

    def check_pixels(self, height: int, width: int) -> None:
        """Refuse a picture that is empty or larger than the limit.

        Raises:
            InputError: for such a picture; the message gives the size and the option.
        """
        if height < 1 or width < 1:
            raise self.error(f"has no pixels ({width}x{height})", "get the file again")
        if height * width > self.limits.max_pixels:
            raise self.error(
                f"says it is {width}x{height} = {height * width / 1e6:.0f} megapixels,"
                f" more than the limit of {self.limits.max_pixels / 1e6:.0f}",
                f"raise the limit with `limits.max_pixels={height * width}` if you trust the file",
            )

    def truncated(self, percent: float | None, why: str = "") -> None:
        """Report that the data ends early or is damaged in the middle.

        Args:
            percent: Share of the picture, or of its bytes, that could be decoded; None if unknown.

        Raises:
            InputError: unless the caller allows truncated input; then it becomes a notice.
        """
        share = "" if percent is None else f", {min(max(int(percent), 0), 100)} % decoded"
        text = f"truncated{share}" + (f" ({why})" if why else "")
        if not self.allow_truncated:
            raise self.error(text, "get the file again, or accept the rest with `allow_truncated`")
        self.notice("truncated", text)

    def end_damaged(self, why: str) -> None:
        """Report that the file has no proper end, though all pixels are there."""
        self.notice("end-damaged", f"{why}; all pixels are there")

    def carry(self, metadata: Metadata) -> tuple[Metadata, int]:
        """Check and clean `metadata`; return it with the orientation (1 to 8) by which to turn the pixels."""
        exif = clean_exif(metadata.exif)
        if exif.stated is not None:
            self.notice("bad-orientation", f"EXIF orientation is {exif.stated}, treated as 1")
        icc = metadata.icc
        if icc is not None and not icc_is_sound(icc):
            self.notice("bad-icc", "the colour profile is damaged and was ignored")
            icc = None
        cleaned = Metadata(
            icc=icc,
            exif=exif.exif,
            xmp=clean_xmp(metadata.xmp, upright=exif.has_orientation),
            dpi=metadata.dpi,
            text=metadata.text,
            colour_chunks=metadata.colour_chunks,
            comment=metadata.comment,
            loop=metadata.loop,
        )
        return cleaned, exif.orientation


class Decoder(Protocol):
    """Decodes one format. The constructor takes a `Reading` with its file at the start, and reads the header.

    Constructors raise InputError for a file that cannot be decoded, and check the pixel limit before they allocate.
    """

    info: MediaInfo
    """Facts of the stored picture: before orientation, without notices."""
    metadata: Metadata
    """Metadata as stored; `Reading.carry` cleans it."""

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order, as stored (orientation not applied)."""
        ...


@contextmanager
def codec(reading: Reading, what: str) -> Iterator[None]:
    """Turn all exceptions of other libraries on damaged data into upframe's errors.

    All exceptions are caught on purpose: on hostile files tifffile and Pillow raise nearly anything (struct.error, IndexError,
    TypeError, ZeroDivisionError, SyntaxError...), and each of these means the same here. Their warnings and log lines are
    silenced: the user gets one error or notice.
    """
    log = logging.getLogger("tifffile")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UpframeError:
        raise
    except MemoryError as error:
        raise ResourceError(reading.path, f"memory ran out while {what}", "use a machine with more memory") from error
    except Exception as error:
        reason = one_line(str(error))[:160] or type(error).__name__
        happened = f"is damaged or unsupported ({what}: {reason})"
        raise reading.error(happened, "get the file again, or convert it to PNG") from error
    finally:
        log.setLevel(level)


_UPRIGHT = {  # steps that turn stored pixels upright, by EXIF orientation (CIPA DC-008, 4.6.4): transpose first, then flip
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels (H, W, C) upright; the result is contiguous."""
    transposed, flip_rows, flip_columns = _UPRIGHT[orientation]
    if transposed:
        pixels = pixels.transpose(1, 0, 2)
    if flip_rows:
        pixels = pixels[::-1]
    if flip_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turn_back(pixels: Pixels, orientation: int) -> Pixels:
    """Invert `turn_upright`."""
    return turn_upright(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def turns_sides(orientation: int) -> bool:
    """Whether turning upright swaps height and width."""
    return _UPRIGHT[orientation][0]
