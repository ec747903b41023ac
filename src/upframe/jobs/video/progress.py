"""How far a video is, and what is known to be lost, told as it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from upframe.errors import Cancelled, Notice
from upframe.models.spec import Precision

Stage = Literal["reading", "upscaling", "checking"]


@dataclass(frozen=True)
class VideoProgress:
    """How far a video is."""

    stage: Stage
    """Reading counts, times and checks its frames; checking reads the joined output back."""
    frame: int
    """Frames done in this stage."""
    frames: int
    """Frames in all; of the header, so not exact, while reading."""
    frames_per_s: float
    """In this stage and this run: frames that an interrupted run left count as done, but not as fast."""


@dataclass(frozen=True)
class VideoReport:
    """Figures of a finished video."""

    frames: int
    resumed: int
    """Frames that an interrupted run had left."""
    segments: int
    seconds: float
    engine: str
    """A name of `engines.ENGINES`."""
    precision: Precision
    notices: tuple[Notice, ...]
    cleaning_passes: tuple[int, ...]
    """Of each segment rendered in this run."""
    tiles_reused: float
    """Share of tiles that did not change from one frame to the next and were copied."""
    borders_repeated: float
    """Share of pixels that lie in flat borders and were not computed one by one (upscaling/flat_borders.py)."""


class Watch:
    """Tells how far a video is, and stops it when that is asked for."""

    def __init__(
        self,
        video: Path,
        frames_estimate: int,
        on_progress: Callable[[VideoProgress], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._video, self._tell, self._cancel = video, on_progress, cancel
        self.start("reading", frames_estimate)

    def start(self, stage: Stage, frames: int, done: int = 0) -> None:
        self._stage, self._frames, self._skipped, self._done = stage, frames, done, done
        self._began = time.perf_counter()
        if self._tell is not None:  # the first frame of a stage may be a minute away
            self._tell(VideoProgress(stage, done, max(frames, done), 0.0))
        self.check()

    def count(self) -> None:
        """One more frame is done."""
        self._done += 1
        if self._tell is not None:
            rate = (self._done - self._skipped) / max(time.perf_counter() - self._began, 1e-6)
            self._tell(VideoProgress(self._stage, self._done, max(self._frames, self._done), rate))
        self.check()

    def reach(self, done: int) -> None:
        """So many frames of this stage are done, however few of them were counted."""
        while self._done < done:
            self.count()

    def check(self) -> None:
        """Raise Cancelled if the video is to stop."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled(self._video, "stopped on request", "the same command goes on after the last finished segment")


class Notices:
    """Hands on each notice once."""

    def __init__(self, on_notice: Callable[[Notice], None] | None) -> None:
        self._tell = on_notice
        self.told: list[Notice] = []

    def tell(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            if notice not in self.told:
                self.told.append(notice)
                if self._tell is not None:
                    self._tell(notice)
