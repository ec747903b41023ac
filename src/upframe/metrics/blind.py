"""Measures of a picture without a reference: how noisy it is, and how much JPEG's blocks show.

They help to choose a model and are no scores: noise is measured 15 % too low, texture counts a little as noise, and a picture
that was resized after JPEG shows no blocks on a grid.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELL = 16
"""Side of the cells whose calmest ones show the noise."""
_CALM = 0.1
"""Share of cells that are taken as calm."""
_BLOCK = 8  # of JPEG, ITU-T T.81, A.1.1, and of most codecs


def noise_sigma(luma: NDArray[Any]) -> float:
    """Standard deviation of white noise in a picture, on its own scale.

    The mask of J. Immerkær, "Fast noise variance estimation", Computer Vision and Image Understanding 64 (1996), cancels
    planes; its mean is taken in the calmest cells, so that edges and texture count little.

    Args:
        luma: (H, W) of at least 18 x 18; smaller ones give 0.
    """
    y = np.asarray(luma, np.float64)
    if min(y.shape) < _CELL + 2:
        return 0.0
    rows = y[:-2] - 2 * y[1:-1] + y[2:]
    detail = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
    height, width = (side // _CELL * _CELL for side in detail.shape)
    cells = detail[:height, :width].reshape(height // _CELL, _CELL, width // _CELL, _CELL).mean(axis=(1, 3))
    calm = np.sort(cells.ravel())[: max(round(cells.size * _CALM), 1)]
    # For white noise of deviation s the mask has deviation 6 s, and the mean of its absolute value is sqrt(2 / pi) of that.
    return float(calm.mean() * math.sqrt(math.pi / 2) / 6)


def blockiness(luma: NDArray[Any]) -> float:
    """How much larger steps between pixels are at the borders of blocks than inside them: about 1 without blocks.

    The grid may begin anywhere, as in a picture that was cropped; rows and columns are looked at alike.

    Args:
        luma: (H, W) of at least 32 x 32; smaller ones give 1.
    """
    y = np.asarray(luma, np.float64)
    if min(y.shape) < 4 * _BLOCK:
        return 1.0
    return max(_steps(y), _steps(y.T))


def _steps(y: NDArray[np.float64]) -> float:
    """Compare steps between columns with those beside them, which cancels what the picture itself does."""
    steps = np.abs(np.diff(y, axis=1)).mean(axis=0)
    inner = (steps[:-2] + steps[2:]) / 2
    excess = steps[1:-1] - inner
    phases = [excess[phase::_BLOCK].mean() for phase in range(_BLOCK)]
    usual = float(np.median(phases))
    return float(1 + max(max(phases) - usual, 0.0) / max(float(steps.mean()), 1e-3))
