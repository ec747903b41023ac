"""PSNR and SSIM of a picture against the true one, each with its convention and its paper.

Both are computed in float64. Pictures are arrays (H, W) or (H, W, C), or tensors (C, H, W) or (N, C, H, W); the score of a
batch is the mean over its pictures. White is 255 for uint8, 65535 for uint16 and 1.0 for floats unless `peak` sets another
value: upframe never guesses the range from the values.

Correctness: equal to reference values of PSNR and SSIM on RGB, Y and gray, with and without border, to 1e-6 (dB and SSIM).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upframe import pixels

Picture = NDArray[Any] | Tensor
"""An array (H, W) or (H, W, C), or a tensor (C, H, W) or (N, C, H, W)."""

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03
"""Wang et al. 2004, §III.C: an 11×11 circular-symmetric Gaussian of σ 1.5, K1 = 0.01, K2 = 0.03."""


def psnr(a: Picture, b: Picture, *, peak: float | None = None, crop_border: int = 0, luma: bool = False) -> float:
    """Return the peak signal-to-noise ratio in dB over all pixels and channels together; infinite for identical pictures.

    Args:
        peak: Code value of white; by default that of the dtype.
        crop_border: Excluded pixels along every edge.
        luma: Compare the unrounded BT.601 studio Y of RGB pictures instead of their channels.

    Raises:
        ValueError: if shapes or dtypes differ, the border leaves nothing, or `luma` is set and there are not 3 channels.
    """
    x, y = prepare(a, b, peak=peak, crop_border=crop_border, luma=luma)
    errors = (x - y).square_().mean(dim=(1, 2, 3)).tolist()
    return math.fsum(math.inf if mse == 0 else -10 * math.log10(mse) for mse in errors) / len(errors)


def ssim(a: Picture, b: Picture, *, peak: float | None = None, crop_border: int = 0, luma: bool = False) -> float:
    """Return the structural similarity, at most 1: the mean over channels of single-scale SSIM where its whole window fits.

    Args and errors are those of `psnr`; after the border is cut, both sides must be 11 pixels or more.
    """
    x, y = prepare(a, b, peak=peak, crop_border=crop_border, luma=luma)
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs {SSIM_WINDOW} pixels a side, found {x.shape[-2]}x{x.shape[-1]} inside the border")
    c1, c2 = SSIM_K1**2, SSIM_K2**2  # the dynamic range L is 1 here
    mean_x, mean_y = _gaussian(x), _gaussian(y)
    variance_x = _gaussian(x * x) - mean_x**2
    variance_y = _gaussian(y * y) - mean_y**2
    covariance = _gaussian(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return float(similarity.mean())


def prepare(a: Picture, b: Picture, *, peak: float | None, crop_border: int, luma: bool) -> tuple[Tensor, Tensor]:
    """Return both pictures as float64 (N, C, H, W) with white at 1, without the border, in the requested colour."""
    if isinstance(a, Tensor) != isinstance(b, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            f"pictures must agree in kind, shape and dtype, found {type(a).__name__} {tuple(a.shape)} {a.dtype} "
            f"and {type(b).__name__} {tuple(b.shape)} {b.dtype}"
        )
    white = peak if peak is not None else white_of(a)
    if not white > 0:
        raise ValueError(f"peak must be positive, found {white}")
    x, y = (planes(picture).div_(white) for picture in (a, b))
    height, width = x.shape[-2:]
    if not 0 <= 2 * crop_border < min(height, width):
        raise ValueError(f"a border of {crop_border} leaves nothing of {height}x{width} pixels")
    x, y = (p[..., crop_border : height - crop_border, crop_border : width - crop_border] for p in (x, y))
    if luma:
        if x.shape[1] != 3:
            raise ValueError(f"luma needs 3 channels, found {x.shape[1]}")
        x, y = pixels.rgb_to_y(x), pixels.rgb_to_y(y)
    return x, y


def white_of(picture: Picture) -> float:
    name = str(picture.dtype).removeprefix("torch.")
    if name in ("float16", "bfloat16", "float32", "float64"):
        return 1.0
    if name not in pixels.FULL_SCALE:
        raise ValueError(f"the value of white is not known for dtype {name}; pass peak")
    return pixels.FULL_SCALE[name]


def planes(picture: Picture) -> Tensor:
    """Return (N, C, H, W) float64 with the values of `picture`; never a view."""
    if isinstance(picture, Tensor):
        if picture.ndim not in (3, 4):
            raise ValueError(f"a tensor must be (C, H, W) or (N, C, H, W), found {tuple(picture.shape)}")
        planes = picture.detach().cpu().to(torch.float64, copy=True)
        return planes[None] if planes.ndim == 3 else planes
    if picture.ndim not in (2, 3):
        raise ValueError(f"an array must be (H, W) or (H, W, C), found {picture.shape}")
    rows = np.array(picture, dtype=np.float64)
    return torch.from_numpy(rows.reshape(*rows.shape[:2], -1)).permute(2, 0, 1)[None]


def _gaussian(x: Tensor) -> Tensor:
    """Smooth (N, C, H, W) by the SSIM window where the whole window fits: (N, C, H - 10, W - 10).

    The window is separable; adding shifted views is faster than float64 convolution, which torch does not optimise.
    """
    at = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-(at**2) / (2 * SSIM_SIGMA**2))
    taps = (weights / weights.sum()).tolist()
    for axis in (-2, -1):
        length = x.shape[axis] - SSIM_WINDOW + 1
        smooth = x.narrow(axis, 0, length) * taps[0]
        for tap in range(1, SSIM_WINDOW):
            smooth.add_(x.narrow(axis, tap, length), alpha=taps[tap])
        x = smooth
    return x
