"""The protocol of decoders, and their input: one interface for PNG, TIFF and everything that Pillow reads."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from upframe.errors import InputError, Notice, ResourceError, UpframeError, check_whole, one_line
from upframe.media.frames import Frame, MediaInfo, Pixels
from upframe.media.image.metadata import CleanExif, Metadata, clean_exif, clean_photoshop, icc_is_sound
from upframe.media.image.xmp import clean_xmp
from upframe.media.ledger import Entry


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
    entries: list[Entry] = field(default_factory=list)
    """Parts of the file that no writer gets, and their fate."""

    def lost(self, notice: str, names: Sequence[str], detail: str = "", *, kind: str = "metadata") -> None:
        """Record that parts of the file are not carried over, with one notice for all of them."""
        detail = detail or f"{', '.join(names)[:200]} {'is' if len(names) == 1 else 'are'} not carried over"
        for name in names:
            self._record(Entry(kind, name, "lost", detail, notice))

    def changed(self, kind: str, name: str, detail: str, notice: str | None = None) -> None:
        """Record that a part of the file is written in another form."""
        self._record(Entry(kind, name, "changed", detail, notice))

    def _record(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.notice is not None:
            told = Notice(entry.notice, str(self.path), entry.detail)
            self.notices += [] if told in self.notices else [told]

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
            self.changed("metadata", "orientation", f"EXIF orientation is {exif.stated}, treated as 1", "bad-orientation")
        if metadata.exif and exif.exif is None:
            self.lost("metadata-damaged", ["EXIF"], "its EXIF is damaged and was ignored")
        edits = [("exif", edit) for edit in exif.edits]
        icc = metadata.icc
        if icc is not None and not icc_is_sound(icc):
            self.lost("bad-icc", ["colour profile"], "the colour profile is damaged and was ignored")
            icc = None
        xmp = self._carry_xmp(metadata.xmp, exif, edits)
        photoshop, had_thumbnail = clean_photoshop(metadata.photoshop or b"")
        edits += [("photoshop", "its thumbnail is removed")] if had_thumbnail else []
        made = replace(metadata, icc=icc, exif=exif.exif, xmp=xmp, photoshop=photoshop or None, edits=tuple(edits))
        return made, exif.orientation

    def _carry_xmp(self, xmp: bytes | None, exif: CleanExif, edits: list[tuple[str, str]]) -> bytes | None:
        if not xmp:
            return None
        try:
            clean = clean_xmp(xmp, upright=exif.has_orientation)
        except ValueError as error:
            self.lost("metadata-damaged", ["XMP"], f"its XMP was ignored ({error})")
            return None
        edits += [("xmp", edit) for edit in clean.edits]
        if clean.lost:
            self.lost("embedded-dropped", [f"{part} in its XMP" for part in clean.lost], kind="part")
        return clean.xmp


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
