"""Typed errors with exit codes, and notices with ids for everything that an output loses.

    UpframeError                 exit 1  (a bug: nothing here raises it bare)
    ├── UsageError               exit 2  a request that cannot be carried out; raised before any work
    │   ├── OptionError                  an option with a value that it does not take; names the option
    │   └── MissingError                 an extra or a compiler is not installed; callers that have another way use it
    ├── InputError               exit 3  a file that is missing, unreadable, damaged or of an unsupported kind
    ├── ModelError               exit 4  weights or model files that are absent, unsafe or do not fit
    ├── ResourceError            exit 5  memory exhausted after every back-off
    │   └── OutOfMemoryError             one unit of work did not fit; the upscaler retries it in halves
    ├── OutputError              exit 6  nothing could be written, or not encoded
    ├── VerifyError              exit 7  what was written is not what was promised
    ├── BatchError               exit 8  the batch finished, some items failed
    └── Cancelled                exit 130 the user stopped the work

A message is one line: *what file – what happened – what to do*. Library code raises these and logs; it never prints
and never exits the process.

Messages name options as a Python user writes them, in backticks: `restart`, `video.audio=False`. A door with other names for
options replaces them in messages; the command line writes flags (`upframe.cli.flags`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar


class UpframeError(Exception):
    """Base of every error upframe raises on purpose.

    Args:
        subject: The thing that the error is about, usually a path; control characters are escaped so that the message stays one
            line.
        happened: The problem that upframe found, without a full stop.
        advice: The step that the user can take, without a full stop; empty if there is none.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, subject: str | Path, happened: str, advice: str = "") -> None:
        self.subject = one_line(str(subject))
        self.happened = one_line(happened)
        self.advice = one_line(advice)
        super().__init__(self.subject, self.happened, self.advice)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.subject, self.happened, self.advice)

    def __str__(self) -> str:
        text = f"{self.subject}: {self.happened}."
        if not self.advice:
            return text
        stop = "" if self.advice.endswith(("?", "!")) else "."
        return f"{text} {self.advice[:1].upper()}{self.advice[1:]}{stop}"


class UsageError(UpframeError):
    exit_code = 2


class OptionError(UsageError):
    """An option has a value that is invalid, alone or together with other options.

    Args:
        option: Its name as a Python user writes it, with dots where options hold options: `tile`, `video.crf`.
        value: The value.
        happened, advice: As for `UpframeError`.
    """

    def __init__(self, option: str, value: object, happened: str, advice: str = "") -> None:
        self.option, self.value = option, value
        super().__init__(f"{option}={option_text(value)}", happened, advice)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.option, self.value, self.happened, self.advice)


_LONGEST_VALUE = 200  # characters in a message


def option_text(value: object) -> str:
    """Format a value for messages: text in quotes, everything else as `str` prints it, both cut to 200 characters.

    A value that cannot be printed is shown as its type.
    """
    try:
        text = repr(str(value)) if isinstance(value, str | Path) else number_text(value)
    except Exception:  # any object may be passed for an option, also one whose `__str__` fails
        return f"({type(value).__name__})"
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def number_text(value: object) -> str:
    """Format a fraction as the decimal number it equals, such as 1.2 and not 6/5; everything else as `str` prints it."""
    if isinstance(value, Fraction):
        decimal = f"{float(value):.12g}"
        return decimal if Fraction(decimal) == value else str(value)
    return str(value)


class MissingError(UsageError):
    pass


class InputError(UpframeError):
    exit_code = 3


class ModelError(UpframeError):
    exit_code = 4


class ResourceError(UpframeError):
    exit_code = 5


class OutOfMemoryError(ResourceError):
    """One forward pass did not fit into memory. Engines raise no other error for lack of memory."""


class OutputError(UpframeError):
    exit_code = 6


class BusyError(OutputError):
    """Another run is writing the output."""


class VerifyError(UpframeError):
    exit_code = 7


class BatchError(UpframeError):
    exit_code = 8


class Cancelled(UpframeError):  # noqa: N818 (no error: the user's own wish)
    exit_code = 130


@dataclass(frozen=True)
class Notice:
    """A loss or a substitution that the user should know about; the option `strict` turns it into an error."""

    id: str
    """Stable identifier, a key of `NOTICES`."""
    subject: str
    """The file that the notice is about."""
    message: str
    """One line, without the subject."""

    def __post_init__(self) -> None:
        if self.id not in NOTICES:
            raise ValueError(f"unknown notice id {self.id!r}; add it to NOTICES")

    def __str__(self) -> str:
        return f"{self.subject}: {self.message} [{self.id}]"

    def as_error(self) -> UpframeError:
        """The error that this notice becomes under `strict`: exit 2 if planning finds it, exit 7 if it arises later."""
        kind = UsageError if NOTICES[self.id].at_planning else VerifyError
        return kind(self.subject, f"{self.message} [{self.id}]", "run without `strict` to accept it")


@dataclass(frozen=True)
class NoticeKind:
    meaning: str
    at_planning: bool
    """Whether planning finds it, before any pixel is computed."""


