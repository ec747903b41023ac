"""All options of a job. They check themselves: a bad value raises `OptionError`, which names the field."""

from __future__ import annotations

import string
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import get_args

from upframe.errors import OptionError, check_choice, check_flag, check_whole, number_text
from upframe.media.image.files import Limits
from upframe.media.image.formats import FORMATS, format_of_name, writable_names
from upframe.media.names import (
    BAD_FRAME_POLICIES,
    CODEC_NAMES,
    CONTAINER_NAMES,
    DEFAULT_RATE,
    DEINTERLACERS,
    HARDWARE_NAMES,
    MAX_CRF,
    MAX_RATE,
    ODD_POLICIES,
    Deinterlace,
    Odd,
    OnBadFrame,
    codec_name,
    container_name,
)
from upframe.models.spec import Cleaning, Task
from upframe.upscaling.options import Target, UpscaleOptions


@dataclass(frozen=True)
class VideoOptions:
    """All options of a video besides its size and model."""

    codec: str | None = None
    """Codec of the output by any common name; None keeps the input's codec if upframe can write it, else takes H.264."""
    crf: int | None = None
    """Constant quality, lower is better; None is the codec's default."""
    preset: str | None = None
    """The encoder's preset, which trades speed for size; None is the codec's default."""
    pix_fmt: str | None = None
    """FFmpeg's name of the pixel format; None is the format nearest to the input's."""
    encoder: tuple[tuple[str, str], ...] = ()
    """Further options of the encoder, as pairs of key and value."""
    odd: Odd = "pad"
    """How to handle odd frame sizes if the pixel format needs even ones."""
    audio: bool = True
    """Whether audio tracks are copied."""
    subtitles: bool = True
    """Whether subtitles are copied."""
    start: Fraction | None = None
    """Start time in seconds after the first frame."""
    end: Fraction | None = None
    """End time in seconds after the first frame."""
    stream: int | None = None
    """Index of the video track in the file; None is the track that players choose."""
    deinterlace: Deinterlace = "off"
    """Whether to deinterlace; "auto" deinterlaces only frames that are marked as interlaced."""
    on_bad_frame: OnBadFrame = "repeat"
    """How to handle damaged frames."""
    allow_truncated: bool = False
    """Whether a video that ends early is accepted."""
    rate: Fraction = DEFAULT_RATE
    """Frames per second of a folder of frames."""
    segment_frames: int | None = None
    """Frames of the longest segment; None chooses from free memory."""
    context: int | None = None
    """Frames of context on each side where a shot is divided; None is the network's default."""
    cleaning: Cleaning | None = None
    """Cleaning options of a network that cleans videos; None is the network's default."""
    restart: bool = False
    """Whether unfinished work is discarded instead of resumed."""

    def __post_init__(self) -> None:
        if self.codec is not None and (not isinstance(self.codec, str) or codec_name(self.codec) is None):
            known = ", ".join((*CODEC_NAMES, *HARDWARE_NAMES))
            raise OptionError("video.codec", self.codec, "is not a codec that upframe can write", f"use one of {known}")
        if self.crf is not None:
            check_whole("video.crf", self.crf, least=0, most=MAX_CRF)
        for name in ("preset", "pix_fmt"):
            word = getattr(self, name)
            if word is not None and not (isinstance(word, str) and word):
                raise OptionError(f"video.{name}", word, "must be a word of the encoder")
        if not isinstance(self.encoder, tuple) or not all(map(_is_encoder_option, self.encoder)):
            raise OptionError("video.encoder", self.encoder, "must be pairs of key and value")
        check_choice("video.odd", self.odd, ODD_POLICIES)
        check_choice("video.deinterlace", self.deinterlace, DEINTERLACERS)
        check_choice("video.on_bad_frame", self.on_bad_frame, BAD_FRAME_POLICIES)
        for name in ("audio", "subtitles", "allow_truncated", "restart"):
            check_flag(f"video.{name}", getattr(self, name))
        self._check_times()
        for name, least in (("stream", 0), ("segment_frames", 1), ("context", 0)):
            if (number := getattr(self, name)) is not None:
                check_whole(f"video.{name}", number, least=least)
        if self.cleaning is not None and not isinstance(self.cleaning, Cleaning):
            raise OptionError("video.cleaning", self.cleaning, "must be a Cleaning")

    def _check_times(self) -> None:
        for name in ("start", "end"):
            time = getattr(self, name)
            if time is not None and (not isinstance(time, Fraction | int) or isinstance(time, bool)):
                raise OptionError(f"video.{name}", time, "must be seconds as a Fraction or a whole number")
            if time is not None and time < 0:
                raise OptionError(f"video.{name}", time, "must be 0 seconds or more")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise OptionError("video.end", self.end, f"is not after `video.start={number_text(self.start)}`")
        if not isinstance(self.rate, Fraction | int) or isinstance(self.rate, bool):
            raise OptionError("video.rate", self.rate, "must be a Fraction or a whole number")
        if not 0 < self.rate <= MAX_RATE:
            raise OptionError("video.rate", self.rate, f"must be above 0 and at most {MAX_RATE}")


