"""Read and write images: the entry point of this layer for pictures.

info = probe(path)                                what the header says
with ImageSource(path) as source:                 frames, upright, at the file's own depth
    plan = plan_output(source.info, requested="png", metadata=source.metadata)
    with ImageSink(out, plan, source.metadata) as sink:
        for frame in source:
            sink.write([frame.pixels], frame.pixels.shape[:2])
"""

from __future__ import annotations

import os
from pathlib import Path

from upframe.errors import UsageError
from upframe.media.frames import MediaInfo, Pixels
from upframe.media.image.decoder import Limits
from upframe.media.image.listing import is_image_name, iter_files, natural_key
from upframe.media.image.metadata import Metadata
from upframe.media.image.plan import OutputPlan, check_output_size, default_quality, plan_output
from upframe.media.image.sink import ImageSink
from upframe.media.image.source import ImageSource, probe, read_pixels
from upframe.media.image.verify import verify_output

__all__ = [
    "ImageSink",
    "ImageSource",
    "Limits",
    "Metadata",
    "OutputPlan",
    "check_output_size",
    "default_quality",
    "is_image_name",
    "iter_files",
    "natural_key",
    "plan_output",
    "probe",
    "read_pixels",
    "verify_output",
    "write_pixels",
]


def write_pixels(path: str | Path, pixels: Pixels, *, quality: int | None = None) -> None:
    """Write (H, W, C) or (H, W) pixels to the format that the extension of `path` names, replacing what is there.

    Args:
        pixels: uint8, uint16 or float32, C in 1 to 4.
        quality: See `ImageSink`.

    Raises:
        UsageError: if the format is unknown or cannot hold these pixels without loss.
        OutputError: if the file cannot be written.
    """
    path = Path(path)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or pixels.dtype.name not in ("uint8", "uint16", "float32"):
        raise ValueError(f"pixels must be (H, W, 1 to 4) uint8, uint16 or float32, not {pixels.shape} {pixels.dtype}")
    height, width, channels = pixels.shape
    info = MediaInfo(path, "array", (height, width), channels, pixels.dtype)
    plan = plan_output(info, requested=path.suffix or os.fspath(path))
    lost = [notice for notice in plan.notices if notice.id in ("alpha-needs-png", "depth-reduced")]
    if plan.dtype != pixels.dtype or lost:
        raise UsageError(path, f"cannot hold these pixels ({lost[0].message})", "write PNG or TIFF")
    check_output_size(plan.format, (height, width), subject=path, channels=channels, dtype=plan.dtype)
    with ImageSink(path, plan, quality=quality) as sink:
        sink.write([pixels], (height, width))
