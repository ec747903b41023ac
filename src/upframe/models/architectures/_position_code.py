"""The 3-D position code of VSR-Transformer (paper, §3.1), in the variant of the article and in that of the released code."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from upframe.models.architectures._vsrt_constants import sines_per_axis
from upframe.models.architectures._window_blend import Windows

PositionCode = Literal["code", "paper", "none"]
Summands = tuple[Tensor, ...]


class _Frequencies(nn.Module):
    """Holds a constant of published files that nothing reads."""

    inv_freq: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", frequencies(sines_per_axis(frames)).float())


class PositionEncoding(nn.Module):
    """Sines and cosines of each value's position on three axes, added to features.

    Args:
        frames: Number of frames that the network is trained with.
        variant: "code" as released: each frame has the sines of one frequency on one of the axes channel, row and column; the
            first third of the frames uses the channel axis, and so on. Further frames repeat this list. "paper": each channel
            has the sines of one frequency on one of the axes frame, row and column, a third of the channels for each (with
            10000 where a misprint says 1000). "none": nothing is added.

    Raises:
        ValueError: there is no such variant.
    """

    def __init__(self, *, frames: int, variant: PositionCode) -> None:
        super().__init__()
        if variant not in get_args(PositionCode):
            raise ValueError(f"there is no position code {variant}, only {', '.join(get_args(PositionCode))}")
        self.frames, self.variant = frames, variant
        self.penc = _Frequencies(frames)

    def forward(self, t: int, channels: int, windows: Windows, dtype: torch.dtype, device: torch.device) -> Summands:
        """The code as three summands to be broadcast over each other, of (T, C, H, W), or none."""
        if self.variant == "none":
            return ()
        if self.variant == "code":
            return _code_by_frame(t, channels, windows, self.frames, dtype, device)
        return _code_by_channel(t, channels, windows, dtype, device)


def frequencies(sines: int) -> Tensor:
    return 10000.0 ** (-torch.arange(0, sines, 2, dtype=torch.float64) / sines)


def _waves(sines: int, length: int) -> Tensor:
    """(2, sines / 2, length) sines and cosines of 0 to `length - 1`."""
    angle = torch.arange(length, dtype=torch.float64) * frequencies(sines)[:, None]
    return torch.stack([angle.sin(), angle.cos()])


def _waves_along(sines: int, windows: Windows, axis: int) -> Tensor:
    """Like `_waves`, along the rows (0) or columns (1) of a frame.

    Waves shorter than a window continue through the frame: in training, the network met each of their phases at each position,
    and mixing their restarts in two windows would cancel them. The other waves restart in every window.
    """
    through = _waves(sines, windows.size[axis])
    anew = windows.blended_along(_waves(sines, windows.side), axis)
    short = frequencies(sines)[:, None] * windows.side >= 2 * math.pi
    return torch.where(short, through, anew)


@lru_cache(maxsize=8)
def _code_by_frame(t: int, channels: int, windows: Windows, frames: int, dtype: torch.dtype, device: torch.device) -> Summands:
    """(T, C, 1, 1), (T, 1, H, 1) and (T, 1, 1, W): sines along one axis, zero in the frames of the other two."""
    sines = sines_per_axis(frames)
    with torch.inference_mode(False):  # they are used by later calls that may need gradients
        waves = (_waves(sines, channels), _waves_along(sines, windows, 0), _waves_along(sines, windows, 1))
        tables = [_third(axis, waves[axis].flatten(0, 1))[torch.arange(t) % (3 * sines)] for axis in range(3)]
        whole, rows, columns = (table.to(device=device, dtype=dtype) for table in tables)
        return whole[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :]


@lru_cache(maxsize=8)
def _code_by_channel(t: int, channels: int, windows: Windows, dtype: torch.dtype, device: torch.device) -> Summands:
    """(T, C, 1, 1), (1, C, H, 1) and (1, C, 1, W): sines along one axis, zero in the channels of the other two."""
    sines = sines_per_axis(channels)
    with torch.inference_mode(False):
        waves = (_waves(sines, t), _waves_along(sines, windows, 0), _waves_along(sines, windows, 1))
        tables = [_third(axis, waves[axis].transpose(0, 1).flatten(0, 1))[:channels] for axis in range(3)]
        whole, rows, columns = (table.to(device=device, dtype=dtype) for table in tables)
        return whole.T[:, :, None, None], rows[None, :, :, None], columns[None, :, None, :]


def _third(axis: int, waves: Tensor) -> Tensor:
    """(sines, length) as one of three such blocks of which the others are zero: (3 · sines, length)."""
    table = waves.new_zeros(3, *waves.shape)
    table[axis] = waves
    return table.flatten(0, 1)
