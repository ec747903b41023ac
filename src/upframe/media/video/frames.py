"""Convert between FFmpeg's frames and numpy planes: each pixel format becomes one of a few layouts that `colour` supports.

`VideoFrame.to_ndarray` supports too few formats, so planes are read by their line sizes.
"""

from __future__ import annotations

import re
import zlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from upframe.media.video.colour import Layout, Plane

_PLANAR = re.compile(r"(?:yuv(?P<j>j)?a?(?P<chroma>420|422|440|444)p|gbra?p|gray)(?P<bits>9|10|12|14|16)?(?:le)?")
_SUBSAMPLING = {"420": (2, 2), "422": (2, 1), "440": (1, 2), "444": (1, 1)}

_REPACKED = {
    # Other arrangements of the same samples: swscale moves them without arithmetic.
    "nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "nv42": "yuv444p",
    "yuyv422": "yuv422p", "uyvy422": "yuv422p", "yvyu422": "yuv422p", "p010le": "yuv420p10le", "p012le": "yuv420p12le",
    "p016le": "yuv420p16le", "p210le": "yuv422p10le", "p410le": "yuv444p10le", "y210le": "yuv422p10le",
    "xv30le": "yuv444p10le", "v30xle": "yuv444p10le", "vuyx": "yuv444p", "vuya": "yuv444p", "ayuv64le": "yuv444p16le",
    "rgb24": "gbrp", "bgr24": "gbrp", "rgb0": "gbrp", "bgr0": "gbrp", "0rgb": "gbrp", "0bgr": "gbrp",
    "rgba": "gbrp", "bgra": "gbrp", "argb": "gbrp", "abgr": "gbrp", "pal8": "gbrp",
    "rgb48le": "gbrp16le", "rgb48be": "gbrp16le", "bgr48le": "gbrp16le", "bgr48be": "gbrp16le", "rgba64le": "gbrp16le",
    "rgba64be": "gbrp16le", "bgra64le": "gbrp16le", "x2rgb10le": "gbrp10le", "x2bgr10le": "gbrp10le",
    "ya8": "gray", "ya16le": "gray16le", "monow": "gray", "monob": "gray",
    # Chroma with a quarter of the columns, once used by DV and Indeo: swscale enlarges it.
    "yuv411p": "yuv444p", "yuvj411p": "yuvj444p", "yuv410p": "yuv444p",
}  # fmt: skip

_PACKED: dict[str, tuple[str, tuple[tuple[int, int], ...]]] = {
    "rgb8": ("u1", ((5, 3), (2, 3), (0, 2))), "bgr8": ("u1", ((0, 3), (3, 3), (6, 2))),
    **{
        f"{name}{end}": (f"{order}u2", fields)
        for end, order in (("le", "<"), ("be", ">"))
        for name, fields in {
            "rgb444": ((8, 4), (4, 4), (0, 4)), "bgr444": ((0, 4), (4, 4), (8, 4)),
            "rgb555": ((10, 5), (5, 5), (0, 5)), "bgr555": ((0, 5), (5, 5), (10, 5)),
            "rgb565": ((11, 5), (5, 6), (0, 5)), "bgr565": ((0, 5), (5, 6), (11, 5)),
        }.items()
    },
}  # fmt: skip
"""R, G and B in one word each pixel: type of the word, then shift and bits of each. swscale only shifts them up, which makes
white 247; here the highest value is white."""


def layout_of(pix_fmt: str) -> Layout | None:
    """Layout of the planes of `pix_fmt`; None for a format that is not planar, is big-endian, or is unknown."""
    match = _PLANAR.fullmatch(pix_fmt)
    if match is None:
        return None
    bits = int(match["bits"] or 8)
    if match["chroma"]:
        return Layout("yuv", bits, *_SUBSAMPLING[match["chroma"]])
    return Layout("gray" if pix_fmt.startswith("gray") else "rgb", bits)


def readable_format(pix_fmt: str) -> str | None:
    """The planar format that holds the same picture as `pix_fmt`; None if there is none."""
    if layout_of(pix_fmt) is not None:
        return pix_fmt
    if pix_fmt in _REPACKED:
        return _REPACKED[pix_fmt]
    if pix_fmt in _PACKED:
        return "gbrp"
    little = f"{pix_fmt.removesuffix('be')}le"
    return little if pix_fmt.endswith("be") and layout_of(little) is not None else None


