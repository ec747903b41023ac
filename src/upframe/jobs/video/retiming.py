"""Timestamps of a video that gets a new frame midway between every two of its frames."""

from __future__ import annotations

import numpy as np

from upframe.media.video.files import FrameTimes, Timing


def made_timing(timing: Timing, chosen: range, *, is_doubled: bool) -> tuple[Timing, range]:
    """Timestamps of the output's frames, and the range that stands for the `chosen` frames of the input."""
    return doubled(timing, chosen) if is_doubled else (timing, chosen)


def doubled(timing: Timing, chosen: range) -> tuple[FrameTimes, range]:
    """Compute the timestamps of a video's old and new frames, and the range that stands for the `chosen` old ones.

    The tick is half as long, so that every midpoint is exact.
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
    return FrameTimes(timing.time_base / 2, pts, durations, timing.clock), range(2 * chosen.start, 2 * chosen.stop)
