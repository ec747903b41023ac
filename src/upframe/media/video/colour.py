"""Convert the planes of a video frame between Y'CbCr and R'G'B' at 16 bits.

swscale is not used: its 16-bit RGB is scaled by 256/257 for limited range, and its default flags lose white. The
formulas are those of ITU-R BT.601-7, BT.709-6 and BT.2020-2 (non-constant luminance), H.273 for their numbers.

Chroma is resampled with biorthogonal pairs of filters: enlarging and then reducing returns the same samples exactly, so a
picture that is only decoded and encoded keeps its chroma.

- Cosited samples (4:2:0 and 4:2:2 across): linear interpolation, and the low-pass of the LeGall 5/3 wavelet
  [-1 2 6 2 -1]/8 down (LeGall and Tabatabai, ICASSP 1988).
- Samples midway between two (4:2:0 down the picture): the mean of the two, and average interpolation
  [-1 8 1]/8, [1 8 -1]/8 up, which keeps that mean and follows a parabola (the CDF 1,3 wavelet; Cohen, Daubechies and
  Feauveau, 1992).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upframe.kernels import best

Plane = NDArray[Any]
"""(H, W) code values, uint8 or uint16; the value sits in the low bits."""
Rgb = NDArray[np.uint16]
"""(H, W, 3), full range: 65535 is white."""

WEIGHTS: dict[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC 73.682
    5: (0.299, 0.114),  # BT.470 B, G
    6: (0.299, 0.114),  # BT.601
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
}
"""Kr and Kb by MatrixCoefficients (H.273, table 4)."""

_WHITE = 65535.0
_BAND_ROWS = 32
"""Rows per step: a step's floats stay in the cache, which is twice as fast as whole planes."""

Siting = Literal["left", "centre"]


@dataclass(frozen=True)
class Layout:
    """Layout of the samples of a planar pixel format."""

    kind: Literal["yuv", "rgb", "gray"]
    bits: int
    """Bits per sample; 8 is stored in bytes, more in 16-bit words."""
    across: int = 1
    """Luma columns per chroma column, 1 or 2."""
    down: int = 1
    """Luma rows per chroma row, 1 or 2."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if self.bits == 8 else "<u2")

    @property
    def planes(self) -> int:
        return 1 if self.kind == "gray" else 3

    def plane_size(self, plane: int, size: tuple[int, int]) -> tuple[int, int]:
        """Compute (height, width) of a plane of a picture of `size`."""
        if plane == 0 or self.kind != "yuv":
            return size
        return -(-size[0] // self.down), -(-size[1] // self.across)


@dataclass(frozen=True)
class Coding:
    """Meaning of Y'CbCr code values."""

    matrix: int
    """A key of `WEIGHTS`."""
    is_full_range: bool = False
    siting: Siting = "left"
    """Where 4:2:x chroma sits across the picture: on the even columns (MPEG-2 and later) or between two (MPEG-1, JPEG)."""

    def scales(self, bits: int) -> tuple[float, float, float, float]:
        """Black, white minus black, chroma zero and chroma span, in code values (BT.2100-2, table 9)."""
        if self.is_full_range:
            top = float((1 << bits) - 1)
            return 0.0, top, float(1 << (bits - 1)), top
        unit = float(1 << (bits - 8))
        return 16 * unit, 219 * unit, 128 * unit, 224 * unit


def to_rgb(planes: list[Plane], layout: Layout, coding: Coding) -> Rgb:
    """Convert planes to R'G'B'.

    Args:
        planes: Y, Cb, Cr; or R, G, B; or gray.
        layout: Their format.
        coding: Meaning of the code values; ignored for "rgb", which is always full range.

    Returns:
        (H, W, 3) uint16, full range; values outside are clipped. Gray has equal values in all three channels.
    """
    height, width = planes[0].shape
    out = np.empty((height, width, 3), np.uint16)
    if layout.kind == "rgb":
        for channel, plane in enumerate(planes):
            out[..., channel] = _widened(plane, layout.bits)
        return out
    black, span, zero, chroma_span = coding.scales(layout.bits)
    if layout.kind == "gray":
        if coding.is_full_range:
            out[:] = _widened(planes[0], layout.bits)[..., None]
            return out
        for rows in _bands(height):
            out[rows] = _rounded((planes[0][rows].astype(np.float32) - black) * np.float32(_WHITE / span))[..., None]
        return out
    kr, kb = WEIGHTS[coding.matrix]
    kg = 1 - kr - kb
    unit = np.float32(_WHITE / chroma_span)
    cb, cr = (_enlarged((p.astype(np.float32) - zero) * unit, layout, coding.siting, (height, width)) for p in planes[1:])
    for rows in _bands(height):
        y = planes[0][rows].astype(np.float32)
        y -= black
        y *= np.float32(_WHITE / span)
        b, r = cb[rows], cr[rows]
        out[rows, :, 0] = _rounded(y + np.float32(2 * (1 - kr)) * r)
        out[rows, :, 2] = _rounded(y + np.float32(2 * (1 - kb)) * b)
        y -= np.float32(2 * (1 - kb) * kb / kg) * b
        y -= np.float32(2 * (1 - kr) * kr / kg) * r
        out[rows, :, 1] = _rounded(y)
    return out


