"""Depth, range, luma, resizing and padding of pixels: pure functions on arrays and tensors.

Two rules hold here. The range of data is stated by its dtype and never guessed from its values. Bicubic resizing is
MATLAB's `imresize`, because every published super-resolution table was made with it; any other bicubic (PIL, OpenCV,
torch) moves PSNR by tenths of a dB.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upframe.errors import UsageError
from upframe.kernels import library

Kernel = Literal["cubic", "lanczos3"]

RESAMPLED_BYTES = 8 << 20  # of rows that are resampled at once: some fit into the caches of a processor, and a picture need not

FULL_SCALE: dict[str, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""Value of white for each dtype that a frame may have."""


# What is a frame ------------------------------------------------------------------------------------------------------
def check_frame(pixels: object, subject: str, *, channels: tuple[int, ...] = (1, 2, 3, 4)) -> None:
    """Refuse what has not the shape (H, W, C) or a dtype of a frame, and float pixels that are not finite.

    Args:
        subject: Name of the picture in the error.
        channels: Channels that are allowed.

    Raises:
        UsageError: for anything else; the message says what was found and expected.
    """
    expected = f"expected (H, W, C) of {', '.join(FULL_SCALE)}, C in {', '.join(map(str, channels))}"
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 3 or pixels.dtype.name not in FULL_SCALE:
        found = f"an array {pixels.shape} of {pixels.dtype}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise UsageError(subject, f"is {found}, {expected}", "convert it")
    if pixels.size == 0:
        raise UsageError(subject, f"is empty: an array {pixels.shape}")
    if pixels.shape[2] not in channels:
        first = pixels.shape[0] in channels
        advice = "it looks like channels first: write x.transpose(1, 2, 0)" if first else "choose the channels to enlarge"
        raise UsageError(subject, f"is an array {pixels.shape} with {pixels.shape[2]} channels, {expected}", advice)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise UsageError(subject, "holds values that are not finite (NaN or infinite)", "replace them first")


# Depth ----------------------------------------------------------------------------------------------------------------
def to_unit(pixels: NDArray[Any]) -> Tensor:
    """Convert (H, W, C) uint8, uint16 or float32 pixels to a float32 tensor (C, H, W) in [0, 1].

    Raises:
        TypeError: for any other dtype; the range of, say, int32 data would have to be guessed.
    """
    name = pixels.dtype.name
    if name not in FULL_SCALE:
        raise TypeError(f"pixels must be uint8, uint16 or float32, not {name}")
    array = np.ascontiguousarray(pixels)
    if name == "uint16":
        array = array.astype(np.float32)  # torch has few uint16 kernels
    unit = torch.from_numpy(array if array.flags.writeable else array.copy()).permute(2, 0, 1).to(torch.float32)
    return unit / FULL_SCALE[name] if name != "float32" else unit


def from_unit(unit: Tensor, dtype: np.dtype[Any] | type) -> NDArray[Any]:
    """Convert a tensor (C, H, W) in [0, 1] to (H, W, C) pixels of `dtype`, clipped and rounded to the nearest code value.

    float32 is neither clipped nor rounded.
    """
    kind = np.dtype(dtype)
    rows = unit.permute(1, 2, 0)
    if kind.name == "float32":
        return np.ascontiguousarray(rows.to(torch.float32).numpy())
    kernels = library()
    if kind.name == "uint8" and kernels is not None and unit.dtype == torch.float32 and unit.device.type == "cpu":
        made = np.empty(rows.shape, np.uint8)
        kernels.upframe_codes8(unit.data_ptr(), *unit.stride(), *unit.shape, made.ctypes.data)
        return made
    code = (rows.to(torch.float32) * FULL_SCALE[kind.name]).round_().clamp_(0, FULL_SCALE[kind.name])
    if kind.name == "uint8":
        return np.ascontiguousarray(code.to(torch.uint8).numpy())
    return np.ascontiguousarray(code.to(torch.int32).numpy().astype(np.uint16))


