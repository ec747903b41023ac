"""Cut clips as the authors of VRT and VSR-Transformer did for their published scores. Pure geometry.

The results differ from those of upframe's blended tiles (`upscaling.tiling`), which are better for viewing:

* VRT (arXiv 2201.12288): pieces of 40 frames × 128 × 128 that share 2 frames and 20 pixels (`vrt_tiles`);
* VSR-Transformer (arXiv 2106.06847): one window of frames around every frame (`mirrored_windows`), cut into crops of 64 × 64
  that share 32 pixels; only the frame in the middle is kept (`vsrt_crops`).

Both were compared with results of the published programs, by a toy network whose output depends on its position in a tile:
equal except for float32 rounding. Where the published programs fail (VRT without overlap, VSR-Transformer on sides below a
crop), the functions document what happens instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]
"""A network: (N, T, C, h, w) to (N, T, C', h · scale, w · scale)."""

Padding = Literal["reflection", "reflection_circle"]


@dataclass(frozen=True)
class Piece:
    """Range that one run reads along one axis, and the part of its result that is kept. Positions are half-open [start,
    end)."""

    read_start: int
    """In input pixels (or frames); `read_end` lies beyond the picture where that is extended."""
    read_end: int
    start: int
    """In output pixels of the whole picture."""
    end: int

    def within(self, scale: int) -> slice:
        """Position of the kept part within the result of the run."""
        return slice(self.start - self.read_start * scale, self.end - self.read_start * scale)


# VRT ------------------------------------------------------------------------------------------------------------------
def vrt_tiles(
    clip: Tensor,
    run: Run,
    *,
    tile: tuple[int, int, int] = (40, 128, 128),
    overlap: tuple[int, int, int] = (2, 20, 20),
    scale: int,
    window: tuple[int, int, int],
) -> Tensor:
    """Run `clip` (N, T, C, H, W) in pieces, as for VRT's scores: (N, T, C', H · scale, W · scale).

    Pieces share `overlap` with their neighbours and are averaged there. The last one is moved back to end with the clip, and a
    clip shorter than a piece is one piece. In space, half of the overlap is discarded at either side of a seam, in *output*
    pixels as published: for `scale` 1 pieces meet in the middle; above that, a strip of overlap · (scale - 1) pixels, and
    everything else they share, is averaged.

    A tile of 0 does not cut that axis. It is then extended to a multiple of `window` by mirroring its end, edge included.

    In the published program an overlap of 0 in space makes every result NaN; here pieces then simply meet. An axis shorter
    than the extension it needs is mirrored again; there it is extended by what there is.

    Args:
        clip: Values as `run` takes them; it is not changed.
        run: Takes and returns (N, T, C, h, w); called once for a piece, in order of time, rows and columns.
        tile: (frames, height, width) of a piece in input pixels.
        overlap: Shared frames, rows and columns of neighbours.
        scale: Output pixels per input pixel.
        window: The network's attention window (frames, height, width).

    Returns:
        On the device of `clip`, in float32 or the type of the results if that is wider. It is the only tensor of the whole
        clip's size that is allocated.

    Raises:
        ValueError: an overlap is not smaller than its tile, or `run` made something of another size.
    """
    size = (clip.shape[1], clip.shape[3], clip.shape[4])
    frames, rows, columns = (
        vrt_pieces(size[axis], tile=tile[axis], overlap=overlap[axis], scale=factor, window=window[axis], trim=trim)
        for axis, factor, trim in ((0, 1, False), (1, scale, True), (2, scale, True))
    )
    total: Tensor | None = None
    for t, y, x in product(frames, rows, columns):
        made = _run(run, clip, (t, y, x), scale).to(clip.device)
        if total is None:
            dtype = torch.promote_types(made.dtype, torch.float32)  # sums of half-precision results would lose digits
            shape = (clip.shape[0], size[0], made.shape[2], size[1] * scale, size[2] * scale)
            total = torch.zeros(shape, dtype=dtype, device=clip.device)
        kept = made[:, t.within(1), :, y.within(scale), x.within(scale)]
        total[:, t.start : t.end, :, y.start : y.end, x.start : x.end] += kept
    assert total is not None
    # The pieces form a grid, so how many hold a pixel is a product of three counts: no second tensor of that size is needed.
    for pieces, axis in ((frames, 1), (rows, 3), (columns, 4)):
        if len(pieces) > 1:
            count = torch.zeros(total.shape[axis], dtype=total.dtype)
            for piece in pieces:
                count[piece.start : piece.end] += 1
            total /= count.to(total.device).view([-1 if a == axis else 1 for a in range(total.ndim)])
    return total


def vrt_pieces(length: int, *, tile: int, overlap: int, scale: int, window: int, trim: bool) -> list[Piece]:
    """Cut an axis of `length` as `vrt_tiles` says; without `trim`, pieces keep everything they share."""
    if tile == 0:
        return [Piece(0, -(-length // window) * window, 0, length * scale)]
    _check_overlap(tile, overlap)
    starts = [*range(0, length - tile, tile - overlap), max(length - tile, 0)]
    pieces = []
    for i, at in enumerate(starts):
        end = min(at + tile, length)
        cut_start = overlap // 2 if trim and i > 0 else 0
        cut_end = overlap - overlap // 2 if trim and i < len(starts) - 1 else 0  # of an odd overlap the end loses one more
        pieces.append(Piece(at, end, at * scale + cut_start, end * scale - cut_end))
    return pieces


# VSR-Transformer ------------------------------------------------------------------------------------------------------
def vsrt_crops(clip: Tensor, run: Run, *, scale: int, overlap: int = 32, tile: int = 64) -> Tensor:
    """Run the middle frame of `clip` (N, T, C, H, W) in crops, as for VSR-Transformer's scores.

    Crops of `tile` × `tile` share `overlap` with their neighbours; half of it is discarded on either side, and where crops
    still overlap the later one counts. The last crop is moved back to end with the picture, and its kept part begins at a
    position of its own: see `vsrt_pieces`.

    With an overlap of half a crop the published program computes the last crop of every row twice where the side is a
    multiple of that; here once, with the same result. On sides below `tile` it fails; here the clip is extended at its end
    by mirroring, edge included, and the result is cropped.

    Args:
        clip: A window of frames, values as `run` takes them; it is not changed.
        run: Takes and returns (N, T, C, h, w); always called with `tile` × `tile` pixels, by rows and columns.
        scale: Output pixels per input pixel.
        overlap: Input pixels that neighbours share; 32 in the published evaluation, 16 by default in its code.
        tile: Side of a crop in input pixels, the only size that the published network takes.

    Returns:
        Frame T // 2, (N, C', H · scale, W · scale), on the device of `clip` and in the type of the results.

    Raises:
        ValueError: `overlap` is not smaller than `tile`, or `run` made something of another size.
    """
    height, width = clip.shape[3:]
    rows = _distinct(vsrt_pieces(height, tile=tile, overlap=overlap, scale=scale))
    columns = _distinct(vsrt_pieces(width, tile=tile, overlap=overlap, scale=scale))
    frames = Piece(0, clip.shape[1], 0, clip.shape[1])
    result: Tensor | None = None
    for y, x in product(rows, columns):
        made = _run(run, clip, (frames, y, x), scale)[:, clip.shape[1] // 2]
        if result is None:
            shape = (clip.shape[0], made.shape[1], height * scale, width * scale)
            result = torch.empty(shape, dtype=made.dtype, device=clip.device)
        result[:, :, y.start : y.end, x.start : x.end] = made[:, :, y.within(scale), x.within(scale)]
    assert result is not None
    return result


def vsrt_pieces(length: int, *, tile: int, overlap: int, scale: int) -> list[Piece]:
    """Cut an axis of `length` as published for VSR-Transformer; later pieces overwrite earlier ones.

    There are length // stride pieces for a stride of tile - overlap, and one more when more than `overlap` pixels remain.
    That one keeps everything from its regular place on, although it is moved back; otherwise the last piece loses half of
    the overlap like any other. The last two may read the same pixels.
    """
    _check_overlap(tile, overlap)
    if length < tile:
        return [Piece(0, tile, 0, length * scale)]
    stride = tile - overlap
    is_extra = length % stride > overlap
    count = length // stride + is_extra
    pieces = []
    for i in range(count):
        is_last = i == count - 1
        at = length - tile if is_last else min(i * stride, length - tile)  # the latter only for overlaps above half a tile
        start = 0 if i == 0 else i * stride if is_last and is_extra else at + overlap // 2
        end = length if is_last else at + tile - overlap // 2
        pieces.append(Piece(at, at + tile, start * scale, end * scale))
    return pieces


def _distinct(pieces: list[Piece]) -> list[Piece]:
    """Join neighbouring `pieces` that read the same input: the later one would overwrite the same values."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and joined[-1].read_start == piece.read_start:
            piece = Piece(piece.read_start, piece.read_end, joined.pop().start, piece.end)
        joined.append(piece)
    return joined


def mirrored_windows(length: int, *, frames: int, padding: Padding = "reflection_circle") -> list[tuple[int, ...]]:
    """For each of `length` frames, return the numbers of the `frames` frames around it, itself in the middle.

    Frames outside the clip are replaced. "reflection" mirrors the clip at its first and last frame without repeating them: (2,
    1, 0, 1, 2) for the first of five. "reflection_circle", with which VSR-Transformer was scored, uses instead the frames after
    the window, or before it at the end of the clip, as far from the window as the missing ones are from the clip: (4, 3, 0, 1,
    2). So no frame occurs twice. If a clip is too short for that, it is mirrored as often as needed.

    Raises:
        ValueError: `frames` is even or below 1, or `length` below 1.
    """
    if length < 1 or frames < 1 or frames % 2 == 0:
        raise ValueError(f"a window of {frames} frames has no middle, or a clip of {length} no frames")
    half = frames // 2

    def inside(index: int, centre: int) -> int:
        if 0 <= index < length:
            return index
        if padding == "reflection_circle":
            other = centre + half - index if index < 0 else centre - half + (length - 1 - index)
            if 0 <= other < length:
                return other
        index %= max(2 * (length - 1), 1)
        return min(index, 2 * (length - 1) - index)

    return [tuple(inside(i, centre) for i in range(centre - half, centre + half + 1)) for centre in range(length)]


# Both -----------------------------------------------------------------------------------------------------------------
def _check_overlap(tile: int, overlap: int) -> None:
    if not 0 <= overlap < tile:
        raise ValueError(f"pieces of {tile} cannot share {overlap} with their neighbours")


def _run(run: Run, clip: Tensor, pieces: Sequence[Piece], scale: int) -> Tensor:
    """Apply `run` to the part of `clip` that three pieces (frames, rows, columns) read."""
    t, y, x = pieces
    part = clip[:, t.read_start : t.read_end, :, y.read_start : y.read_end, x.read_start : x.read_end]
    for piece, axis in ((t, 1), (y, 3), (x, 4)):
        part = _extended(part, axis, piece.read_end - piece.read_start)
    made = run(part)
    n, frames, _, height, width = part.shape
    if made.ndim != 5 or (*made.shape[:2], *made.shape[3:]) != (n, frames, height * scale, width * scale):
        wanted = f"({n}, {frames}, C, {height * scale}, {width * scale})"
        raise ValueError(f"the network made {tuple(made.shape)} of {tuple(part.shape)}, not {wanted}")
    return made


def _extended(x: Tensor, axis: int, length: int) -> Tensor:
    """Extend `x` to `length` along an axis by mirroring its end, edge included, as often as needed."""
    n = x.shape[axis]
    if n == length:
        return x
    index = torch.arange(length, device=x.device) % (2 * n)
    return x.index_select(axis, torch.minimum(index, 2 * n - 1 - index))