def from_rgb(rgb: Rgb, layout: Layout, coding: Coding) -> list[Plane]:
    """Convert (H, W, 3) uint16 full-range R'G'B' to planes, rounded to `layout`; the inverse of `to_rgb`."""
    if layout.kind == "rgb":
        return [_narrowed(rgb[..., channel], layout) for channel in range(3)]
    if layout.kind == "yuv" and best() is not None:
        return _from_rgb_by_kernel(rgb, layout, coding)
    return _from_rgb_in_numpy(rgb, layout, coding)


def _from_rgb_by_kernel(rgb: Rgb, layout: Layout, coding: Coding) -> list[Plane]:
    """The same result as `_from_rgb_in_numpy`, bit for bit, in a tenth of the time."""
    found = best()
    assert found is not None
    rgb = np.ascontiguousarray(rgb)
    height, width = rgb.shape[:2]
    black, span, zero, chroma_span = coding.scales(layout.bits)
    kr, kb = WEIGHTS[coding.matrix]
    scales = (chroma_span / (2 * (1 - weight) * _WHITE) for weight in (kb, kr))
    top = (1 << layout.bits) - 1
    numbers = np.array([kr, 1 - kr - kb, kb, span / _WHITE, black + 0.5, *scales, zero + 0.5, top], np.float32)
    planes: list[Plane] = [np.empty(layout.plane_size(i, (height, width)), layout.dtype) for i in range(3)]
    across = 0 if layout.across == 1 else 1 if coding.siting == "left" else 2
    if found.upframe_from_rgb16(
        *(rgb.ctypes.data, *(plane.ctypes.data for plane in planes), height, width),
        *(layout.bits == 8, across, layout.down == 2, numbers.ctypes.data),
    ):
        raise MemoryError("converting a frame")
    return planes


def _from_rgb_in_numpy(rgb: Rgb, layout: Layout, coding: Coding) -> list[Plane]:
    height, width = rgb.shape[:2]
    black, span, zero, chroma_span = coding.scales(layout.bits)
    kr, kb = WEIGHTS[coding.matrix]
    top = (1 << layout.bits) - 1
    luma = np.empty((height, width), layout.dtype)
    with_chroma = layout.kind == "yuv"
    cb, cr = (np.empty((height, width) if with_chroma else (0, 0), np.float32) for _ in range(2))
    for rows in _bands(height):
        r, g, b = (rgb[rows, :, channel].astype(np.float32) for channel in range(3))
        g *= np.float32(1 - kr - kb)
        g += np.float32(kr) * r
        g += np.float32(kb) * b
        if with_chroma:
            np.subtract(b, g, out=cb[rows])
            np.subtract(r, g, out=cr[rows])
        g *= np.float32(span / _WHITE)
        g += np.float32(black + 0.5)
        luma[rows] = np.minimum(g, top)  # never below zero; the cast truncates
    if not with_chroma:
        return [luma]
    planes = [luma]
    for plane, weight in ((cb, kb), (cr, kr)):
        small = _reduced(plane, layout, coding.siting)
        small *= np.float32(chroma_span / (2 * (1 - weight) * _WHITE))
        small += np.float32(zero + 0.5)
        np.clip(small, 0, top, out=small)
        planes.append(small.astype(layout.dtype))
    return planes


def _bands(height: int) -> list[slice]:
    return [slice(start, start + _BAND_ROWS) for start in range(0, height, _BAND_ROWS)]


