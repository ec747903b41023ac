"""Tiles in space and windows in time: the input and output of each, and the blending of neighbours.

Pure geometry, in input pixels unless a name says otherwise. Three widths matter:

* the *core* of a tile: cores cover the picture without overlap;
* the *blend* width: a tile also computes this many pixels beyond its core, and inside the resulting overlap its weight
  falls linearly from 1 to 0 while its neighbour's rises, so the two always sum to 1;
* the *halo*: further input pixels that are read as context, and whose output is discarded.

Nothing is read beyond the picture's border: there the network pads as it would for the untiled picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from upframe import pixels as px


@dataclass(frozen=True)
class Span:
    """A tile along one axis. All positions are half-open [start, end)."""

    start: int
    """First computed pixel, including the blend width."""
    end: int
    core_start: int
    core_end: int
    read_start: int
    read_end: int

    @property
    def length(self) -> int:
        return self.end - self.start


def spans(length: int, *, core_px: int, blend_px: int, halo_px: int, phase_px: int = 1, border_px: int = 0) -> list[Span]:
    """Cut `length` pixels into the fewest cores of at most `core_px`, whose sizes differ by at most one pixel.

    `phase_px` and `border_px` are those of `read_range`.

    Raises:
        ValueError: if cores are too narrow for the blend width (three tiles would overlap).
    """
    count = -(-length // max(core_px, 1))
    if count > 1 and length // count < 2 * blend_px:
        raise ValueError(f"cores of {length // count} px are too narrow to blend {blend_px} px on both sides")
    edges = [length * i // count for i in range(count + 1)]
    result = []
    for i in range(count):
        core_start, core_end = edges[i], edges[i + 1]
        start = core_start - (blend_px if i > 0 else 0)
        end = core_end + (blend_px if i < count - 1 else 0)
        read = read_range(start, end, length, halo_px, phase_px, border_px)
        result.append(Span(start, end, core_start, core_end, *read))
    return result


def read_range(start: int, end: int, length: int, halo_px: int, phase_px: int, border_px: int = 0) -> tuple[int, int]:
    """Widen [start, end) by the halo within the picture, beginning at its edge, or at a multiple of `phase_px` counted from the
    edge of its border of `border_px` mirrored pixels."""
    begin = (start - halo_px + border_px) // phase_px * phase_px - border_px
    return max(begin, 0), min(end + halo_px, length)


def seen_px(span: Span, length: int, border_px: int) -> int:
    """Pixels that a network sees of a span of a side of `length`, with the mirrored ones at its edges."""
    return span.read_end - span.read_start + border_px * ((span.read_start == 0) + (span.read_end == length))


@dataclass(frozen=True)
class Tile:
    """One unit of work: a rectangle of the picture."""

    rows: Span
    columns: Span

    @property
    def read_size(self) -> tuple[int, int]:
        """(height, width) of the input region."""
        return self.rows.read_end - self.rows.read_start, self.columns.read_end - self.columns.read_start


def grid(
    size: tuple[int, int], *, core_px: tuple[int, int], blend_px: int, halo_px: int, phase_px: int = 1, border_px: int = 0
) -> list[list[Tile]]:
    """Cover a picture of `size` (height, width) with rows of tiles."""
    rows, columns = (
        spans(length, core_px=core, blend_px=blend_px, halo_px=halo_px, phase_px=phase_px, border_px=border_px)
        for length, core in zip(size, core_px, strict=True)
    )
    return [[Tile(row, column) for column in columns] for row in rows]


def ramp(span: Span, scale: int) -> Tensor:
    """Weight of a tile for each of its output pixels along one axis, float32 (length · scale)."""
    weight = torch.ones(span.length * scale)
    before = 2 * (span.core_start - span.start) * scale  # the overlap is the blend width on both sides of the core's edge
    after = 2 * (span.end - span.core_end) * scale
    if before:
        weight[:before] = _rise(before)
    if after:
        weight[-after:] = 1 - _rise(after)
    return weight


def _rise(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float32) + 0.5) / count


def cut_halo(output: Tensor, tile: Tile, scale: int) -> Tensor:
    """Crop a tile's network output (..., H, W) to the part that the tile contributes."""
    top, left = (tile.rows.start - tile.rows.read_start) * scale, (tile.columns.start - tile.columns.read_start) * scale
    return output[..., top : top + tile.rows.length * scale, left : left + tile.columns.length * scale]


