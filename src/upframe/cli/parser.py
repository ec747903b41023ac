"""Shared parts of all commands: the app, its groups of flags, and the flags that several commands take."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from upframe.errors import UsageError
from upframe.version import __version__

if TYPE_CHECKING:
    from upframe.jobs import Cleaning, Target, TileSize, VideoOptions


EXIT_CODES = """\
Exit codes:
  0  every output written and verified      5  memory exhausted, or no such device
  1  internal error                         6  cannot write
  2  wrong usage                            7  verification failed
  3  input missing or unreadable            8  batch finished, some inputs failed
  4  model or weights                     130  interrupted, 143 terminated"""

SIZE = Group.create_ordered("Output size", help="Give at most one; the network's own scale otherwise.")
OUTPUT = Group.create_ordered("Output")
INPUT = Group.create_ordered("Input")
EngineName = Literal["auto", "torch", "native", "compile", "openvino", "onnx"]
PIPE = "\0"  # what `-` becomes before the parser, which takes it for an option; no file name holds this character
COMPUTE = Group.create_ordered("Computing")
VIDEO = Group.create_ordered("Video")
REPORTING = Group.create_ordered("Reporting")

app = App(
    name="upframe",
    help="Upscale photos and videos with published networks, and train and measure them. "
    "`upframe FILE…` is `upframe upscale FILE…`.",
    version=__version__,
    version_flags=["--version", "-V"],
    help_epilogue=EXIT_CODES,
    help_format="plaintext",
    result_action="return_value",
    exit_on_error=False,
)
models_app = App(name="models", help="List, inspect, prove and convert weights.")
app.command(models_app)


@Parameter(name="*")
@dataclass(frozen=True)
class Reporting:
    """How much is said, and how."""

    verbose: Annotated[bool, Parameter(alias="-v", negative="", group=REPORTING)] = False
    "Say more about what is done."
    quiet: Annotated[bool, Parameter(alias="-q", negative="", group=REPORTING)] = False
    "Say nothing but errors."
    json: Annotated[bool, Parameter(negative="", group=REPORTING)] = False
    "Print JSON on standard output, one object per line, and nothing else there."
    progress: Annotated[bool, Parameter(negative="--no-progress", group=REPORTING)] = True
    "Show progress."
    debug: Annotated[bool, Parameter(negative="", group=REPORTING)] = False
    "Show the traceback of an error."

    def start(self) -> None:
        level = logging.INFO if self.verbose else logging.ERROR if self.quiet else logging.WARNING
        logging.basicConfig(level=level, format="%(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("upframe").setLevel(logging.DEBUG if self.debug else level)


@Parameter(name="*")
@dataclass(frozen=True)
class Files:
    """Inputs and output."""

    input: Annotated[list[str] | None, Parameter(alias="-i", negative="", group=INPUT)] = None
    "More inputs."
    output: Annotated[Path | None, Parameter(alias="-o", group=OUTPUT)] = None
    "File or folder to write; - is standard output."
    format: Annotated[str | None, Parameter(alias=["-f", "--ext"], group=OUTPUT)] = None
    "png, jpg, webp, tiff, bmp, avif or gif; mp4, mkv, mov or webm for videos; the input's otherwise."
    name: Annotated[str | None, Parameter(group=OUTPUT)] = None
    "Template of output names with {stem}, {model} and {scale}."
    suffix: Annotated[str | None, Parameter(group=OUTPUT)] = None
    "Short for --name '{stem}_SUFFIX'."
    overwrite: Annotated[bool, Parameter(alias="-y", negative="", group=OUTPUT)] = False
    "Overwrite existing outputs."
    recursive: Annotated[bool, Parameter(alias="-r", negative="", group=INPUT)] = False
    "Look into sub-folders, and keep their tree."
    include: Annotated[list[str] | None, Parameter(negative="", group=INPUT)] = None
    "Only take files whose name matches this pattern."
    exclude: Annotated[list[str] | None, Parameter(negative="", group=INPUT)] = None
    "Leave out files whose name matches this pattern."
    allow_truncated: Annotated[bool, Parameter(negative="", group=INPUT)] = False
    "Take damaged files as far as they go."
    strict: Annotated[bool, Parameter(negative="", group=OUTPUT)] = False
    "Treat every loss (see docs/notices.md) as an error."
    dry_run: Annotated[bool, Parameter(negative="", group=REPORTING)] = False
    "Show what would be done, with sizes and memory, and stop."

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
    """How large the output is to be."""

    scale: Annotated[float | None, Parameter(alias="-s", group=SIZE)] = None
    "Enlargement, also fractional: 2, 2.5, 4."
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
    "Tile of the input: auto (from free memory), off, N or WIDTHxHEIGHT in pixels; 0 is auto."
    halo: Annotated[int | None, Parameter(alias="--tile-pad", group=COMPUTE)] = None
    "Context around a tile in input pixels; the model's measured default otherwise."
    overlap: Annotated[int, Parameter(group=COMPUTE)] = 8
    "Input pixels over which neighbouring tiles are blended."
    device: Annotated[str, Parameter(alias=["-d", "-g", "--gpu-id"], allow_leading_hyphen=True, group=COMPUTE)] = "auto"
    "auto, cpu, cuda, cuda:N or mps; a bare number means cuda:N, -1 means cpu."
    engine: Annotated[EngineName, Parameter(group=COMPUTE)] = "auto"
    "Engine: torch, native (upframe's kernels), compile, openvino or onnx; auto is native where it fits, else torch."
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], Parameter(group=COMPUTE)] = "auto"
    "Arithmetic of the network; auto is bf16 where it is fast and loses next to nothing, else fp32."
    fp32: Annotated[bool, Parameter(negative="", group=COMPUTE)] = False
    "The same as --precision fp32."
    threads: Annotated[int | None, Parameter(group=COMPUTE)] = None
    "CPU threads."


@Parameter(name="*")
@dataclass(frozen=True)
class Video:
    """How videos are read and written."""

    start: Annotated[str | None, Parameter(alias="--start-time", group=VIDEO)] = None
    "Leave out what comes before: seconds or H:MM:SS, after the first frame."
    end: Annotated[str | None, Parameter(alias="--end-time", group=VIDEO)] = None
    "Leave out what comes from there on."
    codec: Annotated[str | None, Parameter(alias=["-c", "--video-codec"], group=VIDEO)] = None
    "h264, h265, av1, ffv1 or prores; the input's where it can be written, else h264."
    crf: Annotated[int | None, Parameter(group=VIDEO)] = None
    "Constant quality, lower is better; the codec's good default otherwise."
    preset: Annotated[str | None, Parameter(group=VIDEO)] = None
    "Speed against size, in the encoder's words."
    pix_fmt: Annotated[str | None, Parameter(group=VIDEO)] = None
    "Pixel format in FFmpeg's words; the nearest to the input's otherwise."
    encoder: Annotated[list[str] | None, Parameter(alias="-e", negative="", group=VIDEO)] = None
    "Any other option of the encoder: -e KEY=VALUE."
    odd: Annotated[Literal["pad", "crop", "444"], Parameter(group=VIDEO)] = "pad"
    "How to handle odd frame sizes when the pixel format needs even ones."
    audio: Annotated[bool, Parameter(negative="--no-audio", group=VIDEO)] = True
    "Take the sound along."
    subs: Annotated[bool, Parameter(negative="--no-subs", group=VIDEO)] = True
    "Take subtitles along."
    stream: Annotated[int | None, Parameter(group=VIDEO)] = None
    "Which video track, by its index in the file."
    deinterlace: Annotated[Literal["off", "auto", "bwdif", "yadif"], Parameter(group=VIDEO)] = "off"
    "Make whole frames of interlaced ones: auto only where they are marked."
    on_bad_frame: Annotated[Literal["repeat", "skip", "fail"], Parameter(group=VIDEO)] = "repeat"
    "How to handle a damaged frame: repeat the one before, skip it, or fail."
    fps: Annotated[str | None, Parameter(group=VIDEO)] = None
    "Frames per second of a folder of frames: 25, 29.97 or 30000/1001."
    clip: Annotated[bool, Parameter(negative="", group=VIDEO)] = False
    "Take a folder as one clip, whose frames lie in it; a video as output implies it."
    window: Annotated[int | None, Parameter(alias="--max-seq-len", group=VIDEO)] = None
    "Most frames the network sees at once; chosen from free memory otherwise."
    as_published: Annotated[bool, Parameter(negative="", group=VIDEO)] = False
    "Cut clips as the network's authors did for their scores, with their hard tile borders."
    temporal_overlap: Annotated[int | None, Parameter(group=VIDEO)] = None
    "Frames of context where a shot is divided; the network's own number otherwise."
    clean_threshold: Annotated[float | None, Parameter(group=VIDEO)] = None
    "RealBasicVSR: clean again while a pass changes more than this, on the 0-255 scale; 255 is one pass."
    clean_max: Annotated[int | None, Parameter(group=VIDEO)] = None
    "RealBasicVSR: most cleaning passes."
    clean_strength: Annotated[float | None, Parameter(group=VIDEO)] = None
    "RealBasicVSR: share of the cleaning that is applied, 0 to 1."
    restart: Annotated[bool, Parameter(negative="", group=VIDEO)] = False
    "Throw away what an interrupted run left, instead of going on with it."

    def options(self, *, allow_truncated: bool) -> VideoOptions:
        from upframe.jobs import VideoOptions

        pairs = [text.partition("=") for text in self.encoder or []]
        for key, equals, _ in pairs:
            if not key or not equals:
                raise UsageError(f"-e {key}", "must be KEY=VALUE")
        return VideoOptions(
            codec=self.codec,
            crf=self.crf,
            preset=self.preset,
            pix_fmt=self.pix_fmt,
            encoder=tuple((key, value) for key, _, value in pairs),
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
            restart=self.restart,
            **({} if self.fps is None else {"rate": _rate(self.fps)}),
        )

    def _cleaning(self) -> Cleaning | None:
        from upframe.jobs import Cleaning

        given = {"threshold": self.clean_threshold, "max_passes": self.clean_max, "strength": self.clean_strength}
        chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return Cleaning(**chosen) if chosen else None


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
