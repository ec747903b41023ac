"""VideoSource: frames of a video at 16 bits with their exact timestamps, in order or from any place in the middle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
import av.filter
import numpy as np

from upframe.errors import InputError, Notice, UsageError, check_choice
from upframe.media.frames import Frame
from upframe.media.names import DEINTERLACERS, Deinterlace, OnBadFrame
from upframe.media.video.captions import captions_of
from upframe.media.video.colour import Rgb, to_rgb
from upframe.media.video.decoding import Decoding
from upframe.media.video.frames import checksum, fraction, planes_of
from upframe.media.video.index import (
    NO_TIME,
    FrameIndex,
    checked_index,
    index_video,
)
from upframe.media.video.info import VideoInfo, choose_stream, coding_of_frame, open_video, probe_video
from upframe.media.video.reading import Pictures, Reading

_LOG = logging.getLogger(__name__)


_FIELD_CONTEXT = 2
"""Pictures before and after a picture that a deinterlacer uses."""
_MOST_OVERLAP = 64
"""Pictures by which a range may reach back into the one before it, so that reading goes on."""


@dataclass(frozen=True)
class VideoFrame(Frame):
    """A picture of a video: (H, W, 3) uint16, full range, 65535 is white."""

    number: int = 0
    """Number of the frame in the file, from 0."""
    pts: int = 0
    """Timestamp in ticks of the stream's time base; `time` is the same in seconds."""
    is_repeated: bool = False
    """Whether it replaces a damaged frame."""
    captions: bytes = b""
    """Closed captions, as `captions.captions_of` reads them."""