NOTICES: dict[str, NoticeKind] = {
    "alpha-dropped": NoticeKind("the transparency of the video is dropped", True),
    "alpha-needs-png": NoticeKind("the requested format cannot hold transparency, so PNG is written", True),
    "animation-needs-webp": NoticeKind("the requested format cannot hold an animation, so animated WebP is written", True),
    "audio-converted": NoticeKind("the container cannot hold the audio's codec, so it was encoded in another", True),
    "bad-frames": NoticeKind("damaged frames were repeated or skipped, see `video.on_bad_frame`", True),
    "bad-icc": NoticeKind("the colour profile is damaged and was ignored; pixels are unchanged", True),
    "bad-orientation": NoticeKind("the EXIF orientation is not 1 to 8 and was treated as 1", True),
    "beyond-model-scale": NoticeKind("the enlargement exceeds the network's scale; resampling does the rest", True),
    "captions-dropped": NoticeKind("closed captions in the frames are dropped", True),
    "chroma-reduced": NoticeKind("the codec has less colour resolution than the input", True),
    "colour-changes": NoticeKind("the colour tags change on the way; the output has those of the first frame", True),
    "container-changed": NoticeKind("upframe cannot write the input's container and writes another", True),
    "converted-from-cmyk": NoticeKind("CMYK, YCCK or Lab was converted to RGB", True),
    "depth-reduced": NoticeKind("fewer bits per sample than the input has", True),
    "dv-dropped": NoticeKind("the Dolby Vision layer is dropped; the picture keeps its base layer", True),
    "embedded-dropped": NoticeKind("pictures, videos or records inside the picture file are not carried over", True),
    "end-damaged": NoticeKind("the end of the file is missing or damaged, but all pixels are there", False),
    "ext-mismatch": NoticeKind("the content has another format than the file name says", True),
    "fp32-fallback": NoticeKind("a tile had non-finite values in reduced precision and was computed again in float32", False),
    "frames-missing": NoticeKind("a folder of numbered frames has gaps", True),
    "hdr-dropped": NoticeKind("the output cannot hold the input's HDR metadata", True),
    "interlaced": NoticeKind("the video is interlaced and is treated as whole frames", True),
    "metadata-damaged": NoticeKind("a damaged part of the metadata was ignored or repaired; pixels are unchanged", True),
    "metadata-dropped": NoticeKind("the output format cannot hold some of the input's metadata", True),
    "name-collision": NoticeKind("two inputs have one output name; the later output keeps its input's extension", True),
    "name-shortened": NoticeKind("the output name was too long for the file system", True),
    "no-pts": NoticeKind("frames without timestamps got those of the nominal frame rate", True),
    "one-bit-to-gray": NoticeKind("a 1-bit image becomes 8-bit gray", True),
    "packets-dropped": NoticeKind("damaged audio or subtitle packets could not be copied", False),
    "pages-need-tiff": NoticeKind("the requested format holds one page, so TIFF is written", True),
    "projection-dropped": NoticeKind("the record of a 360° or 3D picture is dropped", True),
    "pts-repaired": NoticeKind("frames or packets with repeated or backward timestamps were moved apart", True),
    "side-data-dropped": NoticeKind("data beside the pictures of a video is dropped", True),
    "size-adjusted": NoticeKind("the codec needs even sizes; the picture was padded or cropped by a pixel", True),
    "start-shifted": NoticeKind("the container cannot start before zero, so all tracks were moved by the same time", True),
    "subtitle-converted": NoticeKind("text subtitles were converted to the container's own format; styles may be lost", True),
    "tile-halved": NoticeKind("memory ran out and a tile was computed again in smaller tiles", False),
    "time-jumps": NoticeKind("the file's time jumps; the jumps were taken out of all tracks alike", True),
    "window-halved": NoticeKind("memory ran out and a clip was computed again with fewer frames at once", False),
    "track-dropped": NoticeKind("the container cannot hold a track", True),
    "truncated": NoticeKind("the input ends early; the missing part was filled", False),
    "values-clipped": NoticeKind("float values outside the range were clipped", False),
}


def one_line(text: str) -> str:
    """Escape control characters and line breaks in `text`, so that a hostile file name cannot break a log."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


# Checks of options ----------------------------------------------------------------------------------------------------
def check_whole(option: str, value: object, *, least: int, most: int | None = None) -> None:
    """Refuse everything but a whole number of at least `least` and at most `most`.

    Raises:
        OptionError: for any other value; the message names the option and its range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        raise OptionError(option, value, f"must be {least} or more" if most is None else f"must be {least} to {most}")


def check_number(
    option: str, value: Any, *, least: float = -math.inf, most: float = math.inf, above: float = -math.inf
) -> None:
    """Refuse everything but a finite number of at least `least`, at most `most` and more than `above`.

    Raises:
        OptionError: for any other value; the message names the option and its range.
    """
    try:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        fits = is_number and math.isfinite(value) and least <= value <= most and value > above
    except OverflowError:  # a whole number that no float holds
        fits = False
    if not fits:
        low = f"above {above:g}" if above > -math.inf else f"{least:g} or more"
        bounds = low if most == math.inf else f"{low} and at most {most:g}" if above > -math.inf else f"{least:g} to {most:g}"
        raise OptionError(option, value, f"must be {bounds}")


def check_flag(option: str, value: object) -> None:
    """Refuse everything but True and False.

    Raises:
        OptionError: for any other value; the message names the option.
    """
    if not isinstance(value, bool):
        raise OptionError(option, value, "must be True or False")


def check_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Refuse everything that is not one of `choices`.

    Raises:
        OptionError: for any other value; the message names the option and the choices.
    """
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise OptionError(option, value, f"must be one of {', '.join(known)}")
