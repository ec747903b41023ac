"""How pictures in other colours than sRGB look on an ordinary screen: for views, never for results.

HDR (PQ and HLG, ITU-R BT.2100-2) is brought to the white of SDR by the tone curve of ITU-R BT.2390-11, 5.4.1, whose knee leaves
shadows, skin and all below about half of white as they are. It is applied to the largest of R, G and B, so that hues stay. Wide
primaries (H.273, table 2) are converted to those of BT.709; colours outside are clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upframe.media.frames import Pixels

Light = NDArray[np.float32]
"""(..., 3), linear; 1 is the white of SDR."""

PQ, HLG, LINEAR = 16, 18, 8
"""Transfer characteristics of H.273, table 3."""
WHITE_NITS = 203.0
"""Of HDR: reference white by ITU-R BT.2408-7, which is shown as the white of SDR."""
USUAL_PEAK, MOST_PEAK = 1000.0, 10_000.0
_BAND_ROWS = 128
"""Rows per step: the floats stay small."""
_GAMMAS = {4: 2.2, 5: 2.8, LINEAR: 1.0}

# CIE x and y of red, green, blue and white.
_D65, _DCI = (0.3127, 0.3290), (0.314, 0.351)
_PRIMARIES = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),  # P3 of cinemas
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
}
_BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)


def peak(stated_nits: float) -> float:
    """The brightest light of a picture, from what its file states; 0 is nothing."""
    return min(max(stated_nits, WHITE_NITS), MOST_PEAK) if stated_nits > 0 else USUAL_PEAK


@dataclass(frozen=True)
class Colours:
    """Meaning of R'G'B' values, in numbers of H.273."""

    primaries: int
    transfer: int
    peak_nits: float = USUAL_PEAK
    """Of HDR: the brightest light in the picture."""

    @property
    def is_plain(self) -> bool:
        """Whether an ordinary screen shows the values as they are."""
        return self.transfer not in (PQ, HLG, LINEAR) and self.primaries not in _PRIMARIES


@dataclass(frozen=True)
class Picture:
    """Pixels to be shown, and their meaning."""

    pixels: Pixels
    profile: bytes | None = None
    """ICC profile, which browsers apply."""
    colours: Colours | None = None

    def shown(self, pixels: Pixels) -> Pixels:
        """These pixels, or others of the same meaning such as their enlargement, as sRGB of the same type; those with a profile
        or without tags stay as they are."""
        if self.colours is None or self.colours.is_plain or pixels.shape[2] < 3:
            return pixels
        out, most = pixels.copy(), 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
        for row in range(0, len(pixels), _BAND_ROWS):
            made = to_srgb(pixels[row : row + _BAND_ROWS, :, :3].astype(np.float32) / np.float32(most), self.colours) * most
            out[row : row + _BAND_ROWS, :, :3] = made if pixels.dtype.kind == "f" else np.round(made)
        return out


def to_srgb(rgb: NDArray[np.float32], colours: Colours) -> NDArray[np.float32]:
    """Values in [0, 1] as sRGB in [0, 1]."""
    light = _toned(_light_of(rgb, colours), colours)
    primaries = _PRIMARIES.get(colours.primaries)
    if primaries is not None:
        light = light @ (np.linalg.inv(_to_xyz(_BT709)) @ _adaptation(primaries) @ _to_xyz(primaries)).T.astype(np.float32)
    light = np.clip(light, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(encoded, np.float32)


def _light_of(rgb: NDArray[np.float32], colours: Colours) -> Light:
    if colours.transfer == PQ:
        return (_pq_nits(rgb) / WHITE_NITS).astype(np.float32)
    if colours.transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(rgb <= 0.5, rgb**2 / 3, (np.exp((rgb - c) / a) + b) / 12)
        luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        nits = USUAL_PEAK * np.maximum(luminance, 1e-6)[..., None] ** 0.2 * scene
        return np.asarray(nits / WHITE_NITS, np.float32)
    if colours.transfer in _GAMMAS:
        return np.asarray(rgb ** np.float32(_GAMMAS[colours.transfer]), np.float32)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _toned(light: Light, colours: Colours) -> Light:
    """HDR, with its highlights below the white of SDR."""
    peak = colours.peak_nits if colours.transfer == PQ else USUAL_PEAK
    if colours.transfer not in (PQ, HLG) or peak <= WHITE_NITS:
        return light
    largest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    top = _pq(np.array(peak))
    value, most = np.minimum(_pq(largest * WHITE_NITS) / top, 1), _pq(np.array(WHITE_NITS)) / top
    knee = 1.5 * most - 0.5
    t = (value - knee) / (1 - knee)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    made = _pq_nits(np.where(value < knee, value, curve) * top) / WHITE_NITS
    return np.asarray(light * (made / largest), np.float32)


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def _pq_nits(value: NDArray[Any]) -> NDArray[Any]:
    root = np.maximum(value, 0) ** (1 / _M2)
    made: NDArray[Any] = 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return made


def _pq(nits: NDArray[Any]) -> NDArray[Any]:
    power = (nits / 10_000) ** _M1
    made: NDArray[Any] = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return made


def _to_xyz(primaries: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """Matrix from linear RGB to XYZ, in which white has Y = 1."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def _adaptation(primaries: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """Matrix from XYZ under the white of the primaries to XYZ under D65 (Bradford)."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    here, there = (bradford @ np.array([x / y, 1, (1 - x - y) / y]) for x, y in (primaries[3], _D65))
    made: NDArray[np.float64] = np.linalg.inv(bradford) @ np.diag(there / here) @ bradford
    return made


def cube(colours: Colours, side: int = 49) -> str:
    """`to_srgb` as a table for FFmpeg's `lut3d`, in Adobe's .cube format."""
    steps = np.linspace(0, 1, side, dtype=np.float32)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # red varies fastest
    rows = to_srgb(np.stack([red, green, blue], -1).reshape(-1, 3), colours)
    return f"LUT_3D_SIZE {side}\n" + "".join(f"{r:.6f} {g:.6f} {b:.6f}\n" for r, g, b in rows.tolist())
