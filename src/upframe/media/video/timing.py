"""The exact timestamps of a video's frames."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Timing(Protocol):
    """Exact timestamps of a video's frames, as in `FrameIndex` and `folder.FolderTiming`."""

    @property
    def time_base(self) -> Fraction: ...
    @property
    def pts(self) -> NDArray[np.int64]: ...
    @property
    def durations(self) -> NDArray[np.int64]: ...
