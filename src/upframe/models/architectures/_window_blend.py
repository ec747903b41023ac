"""Cover a frame of any size with windows of a fixed side, and blend the results of the windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """Windows along one axis, from edge to edge."""

    starts: tuple[int, ...]
    """First pixel of each."""
    weights: Tensor
    """(count, side) weight of each window at each of its pixels, float64 on the CPU; over all windows they sum to 1 at
    every pixel of the axis."""


@lru_cache(maxsize=64)
def windows_along(length: int, side: int, overlap: int) -> Axis:
    """Cover `length` pixels with the fewest windows, each `side - overlap` after the previous one.

    The last lies at the end, so it may share more than `overlap` pixels with its neighbours. The fixed step keeps the
    windows of a tile on those of the whole picture, if the tile begins at a multiple of the step.

    Args:
        length: At least `side`.
        overlap: 0 to `side - 1`.
    """
    step = side - overlap
    starts = [min(start, length - side) for start in range(0, length - side + step, step)]
    pixel = torch.arange(side, dtype=torch.float64) + 0.5
    with torch.inference_mode(False):  # they are used by later calls that may need gradients
        weights = torch.ones(len(starts), side, dtype=torch.float64)
        for i, (start, following) in enumerate(pairwise(starts)):
            shared = max(start + side - following, 1)  # in the overlap, one window's weight falls and the other's rises
            weights[i] = weights[i].minimum((side - pixel) / shared)
            weights[i + 1] = weights[i + 1].minimum(pixel / shared)
        total = torch.zeros(length, dtype=torch.float64)
        for start, weight in zip(starts, weights, strict=True):
            total[start : start + side] += weight
        for start, weight in zip(starts, weights, strict=True):
            weight /= total[start : start + side]
    return Axis(tuple(starts), weights)


@dataclass(frozen=True)
class Windows:
    """Square windows over a frame.

    Raises:
        ValueError: the frame is smaller than a window, or windows overlap by as much as they are long.
    """

    size: tuple[int, int]
    """(height, width) of the frame; neither is below `side`."""
    side: int
    overlap: int
    """Pixels that neighbouring windows share at least."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.side:
            raise ValueError(f"windows of {self.side} px cannot overlap by {self.overlap} px")
        if min(self.size) < self.side:
            raise ValueError(f"a frame of {self.size[1]}x{self.size[0]} is smaller than a window of {self.side} px")

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Rows and columns."""
        return tuple(windows_along(length, self.side, self.overlap) for length in self.size)  # type: ignore[return-value]

    def blended(self, like: Tensor, make: Callable[[int, int], Tensor]) -> Tensor:
        """Call `make` for the window at (row, column), (..., side, side, C), and join the results with smooth transitions.

        Args:
            like: (..., H, W, C); the result has its shape, layout, dtype and device.
        """
        rows, columns = self.axes
        if len(rows.starts) == len(columns.starts) == 1:
            return make(0, 0)
        result = torch.zeros_like(like)
        for row, weight_y in zip(rows.starts, rows.weights, strict=True):
            for column, weight_x in zip(columns.starts, columns.weights, strict=True):
                weight = torch.outer(weight_y, weight_x).unsqueeze(-1).to(device=like.device, dtype=like.dtype)
                result[..., row : row + self.side, column : column + self.side, :] += make(row, column) * weight
        return result

    def blended_along(self, values: Tensor, axis: int) -> Tensor:
        """Spread `values` (..., side), which are the same for every window along an axis (0: rows, 1: columns), over the
        axis."""
        windows = self.axes[axis]
        result = values.new_zeros(*values.shape[:-1], self.size[axis])
        for start, weight in zip(windows.starts, windows.weights, strict=True):
            result[..., start : start + self.side] += values * weight.to(device=values.device, dtype=values.dtype)
        return result
