"""Render one segment: a pure function of a small task, for this process or any other.

Each process makes the index of the input, the network and its engine once, and keeps them for further segments.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upframe.errors import Notice, VerifyError
from upframe.jobs import model_choice
from upframe.jobs.options import VideoOptions
from upframe.jobs.video.geometry import FRAMES_AHEAD, Geometry, clip_upscaler, single_upscaler
from upframe.jobs.video.inputs import Input, reopen
from upframe.jobs.video.outputs import segments_of
from upframe.jobs.video.pipeline import WriteBehind, read_ahead
from upframe.jobs.video.segments import Segment
from upframe.jobs.video.workspace import SegmentStore, work_path
from upframe.media.video.files import VideoFrame, VideoPlan
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.images import Saved, Upscaler
from upframe.upscaling.options import UpscaleOptions

FLAT = 1  # a frame whose code values (of 65,535) spread no more than this is flat
NOT_FLAT = 64 * 257  # a frame whose code values spread at least this much, a quarter of the range, is not flat
MOST_VIDEOS = 2  # number of videos whose inputs and upscalers a process keeps

FrameNotices = tuple[Notice, ...]


@dataclass(frozen=True)
class VideoTask:
    """The facts that all segments of one video share. They can be pickled and compared."""

    input: Path
    """A video file, or a folder of frames."""
    output: Path
    """The finished output; the segments lie in its work folder."""
    index: str
    """Digest of the input's frames and their times (`inputs.Input.digest`)."""
    model: str
    """Name or path of the model."""
    model_sha256: str
    upscale: UpscaleOptions
    """The user's options; `geometry` holds the choices made from them."""
    options: VideoOptions
    geometry: Geometry
    plan: VideoPlan | None
    """How frames are encoded; None writes numbered pictures."""
    size: tuple[int, int]
    """(height, width) of the output's frames."""
    bits: int
    """Bits of the input's samples."""
    offset: int
    """Number of the first frame between start and end."""
    is_doubled: bool
    """Whether the network makes a new frame between every two."""


@dataclass(frozen=True)
class SegmentTask:
    """One segment of a video, which any process can render."""

    video: VideoTask
    segment: Segment


@dataclass(frozen=True)
class SegmentResult:
    """Figures of a finished segment; the frames lie in its file."""

    segment: Segment
    notices: FrameNotices
    """Notices that arose while rendering it."""
    passes: tuple[int, ...]
    """Number of cleaning passes, for a network that cleans."""
    reused: Saved
    """Tiles that were copied from the previous frame."""
    flat: Saved
    """Input pixels in flat borders that were repeated instead of computed."""


def render_segment(
    task: SegmentTask,
    *,
    on_frame: Callable[[FrameNotices], None] | None = None,
    cancel: threading.Event | None = None,
) -> SegmentResult:
    """Make the file of one segment in the work folder. Its bytes depend on the task and the input alone.

    Args:
        on_frame: Called for each frame when it is handed to the encoder, with its notices; an exception from it stops the work.

    Raises:
        Cancelled: if `cancel` was set.
        InputError: if the input has changed since it was indexed.
        UpframeError: if the segment cannot be rendered; then no file of it is kept.
    """
    video = task.video
    renderer = _renderer(video)
    segments = segments_of(SegmentStore(video.output), video.plan, video.bits, is_doubled=video.is_doubled)
    notices: list[Notice] = []
    with segments.sink(task.segment) as sink:
        renderer.begin(cancel)

        def write(made: _Made) -> None:
            sink.write(made.pixels, pts=made.pts, captions=made.captions)

        with WriteBehind[_Made](write, depth=FRAMES_AHEAD) as behind:
            for made in renderer.frames(task.segment):
                behind.put(made)
                late = renderer.taken_notices()
                notices += [notice for notice in late if notice not in notices]
                if on_frame is not None:
                    on_frame(late)
    segments.keep(task.segment)
    return SegmentResult(task.segment, tuple(notices), *renderer.figures())


# Kept for the segments that follow ------------------------------------------------------------------------------------
class _Kept(threading.local):
    """Caches of one thread: an upscaler serves one thread at a time, so each thread has its own."""

    def __init__(self) -> None:
        self.renderers: OrderedDict[VideoTask, _Renderer] = OrderedDict()
        self.inputs: dict[tuple[Path, str], Input] = {}


_KEPT = _Kept()


def keep_input(video: VideoTask, source: Input) -> None:
    """Use this open input for the segments of `video` that this thread renders."""
    _KEPT.inputs[video.input, video.index] = source


def forget(video: VideoTask) -> None:
    """Release everything that this thread keeps for a video."""
    _KEPT.inputs.pop((video.input, video.index), None)
    _KEPT.renderers.pop(video, None)


