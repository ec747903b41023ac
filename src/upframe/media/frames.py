"""Frames, and the protocols of their sources and sinks, which `media` implements. No I/O here.

A photo is a source of one frame. A frame's pixels keep the depth of the file; `pixels` converts them to the network's
[0, 1] floats. A sink takes an output frame as *row bands*, top to bottom, so that a 108-megapixel result is never held whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from upframe.errors import Notice
from upframe.media.ledger import EMPTY, Ledger

Pixels = NDArray[Any]
"""(H, W, C), C in {1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha}; uint8, uint16, or float32 nominally in [0, 1].
Alpha is straight (not premultiplied)."""


@dataclass(frozen=True)
class Frame:
    """One picture with its exact time."""

    pixels: Pixels
    time: Fraction = Fraction(0)
    """Seconds from the start of the source."""
    duration: Fraction | None = None
    """Duration in seconds, if the file states it."""

    @property
    def has_alpha(self) -> bool:
        return self.pixels.shape[2] in (2, 4)


@dataclass(frozen=True)
class MediaInfo:
    """Facts of a file, known before its pixels are decoded."""

    path: Path
    format: str
    """Lower-case content format: "png", "jpeg", "webp", "tiff", "bmp", "avif", "gif", ... found from content, not name."""
    size: tuple[int, int]
    """(height, width) of the first frame after orientation is applied."""
    channels: int
    """Channels of the frames: 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha."""
    dtype: np.dtype[Any]
    """Dtype of the frames: uint8, uint16 or float32."""
    frames: int = 1
    """Number of frames or pages."""
    animated: bool = False
    """Whether frames follow each other in time (GIF, APNG, animated WebP or AVIF), as opposed to pages."""
    notices: tuple[Notice, ...] = ()
    """Losses known from the header."""
    ledger: Ledger = EMPTY
    """Parts of a picture file that no writer gets, and their fate."""

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4)


class Source(Protocol):
    """Frames of one file: a context manager that can be iterated once."""

    info: MediaInfo

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...


class Sink(Protocol):
    """Writes frames to a file: complete after a clean exit, absent after an error."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def write(self, bands: Iterable[Pixels], size: tuple[int, int], *, time: Fraction, duration: Fraction | None) -> None:
        """Write one frame of `size` (height, width), given as bands of full-width rows from top to bottom."""
        ...