class VideoSource:
    """Frames of one video file. A context manager.

    Iteration yields the selected frames in order; `range` yields any frames, with the same bits after any earlier reads.
    Memory: a few frames. The constructor indexes the file, unless an index is given.

    Args:
        start: Skip frames before this time, in seconds after the first frame.
        end: Skip frames from this time on.
        stream: See `probe_video`.
        deinterlace: "off" leaves fields woven, "auto" deinterlaces frames that are marked as interlaced (bwdif), "bwdif" and
            "yadif" deinterlace all frames. The number of frames stays the same.
        on_bad_frame: See `index_video`.
        allow_truncated: Accept a file that ends early.
        info: Facts about the same file, if known.
        index: Index of the same file, made with the same `on_bad_frame`, if known.

    Raises:
        InputError: see `probe_video` and `index_video`.
        UsageError: if `start` and `end` leave no frame.
            The last frame of a file that ends early raises it, too, unless `allow_truncated` is set.
    """

    info: VideoInfo
    index: FrameIndex
    selection: range
    """Numbers of the selected frames."""

    def __init__(
        self,
        path: str | Path,
        *,
        start: Fraction | None = None,
        end: Fraction | None = None,
        stream: int | None = None,
        deinterlace: Deinterlace = "off",
        on_bad_frame: OnBadFrame = "repeat",
        allow_truncated: bool = False,
        info: VideoInfo | None = None,
        index: FrameIndex | None = None,
    ) -> None:
        check_choice("video.deinterlace", deinterlace, DEINTERLACERS)
        self.path = Path(path)
        self.info = info or probe_video(self.path, stream=stream)
        self.index = checked_index(index) if index else index_video(self.path, info=self.info, on_bad_frame=on_bad_frame)
        self._deinterlace = "off" if deinterlace == "auto" and not self.index.seen.interlaced else deinterlace
        self._allow_truncated = allow_truncated
        self.selection = self.index.between(start, end)
        if not self.selection:
            length = float(self.index.end - self.index.time(0))
            raise UsageError(self.path, "no frame lies between `video.start` and `video.end`", f"it is {length:.3f} s long")
        self._started = False
        self._left: Reading | None = None  # by the last range, and taken up by the next
        self._overlap = 0

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Notices of all losses and repairs; complete before the first frame is read."""
        notices = tuple(n for n in self.index.notices if n.id != "interlaced" or self._deinterlace == "off")
        if self.index.truncated and self._allow_truncated:
            text = f"ends early ({self.index.truncated}) after {len(self.index)} frames"
            notices += (Notice("truncated", str(self.path), text),)
        return notices

    def __len__(self) -> int:
        return len(self.selection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file, which is held open between reads if it can only be read from its start."""
        if self._left is not None:
            self._left.close()
            self._left = None

    def __iter__(self) -> Iterator[VideoFrame]:
        if self._started:
            raise ValueError("a source is iterated once; use range to read again")
        self._started = True
        return self.range(self.selection.start, self.selection.stop)

    def range(self, first: int, last: int) -> Iterator[VideoFrame]:
        """Yield frames `first` to `last` - 1 of the file, by number.

        Reading starts at the previous keyframe, and each decoded picture is compared with the index. If they differ (streams
        that refresh gradually, demuxers that cannot seek), the file is read from its beginning instead; the next range goes on
        from there.

        Raises:
            InputError: if the file changed since it was indexed, and after the last frame of a file that ends early, unless
                `allow_truncated` is set.
        """
        if not 0 <= first <= last <= len(self.index):
            raise ValueError(f"frames {first} to {last} of {len(self.index)}")
        return self._range(first, last)

    def _range(self, first: int, last: int) -> Iterator[VideoFrame]:
        decoded = self.index.decoded
        number = first
        reading: Reading | None = None
        try:
            while number < last:
                checked_index(self.index)
                reading = self._next_reading(reading, int(decoded[number]), number)
                for ordinal, picture in reading.pictures(int(decoded[number]), int(decoded[last - 1])):
                    rgb, captions = self._rgb(picture), captions_of(picture)
                    while number < last and decoded[number] == ordinal:
                        yield self._frame(number, rgb, captions)
                        number += 1
        except BaseException:
            if reading is not None:
                reading.close()
            raise
        if reading is not None:
            self._leave(reading, is_over=last == len(self.index))
        self.check_end(last)

    def _next_reading(self, failed: Reading | None, ordinal: int, number: int) -> Reading:
        """The reading to take picture `ordinal` from, which is shown as frame `number`.

        Args:
            failed: The reading that ended before that picture; None if none was tried.

        Raises:
            InputError: if no other way is left.
        """
        if failed is None:
            return self._taken_up(ordinal) or self._first_reading(ordinal)
        failed.close()
        if not failed.is_certain:
            checked_index(self.index)
            happened = f"frame {number} decodes differently from before"
            raise InputError(self.path, happened, "check the disk and memory of this machine")
        # Concealed damage may look different each time, with threads even if no error is reported. The last attempt accepts any
        # pixels at these times.
        _LOG.debug("%s: reading again from the start for frame %d", self.path, number)
        return self._reading(0, is_only_way=True, is_certain=not failed.is_only_way)

    def _first_reading(self, ordinal: int) -> Reading:
        if not self.index.is_seekable:
            return self._reading(0, is_only_way=True)
        return self._reading(self._key_before(ordinal), is_only_way=False)

    def _taken_up(self, ordinal: int) -> Reading | None:
        """The reading that the last range has left, if it can still yield picture `ordinal`."""
        reading, self._left = self._left, None
        if reading is None or reading.can_yield(ordinal):
            return reading
        back = reading.next - ordinal
        if back <= _MOST_OVERLAP:  # segments overlap by this; from now on, so many pictures are kept
            self._overlap = max(self._overlap, back)
        reading.close()
        return None

    def _leave(self, reading: Reading, *, is_over: bool) -> None:
        """Keep a reading for the next range, unless one can begin anywhere."""
        if is_over or not reading.is_only_way:
            reading.close()
        else:
            self._left = reading

    def check_end(self, last: int) -> None:
        """Refuse the frames up to `last` - 1 if the file ends early right after them, unless `allow_truncated` is set.

        Raises:
            InputError: with the evidence and the number of frames that could be read.
        """
        if last == len(self.index) and self.index.truncated and not self._allow_truncated:
            happened = f"ends early ({self.index.truncated}); {len(self.index)} frames could be read"
            raise InputError(self.path, happened, "use `allow_truncated` to accept it")

    def _frame(self, number: int, rgb: Rgb, captions: bytes) -> VideoFrame:
        index = self.index
        repeated = number > 0 and bool(index.decoded[number] == index.decoded[number - 1])
        return VideoFrame(
            rgb,
            index.time(number),
            index.duration(number),
            number,
            int(index.pts[number]),
            repeated,
            b"" if repeated else captions,  # a repeated letter would be read twice
        )

    # Decoding ---------------------------------------------------------------------------------------------------------
    def _key_before(self, ordinal: int) -> int:
        """Number of the keyframe from which picture `ordinal` is decoded, with the pictures that a deinterlacer needs."""
        begin = max(0, ordinal - (0 if self._deinterlace == "off" else _FIELD_CONTEXT))
        keys = self.index.is_key[: begin + 1].nonzero()[0]
        return int(keys[-1]) if len(keys) else 0

    def _reading(self, key: int, *, is_only_way: bool, is_certain: bool = True) -> Reading:
        """Open the file at the keyframe `key`.

        Args:
            is_only_way: See `Reading`.
            is_certain: If False, one thread decodes, and only numbers and timestamps are compared with the index.
        """
        pictures = self._pictures(key, is_certain=is_certain)
        return Reading(pictures, is_only_way=is_only_way, is_certain=is_certain, kept=1 + self._overlap)

    def _pictures(self, key: int, *, is_certain: bool) -> Pictures:
        """Yield the decoded pictures from number `key` on; end at one that differs from the index."""
        with open_video(self.path) as container:
            stream = choose_stream(container, self.path, self.info.stream)
            frames = self._checked(container, stream, key, is_certain=is_certain)
            yield from frames if self._deinterlace == "off" else self._whole_frames(frames, stream)

    def _rgb(self, frame: av.VideoFrame) -> Rgb:
        """The visible part of a picture, converted as its own tags state."""
        planes, layout = planes_of(frame)
        rgb = to_rgb(planes, layout, coding_of_frame(self.info, frame))
        top, _, left, _ = self.info.crop
        height, width = self.info.size
        return np.ascontiguousarray(rgb[top : top + height, left : left + width])

    def _checked(
        self, container: av.container.InputContainer, stream: av.VideoStream, key: int, *, is_certain: bool
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield decoded pictures from number `key` on, as long as each matches the index."""
        index = self.index
        if key:
            try:
                container.seek(int(index.raw_pts[key]), stream=stream)
            except av.error.FFmpegError:
                return
        ordinal = key
        is_found = key == 0
        threads = 1 if index.is_damaged or not is_certain else 0
        for frame, _ in Decoding(container, stream, threads=threads, clock=index.clock).pictures():
            if not is_found:
                # Pictures that are shown before the keyframe lack their reference pictures.
                if frame.pts is not None and frame.pts < index.raw_pts[key]:
                    continue
                is_found = True
            if ordinal >= len(index.raw_pts):
                return
            if index.raw_pts[ordinal] not in (frame.pts, frame.dts, NO_TIME):
                return
            if is_certain and checksum(planes_of(frame)[0]) != index.checksums[ordinal]:
                return
            yield ordinal, frame
            ordinal += 1

    def _whole_frames(
        self, frames: Iterator[tuple[int, av.VideoFrame]], stream: av.VideoStream
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Deinterlace frames: yield one for each input frame."""
        name = "bwdif" if self._deinterlace == "auto" else self._deinterlace
        which = "interlaced" if self._deinterlace == "auto" else "all"
        graph: Any = None
        waiting: list[int] = []
        for ordinal, frame in frames:
            if graph is None:
                graph = av.filter.Graph()
                base = fraction(stream.time_base) or Fraction(1, 90000)
                source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=base)
                filtering = graph.add(name, f"mode=send_frame:deint={which}")
                sink = graph.add("buffersink")
                source.link_to(filtering)
                filtering.link_to(sink)
                graph.configure()
            waiting.append(ordinal)
            frame.pts = ordinal  # only the order matters in here
            graph.push(frame)
            yield from self._pulled(graph, waiting)
        if graph is not None:
            graph.push(None)
            yield from self._pulled(graph, waiting)

    @staticmethod
    def _pulled(graph: Any, waiting: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        while waiting:
            try:
                frame = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield waiting.pop(0), frame
