"""Upscaler: enlarge pictures. Handles tiles, alpha, gray, other output sizes, and lack of memory.

up = Upscaler(load("photo", scale=4))
big = up(pixels)                     # (H, W, C) any depth -> (4H, 4W, C) of the same depth
for band in up.bands(pixels): ...    # the same, top to bottom, holding one row of tiles at a time
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upframe import pixels as px
from upframe.engines import Engine, TorchEngine, available_memory_bytes, make_engine
from upframe.errors import Cancelled, Notice, OutOfMemoryError, ResourceError, UsageError, VerifyError
from upframe.media.frames import Pixels
from upframe.models.registry import Model
from upframe.models.spec import Place
from upframe.upscaling import flat_borders, memory, tiling
from upframe.upscaling.options import MIN_TILE_PX, SLICE_ROWS, UpscaleOptions, border_of, stated_core

AUTO_TILE_PX = 384  # from 128 px on, tiles are as fast per pixel as pictures, but their halos overlap
WHOLE_UP_TO_PX = 1 << 20  # "auto" does not tile pictures up to this size if they fit: halos cost a third more time at 540p
BAND_BYTES = 128 << 20  # bytes of float32 output of one row of tiles under "auto", so that wide pictures get flatter tiles
INNER_HALOS = 2  # halos of a flat border that are kept next to the content
BORDER_CHANGES = 2  # times that flat borders shrink before a video gets none: each time, all tiles lose their reuse
TILE_SHARE = 0.4  # share of free memory for one tile's activations under "auto"


@dataclass
class Saved:
    """A saved amount of work and the whole amount."""

    part: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """From 0 to 1; 0 if the whole is 0."""
        return self.part / self.total if self.total else 0.0


class Upscaler:
    """Runs one model on pictures of any size, depth and channel count. Call it from one thread at a time.

    Args:
        model: From `models.load`.
        engine: Replaces the engine made from `options`.
        on_tile: Called after each tile with (finished tiles, all tiles) of the current picture.
        cancel: Once it is set, the next tile raises `Cancelled`.
        reuse: Whether to copy a tile from the previous picture if its input, halo included, has not changed. This is exact,
            since the same input gives the same output. It costs the memory of one enlarged picture.
    """

    def __init__(
        self,
        model: Model,
        options: UpscaleOptions | None = None,
        *,
        engine: Engine | None = None,
        on_tile: Callable[[int, int], None] | None = None,
        cancel: threading.Event | None = None,
        reuse: bool = False,
    ) -> None:
        self.model = model
        self.options = options or UpscaleOptions()
        self.engine: Engine = engine or make_engine(model, self.options.engine)
        self.notices: list[Notice] = []
        self.on_tile = on_tile
        self.cancel = cancel
        self.reused = Saved()
        """Tiles that were copied from the previous picture."""
        self.flat = Saved()
        """Input pixels in flat borders that were repeated instead of computed."""
        self._last: dict[tiling.Tile, tuple[Pixels, Tensor]] | None = {} if reuse else None
        self._last_trim: flat_borders.Trim | None = None
        self._narrowed = 0
        self.border_px = border_of(model)
        """Mirrored pixels beyond the edges of a picture that the network sees."""
        if model.spec.window is not None:
            advice = "pass a video, or a folder of frames with `as_clip`"
            raise UsageError(model.name, "a video network, not one for single pictures", advice)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the device's memory."""
        del self.engine
        self._last = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def forget(self) -> None:
        """Forget earlier pictures, so that no tile is copied from them."""
        if self._last is not None:
            self._last.clear()
            self._last_trim, self._narrowed = None, 0

    def __call__(self, pixels: Pixels, *, size: tuple[int, int] | None = None) -> Pixels:
        """Enlarge (H, W, C) pixels by the model's scale, or to `size` (height, width); depth and channels stay the same."""
        return np.concatenate(list(self.bands(pixels, size=size)))

    def bands(
        self,
        pixels: Pixels,
        *,
        size: tuple[int, int] | None = None,
        dtype: np.dtype[Any] | None = None,
        subject: str = "picture",
    ) -> Iterator[Pixels]:
        """Yield the enlarged picture as bands of full-width rows, top to bottom, holding one row of tiles at a time.

        Args:
            pixels: (H, W, C) uint8, uint16 or float32; C is 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha (straight).
            size: (height, width) of the output; None is `scale` times the input. Other sizes are resampled from it (Lanczos 3).
            dtype: uint8, uint16 or float32 of the result; None is that of the input.
            subject: Name of the picture in notices and errors.

        Raises:
            UsageError: for pixels of another shape or dtype, or that are not finite.
            ResourceError: if even the smallest tile does not fit into memory.
            VerifyError: if the network makes values that are not finite.
        """
        px.check_frame(pixels, subject)
        dtype = dtype or pixels.dtype
        pixels, peak = self._in_range(pixels, dtype, subject)
        height, width, channels = pixels.shape
        made = (height * self.model.spec.scale, width * self.model.spec.scale)
        colours = channels - 1 if channels in (2, 4) else channels
        colour, alpha = pixels[..., :colours], pixels[..., colours:]
        if alpha.shape[2]:
            colour = spread_colour(colour, alpha[..., 0])
        trim = self._trim(colour, alpha)
        job = _Picture(self, trim, subject, layers=2 if alpha.shape[2] else 1)
        layers = [self._sized(job.bands(_run_colour, colour), made, size)]
        if alpha.shape[2]:
            layers.append(self._sized(job.bands(_run_alpha, alpha), made, size))
        for parts in zip(*layers, strict=True):
            # in thin slices: a row of tiles of a wide picture is large, and each step of the conversion copies it
            for rows in zip(*(part.split(SLICE_ROWS, dim=1) for part in parts), strict=True):
                shown = _to_gray(rows[0]) if colours == 1 else rows[0]
                if dtype == np.float32:  # conversion to integers clips anyway
                    shown = shown.clamp(0, 1) * peak
                alphas = [a[:1].clamp(0, 1) for a in rows[1:]]
                yield px.from_unit(torch.cat([shown, *alphas]) if alphas else shown, dtype)

    def _in_range(self, pixels: Pixels, dtype: np.dtype[Any], subject: str) -> tuple[Pixels, float]:
        """Scale float pixels to [0, 1]. If values exceed 1 and the output holds floats, all are divided by the largest, and
        that factor is returned; for integer outputs they are clipped. Negative values are clipped."""
        if pixels.dtype != np.float32:
            return pixels, 1.0
        colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))
        peak = max(float(pixels[..., :colours].max()), 1.0) if dtype == np.float32 else 1.0
        bad = int(((pixels < 0) | (pixels > peak)).sum())
        if bad:
            self.notices.append(Notice("values-clipped", subject, f"{bad} values outside [0, {peak:g}] were clipped"))
        scaled = pixels.clip(0, peak)
        scaled[..., :colours] /= peak
        return scaled.clip(0, 1), peak

    def _trim(self, colour: Pixels, alpha: Pixels) -> flat_borders.Trim:
        """Find the flat borders to skip; none if the picture is computed whole."""
        planes = [plane for plane in (colour, alpha) if plane.shape[2]]
        size = colour.shape[0], colour.shape[1]
        spec = self.model.spec
        trim = flat_borders.whole(size)
        if self.options.tile != "off":
            halo_px = max(self.halo_px, spec.halo_px)  # a flat border repeats an error all over it
            trim = flat_borders.trim(planes, outer_px=halo_px, inner_px=INNER_HALOS * halo_px, phase_px=spec.phase_px)
            if self.options.tile != "auto" and min(trim.size) < 4 * self.options.blend:  # too small for the stated tiles
                trim = flat_borders.whole(size)
        if self._last is not None:
            trim = self._steady(trim)
        self.flat.total += size[0] * size[1]
        self.flat.part += size[0] * size[1] - trim.size[0] * trim.size[1]
        return trim

    def _steady(self, trim: flat_borders.Trim) -> flat_borders.Trim:
        """Return the flat borders to skip if tiles are reused. A tile is identified by its place in the remaining picture, and
        a cursor in a border must not move all tiles in every frame. So borders only shrink, a few times, then none is skipped
        until `forget`."""
        last = self._last_trim
        if last is None or last.whole_size != trim.whole_size:
            self.forget()
        else:
            trim = trim.common(last)
            if trim != last:
                narrowed = self._narrowed + 1
                self.forget()
                self._narrowed = narrowed
                trim = trim if narrowed <= BORDER_CHANGES else flat_borders.whole(trim.whole_size)
        self._last_trim = trim
        return trim

    def _sized(self, bands: Iterator[Tensor], made: tuple[int, int], size: tuple[int, int] | None) -> Iterator[Tensor]:
        return bands if size is None or size == made else px.resize_bands(bands, made, size)

    def tile_px(self, size: tuple[int, int]) -> tuple[int, int]:
        """Core (height, width) of the tiles a picture of `size` is cut into."""
        if self.options.tile != "auto":
            return stated_core(self.options.tile, size)
        budget_px = TILE_SHARE * available_memory_bytes() / max(self.model.spec.activation_bytes_per_px, 1)
        if size[0] * size[1] <= min(WHOLE_UP_TO_PX, budget_px):
            return size
        around = 2 * (self.halo_px + self.options.blend)
        side = int(budget_px**0.5) - around
        least = max(MIN_TILE_PX, 4 * self.options.blend)
        side = max(min(side, AUTO_TILE_PX), least)
        rows = BAND_BYTES // (size[1] * self.model.spec.scale**2 * 3 * 4)
        return max(min(side, rows), least), side

    def memory_bytes(self, size: tuple[int, int], written: tuple[int, int], *, has_alpha: bool = False) -> int:
        """Predict the bytes that enlarging a picture of `size` to `written` adds, besides its own and the encoder's."""
        kernels = isinstance(self.engine, TorchEngine) and self.engine.by_kernels
        return memory.picture_bytes(
            self.model.spec,
            self._grid(size),
            written,
            has_alpha=has_alpha,
            precision=self.engine.precision,
            kernels=kernels,
            border_px=self.border_px,
        )

    def _grid(self, size: tuple[int, int]) -> list[list[tiling.Tile]]:
        return tiling.grid(
            size,
            core_px=self.tile_px(size),
            blend_px=self.options.blend,
            halo_px=self.halo_px,
            phase_px=self.model.spec.phase_px,
            border_px=self.border_px,
        )

    @property
    def halo_px(self) -> int:
        return self.model.spec.halo_px if self.options.halo is None else self.options.halo