def _renderer(video: VideoTask) -> _Renderer:
    kept = _KEPT.renderers
    if video not in kept:
        source = _KEPT.inputs.get((video.input, video.index))
        if source is None:
            source = reopen(video.input, video.index, video.options, work_path(video.output))
        kept[video] = _Renderer(video, source)
        while len(kept) > MOST_VIDEOS:
            kept.popitem(last=False)
    kept.move_to_end(video)
    return kept[video]


@dataclass(frozen=True)
class _Made:
    """An enlarged frame, its timestamp and the closed captions of its input frame."""

    pts: int
    pixels: NDArray[Any]
    captions: bytes = b""


class _Renderer:
    """Renders segments of one video with one model, frame by frame or as clips."""

    def __init__(self, video: VideoTask, source: Input) -> None:
        self._video, self._source = video, source.source
        self._durations = source.timing.durations
        model = model_choice.network(video.model, sha256=video.model_sha256)
        self._single: Upscaler | None = None
        self._clip: ClipUpscaler | None = None
        if model.spec.window is None:
            self._single = single_upscaler(model, video.upscale, video.options)
            self._single.options = video.geometry.applied(video.upscale)
        else:
            self._clip = clip_upscaler(model, video.upscale, video.options)
            self._clip.options = video.geometry.applied(video.upscale)

    @property
    def _up(self) -> Upscaler | ClipUpscaler:
        up = self._single or self._clip
        assert up is not None
        return up

    def begin(self, cancel: threading.Event | None) -> None:
        """Forget all earlier segments: the next segment must not depend on them."""
        self._up.cancel = cancel
        self._up.notices.clear()
        if self._single is not None:
            self._single.forget()
            self._single.reused, self._single.flat = Saved(), Saved()
        if self._clip is not None:
            self._clip.passes.clear()

    def taken_notices(self) -> FrameNotices:
        """Notices since the last call."""
        taken = tuple(self._up.notices)
        self._up.notices.clear()
        return taken

    def figures(self) -> tuple[tuple[int, ...], Saved, Saved]:
        """Cleaning passes, tiles copied and pixels repeated, of this segment."""
        passes = tuple(self._clip.passes) if self._clip is not None else ()
        if self._single is None:
            return passes, Saved(), Saved()
        return passes, self._single.reused, self._single.flat

    def frames(self, segment: Segment) -> Iterator[_Made]:
        video = self._video
        offset = video.offset
        if self._single is not None:
            frames = self._source.range(offset + segment.first, offset + segment.end)
            with contextlib.closing(read_ahead(frames, depth=FRAMES_AHEAD)) as ahead:
                for frame in ahead:
                    bands = self._single.bands(frame.pixels, size=video.size, subject=self._at(frame))
                    yield self._checked(frame, np.concatenate(list(bands)))
            return
        assert self._clip is not None
        clip = list(self._source.range(offset + segment.read_first, offset + segment.read_end))
        skipped = segment.first - segment.read_first
        own = clip[skipped : skipped + segment.frames]
        made_frames = self._clip.frames(
            [frame.pixels for frame in clip],
            first=skipped,
            end=min(skipped + segment.frames, len(clip) - video.is_doubled),
            size=video.size,
            subject=self._at(own[0]),
        )
        if video.is_doubled:
            yield from self._in_turn(own, made_frames, self._durations[offset + segment.first :])
            return
        for frame, made in zip(own, made_frames, strict=True):
            yield self._checked(frame, made)

    def _in_turn(
        self, own: list[VideoFrame], made_frames: Iterator[NDArray[Any]], durations: NDArray[np.int64]
    ) -> Iterator[_Made]:
        """Yield a segment's original frames, each followed by the new frame between it and the next. At the end of a shot or of
        the video no new frame exists, so the original frame is repeated.

        Args:
            durations: Durations of the segment's frames in ticks.
        """
        for frame, duration in zip(own, durations, strict=False):
            yield _Made(2 * frame.pts, frame.pixels, frame.captions)
            between = next(made_frames, None)
            made = frame.pixels if between is None else self._checked(frame, between).pixels
            yield _Made(2 * frame.pts + int(duration), made)

    def _at(self, frame: VideoFrame) -> str:
        return f"{self._video.input} frame {frame.number}"

    def _checked(self, frame: VideoFrame, made: NDArray[Any]) -> _Made:
        """Check and return a frame to write: a broken network makes flat frames of inputs that are not flat."""
        if int(np.ptp(made)) <= FLAT and int(np.ptp(frame.pixels)) > NOT_FLAT:
            raise VerifyError(self._at(frame), "came out in one flat colour", "check the weights, or try `precision='fp32'`")
        return _Made(frame.pts, made, frame.captions)
