"""Progress and notices of a video, reported as they arise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from upframe.errors import Cancelled, Notice
from upframe.media.ledger import Ledger
from upframe.models.spec import Precision

Stage = Literal["reading", "upscaling", "checking"]


@dataclass(frozen=True)
class VideoProgress:
    """Progress of a video."""

    stage: Stage
    """Reading counts, times and checks its frames; checking reads the joined output back."""
    frame: int
    """Frames done in this stage."""
    frames: int
    """Number of all frames; while reading, an inexact number from the header."""
    frames_per_s: float
    """Speed of this stage in this run; frames of an interrupted run do not count."""


@dataclass(frozen=True)
class VideoReport:
    """Figures of a finished video."""

    frames: int
    resumed: int
    """Frames that an interrupted run had finished."""
    segments: int
    seconds: float
    engine: str
    """A name of `engines.ENGINES`."""
    precision: Precision
    notices: tuple[Notice, ...]
    cleaning_passes: tuple[int, ...]
    """Cleaning passes of each segment rendered in this run."""
    tiles_reused: float
    """Share of tiles that were copied because they did not change from one frame to the next."""
    borders_repeated: float
    """Share of pixels in flat borders, which are repeated instead of computed (upscaling/flat_borders.py)."""
    ledger: Ledger
    """Everything that the input held, and its fate."""


class Watch:
    """Reports the progress of a video, and stops it on request."""

    def __init__(
        self,
        video: Path,
        frames_estimate: int,
        on_progress: Callable[[VideoProgress], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._video, self._tell, self._cancel = video, on_progress, cancel
        self._stage: Stage | None = None
        self.start("reading", frames_estimate)

    def start(self, stage: Stage, frames: int, done: int = 0) -> None:
        is_new = stage != self._stage
        self._stage, self._frames, self._skipped, self._done = stage, frames, done, done
        self._began = time.perf_counter()
        if is_new and self._tell is not None:  # its first frame may be a minute away
            self._tell(VideoProgress(stage, done, max(frames, done), 0.0))
        self.check()

    def count(self) -> None:
        """Count one more finished frame."""
        self._done += 1
        if self._tell is not None and self._stage is not None:
            rate = (self._done - self._skipped) / max(time.perf_counter() - self._began, 1e-6)
            self._tell(VideoProgress(self._stage, self._done, max(self._frames, self._done), rate))
        self.check()

    def reach(self, done: int) -> None:
        """Set the number of finished frames of this stage."""
        while self._done < done:
            self.count()

    def check(self) -> None:
        """Raise `Cancelled` if a stop was requested."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled(self._video, "stopped on request", "the same command resumes after the last finished segment")


class Notices:
    """Passes on each notice once."""

    def __init__(self, on_notice: Callable[[Notice], None] | None) -> None:
        self._tell = on_notice
        self.told: list[Notice] = []

    def tell(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            if notice not in self.told:
                self.told.append(notice)
                if self._tell is not None:
                    self._tell(notice)
