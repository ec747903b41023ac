"""The exact times of a video's frames."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Timing(Protocol):
    """Exact times of the frames of a video: what `FrameIndex` and `frame_folder.FolderTiming` know."""

    @property
    def time_base(self) -> Fraction: ...
    @property
    def pts(self) -> NDArray[np.int64]: ...
    @property
    def durations(self) -> NDArray[np.int64]: ...
