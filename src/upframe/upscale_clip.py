"""ClipUpscaler: the frames of one shot in, larger frames out, for networks that look at many frames at once.

The whole segment is prepared once on whole frames (RealBasicVSR cleans it), then cut into tiles in space. All tiles go
through time in step, so that a finished frame is blended and handed on while the others wait; no enlarged clip is held.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from upframe import pixels as px
from upframe import tiling
from upframe.engines import TorchEngine, available_memory_bytes
from upframe.errors import Cancelled, Notice, OutOfMemoryError, ResourceError, UsageError, VerifyError
from upframe.frames import Pixels
from upframe.models import Model
from upframe.nets.clips import Keep
from upframe.spec import Cleaning
from upframe.upscale import BLEND_PX, MIN_TILE_PX, SLICE_ROWS, UpscaleOptions, stated_core

CLIP_SHARE = 0.4  # of the memory available that a segment's features may take
LEAST_FRAMES = 8  # a segment shorter than this gains nothing from a network that looks at many frames
MOST_FRAMES = 100  # of a segment, whatever the memory: what is lost in a crash is at most that


class ClipUpscaler:
    """Runs one network for clips. Call it from one thread at a time.

    Args:
        cleaning: How the segment is prepared; None is the network's default.
        on_frame: Called after each frame with (frames done, frames in all) of the segment at hand.
        cancel: When set, the next step of the network raises `Cancelled`.
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
            raise UsageError(model.spec.name, "a network for single pictures, not for clips", "use Upscaler")
        if cleaning is not None and model.spec.preparation is None:
            raise UsageError(model.spec.name, "does not clean", "drop the --clean flags")
        self.model = model
        self.options = options or UpscaleOptions()
        self.engine = engine or TorchEngine(model, self.options.torch)
        self.cleaning = cleaning
        self.notices: list[Notice] = []
        self.passes: list[int] = []
        """Cleaning passes of each segment so far."""
        self.on_frame = on_frame
        self.cancel = cancel

    def close(self) -> None:
        """Give back the device's memory."""
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
        """Enlarged frames `first` to `end` - 1 of a clip; the others are context.

        Args:
            clip: (H, W, 3) uint8 or uint16 pixels, all of one size, of one shot.
            size: (height, width) wanted; None is `scale` times the input.

        Yields:
            (H', W', 3) pixels of the input's depth, in order.

        Raises:
            ResourceError: when even the smallest tile does not fit into memory.
            VerifyError: when the network makes values that are not finite.
        """

        def stop() -> None:
            if self.cancel is not None and self.cancel.is_set():
                raise Cancelled(subject, "stopped on request")

        with contextlib.closing(self._frames(clip, first, len(clip) if end is None else end, size, subject)) as frames:
            while True:
                with self.engine.before_each_step(stop):  # not around `yield`: the caller may use the network, too
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
        grid = tiling.grid(
            (height, width),
            core_px=self.tile_px((height, width), len(clip)),
            blend_px=self.options.blend,
            halo_px=self.halo_px,
            phase_px=self.model.spec.phase_px,
        )
        keep = self.keep((height, width), len(clip))
        streams = {tile: _TileInTime(self, prepared, tile, keep, subject) for row in grid for tile in row}
        for number in range(end):
            bands = tiling.blend(grid, scale, lambda tile: streams[tile].next())
            if number < first:
                for _ in bands:  # context: computed, since later frames rest on it, and dropped
                    pass
                continue
            shown = bands if size is None or size == made else px.resize_bands(bands, made, size)
            parts = [px.from_unit(rows.clamp(0, 1), clip[0].dtype) for b in shown for rows in torch.split(b, SLICE_ROWS, dim=1)]
            yield np.concatenate(parts)
            if self.on_frame:
                self.on_frame(number - first + 1, end - first)

    def _prepared(self, clip: Sequence[Pixels], subject: str) -> Tensor:
        unit = torch.stack([px.to_unit(frame) for frame in clip])[None]  # (1, T, 3, H, W)
        try:
            done = self.engine.prepare(unit, self.cleaning)
        except OutOfMemoryError as error:
            raise _no_memory(subject, "preparing the segment", error) from error
        self.passes.append(done.passes)
        return done.clip

    def tile_px(self, size: tuple[int, int], frames: int) -> tuple[int, int]:
        """Core (height, width) of the tiles that frames of `size` are cut into, in a segment of `frames`."""
        if self.options.tile != "auto":
            return stated_core(self.options.tile, size)
        spec = self.model.spec
        per_px = max(spec.activation_bytes_per_px, 1)
        budget_px = CLIP_SHARE * available_memory_bytes() / per_px
        if size[0] * size[1] <= budget_px:
            return size
        margin = 2 * (self.halo_px + self.options.blend)
        side = max(int(budget_px**0.5) - margin, MIN_TILE_PX, 4 * BLEND_PX)
        return side, side

    def keep(self, size: tuple[int, int], frames: int) -> Keep:
        """Whether the features of a segment fit into memory whole, or are computed twice."""
        need = size[0] * size[1] * frames * self.model.spec.clip_bytes_per_px
        return "full" if need <= CLIP_SHARE * available_memory_bytes() else "recompute"

    def segment_frames(self, size: tuple[int, int]) -> int:
        """Longest segment for frames of `size` in the memory there is: features that are computed twice take √T."""
        per_frame = size[0] * size[1] * max(self.model.spec.clip_bytes_per_px, 1)
        held = max(CLIP_SHARE * available_memory_bytes() / per_frame, 1)
        fits = max(held, (held / 2) ** 2) if self.model.spec.streams else held
        return max(min(math.floor(fits), MOST_FRAMES), LEAST_FRAMES)


