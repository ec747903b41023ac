"""One item of a job for each input, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from upframe.errors import (
    Notice,
    UpframeError,
)
from upframe.media.frames import MediaInfo
from upframe.media.image.files import OutputPlan
from upframe.media.video.files import (
    VideoInfo,
    VideoPlan,
)
from upframe.models.spec import Precision


@dataclass(frozen=True)
class Item:
    """One input and what will become of it."""

    input: Path
    output: Path
    info: MediaInfo
    plan: OutputPlan
    size: tuple[int, int]
    """(height, width) of the output."""
    model: str
    """Name or path for `models.load`."""
    native: int
    """The enlargement where the target asks for none."""
    notices: tuple[Notice, ...]
    skip: bool = False
    """The output is there already, and verified."""

    @property
    def frames(self) -> int:
        return self.info.frames

    @property
    def scale(self) -> float:
        return self.size[1] / self.info.size[1]


@dataclass(frozen=True)
class FilmItem:
    """One film and what will become of it."""

    film: Film
    model: str
    """Name or path for `models.load`."""
    notices: tuple[Notice, ...]
    skip: bool = False

    @property
    def input(self) -> Path:
        return self.film.input

    @property
    def output(self) -> Path:
        return self.film.output

    @property
    def size(self) -> tuple[int, int]:
        return self.film.size


@dataclass(frozen=True)
class Outcome:
    """Outcome of one input."""

    input: Path
    status: Literal["written", "skipped", "failed"]
    output: Path | None = None
    error: UpframeError | None = None
    notices: tuple[Notice, ...] = ()
    seconds: float = 0.0
    size: tuple[int, int] | None = None
    model: str | None = None
    engine: str | None = None
    """Engine that ran the network, as `--engine` calls it; None where nothing ran."""
    precision: Precision | None = None


@dataclass(frozen=True)
class Film:
    """A film and how its output is written: all that is known before it is read."""

    input: Path
    """A video file, or a folder of frames."""
    output: Path
    info: VideoInfo
    plan: VideoPlan | None
    """None for an output that is a folder of frames."""
    size: tuple[int, int]
    """(height, width) of the output pictures."""
    notices: tuple[Notice, ...] = ()
    """Losses that are known before the video is read."""
    is_doubled: bool = False
    """Whether a new frame is made between every two."""

    @property
    def frames_estimate(self) -> int:
        """Frames of the input, as its header has them."""
        return max(self.info.frames_estimate or 1, 1)

    def made(self, first: int, end: int) -> range:
        """Which frames of the output stand for frames `first` to `end` - 1 of the input, counted from the first taken."""
        return range(2 * first, 2 * end) if self.is_doubled else range(first, end)
