"""The times of a video that gets a new frame in the middle between every two of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Timing(Protocol):
    """Times of frames, as an index of a video has them."""

    @property
    def time_base(self) -> Fraction: ...
    @property
    def pts(self) -> NDArray[np.int64]: ...
    @property
    def durations(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Doubled:
    """Times of the old and the new frames in turn, in ticks of half the old length, so that every middle is exact."""

    time_base: Fraction
    pts: NDArray[np.int64]
    durations: NDArray[np.int64]


def doubled(timing: Timing, chosen: range) -> tuple[Doubled, range]:
    """The times of a video's old and new frames, and which of them stand for the `chosen` old ones.

    The new frame after the last one, which has nothing to lead to, comes where half of its time is over: a video of a
    constant rate keeps one, and ends when it did.
    """
    pts = np.empty(2 * len(timing.pts), np.int64)
    pts[0::2] = 2 * timing.pts
    pts[1::2] = 2 * timing.pts + timing.durations
    ends = 2 * (timing.pts + timing.durations)
    durations = np.empty_like(pts)
    durations[0::2] = timing.durations
    durations[1::2] = ends - pts[1::2]
    return Doubled(timing.time_base / 2, pts, durations), range(2 * chosen.start, 2 * chosen.stop)
