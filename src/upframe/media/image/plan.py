"""Choose the output format from headers, and list the losses, before any pixel is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from upframe.errors import Notice, UsageError
from upframe.media.frames import MediaInfo
from upframe.media.image.fates import fitted
from upframe.media.image.formats import FORMATS, Format, format_of_name, writable_names
from upframe.media.image.metadata import Metadata
from upframe.media.ledger import EMPTY, Entry, Ledger

_DEFAULT_QUALITY = {"jpeg": 95, "webp": 95, "avif": 90}


@dataclass(frozen=True)
class OutputPlan:
    """Plan of an output file."""

    format: str
    """A writable key of `formats.FORMATS`."""
    extension: str
    """Extension with its dot, in the user's spelling if it means the chosen format."""
    dtype: np.dtype[Any]
    """Dtype of the pixels for the sink: uint8, uint16 or float32."""
    channels: int
    """Channels of the pixels for the sink: those of the input, unless the plan is made by hand."""
    notices: tuple[Notice, ...] = ()
    """Losses of the output."""
    ledger: Ledger = EMPTY
    """Everything besides pixels that the input holds, and its fate."""


def plan_output(info: MediaInfo, *, requested: str | None = None, metadata: Metadata | None = None) -> OutputPlan:
    """Decide the output format of an input.

    Args:
        requested: A format name or extension ("jpg", ".JPG", "tiff"); None keeps the format of the input's name, or of its
            content if the name means no format that upframe can write.
        metadata: Metadata of the input, to find the parts that the format cannot hold.

    Raises:
        UsageError: if `requested` is not a format that upframe can write.
    """
    pixels: list[Entry] = []

    def lose(name: str, message: str, notice: str) -> None:
        pixels.append(Entry("pixels", name, "changed", message, notice))

    wanted, extension = _wanted(info, requested)
    chosen = wanted
    if info.animated and info.frames > 1 and not chosen.holds_animation:
        text = f"{wanted.label} cannot hold an animation of {info.frames} frames; WebP is written"
        lose("format", text, "animation-needs-webp")
        chosen = FORMATS["webp"]
    elif not info.animated and info.frames > 1 and not chosen.holds_pages:
        if requested is not None:
            lose("format", f"{wanted.label} cannot hold {info.frames} pages; TIFF is written", "pages-need-tiff")
        chosen = FORMATS["tiff"]
    if info.has_alpha and not chosen.holds_alpha:
        lose("format", f"{chosen.label} cannot hold transparency; PNG is written", "alpha-needs-png")
        chosen = FORMATS["png"]
    dtype = info.dtype if info.dtype.name in chosen.dtypes else np.dtype(chosen.dtypes[-1])
    if dtype != info.dtype:
        text = f"{chosen.label} holds at most {8 * dtype.itemsize} bits per sample; the input has {info.dtype}"
        lose("depth", text, "depth-reduced")
    elif chosen.name == "gif":
        lose("colours", "GIF holds 256 colours per frame and no partial transparency", "depth-reduced")
    _, fates = fitted(metadata or Metadata(), chosen, channels=info.channels, animated=info.animated)
    if chosen is not wanted:
        extension = chosen.extensions[0]
    ledger = Ledger.of((*pixels, *fates))
    told = ledger.notices(str(info.path))
    return OutputPlan(chosen.name, extension, dtype, info.channels, told, info.ledger + ledger)


def _wanted(info: MediaInfo, requested: str | None) -> tuple[Format, str]:
    """The requested format, and its extension in the user's spelling."""
    if requested is not None:
        name = format_of_name(requested)
        if name is None or not FORMATS[name].writable:
            raise UsageError(requested, "is not a picture format that can be written", f"use one of {writable_names()}")
        facts = FORMATS[name]
        spelled = requested if requested.startswith(".") else f".{requested}"
        return facts, spelled if spelled.lower() in facts.extensions else facts.extensions[0]
    suffix = Path(info.path).suffix
    for name, spelled in ((format_of_name(suffix) if suffix else None, suffix), (info.format, "")):
        if name is not None and name in FORMATS and FORMATS[name].writable:
            return FORMATS[name], spelled or FORMATS[name].extensions[0]
    return FORMATS["png"], ".png"


def check_output_size(
    format: str, size: tuple[int, int], *, subject: str | Path, channels: int = 3, dtype: np.dtype[Any] | None = None
) -> None:
    """Refuse an output that its format cannot hold, before anything is computed.

    Args:
        format: Key of `formats.FORMATS`.
        size: (height, width) of the output.
        subject: The file that the error names.

    Raises:
        UsageError: for such an output; the message names a format that can hold it.
    """
    facts, (height, width) = FORMATS[format], size
    sample_bytes = dtype.itemsize if dtype is not None else 1
    limit = None
    if max(size) > facts.max_side_px:
        limit = f"{facts.label} holds at most {facts.max_side_px} pixels per side"
    elif facts.max_pixels is not None and height * width > facts.max_pixels:
        limit = f"{facts.label} holds at most {facts.max_pixels / 1e6:.0f} megapixels"
    elif facts.max_bytes is not None and height * (-(-width * max(channels, 3) // 4) * 4) * sample_bytes > facts.max_bytes:
        limit = f"{facts.label} holds at most {facts.max_bytes / 2**30:.0f} GiB"
    if limit is not None:
        raise UsageError(
            subject,
            f"the output would be {width}x{height} and {limit}",
            "choose `format='png'` or tiff (BigTIFF is used when needed), or a smaller scale",
        )


def default_quality(format: str) -> int:
    """Default quality, 0 to 100; 100 for formats without quality."""
    return _DEFAULT_QUALITY.get(format, 100)
