"""Enlarge a stream of frames: one by one, or in segments if the network looks at several frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from upframe.api.arguments import Size
from upframe.api.kinds import as_gray, as_rgb
from upframe.errors import Notice, OptionError
from upframe.jobs.video.shots import NEIGHBOURS, find_cuts, thumbnail
from upframe.media.frames import Pixels
from upframe.models.registry import Model
from upframe.models.spec import Cleaning
from upframe.pixels import FULL_SCALE
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

REMEMBERED = 8  # thumbnails kept before a segment, to distinguish cuts from motion and flashes: shots.py looks back at 5


@dataclass(frozen=True)
class Cutting:
    """How a stream is cut into segments for a video network."""

    find_cuts: bool = True
    """Whether no segment reaches across a cut from one shot to the next."""
    segment_frames: int | None = None
    """Frames of the longest segment; None chooses from free memory."""
    context: int | None = None
    """Frames of context from neighbouring segments of the same shot; None is the network's default."""
    cleaning: Cleaning | None = None
    """Cleaning options of a network that cleans its input; None is its default."""


class FrameStream:
    """One network for frames that arrive one after the other. Memory depends on the size of frames and not on their number.

    Raises:
        OptionError: for a network that makes frames between frames.
        UsageError: for options that the network does not support.
    """

    def __init__(self, model: Model, options: UpscaleOptions, cutting: Cutting, cancel: threading.Event | None) -> None:
        if model.spec.task == "interpolate":
            advice = 'use upframe.plan with JobOptions(task="interpolate")'
            raise OptionError("model", model.name, "makes frames between frames, not larger ones", advice)
        if model.spec.window is not None and options.as_published:
            raise OptionError("as_published", True, "needs the whole video at once", "use upframe.evaluate")
        if model.spec.window is None and cutting.cleaning is not None:
            raise OptionError("cleaning", cutting.cleaning, f"{model.name} does not clean", "remove this argument")
        self.model, self._cutting = model, cutting
        self._single: Upscaler | None = None
        self._clip: ClipUpscaler | None = None
        if model.spec.window is None:
            self._single = Upscaler(model, options, cancel=cancel, reuse=True)
        else:
            self._clip = ClipUpscaler(model, options, cleaning=cutting.cleaning, cancel=cancel)

    def close(self) -> None:
        """Release the device's memory."""
        for upscaler in (self._single, self._clip):
            if upscaler is not None:
                upscaler.close()

    @property
    def notices(self) -> list[Notice]:
        """All notices so far."""
        return self._single.notices if self._single is not None else self._clip.notices if self._clip is not None else []

    def segment_frames(self, size: tuple[int, int]) -> int:
        """Longest segment for frames of `size`; 1 if the network enlarges each frame alone."""
        if self._clip is None:
            return 1
        return self._cutting.segment_frames or self._clip.segment_frames(size)

    @property
    def context(self) -> int:
        """Frames of context on each side of a segment."""
        window = self.model.spec.window
        if window is None:
            return 0
        return window.overlap if self._cutting.context is None else self._cutting.context

    def lookahead(self) -> int:
        """Frames beyond a segment that are read before it is enlarged."""
        return self.context + (NEIGHBOURS if self._cutting.find_cuts and self._clip is not None else 0)

    def frames(self, frames: Iterable[Pixels], size: Size) -> Iterator[Pixels]:
        """Yield an enlarged frame (H', W', C) for each (H, W, C) of `frames`, all of one size, in order.

        Raises:
            Cancelled: if a stop was requested.
            ResourceError: if even the smallest tile does not fit into memory.
            VerifyError: if the network makes values that are not finite.
        """
        if self._single is not None:
            self._single.forget()
            for number, frame in enumerate(frames):
                wanted = size.of((frame.shape[0], frame.shape[1]), native=self.model.spec.scale)
                yield np.concatenate(list(self._single.bands(frame, size=wanted, subject=f"frame {number}")))
            return
        for read, first, end in self._segments(iter(frames)):
            yield from self._enlarged(read, first, end, size)
            del read  # before the next segment is read

    def _enlarged(self, read: Sequence[Pixels], first: int, end: int, size: Size) -> Iterator[Pixels]:
        assert self._clip is not None
        wanted = size.of((read[0].shape[0], read[0].shape[1]), native=self.model.spec.scale)
        is_gray = read[0].shape[2] == 1
        for made in self._clip.frames(as_rgb(read), first=first, end=end, size=wanted, subject="video"):
            yield as_gray(made) if is_gray else made

    def _segments(self, frames: Iterator[Pixels]) -> Iterator[tuple[list[Pixels], int, int]]:
        """Yield segments as (frames read, first and end of those to enlarge among them).

        If the end of a shot is known, the shot is divided evenly, as for a file. From a longer shot, a segment takes as many
        frames as it can hold.
        """
        waiting = deque(islice(frames, 1))
        if not waiting:
            return
        longest = self.segment_frames((waiting[0].shape[0], waiting[0].shape[1]))
        context, beyond = self.context, self.lookahead()
        small = deque([_small(waiting[0])])  # thumbnails of remembered and of waiting frames
        before: list[Pixels] = []
        while waiting:
            _read(frames, longest + beyond + 1 - len(waiting), waiting, small)
            ended = len(waiting) <= longest + beyond
            shot = self._shot(list(small), len(waiting), ended)  # number of its waiting frames; None if the shot may continue
            if shot is None:
                take, after = longest, context
            else:
                take = shot // -(-shot // longest)
                after = min(context, shot - take)
            yield [*before, *islice(waiting, take + after)], len(before), len(before) + take
            seen = deque(before, maxlen=context)
            seen.extend(waiting.popleft() for _ in range(take))
            before = [] if take == shot else list(seen)
            del seen  # otherwise it would hold finished frames
            while len(small) > len(waiting) + REMEMBERED:
                small.popleft()

    def _shot(self, small: list[NDArray[np.float32]], waiting: int, ended: bool) -> int | None:
        """Number of waiting frames in the shot of the first one; None if the shot does not end among them."""
        known = waiting if ended else waiting - NEIGHBOURS  # only future frames tell whether later ones begin a shot
        if self._cutting.find_cuts:
            remembered = len(small) - waiting
            found = [cut - remembered for cut in find_cuts(small) if 0 < cut - remembered < known]
            if found:
                return found[0]
        return waiting if ended else None


def _read(frames: Iterator[Pixels], count: int, waiting: deque[Pixels], small: deque[NDArray[np.float32]]) -> None:
    for frame in islice(frames, count):
        waiting.append(frame)
        small.append(_small(frame))


def _small(frame: Pixels) -> NDArray[np.float32]:
    return thumbnail(as_gray(frame)[..., 0] if frame.shape[2] == 3 else frame[..., 0], FULL_SCALE[frame.dtype.name])