class _Picture:
    """The state of rendering one picture: tiles, progress, halved tiles."""

    def __init__(self, up: Upscaler, trim: flat_borders.Trim, subject: str, *, layers: int) -> None:
        self.up, self.trim, self.subject = up, trim, subject
        self.size = size = trim.size  # (height, width) of the tiled picture
        self.scale = up.model.spec.scale
        self.phase_px = up.model.spec.phase_px
        self.grid = up._grid(size)
        self._done, self._total = 0, len(self.grid) * len(self.grid[0]) * layers

    def bands(self, run: _Run, plane: Pixels) -> Iterator[Tensor]:
        """Yield blended output rows (C, rows, s·W) of all tiles of a plane (H, W, C); `run` computes a tile."""
        plane = self.trim.cut(plane)

        def tile_output(tile: tiling.Tile) -> Tensor:
            out = self._reused(run, plane, tile) if run is _run_colour else self._tile(run, plane, tile)
            self._done += 1
            if self.up.on_tile:
                self.up.on_tile(self._done, self._total)
            return out

        yield from self.trim.restored(tiling.blend(self.grid, self.scale, tile_output), self.scale)

    def _reused(self, run: _Run, plane: Pixels, tile: tiling.Tile) -> Tensor:
        """Return the tile's earlier result if its input has not changed, else the result of `_tile`."""
        last = self.up._last
        if last is None:
            return self._tile(run, plane, tile)
        source = _cut(plane, tile)
        known = last.get(tile)
        self.up.reused.total += 1
        if known is not None and known[0].dtype == source.dtype and np.array_equal(known[0], source):
            self.up.reused.part += 1
            return known[1]
        out = self._tile(run, plane, tile)
        last[tile] = (source.copy(), out.clone())
        return out

    def _tile(self, run: _Run, plane: Pixels, tile: tiling.Tile) -> Tensor:
        """Return the result of one tile, halved as often as memory demands; its neighbours are not affected."""
        if self.up.cancel is not None and self.up.cancel.is_set():
            raise Cancelled(self.subject, "stopped on request")
        try:
            return tiling.cut_halo(self._within(run(self, plane, tile), tile), tile, self.scale)
        except OutOfMemoryError as error:
            return self._halved(run, plane, tile, error)

    def _halved(self, run: _Run, plane: Pixels, tile: tiling.Tile, error: OutOfMemoryError) -> Tensor:
        height, width = tile.rows.length, tile.columns.length
        if max(height, width) <= MIN_TILE_PX:
            free = available_memory_bytes() / 2**20
            need = tile.read_size[0] * tile.read_size[1] * self.up.model.spec.activation_bytes_per_px / 2**20
            raise ResourceError(
                self.subject,
                f"even a tile of {width}x{height} px (about {need:.0f} MiB) does not fit into memory ({free:.0f} MiB free)",
                "close other programs, or choose a lighter model",
            ) from error
        message = f"memory ran out for a tile of {width}x{height} px; it was computed in smaller tiles"
        self._note("tile-halved", message)
        parts = tiling.halves(
            tile,
            self.size,
            blend_px=self.up.options.blend,
            halo_px=self.up.halo_px,
            phase_px=self.phase_px,
            border_px=self.up.border_px,
            floor_px=MIN_TILE_PX,
        )
        return torch.cat(list(tiling.blend(parts, self.scale, lambda part: self._tile(run, plane, part))), dim=1)

    def _note(self, id: str, message: str) -> None:
        """Add a notice, once per picture for any number of tiles."""
        if not any(n.id == id and n.subject == self.subject for n in self.up.notices):
            self.up.notices.append(Notice(id, self.subject, message))

    # The border ---------------------------------------------------------------------------------------------------------
    def _edges(self, tile: tiling.Tile) -> tiling.Edges:
        return tiling.edges(tile, self.size, self.up.border_px)

    def region(self, plane: Pixels, tile: tiling.Tile) -> Tensor:
        """The input of the network for a tile: (3, h, w) in [0, 1] of a plane (H, W, C)."""
        region = self._edges(tile).mirrored(px.to_unit(_cut(plane, tile)))
        return region.expand(3, -1, -1) if region.shape[0] == 1 else region

    def _within(self, out: Tensor, tile: tiling.Tile) -> Tensor:
        """Cut the enlarged border off a network's output (C, s·h, s·w)."""
        return self._edges(tile).within(out, self.scale)

    def _place(self, tile: tiling.Tile) -> Place | None:
        """Position of a tile in the picture with its border."""
        place, border = self.trim.place(tile), self.up.border_px
        if place is None or not border:
            return place
        edges = self._edges(tile)
        (row, column), (height, width) = place.origin, place.size
        return Place((row + border - edges.top, column + border - edges.left), (height + 2 * border, width + 2 * border))

    def network(self, region: Tensor, tile: tiling.Tile) -> Tensor:
        """Run (C, h, w) through the network; if values are not finite, run it again in float32."""
        # A network for one channel (gray or luma) takes the three channels as three frames.
        clip = region[None, :, None] if self.up.model.spec.channels == 1 else region[None, None]
        place = self._place(tile)
        out = self.up.engine(clip, place).flatten(0, 2)
        if torch.isfinite(out.sum()):  # a non-finite value makes the sum non-finite; sums of values around 1 do not overflow
            return out
        if self.up.engine.precision != "fp32":
            message = f"values were not finite in {self.up.engine.precision}; the tile was computed again in float32"
            self._note("fp32-fallback", message)
            out = self.up.engine.in_float32()(clip, place).flatten(0, 2)
        if not torch.isfinite(out).all():
            bad = int((~torch.isfinite(out)).sum())
            raise VerifyError(self.subject, f"the network made {bad} values that are not finite", "check the weights")
        return out