# Luma -----------------------------------------------------------------------------------------------------------------
def rgb_to_y(rgb: Tensor) -> Tensor:
    """BT.601 studio-range luma of RGB in [0, 1], (..., 3, H, W) → (..., 1, H, W) in [16/255, 235/255], unrounded.

    Source: ITU-R BT.601 as MATLAB's `rgb2ycbcr` scales it; the Y of every published SISR table.
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=rgb.dtype, device=rgb.device) / 255
    return (rgb * weights.view(3, 1, 1)).sum(-3, keepdim=True) + 16 / 255


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """BT.601 studio-range Y, Cb, Cr of RGB in [0, 1], (..., 3, H, W) → (..., 3, H, W), unrounded. Source: as `rgb_to_y`."""
    matrix = torch.tensor(
        [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], dtype=rgb.dtype, device=rgb.device
    )
    offset = torch.tensor([16.0, 128.0, 128.0], dtype=rgb.dtype, device=rgb.device)
    return (torch.einsum("oc,...chw->...ohw", matrix, rgb) + offset.view(3, 1, 1)) / 255


# Resizing -------------------------------------------------------------------------------------------------------------
def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, a = −0.5, as MATLAB uses it."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))


def _lanczos3(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


_SUPPORT: dict[str, float] = {"cubic": 4.0, "lanczos3": 6.0}  # kernel widths


@lru_cache(maxsize=64)
def resize_weights(
    n_in: int, n_out: int, scale: float, *, kernel: Kernel = "cubic", antialias: bool = True
) -> tuple[Tensor, Tensor]:
    """Compute the weights and source indices that resample one axis of `n_in` samples to `n_out`.

    Args:
        scale: Output samples per input sample; centres are aligned as in MATLAB. It need not be exactly n_out / n_in.
        antialias: Widen the kernel by 1/scale when shrinking.

    Returns:
        `weights` (n_out, taps) float64 with rows summing to 1, and `indices` (n_out, taps) int64 into the input,
        already mirrored (edge sample repeated) at the borders. Do not write into them: they are cached.
    """
    shrink = min(scale, 1.0) if antialias else 1.0
    width = _SUPPORT[kernel] / shrink
    centre = torch.arange(1, n_out + 1, dtype=torch.float64) / scale + 0.5 * (1 - 1 / scale)
    left = torch.floor(centre - width / 2)
    taps = left[:, None] + torch.arange(math.ceil(width) + 2, dtype=torch.float64)
    shape = _cubic if kernel == "cubic" else _lanczos3
    weights = shape((centre[:, None] - taps) * shrink)
    weights = weights / weights.sum(1, keepdim=True)
    mirror = torch.cat([torch.arange(n_in), torch.arange(n_in - 1, -1, -1)])
    indices = mirror[(taps.long() - 1) % (2 * n_in)]
    used = weights.abs().amax(0) > 0
    return weights[:, used].contiguous(), indices[:, used].contiguous()


def _resize_axis(x: Tensor, axis: int, weights: Tensor, indices: Tensor) -> Tensor:
    """Resample `axis` of `x`, one tap at a time, so that memory is two outputs for any kernel width."""
    shape = [1] * x.ndim
    shape[axis] = -1
    out: Tensor | None = None
    for tap in range(weights.shape[1]):
        term = x.index_select(axis, indices[:, tap].to(x.device)).mul_(weights[:, tap].to(x).view(shape))
        out = term if out is None else out.add_(term)
    assert out is not None
    return out


def imresize(x: Tensor, scale: float, *, antialias: bool = True) -> Tensor:
    """MATLAB `imresize(x, scale, 'bicubic')` on float data (..., H, W), without rounding between its two passes.

    The output is ceil(H * scale) × ceil(W * scale). Compute in float64 for reference work.
    """
    h, w = x.shape[-2:]
    # 1e-9: 1/3 as a decimal must not turn 99/3 into 34.
    out_h, out_w = math.ceil(h * scale - 1e-9), math.ceil(w * scale - 1e-9)
    x = _resize_axis(x, x.ndim - 2, *resize_weights(h, out_h, scale, antialias=antialias))
    return _resize_axis(x, x.ndim - 1, *resize_weights(w, out_w, scale, antialias=antialias))


def resize(x: Tensor, size: tuple[int, int], *, kernel: Kernel = "cubic") -> Tensor:
    """Resample (..., H, W) to exactly `size` (height, width), with antialiasing when shrinking."""
    h, w = x.shape[-2:]
    x = _resize_axis(x, x.ndim - 2, *resize_weights(h, size[0], size[0] / h, kernel=kernel))
    return _resize_axis(x, x.ndim - 1, *resize_weights(w, size[1], size[1] / w, kernel=kernel))


def resize_bands(bands: Iterable[Tensor], size_in: tuple[int, int], size_out: tuple[int, int]) -> Iterator[Tensor]:
    """Yield `resize(..., kernel="lanczos3")` of a picture that arrives as row bands (C, rows, W), in row bands too.

    Only the rows that the kernel still needs are held, and no more are resampled at once than `rows_at_once` allows: memory
    grows neither with the height of the pictures nor with that of the bands.
    """
    (h_in, w_in), (h_out, w_out) = size_in, size_out
    weights_x, indices_x = resize_weights(w_in, w_out, w_out / w_in, kernel="lanczos3")
    weights_y, indices_y = resize_weights(h_in, h_out, h_out / h_in, kernel="lanczos3")
    first, last = indices_y.amin(1).tolist(), indices_y.amax(1).tolist()
    # Rows are emitted top to bottom, and no later row reads above the running minimum, taken from the end.
    needed_from = list(first)
    for i in range(h_out - 2, -1, -1):
        needed_from[i] = min(needed_from[i], needed_from[i + 1])
    most = rows_at_once(w_out)
    held: Tensor | None = None
    top, done = 0, 0
    for part in (part for band in bands for part in torch.split(band, most, dim=1)):
        wide = _resize_axis(part, 2, weights_x, indices_x)
        held = wide if held is None else torch.cat([held, wide], dim=1)
        ready = done
        while ready < h_out and last[ready] < top + held.shape[1]:
            ready += 1
        for at in range(done, ready, most):
            end = min(at + most, ready)
            yield _resize_axis(held, 1, weights_y[at:end], indices_y[at:end] - top)
        if ready > done:
            done = ready
            keep = needed_from[done] if done < h_out else h_in
            held, top = held[:, max(keep - top, 0) :].clone(), max(keep, top)
    if done != h_out:
        raise ValueError(f"bands held {top + (0 if held is None else held.shape[1])} rows, expected {h_in}")


def rows_at_once(width: int) -> int:
    """Number of rows of `width` pixels, three channels in float32, that are resampled at once."""
    return max(1, RESAMPLED_BYTES // (12 * width))


def matlab_bicubic_8bit(pixels: Tensor, scale: int) -> Tensor:
    """MATLAB `imresize(x, 1/scale, 'bicubic')` of 8-bit data (..., H, W): rounded to integers after *each* pass.

    Args:
        pixels: Code values 0–255; both sides divisible by `scale` (crop with `crop_to_multiple`). float32 is computed in
            float32, every other dtype in float64; both give the same integers.

    Returns:
        uint8 (..., H/scale, W/scale). It reproduces published bicubic test sets bit for bit.
    """
    h, w = pixels.shape[-2:]
    if h % scale or w % scale:
        raise ValueError(f"size {h}x{w} is not a multiple of {scale}")
    x = pixels if pixels.dtype == torch.float32 else pixels.to(torch.float64)
    x = _round_half_up(_resize_axis(x, x.ndim - 2, *resize_weights(h, h // scale, 1 / scale)))
    x = _round_half_up(_resize_axis(x, x.ndim - 1, *resize_weights(w, w // scale, 1 / scale)))
    return x.to(torch.uint8)


def _round_half_up(x: Tensor) -> Tensor:
    # MATLAB rounds halves away from zero, torch.round to even. The small addend makes sums that are exact halves on paper, such
    # as 127.49999999999999, round up for any order of summation. It is safe because the sums are multiples of 1/(2·(2s)³·s),
    # which is 1/4096 at s = 4: no other value comes closer to a half than 2e-4.
    tie = 1e-9 if x.dtype == torch.float64 else 1e-4
    return torch.floor(x + (0.5 + tie)).clamp_(0, 255)


def crop_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Crop (..., H, W) to its top-left part whose sides are multiples of `multiple`."""
    h, w = x.shape[-2:]
    return x[..., : h - h % multiple, : w - w % multiple]


# Padding --------------------------------------------------------------------------------------------------------------
def mirror_pad(x: Tensor, *, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> Tensor:
    """Extend (..., H, W) by any amount by mirroring without repeating the edge (reflect-101), even for 1-pixel sides."""
    return _mirror_axis(_mirror_axis(x, -2, top, bottom), -1, left, right)


def _mirror_axis(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    if before == after == 0:
        return x
    n = x.shape[axis]
    if n == 1:
        index = torch.zeros(before + 1 + after, dtype=torch.long)
    else:
        phase = torch.arange(-before, n + after) % (2 * n - 2)
        index = torch.where(phase < n, phase, 2 * n - 2 - phase)
    return x.index_select(axis, index.to(x.device))
