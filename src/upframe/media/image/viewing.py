"""Pictures to look at: 8 bits, upright, as PNG, of a size that browsers take. Never a result: results are verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from upframe.errors import InputError
from upframe.files import atomic_path
from upframe.media.frames import Pixels
from upframe.media.image.decoder import Limits
from upframe.media.image.formats import SNIFF_BYTES, sniff
from upframe.media.image.opening import open_regular
from upframe.media.image.source import ImageSource, probe

SHOWN_BY_BROWSERS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "gif": ".gif", "avif": ".avif"}
"""Formats that browsers show, and their extensions."""


def shown_as_it_is(path: Path, *, limits: Limits, most_pixels: int) -> str | None:
    """The extension of a picture that every browser shows; None for others and larger ones.

    Raises:
        InputError: if it is no picture.
    """
    with open_regular(path) as file:
        kind = sniff(file.read(SNIFF_BYTES))
    info = probe(path, limits=limits, allow_truncated=True, first_frame=True)
    return SHOWN_BY_BROWSERS.get(kind) if info.size[0] * info.size[1] <= most_pixels else None


def read_first(path: Path, *, limits: Limits) -> tuple[Pixels, bytes | None]:
    """The first frame of a picture, upright, and its colour profile.

    Raises:
        InputError: if it cannot be read.
    """
    with ImageSource(path, limits=limits, allow_truncated=True, first_frame=True) as source:
        for frame in source:
            return frame.pixels, source.metadata.icc
    raise InputError(path, "holds no picture", "get the file again")


def write_view(pixels: Pixels, out: Path, *, most_side: int | None = None, most_pixels: int | None = None,
               profile: bytes | None = None) -> None:  # fmt: skip
    """Write pixels of any depth as PNG with 8 bits.

    Args:
        most_side, most_pixels: Larger pictures are made smaller.
    """
    image = Image.fromarray(_plain(pixels))
    height, width = pixels.shape[:2]
    factor = 1.0
    if most_side is not None:
        factor = min(factor, most_side / max(height, width))
    if most_pixels is not None:
        factor = min(factor, (most_pixels / (height * width)) ** 0.5)
    if factor < 1:
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    with atomic_path(out) as part:
        image.save(part, "PNG", compress_level=1, icc_profile=profile)


def enlarged(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Pixels in 8 bits, enlarged to (height, width) without a network (bicubic): how a viewer would show them."""
    image = Image.fromarray(_plain(pixels)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size[0], size[1], -1)


def as_8_bits(pixels: Pixels) -> Pixels:
    """Pixels of any depth, rounded to 8 bits."""
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind == "f":
        return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return pixels


def _plain(pixels: Pixels) -> Pixels:
    """As Pillow takes them: 8 bits, gray without an axis for channels."""
    shown = np.ascontiguousarray(as_8_bits(pixels))
    return shown[..., 0] if shown.shape[2] == 1 else shown