@dataclass(frozen=True)
class Edges:
    """Mirrored pixels that a network sees around a tile, on the sides where the tile reads up to the edge of the picture."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, border_px: int) -> Edges:
        """Those of a whole picture."""
        return cls(border_px, border_px, border_px, border_px)

    def mirrored(self, region: Tensor) -> Tensor:
        """Add them to the input (..., h, w) of a tile."""
        return px.mirror_pad(region, top=self.top, bottom=self.bottom, left=self.left, right=self.right)

    def within(self, output: Tensor, scale: int) -> Tensor:
        """Cut them off the output (..., s·h, s·w)."""
        rows = slice(self.top * scale, output.shape[-2] - self.bottom * scale)
        return output[..., rows, self.left * scale : output.shape[-1] - self.right * scale]


def edges(tile: Tile, size: tuple[int, int], border_px: int) -> Edges:
    """The mirrored pixels of a tile of a picture of `size` (height, width) that has `border_px` of them all around."""
    (height, width), rows, columns = size, tile.rows, tile.columns
    return Edges(
        border_px * (rows.read_start == 0),
        border_px * (rows.read_end == height),
        border_px * (columns.read_start == 0),
        border_px * (columns.read_end == width),
    )


def halves(
    tile: Tile, size: tuple[int, int], *, blend_px: int, halo_px: int, phase_px: int, border_px: int, floor_px: int
) -> list[list[Tile]]:
    """Halve a tile of a picture of `size` along each side longer than `floor_px`. The parts, blended, replace the tile, and
    each reads its halo from the whole picture."""
    height, width = tile.rows.length, tile.columns.length
    parts = grid(
        (height, width),
        core_px=(_half(height, floor_px), _half(width, floor_px)),
        blend_px=min(blend_px, min(height, width) // 8),
        halo_px=0,
    )

    def moved(part: Span, whole: Span, length: int) -> Span:
        start, end = whole.start + part.start, whole.start + part.end
        core = (whole.start + part.core_start, whole.start + part.core_end)
        return Span(start, end, *core, *read_range(start, end, length, halo_px, phase_px, border_px))

    return [[Tile(moved(p.rows, tile.rows, size[0]), moved(p.columns, tile.columns, size[1])) for p in row] for row in parts]


def _half(side_px: int, floor_px: int) -> int:
    return -(-side_px // 2) if side_px > floor_px else side_px


def blend(grid: list[list[Tile]], scale: int, run: Callable[[Tile], Tensor]) -> Iterator[Tensor]:
    """Blend the result of `run` for each tile (C, s·h, s·w) into full-width row bands, top to bottom.

    Only one row of tiles and its overlap are held.
    """
    if len(grid) == len(grid[0]) == 1:
        yield run(grid[0][0])
        return
    left, right = grid[0][0].columns.start, grid[0][-1].columns.end
    carry: Tensor | None = None  # weighted rows to which the next row of tiles also contributes
    for i, row in enumerate(grid):
        rows = row[0].rows
        band: Tensor | None = None
        weight_y = ramp(rows, scale)[:, None]
        for tile in row:
            out = run(tile)
            if band is None:
                band = torch.zeros(out.shape[0], rows.length * scale, (right - left) * scale)
            at = (tile.columns.start - left) * scale
            band[:, :, at : at + out.shape[2]] += out * (weight_y * ramp(tile.columns, scale))
        assert band is not None
        if carry is not None:
            band[:, : carry.shape[1]] += carry
        final = (grid[i + 1][0].rows.start if i + 1 < len(grid) else rows.end) - rows.start
        carry = band[:, final * scale :].clone()
        yield band[:, : final * scale]


# Time -----------------------------------------------------------------------------------------------------------------
def windows(frames: int, *, longest: int, overlap: int, multiple: int = 1) -> list[range]:
    """Cover `frames` frames with the fewest windows of at most `longest` frames, of equal length and spread evenly.

    Args:
        overlap: Least number of frames that neighbours share.
        multiple: The length of windows is a multiple of this if the clip and `longest` allow it.

    Raises:
        ValueError: if `overlap` leaves a window no frame of its own.
    """
    if frames <= longest:
        return [range(frames)]
    if not 0 <= overlap < longest:
        raise ValueError(f"windows of {longest} frames cannot share {overlap}")
    count = -(-(frames - overlap) // (longest - overlap))
    length = -(-(frames + (count - 1) * overlap) // count)
    length = min(-(-length // multiple) * multiple, longest)
    starts = [(frames - length) * i // (count - 1) for i in range(count)]
    return [range(start, start + length) for start in starts]


def blend_windows(windows: list[range], run: Callable[[range], Tensor]) -> Iterator[Tensor]:
    """Blend the result of `run` for each window (N, T, ...) into single frames (N, ...), in order.

    In shared frames the weight of one window falls linearly while that of the other rises. Only the frames of one window,
    including those it shares with the next, are held.
    """
    edges = [0, *(a.stop - b.start for a, b in pairwise(windows)), 0]
    waiting: deque[tuple[Tensor, float]] = deque()  # weighted sums and weights of frames from `done` on
    done = 0
    for number, window in enumerate(windows):
        made = run(window)
        before, after = edges[number], edges[number + 1]
        alone = len(windows) == 1
        for i, frame in enumerate(made.unbind(1)):
            weight = min(1.0, (i + 1) / (before + 1), (len(window) - i) / (after + 1))
            at = window.start + i - done
            if at == len(waiting):
                waiting.append((frame if alone else frame * weight, weight))
            else:
                total, weights = waiting[at]
                waiting[at] = (total.add_(frame, alpha=weight), weights + weight)
        del made
        next_start = windows[number + 1].start if number + 1 < len(windows) else window.stop
        while done < next_start:
            total, weights = waiting.popleft()
            yield total if weights == 1 else total / weights
            done += 1
