"""Timestamps of a video that gets a new frame midway between every two of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Timing(Protocol):
    """Timestamps of frames, as in the index of a video."""

    @property
    def time_base(self) -> Fraction: ...
    @property
    def pts(self) -> NDArray[np.int64]: ...
    @property
    def durations(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Doubled:
    """Timestamps of old and new frames alternately, in ticks of half the old length, so that every midpoint is exact."""

    time_base: Fraction
    pts: NDArray[np.int64]
    durations: NDArray[np.int64]


def doubled(timing: Timing, chosen: range) -> tuple[Doubled, range]:
    """Compute the timestamps of a video's old and new frames, and the range that stands for the `chosen` old ones.

    The new frame after the last old frame has no next frame. It comes when half of the old frame's duration is over: a video of
    constant rate keeps a constant rate, and its end does not move.
    """
    pts = np.empty(2 * len(timing.pts), np.int64)
    pts[0::2] = 2 * timing.pts
    pts[1::2] = 2 * timing.pts + timing.durations
    ends = 2 * (timing.pts + timing.durations)
    durations = np.empty_like(pts)
    durations[0::2] = timing.durations
    durations[1::2] = ends - pts[1::2]
    return Doubled(timing.time_base / 2, pts, durations), range(2 * chosen.start, 2 * chosen.stop)