_Run = Callable[[_Picture, Pixels, tiling.Tile], Tensor]
"""Computes the read region (C, s·h, s·w) of a tile of a plane (H, W, C)."""


def _cut(plane: Pixels, tile: tiling.Tile) -> Pixels:
    rows, columns = tile.rows, tile.columns
    return plane[rows.read_start : rows.read_end, columns.read_start : columns.read_end]


def _run_colour(job: _Picture, colour: Pixels, tile: tiling.Tile) -> Tensor:
    return job.network(job.region(colour, tile), tile)


def _run_alpha(job: _Picture, alpha: Pixels, tile: tiling.Tile) -> Tensor:
    """Enlarge alpha by the network as a gray picture, limited to the range of the surrounding input pixels.

    The network sharpens the outline as it sharpens the picture; the limits prevent overshoot and keep areas of constant alpha
    exactly constant, so these need no network.
    """
    region = job.region(alpha, tile)
    plane = region[:1]
    radius = 2
    high = F.max_pool2d(plane[None], 2 * radius + 1, stride=1, padding=radius)[0]
    low = -F.max_pool2d(-plane[None], 2 * radius + 1, stride=1, padding=radius)[0]
    if torch.equal(low, high):
        return _enlarge(plane, job.scale).expand(3, -1, -1)
    out = _to_gray(job.network(region, tile))
    return torch.minimum(torch.maximum(out, _enlarge(low, job.scale)), _enlarge(high, job.scale)).expand(3, -1, -1)


