"""Find scene cuts, where one shot ends and the next begins, so that no network mixes pictures of two shots.

A cut is a jump between two neighbouring frames that stands out from the motion around it. Fades, flashes and fast pans
are not cuts: a fade has no jump, a pan jumps at every frame, and a flash is followed by the picture that preceded it.
Thresholds are on luma differences of small pictures, so noise and compression hardly count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = (36, 64)  # (height, width): coarse enough for noise to average out, fine enough for a face to count
CUT_JUMP = 0.08  # mean absolute luma difference, of 1, that a cut has at least
CUT_RATIO = 3.0  # least ratio of a cut's jump to the median jump of the frames around it
NEIGHBOURS = 4  # number of frames around a cut, on each side
FLASH_FRAMES = 3  # if the picture before a jump returns within so many frames, the jump is a flash


def thumbnail(luma: NDArray[Any], white: float) -> NDArray[np.float32]:
    """Reduce (H, W) luma with largest value `white` to a small picture in [0, 1], averaged over equal areas."""
    height, width = THUMBNAIL
    rows = np.linspace(0, luma.shape[0], height + 1).astype(int)
    columns = np.linspace(0, luma.shape[1], width + 1).astype(int)
    # Sums over blocks of unequal size need starts within the picture; tiny pictures repeat blocks instead.
    by_row = np.add.reduceat(luma.astype(np.float32), np.minimum(rows[:-1], luma.shape[0] - 1), 0)
    small = np.add.reduceat(by_row, np.minimum(columns[:-1], luma.shape[1] - 1), 1)
    area = np.maximum(np.diff(rows), 1)[:, None] * np.maximum(np.diff(columns), 1)
    return (small / (area * white)).astype(np.float32)


def find_cuts(thumbnails: Iterable[NDArray[np.float32]]) -> list[int]:
    """Find the frames that begin a new shot from `thumbnail`s of all frames in order: ascending indices, without 0."""
    finder = CutFinder()
    for small in thumbnails:
        finder.add(small)
    return finder.cuts()


class CutFinder:
    """Finds cuts while frames arrive; holds a few thumbnails and two numbers per frame."""

    def __init__(self) -> None:
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=FLASH_FRAMES + 2)
        self._jumps: list[float] = []  # [i]: between frames i and i + 1
        self._back: list[float] = []  # [i]: the least difference from frame i of the frames after i + 1
        self.count = 0

    def add(self, small: NDArray[np.float32]) -> None:
        """Take the thumbnail of the next frame."""
        if self.count:
            self._jumps.append(_difference(self._recent[-1], small))
            self._back.append(np.inf)
            for behind in range(2, len(self._recent) + 1):
                before = self.count - behind  # the frame before a possible flash
                self._back[before] = min(self._back[before], _difference(self._recent[-behind], small))
        self._recent.append(small)
        self.count += 1

    def cuts(self) -> list[int]:
        """Frames that begin a new shot, of those seen so far."""
        return [index for index in range(1, self.count) if self._is_cut(index)]

    def _is_cut(self, index: int) -> bool:
        jump = self._jumps[index - 1]
        if jump < CUT_JUMP or self._only_interrupts(index):
            return False
        around = self._jumps[max(index - 1 - NEIGHBOURS, 0) : index - 1] + self._jumps[index : index + NEIGHBOURS]
        if around and jump < CUT_RATIO * float(np.median(around)):
            return False
        return not any(self._only_interrupts(first) for first in range(max(index - FLASH_FRAMES, 1), index))

    def _only_interrupts(self, index: int) -> bool:
        """Whether a jump leads into a flash: the picture before the jump soon returns."""
        jump = self._jumps[index - 1]
        return jump >= CUT_JUMP and self._back[index - 1] < jump / 2


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).mean())
