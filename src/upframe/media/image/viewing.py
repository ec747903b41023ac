"""Pictures to look at: 8 bits, upright, as PNG, of a size that browsers take. Never a result: results are verified."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from upframe.errors import InputError
from upframe.files import atomic_path
from upframe.media.display import Colours, Picture, peak
from upframe.media.frames import Pixels
from upframe.media.image.decoder import Limits
from upframe.media.image.formats import SNIFF_BYTES, sniff
from upframe.media.image.metadata import icc_is_sound
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


def read_first(path: Path, *, limits: Limits) -> Picture:
    """The first frame of a picture, upright.

    Raises:
        InputError: if it cannot be read.
    """
    with ImageSource(path, limits=limits, allow_truncated=True, first_frame=True) as source:
        for frame in source:
            metadata = source.metadata
            return Picture(frame.pixels, metadata.icc, None if metadata.icc else _colours(dict(metadata.colour_chunks)))
    raise InputError(path, "holds no picture", "get the file again")


def _colours(chunks: dict[str, bytes]) -> Colours | None:
    """Colours by the chunks of a PNG file (PNG, third edition, 11.3.2.6 to 11.3.2.8)."""
    stated, light, display = (chunks.get(name, b"") for name in ("cICP", "cLLI", "mDCV"))
    if len(stated) != 4:
        return None
    brightest = int.from_bytes(light[:4], "big") or int.from_bytes(display[16:20], "big")  # in units of 0.0001 cd/m²
    return Colours(stated[0], stated[1], peak(brightest / 10_000))


def write_thumbnail(picture: Picture, out: Path, *, most_side: int) -> None:
    """Write a small picture as PNG in sRGB: a profile can weigh more than its pixels."""
    height, width = picture.pixels.shape[:2]
    image = _reduced(Image.fromarray(_plain(picture.shown(picture.pixels))), most_side / max(height, width))
    _save(image if picture.profile is None else _in_srgb(image, picture.profile), out)


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """A picture in sRGB, or as it is if the profile is for other kinds of pictures."""
    if not icc_is_sound(profile):
        return image
    alpha = image.getchannel("A") if "A" in image.getbands() else None
    colours = image.convert("L" if image.mode in ("L", "LA") else "RGB")
    try:
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        made = ImageCms.profileToProfile(colours, own, srgb, ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    assert made is not None
    if alpha is not None:
        made.putalpha(alpha)
    return made


def write_view(pixels: Pixels, out: Path, *, most_pixels: int | None = None, profile: bytes | None = None) -> None:
    """Write pixels of any depth as PNG with 8 bits.

    Args:
        most_pixels: Larger pictures are made smaller.
    """
    height, width = pixels.shape[:2]
    factor = 1.0 if most_pixels is None else (most_pixels / (height * width)) ** 0.5
    _save(_reduced(Image.fromarray(_plain(pixels)), factor), out, profile)


def _reduced(image: Image.Image, factor: float) -> Image.Image:
    if factor >= 1:
        return image
    size = (max(round(image.width * factor), 1), max(round(image.height * factor), 1))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _save(image: Image.Image, out: Path, profile: bytes | None = None) -> None:
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