def _enlarge(x: Tensor, scale: int) -> Tensor:
    return x.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def _to_gray(rgb: Tensor) -> Tensor:
    """(3, H, W) → (1, H, W) by the luma weights of BT.601; equal channels keep their value up to rounding."""
    return (rgb * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)


def spread_colour(colour: Pixels, alpha: Pixels) -> Pixels:
    """Replace the colour of fully transparent pixels by that of the nearest visible ones; (H, W, C) and (H, W).

    The colour under zero alpha is arbitrary (often black); a network would draw it into the edge as a halo. The new colour
    comes from a pyramid of averages of visible colour, coarse to fine, so the cost is linear in the number of pixels.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colour
    known = torch.from_numpy(~hidden).float()[None]
    filled = _fill(px.to_unit(colour) * known, known)
    spread = px.from_unit(filled, colour.dtype)
    return np.where(hidden[..., None], spread, colour)


def _fill(weighted: Tensor, weight: Tensor) -> Tensor:
    """Keep the colour (C, H, W) where `weight` is not zero, and take the pyramid's average of nearby colours elsewhere."""
    if weight.min() > 0 or max(weight.shape[1:]) == 1:
        return weighted / weight.clamp_min(1e-9)
    h, w = weight.shape[1:]
    pad = (0, w % 2, 0, h % 2)
    coarse_weight = F.avg_pool2d(F.pad(weight, pad)[None], 2)[0]
    coarse = F.avg_pool2d(F.pad(weighted, pad)[None], 2)[0]
    # Weights above 0 become 1: otherwise one visible pixel would count less at each level of the pyramid.
    seen = (coarse_weight > 0).float()
    below = _enlarge(_fill(coarse / coarse_weight.clamp_min(1e-9) * seen, seen), 2)[:, :h, :w]
    return torch.where(weight > 0, weighted / weight.clamp_min(1e-9), below)
