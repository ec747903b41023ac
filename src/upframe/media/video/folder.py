"""Read a folder of numbered pictures as a video, and write a video as a folder of numbered pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from upframe.errors import InputError, Notice, OptionError, OutputError, VerifyError
from upframe.media.frames import MediaInfo, Pixels
from upframe.media.image.files import Limits, iter_files, write_pixels
from upframe.media.image.source import probe, read_pixels
from upframe.media.names import DEFAULT_RATE, OnBadFrame
from upframe.media.video.colour import Coding, Rgb
from upframe.media.video.frame_facts import ColourTags
from upframe.media.video.info import VideoInfo, default_matrix
from upframe.media.video.source import VideoFrame

_NUMBER = re.compile(r"([0-9]+)(?!.*[0-9])")


@dataclass(frozen=True)
class FolderTiming:
    """Timestamps of the frames of a folder: one tick each."""

    time_base: Fraction
    pts: NDArray[np.int64]
    durations: NDArray[np.int64]


class FrameFolder:
    """Frames from the pictures of a folder, f9.png before f10.png. A context manager; `range` reads any part of it.

    A gap in the numbering causes a notice and no pause: frames follow each other at the given rate.

    Args:
        folder: A folder with at least one picture; other files are skipped.
        rate: Frames per second.
        on_bad_frame: How to handle an unreadable picture: repeat the previous picture (at the start, the first good one), skip
            it, or raise an error.
        limits: Limits on the size of a picture.

    Raises:
        InputError: if there is no picture, two differ in size (naming both), or one is unreadable and `on_bad_frame` asks for
            an error.
    """

    size: tuple[int, int]
    """(height, width)."""
    bits: int
    """Largest number of bits per sample of any picture: 8 or 16."""

    def __init__(
        self,
        folder: str | Path,
        *,
        rate: Fraction = DEFAULT_RATE,
        on_bad_frame: OnBadFrame = "repeat",
        limits: Limits | None = None,
    ) -> None:
        self.path = Path(folder)
        if rate <= 0:
            raise OptionError("video.rate", rate, "must be above 0")
        self._limits = limits
        self.rate = rate
        paths = list(iter_files(self.path))
        if not paths:
            raise InputError(self.path, "has no images in it", "pass a folder of pictures")
        self._notices = _gaps(self.path, paths)
        self.frames = self._readable(paths, on_bad_frame)
        """File of each frame; a file that replaces an unreadable one occurs twice."""
        count = len(self.frames)
        self.timing = FolderTiming(1 / rate, np.arange(count, dtype=np.int64), np.ones(count, np.int64))

    @property
    def notices(self) -> tuple[Notice, ...]:
        return tuple(self._notices)

    @property
    def info(self) -> VideoInfo:
        """Facts about the folder as a video, for `plan_video`."""
        return VideoInfo(
            path=self.path,
            format="folder",
            stream=0,
            codec="png",
            size=self.size,
            pix_fmt="gbrp" if self.bits == 8 else "gbrp16le",
            bits=self.bits,
            chroma="rgb",
            colour=ColourTags(),
            coding=Coding(default_matrix(self.size[0]), True),
            sample_aspect=None,
            rotation=0,
            time_base=1 / self.rate,
            rate=self.rate,
            start_time=Fraction(0),
            container_start=Fraction(0),
            frames_estimate=len(self),
            duration_estimate=len(self) / self.rate,
            hdr10=None,
            streams=(),
            chapters=(),
            tags=(),
            video_tags=(),
            notices=self.notices,
        )

    def __len__(self) -> int:
        return len(self.frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Do nothing: no file is held open between reads."""

    def __iter__(self) -> Iterator[VideoFrame]:
        return self.range(0, len(self))

    def range(self, first: int, last: int) -> Iterator[VideoFrame]:
        """Yield frames `first` to `last` - 1: (H, W, 3) uint16, full range; gray in all three channels, without
        transparency."""
        if not 0 <= first <= last <= len(self):
            raise ValueError(f"frames {first} to {last} of {len(self)}")
        return self._range(first, last)

    def _range(self, first: int, last: int) -> Iterator[VideoFrame]:
        for number in range(first, last):
            path = self.frames[number]
            pixels = rgb16(read_pixels(path, limits=self._limits))
            if pixels.shape[:2] != self.size:
                raise InputError(path, "changed while reading", "run it again when nothing writes to it")
            repeated = number > 0 and self.frames[number - 1] == path
            yield VideoFrame(pixels, number / self.rate, 1 / self.rate, number, number, repeated)

    def _readable(self, paths: list[Path], on_bad_frame: OnBadFrame) -> tuple[Path, ...]:
        """List the files of frames. Only headers are read; reading a frame finds other damage."""
        first: tuple[Path, MediaInfo] | None = None
        good: list[Path | None] = []
        bad: list[Path] = []
        has_alpha, bits = False, 8
        for path in paths:
            try:
                info = probe(path, limits=self._limits)
            except InputError as error:
                if on_bad_frame == "fail":
                    raise
                bad.append(path)
                self._notices.append(Notice("bad-frames", str(path), f"is not readable ({error.happened})"))
                good += [None] if on_bad_frame == "repeat" else []
                continue
            first = first or (path, info)
            if info.size != first[1].size:
                (h1, w1), (h2, w2) = first[1].size, info.size
                raise InputError(
                    self.path,
                    f"{first[0].name} is {w1}x{h1} and {path.name} is {w2}x{h2}",
                    "make them one size, or upscale the folder as single pictures",
                )
            has_alpha = has_alpha or info.has_alpha
            bits = max(bits, 8 * min(info.dtype.itemsize, 2))
            good.append(path)
        if first is None:
            raise InputError(self.path, f"none of its {len(bad)} images can be read", "check the files")
        if has_alpha:
            self._notices.append(Notice("alpha-dropped", str(self.path), "its transparency is dropped"))
        self.size, self.bits = first[1].size, bits
        shown, previous = [], first[0]
        for one in good:
            previous = one or previous
            shown.append(previous)
        return tuple(shown)


