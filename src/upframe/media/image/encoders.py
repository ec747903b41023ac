"""One writer per format. Each takes frames as row bands and writes bytes to a file that the caller makes atomic.

PNG, APNG and TIFF are streamed; Pillow needs a whole frame for the others. A format's writer and its libraries are imported
when a file of that format is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, Protocol

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


class _Png:
    def __init__(self, out: BinaryIO, plan: OutputPlan, metadata: Metadata, frames: int, animated: bool) -> None:
        from upframe.media.image.png_writer import PngWriter

        self._writer = PngWriter(out, metadata, frames=frames, animated=animated)
        self._plan = plan

    def frame(self, bands: Iterator[Pixels], size: tuple[int, int], duration: Fraction) -> None:
        self._writer.frame(bands, size, channels=self._plan.channels, dtype=self._plan.dtype, duration=duration)

    def finish(self) -> None:
        self._writer.finish()
