"""One writer per format. Each takes frames as row bands and writes bytes to a file that the caller makes atomic.

PNG, APNG and TIFF are streamed; Pillow needs a whole frame for the others. A format's writer and its libraries are imported
when a file of that format is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, NamedTuple, Protocol

from upframe.media.frames import Pixels
from upframe.media.image.metadata import Metadata
from upframe.media.image.plan import OutputPlan, default_quality


class Encoder(Protocol):
    """Writes one file of one format."""

    def frame(self, bands: Iterator[Pixels], size: tuple[int, int], duration: Fraction) -> None:
        """Write one frame of `size` (height, width); the caller has checked the dtype and the rows of `bands`."""
        ...

    def finish(self) -> None:
        """Write the end of the file, after the last frame."""
        ...


def make_encoder(
    out: BinaryIO, plan: OutputPlan, metadata: Metadata, *, frames: int, animated: bool, quality: int | None
) -> Encoder:
    """Make the encoder for `plan.format`."""
    if plan.format == "png":
        return _Png(out, plan, metadata, frames, animated)
    if plan.format == "tiff":
        from upframe.media.image.tiff_writer import TiffEncoder

        return TiffEncoder(out, plan, metadata, frames)
    from upframe.media.image import pillow_writer

    if quality is None:
        quality = default_quality(plan.format)
    if animated and plan.format == "webp":
        return pillow_writer.AnimatedWebpEncoder(out, plan, metadata, quality)
    if animated and plan.format == "gif":
        return pillow_writer.AnimatedGifEncoder(out, plan, metadata)
    if animated:
        return pillow_writer.AvifSequenceEncoder(out, plan, metadata, quality)
    return pillow_writer.StillEncoder(out, plan, metadata, quality)


_PILLOW_BYTES = {1: 1, 2: 4, 3: 4, 4: 4}  # of a pixel in Pillow's memory, by channels
_ENCODING_BYTES = {"jpeg": 1, "bmp": 0, "webp": 14, "avif": 40, "gif": 25}  # of a pixel, between smooth ones and noise
_WEBP_ALPHA_BYTES = 14
_STREAMED_BYTES = 48 << 20  # rows that threads compress and that wait for each other, and memory of the threads


class Held(NamedTuple):
    """Bytes of memory that an encoder takes."""

    gathered: int
    """While rows arrive."""
    encoding: int
    """On top, once they are there."""


def held_bytes(plan: OutputPlan, size: tuple[int, int], *, frames: int = 1, animated: bool = False) -> Held:
    """Predict the memory that an encoder takes, as measured with Pillow 12.

    Args:
        size: (height, width) of the frames.
        frames: How many there are.
    """
    if plan.format in ("png", "tiff"):
        return Held(min(2 * size[0] * size[1] * plan.channels * plan.dtype.itemsize, _STREAMED_BYTES), 0)
    held = _PILLOW_BYTES[plan.channels] * (frames if animated and plan.format == "avif" else 1)
    encoding = _ENCODING_BYTES[plan.format] + (_WEBP_ALPHA_BYTES if plan.format == "webp" and plan.channels in (2, 4) else 0)
    return Held(size[0] * size[1] * held, size[0] * size[1] * encoding)


class _Png:
    def __init__(self, out: BinaryIO, plan: OutputPlan, metadata: Metadata, frames: int, animated: bool) -> None:
        from upframe.media.image.png_writer import PngWriter

        self._writer = PngWriter(out, metadata, frames=frames, animated=animated)
        self._plan = plan

    def frame(self, bands: Iterator[Pixels], size: tuple[int, int], duration: Fraction) -> None:
        self._writer.frame(bands, size, channels=self._plan.channels, dtype=self._plan.dtype, duration=duration)

    def finish(self) -> None:
        self._writer.finish()
