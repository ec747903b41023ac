"""ClipUpscaler: enlarge the frames of one shot with a network that looks at many frames at once.

The whole segment is prepared once on whole frames (RealBasicVSR cleans it), then cut into tiles in space. All tiles advance
through time together: each finished frame is blended and yielded at once, so no enlarged clip is held.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from upframe import pixels as px
from upframe.engines import TorchEngine, available_memory_bytes, make_clip_engine
from upframe.errors import Cancelled, Notice, OptionError, OutOfMemoryError, ResourceError, UsageError, VerifyError
from upframe.media.frames import Pixels
from upframe.models.interfaces import Keep
from upframe.models.registry import Model
from upframe.models.spec import Cleaning, ModelSpec
from upframe.upscaling import memory, tiling
from upframe.upscaling.options import MIN_TILE_PX, SLICE_ROWS, UpscaleOptions, border_of, stated_core

CLIP_SHARE = 0.4  # share of free memory that the network may use; frames in transit and other programs need the rest
WINDOWS = 4  # frames of a segment with temporal windows: longer loses more in a crash, shorter computes more context twice
LEAST_FRAMES = 8  # in a shorter segment, looking at many frames gains nothing
MOST_FRAMES = 100  # most frames of a segment, for any memory: a crash loses at most these


class ClipUpscaler:
    """Runs one video network. Call it from one thread at a time.

    Args:
        cleaning: Cleaning options of the segment; None is the network's default.
        on_frame: Called after each frame with (finished frames, all frames) of the current segment.
        cancel: Once it is set, the next step of the network raises `Cancelled`.
    """

    def __init__(
        self,
        model: Model,
        options: UpscaleOptions | None = None,
        *,
        cleaning: Cleaning | None = None,
        engine: TorchEngine | None = None,
        on_frame: Callable[[int, int], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        if model.spec.window is None:
            raise UsageError(model.name, "a network for single pictures, not for videos", "use Upscaler")
        if cleaning is not None and model.spec.preparation is None:
            raise OptionError("video.cleaning", cleaning, f"{model.name} does not clean", "remove this option")
        self.model = model
        self.options = options or UpscaleOptions()
        _check_options(model.spec, self.options)
        self.border_px = border_of(model)
        """Mirrored pixels beyond the edges of a frame that the network sees."""
        self.engine = engine or make_clip_engine(model, self.options.engine)
        self.cleaning = cleaning
        self.notices: list[Notice] = []
        self.passes: list[int] = []
        """Cleaning passes of each segment so far."""
        self.on_frame = on_frame
        self.cancel = cancel

    def close(self) -> None:
        """Release the device's memory."""
        del self.engine
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def halo_px(self) -> int:
        return self.model.spec.halo_px if self.options.halo is None else self.options.halo

    def frames(
        self,
        clip: Sequence[Pixels],
        *,
        first: int = 0,
        end: int | None = None,
        size: tuple[int, int] | None = None,
        subject: str = "clip",
    ) -> Iterator[Pixels]:
        """Yield the enlarged frames `first` to `end` - 1 of a clip; the others are context.

        A network that interpolates yields the frame between `first` and its next frame, and so on, up to the frame between
        `end` - 1 and its next frame. The last frame of the clip is its own next frame.

        Args:
            clip: (H, W, 3) uint8 or uint16 pixels, all of one size, of one shot.
            size: (height, width) wanted; None is `scale` times the input.

        Yields:
            (H', W', 3) pixels of the input's depth, in order.

        Raises:
            UsageError: for frames of another shape or dtype, or that are not finite.
            ResourceError: if even the smallest tile does not fit into memory.
            VerifyError: if the network makes values that are not finite.
        """

        def stop() -> None:
            if self.cancel is not None and self.cancel.is_set():
                raise Cancelled(subject, "stopped on request")

        with contextlib.closing(self._frames(clip, first, len(clip) if end is None else end, size, subject)) as frames:
            while True:
                with self.engine.before_each_step(stop):  # not around `yield`: the caller may use the network meanwhile
                    frame = next(frames, None)
                if frame is None:
                    return
                stop()
                yield frame

    def _frames(
        self, clip: Sequence[Pixels], first: int, end: int, size: tuple[int, int] | None, subject: str
    ) -> Generator[Pixels, None, None]:
        height, width = clip[0].shape[:2]
        scale = self.model.spec.scale
        made = (height * scale, width * scale)
        prepared = self._prepared(clip, subject)
        choice = self.choice((height, width), len(clip))
        grid = tiling.grid(
            (height, width),
            core_px=choice.tile,
            blend_px=self.options.blend,
            halo_px=self.halo_px,
            phase_px=self.model.spec.phase_px,
            border_px=self.border_px,
        )
        begin = first if self.model.spec.task == "interpolate" else 0  # other networks need all of the context
        if self.options.as_published and self.model.spec.score_scheme is not None:
            whole = tiling.grid((height, width), core_px=(height, width), blend_px=0, halo_px=0)
            made_frames = self._as_published(prepared, subject)
            frames = (tiling.blend(whole, scale, lambda _: next(made_frames)) for _ in range(end))
        else:
            window = choice.window if self.model.spec.window and self.model.spec.window.frames else None
            streams = {
                tile: _TileInTime(self, prepared, tile, choice.keep, window, begin, subject) for row in grid for tile in row
            }
            frames = (tiling.blend(grid, scale, lambda tile: streams[tile].next()) for _ in range(begin, end))
        for number, bands in enumerate(frames, begin):
            if number < first:
                for _ in bands:  # a frame of context: later frames depend on it; its result is dropped
                    pass
                continue
            shown = bands if size is None or size == made else px.resize_bands(bands, made, size)
            parts = [px.from_unit(rows.clamp(0, 1), clip[0].dtype) for b in shown for rows in torch.split(b, SLICE_ROWS, dim=1)]
            yield np.concatenate(parts)
            if self.on_frame:
                self.on_frame(number - first + 1, end - first)

    def note(self, kind: str, subject: str, message: str) -> None:
        """Add a notice, once for each subject."""
        if not any(n.id == kind and n.subject == subject for n in self.notices):
            self.notices.append(Notice(kind, subject, message))

    def in_time(self, region: Tensor, *, keep: Keep, begin: int, longest: int | None = None) -> Iterator[Tensor]:
        """Run the network on a region (1, T, C, h, w) of a prepared clip and yield frames (1, C, s·h, s·w).

        Args:
            begin: First frame to make, for a network that interpolates.
            longest: Most frames at once; None takes the number from the options.
        """
        spec, t = self.model.spec, region.shape[1]
        if spec.task == "interpolate":
            around = spec.window.frames // 2 if spec.window is not None and spec.window.frames is not None else 1
            for i in range(begin, t):
                chosen = [min(max(j, 0), t - 1) for j in range(i - around + 1, i + around + 1)]
                yield self._run(region[:, chosen])[:, 0]
        elif spec.streams:
            yield from self.engine.stream(region, keep=keep)
        else:
            cut = self.windows(t, longest=longest)
            yield from tiling.blend_windows(cut, lambda window: self._run(region[:, window.start : window.stop]))

    def _run(self, clip: Tensor) -> Tensor:
        sigma = None if self.options.sigma is None else self.options.sigma / 255
        return self.engine(clip, prepared=True, sigma=sigma)

    def _as_published(self, clip: Tensor, subject: str) -> Iterator[Tensor]:
        """Yield frames (C, s·H, s·W) of a whole prepared clip, cut as by the network's authors."""
        assert self.model.spec.score_scheme is not None
        try:
            for frame in self.model.spec.score_scheme(clip, self._run):
                yield _finite(frame[0], subject)
        except OutOfMemoryError as error:
            raise _no_memory(subject, "a tile of the published size", error) from error

    def windows(self, frames: int, *, longest: int | None = None) -> list[range]:
        """Cut a clip of `frames` frames into temporal windows."""
        window = self.model.spec.window
        assert window is not None
        longest = longest or self.options.window or window.frames or frames
        if longest <= window.overlap:
            advice = f"use {window.overlap + 1} or more"
            raise OptionError("window", longest, f"neighbouring windows share {window.overlap} frames", advice)
        return tiling.windows(frames, longest=longest, overlap=window.overlap, multiple=window.multiple)

    def _prepared(self, clip: Sequence[Pixels], subject: str) -> Tensor:
        for number, frame in enumerate(clip):
            px.check_frame(frame, f"{subject}, frame {number}", channels=(3,))
        unit = torch.stack([px.to_unit(frame) for frame in clip])[None]  # (1, T, 3, H, W)
        try:
            done = self.engine.prepare(unit, self.cleaning)
        except OutOfMemoryError as error:
            raise _no_memory(subject, "preparing the segment", error) from error
        self.passes.append(done.passes)
        return done.clip

    # What is cut into what ------------------------------------------------------------------------------------------------
    def choice(self, size: tuple[int, int], frames: int) -> memory.Choice:
        """Choose tiles and windows for frames of `size` (height, width), in a segment of `frames`, that fit into the memory
        free now.

        The rule is that of `memory.choose`, for `CLIP_SHARE` of the free memory of the device. Choices of the user are kept.
        """
        tile = self.options.tile
        return memory.choose(
            self.model.spec,
            size,
            frames,
            budget=self._budget(),
            cutting=self._cutting,
            precision=self.engine.precision,
            tile=None if tile == "auto" else stated_core(tile, size),
            window=self.options.window,
        )

    def _budget(self) -> float:
        """Bytes that the network may use."""
        device = self.engine.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory_bytes()
        return CLIP_SHARE * free

    @property
    def _cutting(self) -> memory.Cutting:
        return memory.Cutting(self.halo_px, self.options.blend, MIN_TILE_PX, self.border_px)

    def window_frames(self, size: tuple[int, int]) -> int | None:
        """Number of frames of `size` that the network sees at once; None if it takes the whole segment."""
        window = self.model.spec.window
        assert window is not None
        return self.choice(size, WINDOWS * window.frames).window if window.frames is not None else None

    def segment_frames(self, size: tuple[int, int]) -> int:
        """Longest segment for frames of `size` that fits into free memory.

        For a network with temporal windows it is a few windows long: frames are held, not features. For a network that takes
        whole segments it is the longest that some choice of tile and kept features allows, from `LEAST_FRAMES` to
        `MOST_FRAMES`. A clip that is cut as published is not divided into segments.
        """
        window = self.model.spec.window
        assert window is not None
        if self.options.as_published:
            return sys.maxsize
        at_once = self.window_frames(size)
        if at_once is not None:
            return WINDOWS * max(at_once - window.overlap, 1)
        budget = self._budget()
        short, long = LEAST_FRAMES, MOST_FRAMES + 1  # `short` fits, `long` does not
        while long - short > 1:
            middle = (short + long) // 2
            fits = self.choice(size, middle).memory_bytes <= budget
            short, long = (middle, long) if fits else (short, middle)
        return short