def is_full_range_format(pix_fmt: str) -> bool:
    """Whether the name of the format means full range, as for JPEG's formats; gray is full range unless a tag states
    otherwise."""
    return pix_fmt.startswith(("yuvj", "gray", "ya", "mono"))


def has_alpha(pix_fmt: str) -> bool:
    return pix_fmt.startswith(("yuva", "gbrap", "rgba", "bgra", "argb", "abgr", "ya8", "ya16", "vuya", "ayuv"))


def planes_of(frame: av.VideoFrame) -> tuple[list[Plane], Layout]:
    """Return the planes of a frame in the order of `colour` (R, G, B for RGB), without padding and without alpha.

    They are views of the frame's memory: keep the frame while they are used, and do not write.

    Raises:
        ValueError: for a pixel format that is not supported.
    """
    readable = readable_format(frame.format.name)
    if readable is None:
        raise ValueError(f"pixel format {frame.format.name}")
    if frame.format.name in _PACKED:
        return _unpacked(frame), Layout("rgb", 8)
    if readable != frame.format.name:
        frame = frame.reformat(format=readable)
    layout = layout_of(readable)
    assert layout is not None
    size = (frame.height, frame.width)
    planes = [_view(frame.planes[i], layout, layout.plane_size(i, size)) for i in range(layout.planes)]
    if layout.kind == "rgb":
        planes = [planes[2], planes[0], planes[1]]  # stored as G, B, R
    return planes, layout


def _unpacked(frame: av.VideoFrame) -> list[Plane]:
    """R, G and B of a picture with one word per pixel, widened to 8 bits and rounded."""
    kind, fields = _PACKED[frame.format.name]
    plane: Any = frame.planes[0]
    dtype = np.dtype(kind)
    words: NDArray[Any] = np.frombuffer(plane, dtype).reshape(frame.height, plane.line_size // dtype.itemsize)
    planes = []
    for shift, bits in fields:
        top = (1 << bits) - 1
        values = (words[:, : frame.width].astype(np.uint16) >> shift) & top
        planes.append(((values * 255 + top // 2) // top).astype(np.uint8))
    return planes


def _view(plane: Any, layout: Layout, size: tuple[int, int]) -> Plane:
    words = np.frombuffer(plane, layout.dtype)
    stride = plane.line_size // layout.dtype.itemsize
    return words[: size[0] * stride].reshape(size[0], stride)[:, : size[1]]


def frame_of(planes: list[Plane], pix_fmt: str, *, pts: int, time_base: Fraction) -> av.VideoFrame:
    """Make a frame of `pix_fmt` from planes like those of `planes_of`."""
    layout = layout_of(pix_fmt)
    assert layout is not None
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    if layout.kind == "rgb":
        planes = [planes[1], planes[2], planes[0]]
    target: Any  # its `update` takes any buffer, its type says bytes
    for target, source in zip(frame.planes, planes, strict=True):
        stride = target.line_size // layout.dtype.itemsize
        if stride == source.shape[1] and source.flags.c_contiguous:
            target.update(source)
            continue
        padded: NDArray[Any] = np.zeros((source.shape[0], stride), layout.dtype)
        padded[:, : source.shape[1]] = source
        target.update(padded)
    frame.pts = pts
    frame.time_base = time_base
    return frame


def checksum(planes: list[Plane]) -> int:
    """CRC-32 of the samples of all planes, which shows whether two decodes of a frame are equal bit for bit."""
    value = 0
    for plane in planes:
        value = zlib.crc32(np.ascontiguousarray(plane).data, value)
    return value


def fraction(value: Any) -> Fraction | None:
    """Convert a rational of PyAV 18 (Fraction or None) or 19 (AVRational, 0/0 for unknown) to a Fraction; None if unknown."""
    if not value:
        return None
    numerator = getattr(value, "numerator", None)
    if numerator is None:
        numerator, denominator = value.num, value.den
    else:
        denominator = value.denominator
    return Fraction(int(numerator), int(denominator)) if denominator and numerator else None
