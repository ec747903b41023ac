"""Convert CMYK and Lab to sRGB: by the embedded profile if there is one, else by the standard formula."""

from __future__ import annotations

import io
import logging

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from upframe.media.frames import Pixels
from upframe.media.image.metadata import icc_is_sound

_LOG = logging.getLogger(__name__)


def cmyk_profile(icc: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """Parse `icc` as a CMYK profile; None if it is unusable."""
    if icc is None or not icc_is_sound(icc) or icc[16:20] != b"CMYK":  # data colour space, ICC.1:2022, 7.2.6
        return None
    return ImageCms.ImageCmsProfile(io.BytesIO(icc))


def cmyk_to_rgb(ink: Pixels, profile: ImageCms.ImageCmsProfile | None) -> Pixels:
    """Convert (H, W, 4) ink amounts (0 is no ink, full scale is all) to sRGB (H, W, 3) of the same dtype.

    Args:
        profile: The CMYK profile, which needs uint8 data. None means RGB = (1 - CMY)(1 - K).
    """
    if profile is not None:
        image = Image.frombuffer("CMYK", (ink.shape[1], ink.shape[0]), np.ascontiguousarray(ink).tobytes(), "raw", "CMYK", 0, 1)
        try:
            rgb = ImageCms.profileToProfile(
                image, profile, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )  # fmt: skip
        except ImageCms.PyCMSError as error:
            _LOG.warning("the CMYK profile has no usable table (%s); the standard formula is used", error)
        else:
            assert rgb is not None
            return np.asarray(rgb)
    full = 1.0 if ink.dtype.kind == "f" else float(np.iinfo(ink.dtype).max)
    out = np.empty((*ink.shape[:2], 3), ink.dtype)
    for rows in range(0, len(ink), 256):  # the float intermediate stays small
        band = ink[rows : rows + 256].astype(np.float32) / full
        rgb_band = (1 - band[..., :3]) * (1 - band[..., 3:]) * full
        out[rows : rows + 256] = rgb_band if ink.dtype.kind == "f" else np.round(rgb_band)
    return out


# D50 (ICC and TIFF CIELab) to linear sRGB: the inverse of the sRGB matrix, Bradford-adapted (IEC 61966-2-1, ICC.1 annex E).
_XYZ_D50_TO_RGB = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)
_WHITE_D50 = np.array([0.96422, 1.0, 0.82521])


def lab_to_rgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert CIE L*a*b* under D50, (..., 3) with L in [0, 100], to sRGB in [0, 1], clipped to its gamut."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _WHITE_D50
    linear = np.clip(xyz @ _XYZ_D50_TO_RGB.T, 0, 1)
    rgb: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb
