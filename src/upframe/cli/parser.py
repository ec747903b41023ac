"""What every command shares: the app, its groups of flags, and the flags that several commands take."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from upframe import __version__
from upframe.errors import UsageError

if TYPE_CHECKING:
    from upframe.naming import Target
    from upframe.upscale import TileSize


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
PIPE = "\0"  # what `-` becomes before the parser, which takes it for an option; no file name holds this character
COMPUTE = Group.create_ordered("Computing")
REPORTING = Group.create_ordered("Reporting")

app = App(
    name="upframe",
    help="Upscale photos with published networks, and train and measure them. `upframe FILE…` is `upframe upscale FILE…`.",
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
        from upframe.naming import Target

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
    """What the network runs on and how the picture is cut."""

    tile: Annotated[str, Parameter(alias=["-t", "--tile-size"], group=COMPUTE)] = "auto"
    "Tile of the input: auto (from free memory), off, N or WIDTHxHEIGHT in pixels; 0 is auto."
    halo: Annotated[int | None, Parameter(alias="--tile-pad", group=COMPUTE)] = None
    "Context around a tile in input pixels; the model's measured default otherwise."
    overlap: Annotated[int, Parameter(group=COMPUTE)] = 8
    "Input pixels over which neighbouring tiles are blended."
    device: Annotated[str, Parameter(alias=["-d", "-g", "--gpu-id"], allow_leading_hyphen=True, group=COMPUTE)] = "auto"
    "auto, cpu, cuda, cuda:N or mps; a bare number means cuda:N, -1 means cpu."
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], Parameter(group=COMPUTE)] = "auto"
    "Arithmetic of the network."
    fp32: Annotated[bool, Parameter(negative="", group=COMPUTE)] = False
    "The same as --precision fp32."
    threads: Annotated[int | None, Parameter(group=COMPUTE)] = None
    "CPU threads."


def tile_size(text: str, *, overlap: int) -> TileSize:
    if text in ("auto", "0"):
        return "auto"
    if text == "off":
        return "off"
    found = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", text)
    if not found:
        raise UsageError(f"--tile {text}", "must be auto, off, N or WIDTHxHEIGHT")
    width, height = int(found[1]), int(found[2] or found[1])
    least = max(16, 4 * overlap)
    if min(width, height) < least:
        raise UsageError(f"--tile {text}", f"too small for an overlap of {overlap} px", f"use {least} or more")
    return height, width


def device_name(text: str) -> str:
    if text == "-1":
        return "cpu"
    return f"cuda:{text}" if text.isdigit() else text