def _rounded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round half up and clip; changes `values`."""
    values += np.float32(0.5)
    np.clip(values, 0, _WHITE, out=values)
    return values.astype(np.uint16)


def _widened(plane: Plane, bits: int) -> NDArray[np.uint16]:
    """Convert full-range samples of `bits` to 16 bits, rounded; exact for 8 and 16."""
    if bits == 16:
        return plane.astype(np.uint16, copy=False)
    if bits == 8:
        return plane.astype(np.uint16) * np.uint16(257)
    top = (1 << bits) - 1
    table = ((np.arange(top + 1, dtype=np.uint64) * 65535 + top // 2) // top).astype(np.uint16)
    return table[np.minimum(plane, top)]


def _narrowed(samples: NDArray[np.uint16], layout: Layout) -> Plane:
    """Convert 16-bit full-range samples to `layout.bits`, rounded; the inverse of `_widened`."""
    if layout.bits == 16:
        return np.ascontiguousarray(samples)
    top = (1 << layout.bits) - 1
    return ((samples.astype(np.uint32) * np.uint32(top) + np.uint32(32767)) // np.uint32(65535)).astype(layout.dtype)


# Chroma ---------------------------------------------------------------------------------------------------------------
def _enlarged(small: NDArray[np.float32], layout: Layout, siting: Siting, size: tuple[int, int]) -> NDArray[np.float32]:
    if layout.down == 2:
        small = _enlarged_midway(small, size[0])
    if layout.across == 2:
        small = _enlarged_cosited(small, size[1]) if siting == "left" else _enlarged_midway(small.T, size[1]).T
    return small


def _reduced(plane: NDArray[np.float32], layout: Layout, siting: Siting) -> NDArray[np.float32]:
    if layout.across == 2:
        plane = _reduced_cosited(plane) if siting == "left" else _reduced_midway(plane.T).T
    if layout.down == 2:
        plane = _reduced_midway(plane)
    return plane


def _enlarged_cosited(small: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Double the width: even columns are the samples, odd ones the mean of their neighbours; the last column is repeated."""
    out = np.empty((small.shape[0], width), np.float32)
    out[:, 0::2] = small
    between = width // 2
    odd = out[:, 1::2]
    odd[:] = small[:, :between]
    odd[:, : small.shape[1] - 1] += small[:, 1:]
    odd[:, : small.shape[1] - 1] *= np.float32(0.5)
    return out


def _reduced_cosited(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Invert `_enlarged_cosited` by two lifting steps: the part that even columns do not predict is added back."""
    even, odd = plane[:, 0::2], plane[:, 1::2]
    miss = odd - even[:, : odd.shape[1]]
    inner = even.shape[1] - 1
    miss[:, :inner] -= np.float32(0.5) * (even[:, 1:] - even[:, :inner])
    miss *= np.float32(0.25)
    small = even.copy()
    small[:, : miss.shape[1]] += miss
    small[:, 1:] += miss[:, :inner]
    # The column beyond the left edge mirrors the first odd one.
    small[:, : min(1, miss.shape[1])] += miss[:, :1]
    return small


def _enlarged_midway(small: NDArray[np.float32], height: int) -> NDArray[np.float32]:
    """Double the height: each sample becomes two rows with its value as mean, with the slope of its neighbours; edges are
    repeated."""
    tilt = np.zeros_like(small)
    tilt[1:] += small[:-1]
    tilt[:1] += small[:1]
    tilt[:-1] -= small[1:]
    tilt[-1:] -= small[-1:]
    tilt *= np.float32(0.125)
    out = np.empty((height, small.shape[1]), np.float32)
    pairs = height // 2
    np.add(small[:pairs], tilt[:pairs], out=out[0 : 2 * pairs : 2])
    np.subtract(small[:pairs], tilt[:pairs], out=out[1::2])
    out[2 * pairs :] = small[pairs:]  # an odd last row keeps its own sample
    return out


def _reduced_midway(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Invert `_enlarged_midway`: the mean of two rows; an odd last row is kept."""
    pairs = plane.shape[0] // 2
    small = np.empty((-(-plane.shape[0] // 2), plane.shape[1]), np.float32)
    np.add(plane[0 : 2 * pairs : 2], plane[1::2], out=small[:pairs])
    small[:pairs] *= np.float32(0.5)
    small[pairs:] = plane[2 * pairs :]
    return small