def _gaps(folder: Path, paths: list[Path]) -> list[Notice]:
    """Add a notice for each run of missing numbers, if all names are numbered alike."""
    numbers = []
    for path in paths:
        match = _NUMBER.search(path.stem)
        if match is None:
            return []
        numbers.append((path.stem[: match.start()], path.stem[match.end() :], int(match[1])))
    notices = []
    for (head, tail, number), (next_head, next_tail, after) in pairwise(numbers):
        if (head, tail) == (next_head, next_tail) and after > number + 1:
            missing = f"{number + 1}" if after == number + 2 else f"{number + 1} to {after - 1}"
            notices.append(Notice("frames-missing", str(folder), f"frame {missing} is missing after number {number}"))
    return notices


def rgb16(pixels: Pixels) -> Rgb:
    """Convert any picture to (H, W, 3) uint16, full range, without transparency; floats are clipped to [0, 1]."""
    colour = pixels[..., :1] if pixels.shape[2] < 3 else pixels[..., :3]
    if colour.dtype == np.uint8:
        wide = colour.astype(np.uint16) * np.uint16(257)
    elif colour.dtype == np.uint16:
        wide = colour
    else:
        wide = np.rint(np.clip(colour, 0, 1) * np.float32(65535)).astype(np.uint16)
    return np.ascontiguousarray(np.broadcast_to(wide, (*wide.shape[:2], 3)))


class FrameFolderSink:
    """Writes numbered PNG files from `frame_00000000.png` on, each whole or not at all.

    On an error the written frames stay: a later run may resume after them.

    Args:
        folder: The folder to write, created if absent.
        first: Number of the first frame.
        bits: 8 or 16 per sample.
        frames: Expected number of frames; None does not check.

    Raises:
        OutputError: if the folder or a file cannot be written.
        VerifyError: if another number of frames than `frames` was written.
    """

    def __init__(self, folder: Path, *, first: int = 0, bits: int = 8, frames: int | None = None) -> None:
        if bits not in (8, 16):
            raise ValueError(f"PNG holds 8 or 16 bits here, not {bits}")
        self.path = Path(folder)
        self.written = 0
        self._first, self._bits, self._frames = first, bits, frames

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(self.path, f"cannot be made ({error.strerror})", "choose another folder") from error
        return self

    def file(self, number: int) -> Path:
        """Path of frame `number`; names sort like numbers."""
        return self.path / f"frame_{number:08}.png"

    def write(self, pixels: Rgb, *, pts: int = 0, captions: bytes = b"") -> None:
        """Write one frame, (H, W, 3) uint16 full range. The other arguments exist for compatibility with `VideoSink.write` and
        are ignored."""
        if self._bits == 8:
            # round(v / 257), exactly
            narrow = ((pixels.astype(np.uint32) + np.uint32(128)) // np.uint32(257)).astype(np.uint8)
            write_pixels(self.file(self._first + self.written), narrow)
        else:
            write_pixels(self.file(self._first + self.written), pixels)
        self.written += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._frames is not None and self.written != self._frames:
            raise VerifyError(self.path, f"{self.written} of {self._frames} frames were written", "run it again")
