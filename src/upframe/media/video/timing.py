"""The exact timestamps of a video's frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from upframe.media.video.clock import Clock


class Timing(Protocol):
    """Exact timestamps of a video's frames, as in `FrameIndex` and `FrameTimes`."""

    @property
    def time_base(self) -> Fraction: ...
    @property
    def pts(self) -> NDArray[np.int64]: ...
    @property
    def durations(self) -> NDArray[np.int64]: ...
    @property
    def clock(self) -> Clock:
        """Moves the packets of the other tracks to the same time line."""
        ...


@dataclass(frozen=True)
class FrameTimes:
    """Timestamps of frames that no file states like this: of a folder, or with new frames in between."""

    time_base: Fraction
    pts: NDArray[np.int64]
    durations: NDArray[np.int64]
    clock: Clock = field(default_factory=Clock)
