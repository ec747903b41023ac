"""`VideoUpscaler`: a stream of frames in, a stream of enlarged frames out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from upframe.api import kinds
from upframe.api.arguments import Progress, Size, check_callbacks, chosen_model, chosen_options, factor_of
from upframe.api.kinds import Held
from upframe.api.streams import Cutting, FrameStream
from upframe.errors import Cancelled, Notice, OptionError, UsageError, check_flag, check_whole
from upframe.media.frames import Pixels
from upframe.models.registry import Model
from upframe.models.spec import Cleaning
from upframe.upscaling.options import UpscaleOptions

Made = TypeVar("Made")
Frame = TypeVar("Frame")
"""A Pillow image, a NumPy array (H, W) or (H, W, C), or a torch tensor (C, H, W)."""


class VideoUpscaler:
    """Enlarge a stream of frames in order, one for one, in memory that does not grow with the video.

    A frame-wise network (`photo-*`) enlarges each frame when it arrives; tiles that repeat the previous frame are not computed
    again. A video network (`video-*`) needs neighbouring frames: it works on segments that do not cross a cut, and the first
    enlarged frame comes once a segment and its context are read. `latency` gives the largest number of frames that are read
    before.

    Each call is a stream of its own. Use one stream at a time.

    Args:
        model: A name, the path of a weights file, or a `Model`; None is the shipped one for `scale`.
        scale, size, width, height: Size of the enlarged frames, as for `upscale`; `size` is (height, width).
        device, precision, options: As for `Upscaler`.
        find_cuts: Whether a video network stops at cuts from one shot to the next. False treats the stream as one shot.
        segment_frames: Frames of a video network's longest segment; None chooses from free memory.
        context: Frames of context from neighbouring segments of the same shot; None is the network's default.
        cleaning: Cleaning options of a network that cleans its input.
        on_progress: Called after each frame with the number of finished frames.
        cancel: A `threading.Event`; once it is set, the next step of the network raises `Cancelled`.

    Raises:
        UsageError: naming the argument that does not fit.

    Example:
        >>> import numpy as np, upframe
        >>> frames = (np.full((20, 30, 3), level, np.uint8) for level in (0, 90, 180))
        >>> with upframe.VideoUpscaler("photo-x2") as video:
        ...     [frame.shape for frame in video(frames)]
        [(40, 60, 3), (40, 60, 3), (40, 60, 3)]
    """

    def __init__(
        self,
        model: str | Path | Model | None = None,
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        width: int | None = None,
        height: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        options: UpscaleOptions | None = None,
        find_cuts: bool = True,
        segment_frames: int | None = None,
        context: int | None = None,
        cleaning: Cleaning | None = None,
        on_progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._size = Size(scale, size, width, height)
        check_callbacks(on_progress, cancel)
        check_flag("find_cuts", find_cuts)
        if segment_frames is not None:
            check_whole("segment_frames", segment_frames, least=1)
        if context is not None:
            check_whole("context", context, least=0)
        if cleaning is not None and not isinstance(cleaning, Cleaning):
            raise OptionError("cleaning", cleaning, "must be an upframe.Cleaning")
        self.model = chosen_model(model, factor_of(self._size))
        self.on_progress, self.cancel = on_progress, cancel
        used = chosen_options(options, device, precision, model=self.model)
        cutting = Cutting(find_cuts, segment_frames, context, cleaning)
        self._stream: FrameStream | None = FrameStream(self.model, used, cutting, cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the device's memory; later calls raise UsageError. A second call does nothing."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    @property
    def notices(self) -> list[Notice]:
        """All notices so far."""
        return [] if self._stream is None else list(self._stream.notices)

    def latency(self, size: tuple[int, int]) -> int:
        """Largest number of frames of `size` (height, width) that are read before the first enlarged one comes.

        1 for a frame-wise network. For a video network it depends on free memory, unless `segment_frames` is set.

        Example:
            >>> import upframe
            >>> upframe.VideoUpscaler("photo-x2").latency((270, 480))
            1
        """
        wanted = Size(size=size).size
        assert wanted is not None
        stream = self._open_stream()
        at_once = stream.segment_frames(wanted)
        return at_once if self.model.spec.window is None else at_once + stream.lookahead() + 1

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the enlarged frames, each of the kind of its input.

        Args:
            frames: Pictures of one size and kind, read when they are needed: a list, a generator, an array (N, H, W, C).

        Raises:
            UsageError: if `frames` cannot be iterated over, or, during iteration, if a frame does not fit.
            Cancelled: if `cancel` was set.

        Example:
            >>> import numpy as np, upframe
            >>> video = upframe.VideoUpscaler("photo-x2", size=(30, 50))
            >>> next(video(iter([np.zeros((20, 30), np.float32)]))).shape
            (30, 50)
        """
        if isinstance(frames, str | Path):
            raise UsageError("frames", f"is a path: {frames}", "use upframe.upscale for files")
        if kinds.is_pillow(frames) or not isinstance(frames, Iterable):
            happened = f"is of type {type(frames).__name__}, expected pictures to iterate over"
            raise UsageError("frames", happened, "pass a list or a generator of pictures")
        return self._frames(iter(frames), self._open_stream())

    def _frames(self, frames: Iterator[Any], stream: FrameStream) -> Iterator[Any]:
        waiting: list[Held] = []

        def read() -> Iterator[Pixels]:
            first: Held | None = None
            for number, frame in enumerate(frames):
                one = _picture(frame, number, first)
                first = first or one
                if number == 0 and self.model.spec.window is not None:
                    _renamed(number, partial(kinds.as_rgb, one.clips[0]))
                waiting.append(one)
                yield one.clips[0][0]

        for done, made in enumerate(stream.frames(read(), self._size), 1):
            out = waiting.pop(0).restore([[made]])
            if self.on_progress is not None:
                self.on_progress(done)
            yield out
            if self.cancel is not None and self.cancel.is_set():
                raise Cancelled("video", f"stopped on request after {done} frames")

    def _open_stream(self) -> FrameStream:
        if self._stream is None:
            raise UsageError("VideoUpscaler", "is closed", "make another one")
        return self._stream


def _picture(frame: object, number: int, first: Held | None) -> Held:
    """Take one frame, which must be of the kind and size of the first.

    Raises:
        UsageError: naming the frame.
    """
    if isinstance(frame, str | Path):
        raise UsageError(f"frame {number}", f"is a path: {frame}", "open it first, for instance with PIL.Image.open")
    one = _renamed(number, partial(kinds.held, frame))
    if len(one.clips) != 1 or len(one.clips[0]) != 1:
        raise UsageError(f"frame {number}", f"is {one.kind} of several pictures, expected one picture")
    if first is not None and (one.kind, one.size) != (first.kind, first.size):
        found, expected = (f"{h.kind} with {h.size[1]}x{h.size[0]} pixels" for h in (one, first))
        raise UsageError(f"frame {number}", f"is {found}, the first is {expected}", "pass frames of one kind and size")
    return one


def _renamed(number: int, check: Callable[[], Made]) -> Made:
    """Return the result of `check`; an error about "x" becomes an error about the frame."""
    try:
        return check()
    except UsageError as error:
        raise UsageError(f"frame {number}", error.happened, error.advice) from error
