"""Shared parts of all commands: the app, its groups of flags, and the flags that several commands take."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from upframe.cli.help import VIDEO_PANEL, HelpPage
from upframe.cli.logs import start_logs
from upframe.cli.settings import apply
from upframe.cli.stated import sources_held
from upframe.errors import MissingError, UsageError
from upframe.version import __version__

if TYPE_CHECKING:
    from upframe.jobs import Cleaning, Target, TileSize, VideoOptions


log = logging.getLogger(__name__)

EXIT_CODES = """\
Exit codes:
    0  every output written and verified
    1  internal error
    2  wrong usage
    3  input missing or unreadable
    4  weights missing, damaged or unfit
    5  memory exhausted, or no such device
    6  cannot write
    7  verification failed
    8  batch finished, some inputs failed
  129  hung up
  130  interrupted
  143  terminated"""

EXAMPLES = (
    ("upframe photo.jpg", "photo_photo_x4.jpg beside it"),
    ("upframe holiday/ -r -s 2 -o big/", "every picture and video in a tree of folders"),
    ("upframe clip.mp4 -m video-x4 -o large.mkv", "a video, with its audio and subtitles"),
)

COMMON = (
    *("--output", "--scale", "--model", "--format", "--recursive", "--overwrite", "--sigma", "--device"),
    *("--dry-run", "--quiet", "--json", "--log"),
)
"""Options on the short page of help."""

COMMON_BRIEF = (
    ("-o, --output PATH", "File or folder to write. [default: beside the input]"),
    ("-s, --scale NUMBER", "Times larger, fractions allowed. [default: the model's own scale]"),
    ("-m, --model NAME", "Model (see `upframe models list`) or weights file. [default: photo]"),
    ("-f, --format FORMAT", "Output format, such as png, jpg or mkv. [default: the input's]"),
    ("-r, --recursive", "Include sub-folders, and keep their tree."),
    ("-y, --overwrite", "Overwrite existing outputs."),
    ("--dry-run", "Show what would be done, and stop."),
    ("-q, --quiet", "Print only errors."),
)
"""The most used of them, on the first page."""

MORE_HELP = "Options for videos: --help-video. All options: --help-all."

FILES = Group.create_ordered("Pictures and videos")
MODELS = Group.create_ordered("Models")
TRAINING = Group.create_ordered("Training")

INPUT = Group.create_ordered("Input")
OUTPUT = Group.create_ordered("Output")
SIZE = Group.create_ordered("Output size", help="Give at most one. [default: the model's own scale]")
EngineName = Literal["auto", "torch", "native", "compile", "openvino", "onnx", "vulkan"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
PIPE = "\0"  # what `-` becomes before the parser, which takes it for an option; no file name holds this character
COMPUTE = Group.create_ordered("Computing")
VIDEO = Group.create_ordered(VIDEO_PANEL)
REPORTING = Group.create_ordered("Reporting")
SETTINGS = Group.create_ordered("Settings")

app = App(
    name="upframe",
    help="Upscale photos and videos with published networks, and train and measure such networks.",
    version=__version__,
    version_flags=["--version", "-V"],
    help_formatter=HelpPage("upframe [INPUT]… [OPTIONS]\n       upframe COMMAND …", EXAMPLES, options=COMMON_BRIEF),
    help_epilogue=f"{MORE_HELP}\n`upframe COMMAND --help` is about a command.\n\n{EXIT_CODES}",
    help_format="plaintext",
    default_parameter=Parameter(negative_iterable=()),
    result_action="return_value",
    exit_on_error=False,
    suppress_keyboard_interrupt=False,  # `main` knows which signal it was
)
models_app = App(
    name="models", help="List, inspect, verify and convert models.", group=MODELS, help_epilogue="", help_formatter=HelpPage()
)
app.command(models_app)
app.config = partial(apply, app)


@Parameter(name="*")
@dataclass(frozen=True)
class Reporting:
    """How much is printed, and how."""

    verbose: Annotated[bool, Parameter(alias="-v", negative="", group=REPORTING)] = False
    "Print more: every note by itself, and what is going on inside."
    quiet: Annotated[bool, Parameter(alias="-q", negative="", group=REPORTING)] = False
    "Print only errors."
    json: Annotated[bool, Parameter(negative="", group=REPORTING)] = False
    "Print JSON on standard output, one object a line."
    progress: Annotated[bool, Parameter(negative="--no-progress", group=REPORTING)] = True
    "Show progress."
    log: Annotated[Path | None, Parameter(group=REPORTING)] = None
    "Append everything that happens to this file, with times and levels."
    debug: Annotated[bool, Parameter(negative="", group=REPORTING)] = False
    "Print the traceback of an error."

    def start(self) -> None:
        """Open the log.

        Raises:
            OutputError: if its file cannot be written.
        """
        level = logging.INFO if self.verbose else logging.ERROR if self.quiet else logging.WARNING
        start_logs(screen=level, debug=self.debug, file=self.log)
        for source, flags in sources_held().items():
            log.info("%s: states %s", source, ", ".join(flags))


@Parameter(name="*")
@dataclass(frozen=True)
class Sources:
    """Where the defaults of flags come from; see `upframe.cli.settings`, which reads these two before all others."""

    profile: Annotated[str | None, Parameter(group=SETTINGS)] = None
    "Take defaults from this profile of the settings file; see docs/config.md."
    config: Annotated[Path | None, Parameter(group=SETTINGS)] = None
    "Settings file to read in place of all others. [default: upframe.toml here, then the user's own]"


@Parameter(name="*")
@dataclass(frozen=True)
class Files:
    """Inputs and output."""

    input: Annotated[list[str] | None, Parameter(alias="-i", negative="", group=INPUT)] = None
    "More inputs; may be repeated."
    output: Annotated[Path | None, Parameter(alias="-o", group=OUTPUT)] = None
    "File or folder to write; - is standard output. [default: beside the input]"
    format: Annotated[str | None, Parameter(alias=["-f", "--ext"], group=OUTPUT)] = None
    "png, jpg, webp, tiff, bmp, avif or gif; mp4, mkv, mov or webm for videos. [default: the input's]"
    name: Annotated[str | None, Parameter(group=OUTPUT)] = None
    "Template of output names, from {stem}, {model} and {scale}."
    suffix: Annotated[str | None, Parameter(group=OUTPUT)] = None
    "Short for --name '{stem}_SUFFIX'."
    overwrite: Annotated[bool, Parameter(alias="-y", negative="", group=OUTPUT)] = False
    "Overwrite existing outputs."
    recursive: Annotated[bool, Parameter(alias="-r", negative="", group=INPUT)] = False
    "Include sub-folders, and keep their tree."
    include: Annotated[list[str] | None, Parameter(negative="", group=INPUT)] = None
    "Read only files whose names match this pattern; may be repeated."
    exclude: Annotated[list[str] | None, Parameter(negative="", group=INPUT)] = None
    "Skip files whose names match this pattern; may be repeated."
    allow_truncated: Annotated[bool, Parameter(negative="", group=INPUT)] = False
    "Read damaged files as far as they go."
    strict: Annotated[bool, Parameter(negative="", group=OUTPUT)] = False
    "Treat every note (see docs/notices.md) as an error."
    dry_run: Annotated[bool, Parameter(negative="", group=REPORTING)] = False
    "Show what would be done, with sizes, memory and disk, and stop."

    def template(self) -> str | None:
        """Template of output names; None for the usual one."""
        if self.suffix is None:
            return self.name
        if self.name is not None:
            raise UsageError("--suffix", "contradicts --name", "drop one of them")
        return "{stem}_" + self.suffix.replace("{", "{{").replace("}", "}}")


@Parameter(name="*")
@dataclass(frozen=True)
class Size:
    """Size of the output."""

    scale: Annotated[float | None, Parameter(alias="-s", group=SIZE)] = None
    "Times larger, fractions allowed: 2, 2.5, 4."
    size: Annotated[str | None, Parameter(group=SIZE)] = None
    "Exact output size, WIDTHxHEIGHT."
    width: Annotated[int | None, Parameter(group=SIZE)] = None
    "Output width in pixels; the height follows."
    height: Annotated[int | None, Parameter(group=SIZE)] = None
    "Output height in pixels; the width follows."
    long_side: Annotated[int | None, Parameter(group=SIZE)] = None
    "Longer output side in pixels."
    short_side: Annotated[int | None, Parameter(group=SIZE)] = None
    "Shorter output side in pixels."
    megapixels: Annotated[float | None, Parameter(group=SIZE)] = None
    "Output area in millions of pixels."

    def target(self) -> Target:
        from upframe.jobs import Target

        width, height = self.width, self.height
        if self.size is not None:
            found = re.fullmatch(r"(\d+)[xX×](\d+)", self.size)
            if not found or width is not None or height is not None:
                raise UsageError(f"--size {self.size}", "must be WIDTHxHEIGHT, without --width or --height")
            width, height = int(found[1]), int(found[2])
        return Target(self.scale, width, height, self.long_side, self.short_side, self.megapixels)


@Parameter(name="*")
@dataclass(frozen=True)
class Computing:
    """Device, engine and precision of the network, and the tiles of the picture."""

    tile: Annotated[str, Parameter(alias=["-t", "--tile-size"], group=COMPUTE)] = "auto"
    "Tile size in input pixels: auto (fits free memory), off, N or WIDTHxHEIGHT; 0 is auto."
    halo: Annotated[int | None, Parameter(alias="--tile-pad", group=COMPUTE)] = None
    "Context around a tile in input pixels. [default: the model's own]"
    overlap: Annotated[int, Parameter(group=COMPUTE)] = 8
    "Input pixels over which neighbouring tiles are blended."
    device: Annotated[str, Parameter(alias=["-d", "-g", "--gpu-id"], allow_leading_hyphen=True, group=COMPUTE)] = "auto"
    "auto, cpu, cuda, cuda:N or mps; N is cuda:N, -1 is cpu. With --engine vulkan or onnx also others (docs/devices.md)."
    engine: Annotated[EngineName, Parameter(group=COMPUTE)] = "auto"
    "Engine: torch, native (upframe's kernels), compile, openvino, onnx or vulkan; auto is native where it fits, else torch."
    precision: Annotated[PrecisionName, Parameter(group=COMPUTE)] = "auto"
    "Number format of the network: fp32, bf16 or fp16; auto is bf16 where it is fast and loses next to nothing, else fp32."
    fp32: Annotated[bool, Parameter(negative="", group=COMPUTE)] = False
    "The same as --precision fp32."
    threads: Annotated[int | None, Parameter(group=COMPUTE)] = None
    "CPU threads. [default: torch's choice]"

    def number_format(self) -> PrecisionName:
        """The precision, for which --fp32 is another word."""
        if self.fp32 and self.precision not in ("auto", "fp32"):
            raise UsageError("--fp32", f"contradicts --precision {self.precision}", "drop one of them")
        return "fp32" if self.fp32 else self.precision


@Parameter(name="*")
@dataclass(frozen=True)
class VideoFile:
    """How video files are read and written, by whatever makes them."""

    start: Annotated[str | None, Parameter(alias="--start-time", group=VIDEO)] = None
    "Start at this time after the first frame: seconds or H:MM:SS."
    end: Annotated[str | None, Parameter(alias="--end-time", group=VIDEO)] = None
    "Stop at this time."
    codec: Annotated[str | None, Parameter(alias=["-c", "--video-codec"], group=VIDEO)] = None
    "h264, h265, av1, ffv1, prores, or a chip's: h264_nvenc … [default: the input's if it can be written, else h264 or av1]"
    crf: Annotated[int | None, Parameter(group=VIDEO)] = None
    "Constant quality; lower is better. [default: the codec's]"
    preset: Annotated[str | None, Parameter(group=VIDEO)] = None
    "The encoder's preset: speed against file size. [default: the codec's]"
    encoder: Annotated[list[str] | None, Parameter(alias="-e", negative="", group=VIDEO)] = None
    "Any other option of the encoder, KEY=VALUE; may be repeated."
    pix_fmt: Annotated[str | None, Parameter(group=VIDEO)] = None
    "FFmpeg's name of the pixel format. [default: the nearest to the input's]"
    odd: Annotated[Literal["pad", "crop", "444"], Parameter(group=VIDEO)] = "pad"
    "How to handle odd frame sizes when the pixel format needs even ones: pad, crop or 444."
    audio: Annotated[bool, Parameter(negative="--no-audio", group=VIDEO)] = True
    "Copy audio tracks."
    subs: Annotated[bool, Parameter(negative="--no-subs", group=VIDEO)] = True
    "Copy subtitles."
    stream: Annotated[int | None, Parameter(group=VIDEO)] = None
    "Video track, by its index in the file. [default: the first]"
    deinterlace: Annotated[Literal["off", "auto", "bwdif", "yadif"], Parameter(group=VIDEO)] = "off"
    "Deinterlace: auto only where frames are marked as interlaced."
    on_bad_frame: Annotated[Literal["repeat", "skip", "fail"], Parameter(group=VIDEO)] = "repeat"
    "How to handle a damaged frame: repeat the one before it, skip it, or fail."
    window: Annotated[int | None, Parameter(alias="--max-seq-len", group=VIDEO)] = None
    "Most frames the network sees at once. [default: fits free memory]"
    as_published: Annotated[bool, Parameter(negative="", group=VIDEO)] = False
    "Cut clips as the network's authors did for their scores, with their hard tile borders."
    temporal_overlap: Annotated[int | None, Parameter(group=VIDEO)] = None
    "Frames of context where a shot is divided. [default: the model's own]"
    clean_threshold: Annotated[float | None, Parameter(group=VIDEO)] = None
    (
        "RealBasicVSR: clean again while a pass changes more than this, on the 0-255 scale; 255 is one pass. [default: "
        "the model's own]"
    )
    clean_max: Annotated[int | None, Parameter(group=VIDEO)] = None
    "RealBasicVSR: most cleaning passes. [default: the model's own]"
    clean_strength: Annotated[float | None, Parameter(group=VIDEO)] = None
    "RealBasicVSR: share of the cleaning that is applied, 0 to 1. [default: the model's own]"

    def options(self, *, allow_truncated: bool) -> VideoOptions:
        from upframe.jobs import VideoOptions

        return VideoOptions(
            codec=self.codec,
            crf=self.crf,
            preset=self.preset,
            encoder=tuple(map(_pair, self.encoder or ())),
            pix_fmt=self.pix_fmt,
            odd=self.odd,
            audio=self.audio,
            subtitles=self.subs,
            start=None if self.start is None else _seconds("--start", self.start),
            end=None if self.end is None else _seconds("--end", self.end),
            stream=self.stream,
            deinterlace=self.deinterlace,
            on_bad_frame=self.on_bad_frame,
            allow_truncated=allow_truncated,
            segment_frames=self.window,
            context=self.temporal_overlap,
            cleaning=self._cleaning(),
        )

    def _cleaning(self) -> Cleaning | None:
        from upframe.jobs import Cleaning

        given = {"threshold": self.clean_threshold, "max_passes": self.clean_max, "strength": self.clean_strength}
        chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return Cleaning(**chosen) if chosen else None


@Parameter(name="*")
@dataclass(frozen=True)
class Video(VideoFile):
    """How videos are made by a command that is given them one by one."""

    fps: Annotated[str | None, Parameter(group=VIDEO)] = None
    "Frames per second of a folder of frames: 25, 29.97 or 30000/1001. [default: 25]"
    clip: Annotated[bool, Parameter(negative="", group=VIDEO)] = False
    "Treat a folder as one clip made of its frames; implied by a video as output."
    restart: Annotated[bool, Parameter(negative="", group=VIDEO)] = False
    "Discard unfinished work instead of resuming."

    def options(self, *, allow_truncated: bool) -> VideoOptions:
        made = super().options(allow_truncated=allow_truncated)
        rate = made.rate if self.fps is None else _rate(self.fps)
        return replace(made, rate=rate, restart=self.restart)


def _pair(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"-e {key}", "must be KEY=VALUE")
    return key, value


def _seconds(flag: str, text: str) -> Fraction:
    """Seconds, or H:MM:SS and M:SS with fractions."""
    parts = text.split(":")
    try:
        if len(parts) > 3 or any(p.strip() != p or not p for p in parts):
            raise ValueError
        total = sum((Fraction(p) * 60**power for power, p in enumerate(reversed(parts))), Fraction(0))
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{flag} {text}", "is not a time", "use seconds or H:MM:SS") from None
    return total


def _rate(text: str) -> Fraction:
    """Frames per second; 23.976, 29.97 and 59.94 mean what broadcasters mean by them."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--fps {text}", "is not a rate", "use 25, 29.97 or 30000/1001") from None
    broadcast = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    return broadcast if rate.denominator != 1 and abs(rate - broadcast) < Fraction(1, 200) else rate


def tile_size(text: str) -> TileSize:
    if text in ("auto", "0"):
        return "auto"
    if text == "off":
        return "off"
    found = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", text)
    if not found:
        raise UsageError(f"--tile {text}", "must be auto, off, N or WIDTHxHEIGHT")
    return int(found[1]) if found[2] is None else (int(found[2]), int(found[1]))


def device_name(text: str) -> str:
    if text == "-1":
        return "cpu"
    return f"cuda:{text}" if text.isdigit() else text


def need(command: str, *modules: str, extra: str) -> None:
    """Refuse a command whose extra is not installed, before anything is imported.

    Raises:
        MissingError: naming the first module that is not there.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingError(command, f"{module} is not installed", f"install it with: pip install 'upframe[{extra}]'")