def _is_encoder_option(pair: object) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair) and bool(pair[0])


@dataclass(frozen=True)
class JobOptions:
    """All options of a job besides its inputs and output."""

    model: str | Path | None = None
    """Name or weights file; None chooses the shipped model for the enlargement."""
    task: Task = "upscale"
    """The kind of work; the model must be made for it."""
    target: Target = Target()
    """Size of the output."""
    upscale: UpscaleOptions = UpscaleOptions()
    """How to cut and compute pictures and clips."""
    format: str | None = None
    """Output format or extension; None keeps the input's."""
    quality: int | None = None
    """1–100 for lossy formats; None is the format's default."""
    name: str | None = None
    """Template of output names with {stem}, {model} and {scale}."""
    overwrite: bool = False
    """Whether existing outputs are replaced."""
    strict: bool = False
    """Make every notice an error."""
    recursive: bool = False
    """Whether sub-folders are searched."""
    include: tuple[str, ...] = ()
    """Patterns: upframe reads only files that match one of them."""
    exclude: tuple[str, ...] = ()
    """Patterns: upframe skips files that match one of them."""
    allow_truncated: bool = False
    """Whether upframe accepts inputs that end early."""
    first_frame: bool = False
    """Read only the first frame of an animation or the first page of a document."""
    limits: Limits = Limits()
    """Limits on the size of an input."""
    video: VideoOptions = VideoOptions()
    """Options of videos."""
    as_clip: bool = False
    """Treat a folder as one clip whose frames are its files. A video file as output implies this."""

    def __post_init__(self) -> None:
        if self.model is not None and not (isinstance(self.model, str | Path) and str(self.model)):
            raise OptionError("model", self.model, "must be the name or the weights file of a model")
        check_choice("task", self.task, get_args(Task))
        for name, kind in (("target", Target), ("upscale", UpscaleOptions), ("limits", Limits), ("video", VideoOptions)):
            if not isinstance(getattr(self, name), kind):
                raise OptionError(name, getattr(self, name), f"must be a {kind.__name__}")
        if self.format is not None:
            _check_format(self.format)
        if self.quality is not None:
            check_whole("quality", self.quality, least=1, most=100)
        if self.name is not None:
            check_template(self.name)
        for name in ("overwrite", "strict", "recursive", "allow_truncated", "first_frame", "as_clip"):
            check_flag(name, getattr(self, name))
        for name in ("include", "exclude"):
            patterns = getattr(self, name)
            if not isinstance(patterns, tuple) or not all(isinstance(pattern, str) for pattern in patterns):
                raise OptionError(name, patterns, "must be a tuple of patterns")


def _check_format(name: object) -> None:
    picture = format_of_name(name) if isinstance(name, str) else None
    if picture is not None and FORMATS[picture].writable:
        return
    if not isinstance(name, str) or container_name(name) is None:
        known = f"{writable_names()}, {', '.join(CONTAINER_NAMES)}"
        raise OptionError("format", name, "is not a format that upframe can write", f"use one of {known}")


_NOT_IN_NAMES = frozenset('<>:"|?*')
_RESERVED_NAMES = frozenset(("CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))))


def check_template(template: object) -> None:
    """Refuse a template that makes no file name.

    Raises:
        OptionError: if the template is invalid; the message gives the reason.
    """
    advice = "use {stem}, {model} and {scale}"
    if not isinstance(template, str):
        raise OptionError("name", template, "is not a valid template", advice)
    try:
        parts = list(string.Formatter().parse(template))
        if any(form or conversion for _, _, form, conversion in parts):  # a width could ask for a gigabyte of spaces
            raise OptionError("name", template, "has a format in a field", advice)
        fields = {name for _, name, _, _ in parts if name is not None}
        if unknown := fields - {"stem", "model", "scale"}:
            raise OptionError("name", template, f"unknown field {{{min(unknown)}}}", advice)
        name = template.format(stem="stem", model="model", scale="4")
    except (ValueError, LookupError, AttributeError) as error:
        raise OptionError("name", template, f"is not a valid template ({error})", advice) from error
    if not name or any(c in name for c in "/\\"):
        raise OptionError("name", template, "contains a path separator" if name else "is empty", advice)
    if bad := sorted({c for c in name if c in _NOT_IN_NAMES or not c.isprintable()}):
        raise OptionError(
            "name", template, f"contains characters that not every system allows in names: {' '.join(bad)}", advice
        )
    if name.partition(".")[0].rstrip(" ").upper() in _RESERVED_NAMES:
        raise OptionError("name", template, "is the name of a device on Windows", advice)
    if name != name.strip(" ").rstrip("."):
        raise OptionError("name", template, "begins or ends with a space, or ends with a dot", advice)