class _TileInTime:
    """One tile of a clip, frame by frame. If memory runs out, the tile is replaced by its halves, which recompute its earlier
    frames. If it cannot become smaller, its temporal windows are halved."""

    def __init__(
        self, up: ClipUpscaler, clip: Tensor, tile: tiling.Tile, keep: Keep, window: int | None, begin: int, subject: str
    ) -> None:
        self._up, self._clip, self._tile, self._keep, self._begin, self._subject = up, clip, tile, keep, begin, subject
        self._edges = tiling.edges(tile, (clip.shape[-2], clip.shape[-1]), up.border_px)
        self._frames: Iterator[Tensor] | None = None
        self._parts: list[list[tiling.Tile]] | None = None
        self._streams: dict[tiling.Tile, _TileInTime] = {}
        self._window = window
        self._done = 0

    def next(self) -> Tensor:
        """Return the tile's part of the next frame, (3, s·h, s·w)."""
        out = self._next_of_parts() if self._parts is not None else self._next_of_whole()
        self._done += 1
        return out

    def _next_of_whole(self) -> Tensor:
        tile, up = self._tile, self._up
        while True:
            try:
                if self._frames is None:
                    self._frames = up.in_time(self._region(), keep=self._keep, begin=self._begin, longest=self._window)
                    for _ in range(self._done):
                        next(self._frames)
                out, scale = next(self._frames)[0], up.model.spec.scale
                return tiling.cut_halo(self._edges.within(_finite(out, self._subject), scale), tile, scale)
            except OutOfMemoryError as error:
                self._frames = None
                if not self._is_smallest():
                    self._halve()
                    return self._next_of_parts()
                self._shorten(error)

    def _region(self) -> Tensor:
        rows, columns = self._tile.rows, self._tile.columns
        return self._edges.mirrored(self._clip[..., rows.read_start : rows.read_end, columns.read_start : columns.read_end])

    def _is_smallest(self) -> bool:
        """Whether halving the tile would save nothing, because the network pads its input to a least size."""
        least = self._up.model.spec.size.minimum
        sides = zip((self._tile.rows.length, self._tile.columns.length), self._tile.read_size, strict=True)
        return all(length <= MIN_TILE_PX or read <= least for length, read in sides)

    def _shorten(self, error: OutOfMemoryError) -> None:
        """Halve the temporal windows.

        Raises:
            ResourceError: if they are already the shortest that the network takes, or it has none.
        """
        tile, up, window = self._tile, self._up, self._up.model.spec.window
        what = f"a tile of {tile.columns.length}x{tile.rows.length} px"
        if window is None or window.frames is None or up.model.spec.task == "interpolate":
            raise _no_memory(self._subject, what, error) from error
        longest = max(map(len, up.windows(self._clip.shape[1], longest=self._window)))
        shorter = max(longest // 2, window.overlap + 1, window.minimum, window.multiple)
        if shorter >= longest:
            raise _no_memory(self._subject, f"{what} and {longest} frames", error) from error
        self._window = shorter
        message = f"memory ran out for {longest} frames at once; they were computed again, {shorter} at a time"
        up.note("window-halved", self._subject, message)

    def _halve(self) -> None:
        tile, up = self._tile, self._up
        size = (self._clip.shape[-2], self._clip.shape[-1])
        self._parts = tiling.halves(
            tile,
            size,
            blend_px=up.options.blend,
            halo_px=up.halo_px,
            phase_px=up.model.spec.phase_px,
            border_px=up.border_px,
            floor_px=MIN_TILE_PX,
        )
        message = f"memory ran out for a tile of {tile.columns.length}x{tile.rows.length} px; it was computed in smaller tiles"
        up.note("tile-halved", self._subject, message)
        parts = (part for row in self._parts for part in row)
        self._streams = {
            part: _TileInTime(up, self._clip, part, self._keep, self._window, self._begin, self._subject) for part in parts
        }
        for _ in range(self._done):
            for stream in self._streams.values():
                stream.next()

    def _next_of_parts(self) -> Tensor:
        assert self._parts is not None
        return torch.cat(list(tiling.blend(self._parts, self._up.model.spec.scale, lambda part: self._streams[part].next())), 1)


def _finite(out: Tensor, subject: str) -> Tensor:
    """Return `out` if all values are finite.

    Raises:
        VerifyError: if some values are not finite.
    """
    if not torch.isfinite(out).all():
        bad = int((~torch.isfinite(out)).sum())
        raise VerifyError(subject, f"the network made {bad} values that are not finite", "try `precision='fp32'`")
    return out


def _check_options(spec: ModelSpec, options: UpscaleOptions) -> None:
    if spec.takes_sigma and options.sigma is None:
        raise UsageError(spec.name, "needs the noise level of the input", "add `sigma`, 0 to 255; 10 to 50 is usual")
    if not spec.takes_sigma and options.sigma is not None:
        raise OptionError("sigma", options.sigma, f"is not an option of {spec.name}", "remove this option")
    if spec.task == "interpolate" and options.window is not None:
        raise OptionError("window", options.window, f"{spec.name} always uses the frames around one gap", "remove this option")
    if options.as_published and spec.score_scheme is None:
        raise OptionError("as_published", True, f"{spec.name} was measured on whole clips", "remove this option")


def _no_memory(subject: str, what: str, error: OutOfMemoryError) -> ResourceError:
    free = available_memory_bytes() / 2**20
    advice = "close other programs, choose shorter segments or a lighter model"
    return ResourceError(subject, f"{what} does not fit into memory ({free:.0f} MiB free; {error.happened})", advice)
