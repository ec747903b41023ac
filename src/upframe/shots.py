"""Scene cuts: where one shot ends and the next begins, so that no network mixes pictures of two shots.

A cut is a jump between two neighbouring frames that stands out from the motion around it. Fades, flashes and fast pans
are not cuts: a fade has no jump, a pan jumps at every frame, and a flash is followed by the picture that preceded it.
Thresholds are on luma differences of small pictures, so noise and compression hardly count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = (36, 64)  # (height, width): coarse enough for noise to average out, fine enough for a face to count
CUT_JUMP = 0.08  # mean absolute luma difference, of 1, that a cut has at least
CUT_RATIO = 3.0  # how far a cut stands out from the median jump of the frames around it
NEIGHBOURS = 4  # frames on each side that make the surroundings
FLASH_FRAMES = 3  # a picture that is back within so many frames was only interrupted


def thumbnail(luma: NDArray[Any], white: float) -> NDArray[np.float32]:
    """(H, W) luma, of which `white` is the largest value, as a small picture in [0, 1] averaged over equal areas."""
    height, width = THUMBNAIL
    rows = np.linspace(0, luma.shape[0], height + 1).astype(int)
    columns = np.linspace(0, luma.shape[1], width + 1).astype(int)
    # Sums over blocks of unequal size need starts within the picture; tiny pictures repeat blocks instead.
    by_row = np.add.reduceat(luma.astype(np.float32), np.minimum(rows[:-1], luma.shape[0] - 1), 0)
    small = np.add.reduceat(by_row, np.minimum(columns[:-1], luma.shape[1] - 1), 1)
    area = np.maximum(np.diff(rows), 1)[:, None] * np.maximum(np.diff(columns), 1)
    return (small / (area * white)).astype(np.float32)


def find_cuts(thumbnails: Iterable[NDArray[np.float32]]) -> list[int]:
    """Indices of the frames that begin a new shot, ascending, without 0.

    Args:
        thumbnails: Of all frames in order, from `thumbnail`. Holds a few at a time.
    """
    return list(_cuts(thumbnails))


def _cuts(thumbnails: Iterable[NDArray[np.float32]]) -> Iterator[int]:
    jumps: list[float] = []  # jumps[i] lies between frames i and i + 1
    recent: dict[int, NDArray[np.float32]] = {}
    back: dict[int, float] = {}  # frame i: how far the nearest of the frames after it is from frame i - 1
    count = 0
    for count, small in enumerate(thumbnails, 1):
        index = count - 1
        recent[index] = small
        if index:
            jumps.append(_difference(recent[index - 1], small))
        for first in range(max(index - FLASH_FRAMES, 1), index):
            back[first] = min(back.get(first, np.inf), _difference(recent[first - 1], small))
        recent.pop(index - FLASH_FRAMES - 2, None)
    for index in range(1, count):
        jump = jumps[index - 1]
        around = jumps[max(index - 1 - NEIGHBOURS, 0) : index - 1] + jumps[index : index + NEIGHBOURS]
        usual = float(np.median(around)) if around else 0.0
        returns = back.get(index, np.inf) < jump / 2
        if jump >= CUT_JUMP and jump >= CUT_RATIO * usual and not returns and not _interrupted(jumps, back, index):
            yield index


def _interrupted(jumps: list[float], back: dict[int, float], index: int) -> bool:
    """Whether frame `index` only ends a flash that began a few frames before it."""
    return any(
        back.get(first, np.inf) < jumps[first - 1] / 2 and jumps[first - 1] >= CUT_JUMP
        for first in range(max(index - FLASH_FRAMES, 1), index)
    )


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).mean())
