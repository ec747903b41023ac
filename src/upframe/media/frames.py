"""Frames, and where they come from and go to. No I/O here: `media` implements these protocols.

A photo is a source of one frame. A frame's pixels keep the depth of the file; `pixels` converts them to the network's
[0, 1] floats. An output frame is handed to a sink as *row bands*, top to bottom, so that nobody has to hold a
108-megapixel result whole.
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

Pixels = NDArray[Any]
"""(H, W, C), C in {1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha}; uint8, uint16, or float32 nominally in [0, 1].
Alpha is straight (not premultiplied)."""


@dataclass(frozen=True)
class Frame:
    """One picture at its exact time."""

    pixels: Pixels
    time: Fraction = Fraction(0)
    """Seconds from the start of the source."""
    duration: Fraction | None = None
    """Seconds it stays, where the file says so."""

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
    """1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha: what frames will carry."""
    dtype: np.dtype[Any]
    """Depth that frames will carry: uint8, uint16 or float32."""
    frames: int = 1
    """Number of frames or pages."""
    animated: bool = False
    """Whether frames follow each other in time (GIF, APNG, animated WebP or AVIF), as opposed to pages."""
    notices: tuple[Notice, ...] = ()
    """Losses already known from the header."""

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4)


class Source(Protocol):
    """Frames of one file. A context manager, iterated once."""

    info: MediaInfo

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...


class Sink(Protocol):
    """Takes frames and makes a file of them: whole after a clean exit, not there after an error."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def write(self, bands: Iterable[Pixels], size: tuple[int, int], *, time: Fraction, duration: Fraction | None) -> None:
        """Write one frame of `size` (height, width), given as bands of full-width rows from top to bottom."""
        ...