class _TileInTime:
    """One tile of a clip, frame after frame. Where memory runs out it becomes its own halves and catches up."""

    def __init__(self, up: ClipUpscaler, clip: Tensor, tile: tiling.Tile, keep: Keep, subject: str) -> None:
        self._up, self._clip, self._tile, self._keep, self._subject = up, clip, tile, keep, subject
        self._frames: Iterator[Tensor] | None = None
        self._parts: list[list[tiling.Tile]] | None = None
        self._streams: dict[tiling.Tile, _TileInTime] = {}
        self._done = 0

    def next(self) -> Tensor:
        """What the tile makes of the next frame, (3, s·h, s·w)."""
        out = self._next_of_parts() if self._parts is not None else self._next_of_whole()
        self._done += 1
        return out

    def _next_of_whole(self) -> Tensor:
        tile, up = self._tile, self._up
        try:
            if self._frames is None:
                rows, columns = tile.rows, tile.columns
                region = self._clip[..., rows.read_start : rows.read_end, columns.read_start : columns.read_end]
                self._frames = up.engine.stream(region, keep=self._keep)
            out = next(self._frames)[0]
        except OutOfMemoryError as error:
            self._halve(error)
            return self._next_of_parts()
        if not torch.isfinite(out).all():
            bad = int((~torch.isfinite(out)).sum())
            raise VerifyError(self._subject, f"the network made {bad} values that are not finite", "try --precision fp32")
        return tiling.cut_halo(out, tile, up.model.spec.scale)

    def _halve(self, error: OutOfMemoryError) -> None:
        tile, up = self._tile, self._up
        if max(tile.rows.length, tile.columns.length) <= MIN_TILE_PX:
            raise _no_memory(self._subject, f"a tile of {tile.columns.length}x{tile.rows.length} px", error) from error
        self._frames = None
        size = (self._clip.shape[-2], self._clip.shape[-1])
        self._parts = tiling.halves(
            tile, size, blend_px=up.options.blend, halo_px=up.halo_px, phase_px=up.model.spec.phase_px, floor_px=MIN_TILE_PX
        )
        if not any(n.id == "tile-halved" and n.subject == self._subject for n in up.notices):
            message = f"memory ran out for a tile of {tile.columns.length}x{tile.rows.length} px; it was redone in parts"
            up.notices.append(Notice("tile-halved", self._subject, message))
        self._streams = {
            part: _TileInTime(up, self._clip, part, self._keep, self._subject) for row in self._parts for part in row
        }
        for _ in range(self._done):
            for stream in self._streams.values():
                stream.next()

    def _next_of_parts(self) -> Tensor:
        assert self._parts is not None
        return torch.cat(list(tiling.blend(self._parts, self._up.model.spec.scale, lambda part: self._streams[part].next())), 1)


def _no_memory(subject: str, what: str, error: OutOfMemoryError) -> ResourceError:
    free = available_memory_bytes() / 2**20
    advice = "close other programs, choose shorter segments or a lighter model"
    return ResourceError(subject, f"{what} does not fit into memory ({free:.0f} MiB free; {error.happened})", advice)
