"""Everything a job can be told, checked where it is stated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from upframe.errors import (
    UsageError,
)
from upframe.media.image.files import (
    Limits,
)
from upframe.media.video.files import (
    DEFAULT_RATE,
)
from upframe.models.spec import Cleaning, Task
from upframe.upscaling.options import UpscaleOptions


@dataclass(frozen=True)
class Target:
    """How large an output is to be; at most one of the ways may be given, `width` and `height` together being one."""

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    long_side: int | None = None
    short_side: int | None = None
    megapixels: float | None = None

    def check(self) -> None:
        """Raise UsageError for contradictions and for sizes that are not positive."""
        given = [k for k in ("scale", "long_side", "short_side", "megapixels") if getattr(self, k) is not None]
        if self.width is not None or self.height is not None:
            given.append("width/height")
        if len(given) > 1:
            flags = ", ".join("--" + g.replace("_", "-") for g in given)
            raise UsageError(flags, "each sets the output size", "give one of them")
        for name in ("scale", "width", "height", "long_side", "short_side", "megapixels"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"--{name.replace('_', '-')} {value}", "not a size", "use a number above 0")

    def size_for(self, size: tuple[int, int], *, native: int) -> tuple[int, int]:
        """Output (height, width) for an input of `size`, each side rounded to the nearest pixel and at least 1.

        Args:
            native: Enlargement where none is asked for: that of the network.
        """
        height, width = size
        if self.width is not None and self.height is not None:
            return self.height, self.width
        if self.width is not None:
            return _round(height * self.width / width), self.width
        if self.height is not None:
            return self.height, _round(width * self.height / height)
        factor = self._factor(height, width, native)
        return _round(height * factor), _round(width * factor)

    def _factor(self, height: int, width: int, native: int) -> float:
        if self.long_side is not None:
            return self.long_side / max(height, width)
        if self.short_side is not None:
            return self.short_side / min(height, width)
        if self.megapixels is not None:
            return math.sqrt(self.megapixels * 1e6 / (height * width))
        return self.scale if self.scale is not None else float(native)

    def label(self, native: int) -> str:
        """Return the scale as it stands in an output's name: `4`, `2.5`, or the size that was asked for."""
        if self.width is not None and self.height is not None:
            return f"{self.width}x{self.height}"
        if self.width is not None:
            return f"{self.width}w"
        if self.height is not None:
            return f"{self.height}h"
        if self.long_side is not None:
            return f"{self.long_side}long"
        if self.short_side is not None:
            return f"{self.short_side}short"
        if self.megapixels is not None:
            return f"{self.megapixels:g}mp"
        return f"{self.scale if self.scale is not None else native:g}"


def _round(value: float) -> int:
    return max(math.floor(value + 0.5), 1)


@dataclass(frozen=True)
class FilmOptions:
    """The user's choices for a video besides its size and model."""

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    encoder: tuple[tuple[str, str], ...] = ()
    """Further options of the encoder, key and value."""
    odd: str = "pad"
    audio: bool = True
    subtitles: bool = True
    start: Fraction | None = None
    """Seconds after the first frame."""
    end: Fraction | None = None
    stream: int | None = None
    deinterlace: str = "off"
    on_bad_frame: str = "repeat"
    allow_truncated: bool = False
    rate: Fraction = DEFAULT_RATE
    """Frames per second of a folder of frames."""
    segment_frames: int | None = None
    """Longest segment; None is chosen from the memory there is."""
    context: int | None = None
    """Frames of context where a shot is divided; None is the network's."""
    cleaning: Cleaning | None = None
    restart: bool = False
    """Throw away what an interrupted run left."""


@dataclass(frozen=True)
class JobOptions:
    """Everything the user decides about a job besides its inputs and output."""

    model: str | Path | None = None
    """Name or weights file; None takes the shipped model that suits the enlargement."""
    task: Task = "upscale"
    """The task of the job; the model has to be for it."""
    target: Target = Target()
    """How large the output is to be."""
    upscale: UpscaleOptions = UpscaleOptions()
    format: str | None = None
    """Output format or extension; None keeps the input's."""
    quality: int | None = None
    """1–100 for lossy formats; None is the format's own good default."""
    name: str | None = None
    """Template of output names with {stem}, {model} and {scale}."""
    overwrite: bool = False
    strict: bool = False
    """Make every notice an error."""
    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_truncated: bool = False
    first_frame: bool = False
    """Take the first frame of an animation or the first page of a document instead of all."""
    limits: Limits = Limits()
    film: FilmOptions = FilmOptions()
    """How videos are read and written."""
    as_clip: bool = False
    """Take a folder as one clip whose frames lie in it. A video file as output implies it."""
