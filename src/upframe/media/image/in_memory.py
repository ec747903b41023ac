"""Convert Pillow images to pixels, and pixels to an image of the same mode with its metadata."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from upframe.errors import InputError, UsageError
from upframe.media.frames import Pixels
from upframe.media.image.metadata import EXIF_PREFIX, exif_for_size, without_thumbnail
from upframe.media.image.xmp import xmp_for_size

KEPT_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "F")
"""Modes that need no conversion."""
CARRIED = ("icc_profile", "dpi", "gamma", "srgb", "chromaticity", "comment", "jfif_unit", "jfif_density", "photoshop")
"""Keys of `Image.info` that stay true for the enlarged picture."""


def pixels_of(image: Image.Image) -> Pixels:
    """Return the (H, W, C) pixels of an image in one of `KEPT_MODES`: uint8; uint16 for "I;16"; float32 for "F".

    Palettes and 1-bit pictures become RGB and gray, and a transparent colour becomes an alpha channel: an enlargement has new
    colours, which a palette does not hold.

    Raises:
        UsageError: for a mode whose range or colours upframe does not know.
        InputError: if the image's file is damaged.
    """
    mode = working_mode(image)
    try:
        if mode == "I;16" and image.mode != mode:  # "I;16B", "I;16L": other byte orders
            pixels = np.asarray(image).astype(np.uint16)
        else:
            pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    except (OSError, SyntaxError) as error:
        name = str(getattr(image, "filename", "") or "image")
        raise InputError(name, f"cannot be decoded ({error})", "get the file again") from error
    return pixels.reshape(image.height, image.width, -1)


def working_mode(image: Image.Image) -> str:
    """Choose the mode of `KEPT_MODES` for enlarging an image.

    Raises:
        UsageError: there is none.
    """
    mode = image.mode
    is_keyed = "transparency" in image.info
    if mode == "P":
        return "RGBA" if is_keyed else "RGB"
    if mode in ("1", "L"):
        return "LA" if is_keyed else "L"
    if (mode == "RGB" and is_keyed) or mode == "PA":
        return "RGBA"
    if mode.startswith("I;16"):
        return "I;16"
    if mode in KEPT_MODES:
        return mode
    advice = "scale it to uint16 or float yourself" if mode == "I" else 'write image.convert("RGB"), or "RGBA" for alpha'
    raise UsageError("x", f"is an image of mode {mode}, expected one of 1, P, {', '.join(KEPT_MODES)}", advice)


def image_of(pixels: Pixels, like: Image.Image) -> Image.Image:
    """Make an image of `pixels` with the colour profile, EXIF, XMP, resolution and comment of `like`.

    EXIF keeps its orientation, since the pixels were not turned; its sizes are set and its thumbnail is dropped.
    """
    made = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    info: dict[Any, Any] = {key: like.info[key] for key in CARRIED if key in like.info}
    size = (made.height, made.width)
    exif = like.getexif().tobytes() if like.getexif() else b""
    if exif:
        info["exif"] = EXIF_PREFIX + exif_for_size(without_thumbnail(exif.removeprefix(EXIF_PREFIX)), size)
    xmp = like.info.get("xmp")
    if isinstance(xmp, bytes) and xmp:
        info["xmp"] = xmp_for_size(xmp, size, (like.height, like.width))
    made.info.update(info)
    return made
