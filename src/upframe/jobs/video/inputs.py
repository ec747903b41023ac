"""The frames of a video's input, a file or a folder: indexed once, and opened again in each process that renders segments."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upframe.errors import InputError, UsageError
from upframe.jobs.naming import is_folder
from upframe.jobs.options import VideoOptions
from upframe.jobs.video.progress import Watch
from upframe.jobs.video.shots import CutFinder, find_cuts, thumbnail
from upframe.media.video.files import (
    FrameFolder,
    FrameIndex,
    Survey,
    Timing,
    VideoInfo,
    VideoSource,
    index_video,
    probe_video,
)
from upframe.media.video.index_file import load_index, save_index

PLACES = 16
"""Frames of a video file, spread over it, that planning looks at; the reading before the work looks at all."""


class Input(Protocol):
    """An input whose frames have been counted and timed."""

    @property
    def seen(self) -> Survey:
        """Survey of all frames."""
        ...

    @property
    def source(self) -> VideoSource | FrameFolder: ...
    @property
    def timing(self) -> Timing: ...
    @property
    def chosen(self) -> range:
        """Numbers of the frames between start and end."""
        ...

    def cuts(self) -> list[int]:
        """Numbers, in the whole input, of the frames that begin a new shot; empty if they were not asked for."""
        ...

    def digest(self) -> str:
        """Equal for two inputs only if they show the same frames at the same times."""
        ...

    def save(self, folder: Path) -> None:
        """Save to `folder` the data with which `reopen` opens the input in another process without reading all of it."""
        ...


def probe_input(path: Path, options: VideoOptions) -> VideoInfo:
    """Read the facts that the headers of a video file or of a folder of frames state.

    Raises:
        InputError: if the input cannot be read.
    """
    if is_folder(path):
        return open_folder(path, options).info
    return probe_video(path, stream=options.stream, places=PLACES)


def open_folder(path: Path, options: VideoOptions) -> FrameFolder:
    """A folder of frames as a video."""
    return FrameFolder(path, rate=options.rate, on_bad_frame=options.on_bad_frame)


def open_input(path: Path, info: VideoInfo, options: VideoOptions, watch: Watch, *, with_cuts: bool) -> Input:
    """Count and time all frames of an input.

    Args:
        with_cuts: Whether to find `cuts`.

    Raises:
        InputError: if the input cannot be read.
        UsageError: if no frame lies between start and end.
    """
    if path.is_dir():
        return FolderInput(open_folder(path, options), options, watch.count if with_cuts else None)
    finder = CutFinder()
    white = float((1 << info.bits) - 1)

    def observe(number: int, luma: NDArray[Any]) -> None:
        nonlocal finder
        if number == 0:  # the first pass, or a new one after damage
            watch.start("reading", max(info.frames_estimate or 1, 1))
            finder = CutFinder()
        watch.count()
        if with_cuts:
            finder.add(thumbnail(luma, white))

    index = index_video(path, info=info, on_bad_frame=options.on_bad_frame, observe=observe)
    return FileInput(path, info, index, options, finder)


def reopen(path: Path, digest: str, options: VideoOptions, folder: Path) -> Input:
    """Open the frames of an input that another process has indexed.

    Args:
        digest: Of that process's `Input`.
        folder: Folder to which that process may have saved the index; without it the input is indexed again.

    Raises:
        InputError: if the input changed since then, or cannot be read.
    """
    info = probe_input(path, options)
    if path.is_dir():
        opened: Input = FolderInput(open_folder(path, options), options, None)
    else:
        index = load_index(_index_file(folder), path)
        if index is None or index.digest() != digest:
            index = index_video(path, info=info, on_bad_frame=options.on_bad_frame)
        opened = FileInput(path, info, index, options)
    if opened.digest() != digest:
        raise InputError(path, "changed while reading (since its frames were counted)", "run it again")
    return opened


def _index_file(folder: Path) -> Path:
    return folder / "index.npz"


class FileInput:
    """An `Input`: the frames of a video file."""

    def __init__(
        self, path: Path, info: VideoInfo, index: FrameIndex, options: VideoOptions, finder: CutFinder | None = None
    ) -> None:
        self._finder = finder
        self.timing = index
        self.source = VideoSource(
            path,
            start=options.start,
            end=options.end,
            deinterlace=options.deinterlace,
            allow_truncated=options.allow_truncated,
            info=info,
            index=index,
        )
        self.chosen = self.source.selection

    @property
    def seen(self) -> Survey:
        return self.timing.seen

    def cuts(self) -> list[int]:
        if self._finder is None:
            return []
        # Cuts are numbers of decoded pictures. A damaged frame shows the previous picture, so a shot begins with the first
        # frame that shows the cut's picture or a later one.
        frames = np.searchsorted(self.timing.decoded, self._finder.cuts())
        return sorted({int(f) for f in frames if 0 < f < len(self.timing)})

    def digest(self) -> str:
        return self.timing.digest()

    def save(self, folder: Path) -> None:
        save_index(self.timing, _index_file(folder))


class FolderInput:
    """An `Input`: the frames of a folder.

    Args:
        on_frame: Called for each picture that is read to find cuts, which only video networks need; None finds no cuts.
    """

    def __init__(self, source: FrameFolder, options: VideoOptions, on_frame: Callable[[], None] | None) -> None:
        self.source = source
        self.timing = source.timing
        first, last = (None if t is None else math.ceil(t * source.rate) for t in (options.start, options.end))
        self.chosen = range(len(source))[first:last]
        if not self.chosen:
            happened = "no frame lies between `video.start` and `video.end`"
            raise UsageError(source.path, happened, f"it has {len(source)} frames")
        self._on_frame = on_frame
        self.seen = Survey()

    def cuts(self) -> list[int]:
        return [] if self._on_frame is None else find_cuts(self._thumbnails(self._on_frame))

    def _thumbnails(self, on_frame: Callable[[], None]) -> Iterator[NDArray[np.float32]]:
        for frame in self.source:
            yield thumbnail(frame.pixels[..., 1], 65535.0)
            on_frame()

    def digest(self) -> str:
        """Digest of names, sizes and modification times: reading every picture again would double the work of a short job."""
        state = hashlib.sha256()
        for path in self.source.frames:
            stat = path.stat()
            state.update(repr((path.name, stat.st_size, stat.st_mtime_ns)).encode())
        return state.hexdigest()

    def save(self, folder: Path) -> None:
        """Do nothing: the folder itself suffices."""
