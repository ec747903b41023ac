"""Predict the memory of networks and pictures, and choose tiles and windows of videos that fit into free memory.

A network's `spec.memory` states measured laws (`scripts/calibrate_memory.py`). From them this module predicts the memory that
one call of the engine adds and that a segment cut into tiles holds, and it chooses the tile, window and kept features that fit.

The laws describe resident memory on a CPU under the command line's allocator settings. They include scratch space of kernels
and holes that the allocator leaves. They exclude weights, interpreter and libraries, which `process_bytes` measures. Holes fall
by chance: the memory that a call adds differs by some 10 % between runs, and by more if it is small compared with the process.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from upframe.models.interfaces import Keep
from upframe.models.spec import Memory, ModelSpec, Precision
from upframe.pixels import RESAMPLED_BYTES
from upframe.upscaling import tiling
from upframe.upscaling.options import SLICE_ROWS

FRAME_BYTES = 12  # of a pixel with three float32 channels
CLEANING_BYTES = 1000  # a pixel that is cleaned at once
CLEANING_PX = 1 << 20  # cleaned at once at most
# Measured memory of a waiting frame in multiples of its own size: it lies between blocks that a call frees, which leaves holes.
WAITING = 2.5
ROWS_OF_TILES = 3  # measured: one is written while the next is computed, and their sizes leave holes
BANDS_OF_ALPHA = 4  # its network's output in three channels, that weighted, and its limits
FRAMES_OF_A_SLICE = 3  # copies of a slice of rows that is converted: resampled, joined, as pixels
SLICES_RESAMPLED = 4  # the rows held, those resampled across, the sum, and the term that is added to it
TILE_STEP_PX = 32  # step between the tile sides that are tried


# What a network takes -------------------------------------------------------------------------------------------------
def laws(spec: ModelSpec, precision: Precision, *, kernels: bool = False) -> tuple[Memory, ...]:
    """The network's laws for a precision; without any, those of float32, which takes no less.

    Args:
        kernels: Whether upframe's kernels compute it.
    """
    known = [law for law in spec.memory if law.kernels == kernels]
    chosen = tuple(law for law in known if law.precision == precision)
    chosen = chosen or tuple(law for law in known if law.precision == "fp32")
    return chosen or (Memory(per_px=spec.activation_bytes_per_px),)


def call_bytes(
    spec: ModelSpec,
    size: tuple[int, int],
    frames: int,
    *,
    precision: Precision = "fp32",
    keep: Keep = "full",
    kernels: bool = False,
) -> int:
    """Predict the peak bytes that one call of the engine adds to a process, including input and output.

    For a network that streams: the peak of a stream whose frames are dropped one by one.

    Args:
        size: (height, width) of the frames.
        frames: In the clip.
        kernels: Whether upframe's kernels compute it.
    """
    window = spec.window
    if window is not None and not spec.streams:
        frames = -(-max(frames, window.minimum) // window.multiple) * window.multiple
    px = spec.size.padded(size[0]) * spec.size.padded(size[1])
    return _peak(laws(spec, precision, kernels=kernels), px, px, frames, keep)


def held_frames(frames: int, keep: Keep) -> int:
    """Number of frames whose features a streaming network holds for a clip of `frames`; half precision is not predicted."""
    return frames if keep == "full" else min(frames, 2 * math.ceil(math.sqrt(frames)))


def _peak(of: tuple[Memory, ...], worked_px: int, held_px: int, frames: int, keep: Keep) -> int:
    """Evaluate laws and return the largest result.

    Args:
        worked_px: Pixels of the frames being computed.
        held_px: Pixels of all frames whose features are held at one time.
    """
    held = held_frames(frames, keep)
    return math.ceil(
        max(
            law.fixed
            + law.per_px * worked_px
            + (law.chunk.bytes_per_px * law.chunk.worked_px(worked_px, frames) if law.chunk else 0)
            + (law.per_px_frame * frames + law.feature_bytes * held) * held_px
            for law in of
        )
    )


# Choosing -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """Tiles of one core size over frames of one size."""

    core: tuple[int, int]
    """(height, width) in input pixels."""
    largest_px: int
    """Pixels of the largest tile as the network gets it: with halo, padded to an accepted size."""
    all_px: int
    """The same for all tiles together."""


@dataclass(frozen=True)
class Cutting:
    """Rules of tiles: as in `tiling.grid`, and no core smaller than `least_px`."""

    halo_px: int
    blend_px: int
    least_px: int
    border_px: int = 0


@dataclass(frozen=True)
class Choice:
    """A way to cut a segment."""

    tile: tuple[int, int]
    """Core (height, width) of the tiles."""
    window: int
    """Number of frames at once; all frames if the network takes the whole segment."""
    keep: Keep
    """How a streaming network stores its features."""
    memory_bytes: int
    """Bytes needed, besides the segment's frames and the finished ones."""


def layout(spec: ModelSpec, size: tuple[int, int], core: tuple[int, int], cutting: Cutting) -> Layout:
    """Lay tiles with a core of `core` over frames of `size`."""
    reads = []
    for length, core_px in zip(size, core, strict=True):
        spans = tiling.spans(
            length,
            core_px=core_px,
            blend_px=cutting.blend_px,
            halo_px=cutting.halo_px,
            phase_px=spec.phase_px,
            border_px=cutting.border_px,
        )
        reads.append([spec.size.padded(tiling.seen_px(span, length, cutting.border_px)) for span in spans])
    return Layout(core, max(reads[0]) * max(reads[1]), sum(reads[0]) * sum(reads[1]))


def segment_bytes(
    spec: ModelSpec, tiles: Layout, frames: int, *, window: int, precision: Precision = "fp32", keep: Keep = "full"
) -> int:
    """Predict the peak bytes for running a segment, besides its own frames and the finished ones.

    All tiles advance through time together. So while one is computed, the others hold their features (streams) or the
    unfinished enlarged frames of a window (windows).

    Args:
        frames: Frames of the segment. window: Frames at once.
    """
    of = laws(spec, precision)
    assert spec.window is not None
    if spec.streams or spec.window.frames is None:
        return _peak(of, tiles.largest_px, tiles.all_px, frames, keep)
    seen = min(window, frames) if spec.task != "interpolate" else window
    padded = -(-max(seen, spec.window.minimum) // spec.window.multiple) * spec.window.multiple
    call = _peak(of, tiles.largest_px, tiles.largest_px, padded, keep)
    if spec.task == "interpolate":
        return call
    # If the clip is one window, its frames are the call's own output; frames of several windows are blended into copies.
    waiting_px = tiles.all_px - (tiles.largest_px if frames <= window else 0)
    return call + math.ceil(WAITING * waiting_px * spec.scale**2 * FRAME_BYTES * seen)


def choose(
    spec: ModelSpec,
    size: tuple[int, int],
    frames: int,
    *,
    budget: float,
    cutting: Cutting,
    precision: Precision = "fp32",
    tile: tuple[int, int] | None = None,
    window: int | None = None,
) -> Choice:
    """Choose the best way to run a segment within `budget` bytes; if none fits, the one that needs least.

    Preferred are, in this order: a window as long as the network's own, whole frames, kept features. So whole frames are tried
    first, with features kept and then computed twice, then smaller and smaller tiles in the same way, and then all of this with
    shorter and shorter windows. The reason: these networks gain most from more frames, while a tile's halo replaces most of its
    surroundings. More memory never leads to a worse choice. A window is never longer than the network's own, on which it was
    trained.

    Args:
        size: (height, width) of the frames.
        frames: Frames of the segment, context included.
        tile: Core that the user states.
        window: Frames at once that the user states.
    """
    cores = _layouts(spec, size, cutting) if tile is None else [layout(spec, size, tile, cutting)]
    keeps: tuple[Keep, ...] = ("full", "recompute") if spec.streams else ("full",)
    least: Choice | None = None
    for at_once, tiles, keep in itertools.product(_windows(spec, frames, window), cores, keeps):
        need = segment_bytes(spec, tiles, frames, window=at_once, precision=precision, keep=keep)
        choice = Choice(tiles.core, at_once, keep, need)
        if need <= budget:
            return choice
        if least is None or need < least.memory_bytes:
            least = choice
    assert least is not None
    return least


def _layouts(spec: ModelSpec, size: tuple[int, int], cutting: Cutting) -> list[Layout]:
    """Yield whole frames, then square cores of decreasing size. No core is so small that the network would pad its input, none
    is narrower than two halos, which would then be most of the work, and none is too narrow for two blend widths."""
    padded = spec.size.minimum - 2 * (cutting.halo_px + cutting.blend_px)
    least = max(cutting.least_px, 4 * cutting.blend_px, 2 * cutting.halo_px, padded)
    found = [layout(spec, size, size, cutting)]
    counts = {(1, 1)}
    longest = -(-max(size) // TILE_STEP_PX) * TILE_STEP_PX
    for side in itertools.chain(range(longest - TILE_STEP_PX, least, -TILE_STEP_PX), (least,)):
        count = (-(-size[0] // side), -(-size[1] // side))
        if count not in counts:  # cores are made equal, so equal numbers of cores are the same tiles
            counts.add(count)
            found.append(layout(spec, size, (min(side, size[0]), min(side, size[1])), cutting))
    return found


def _windows(spec: ModelSpec, frames: int, stated: int | None) -> Iterator[int]:
    """Window lengths to try, longest first: the network's own, and shorter ones that it takes without padding."""
    assert spec.window is not None
    own = spec.window.frames
    if own is None:
        yield frames
        return
    yield stated or own
    if stated is None and spec.task != "interpolate":
        least = max(spec.window.overlap + 1, spec.window.minimum)
        yield from (n for n in range(own - 1, least - 1, -1) if n % spec.window.multiple == 0)


# Memory of a picture --------------------------------------------------------------------------------------------------
def picture_bytes(
    spec: ModelSpec,
    grid: list[list[tiling.Tile]],
    written: tuple[int, int],
    *,
    has_alpha: bool = False,
    precision: Precision = "fp32",
    kernels: bool = False,
    border_px: int = 0,
) -> int:
    """Predict the bytes that enlarging a picture adds, besides its own pixels and what its encoder holds.

    They are largest while the last layer's tiles run, or, if the output is much larger than the network's, while its rows are
    resampled. Blocks that one step frees are used by the next.

    Args:
        grid: Tiles of the picture.
        written: (height, width) of the output.
        has_alpha: Whether the picture has a second layer, which waits row by row for the first.
        border_px: Mirrored pixels around the picture.
    """
    tiles = [tile for row in grid for tile in row]
    height, width = max((tile.read_size for tile in tiles), key=math.prod)
    row_px = max(row[0].rows.length for row in grid) * (grid[0][-1].columns.end - grid[0][0].columns.start)
    band = FRAME_BYTES * spec.scale**2 * row_px
    blended = ROWS_OF_TILES if len(tiles) > 1 else 0
    waiting = band * (blended + (max(blended, 1) if has_alpha else 0))
    slices = FRAMES_OF_A_SLICE * FRAME_BYTES * SLICE_ROWS * written[1] + SLICES_RESAMPLED * RESAMPLED_BYTES
    call = call_bytes(spec, (height + 2 * border_px, width + 2 * border_px), 1, precision=precision, kernels=kernels)
    return waiting + max(call, band + slices, BANDS_OF_ALPHA * band if has_alpha else 0)


# Memory of a whole video ----------------------------------------------------------------------------------------------------
def frames_bytes(spec: ModelSpec, size: tuple[int, int], frames: int, running: int, *, passes: int = 1) -> int:
    """Predict the bytes of a segment: its frames as read, as the network's input, and the network's work.

    Args:
        size: (height, width) of the frames.
        frames: Frames of the segment, context included.
        running: From `segment_bytes`.
        passes: Of cleaning, at most.
    """
    px = size[0] * size[1]
    read, prepared = 6 * px * frames, FRAME_BYTES * px * frames
    preparing = 2 * prepared  # single frames, and one tensor of them all
    if spec.preparation is not None and passes:
        # The clip, the change of each frame by cleaning, one tensor of these changes, and from the second pass on the previous
        # clip.
        preparing = prepared * (3 if passes == 1 else 4) + CLEANING_BYTES * min(px, CLEANING_PX)
    return read + max(preparing, prepared + running)


def finishing_bytes(made: tuple[int, int], size: tuple[int, int], *, queued: int, encoder_frames: int) -> int:
    """Predict the bytes of finished frames between the network and the file.

    Args:
        made: (height, width) of the network's output: blended, and converted to pixels in slices.
        size: (height, width) of the written frames.
        queued: Frames that may wait for the encoder.
        encoder_frames: Frames that the encoder holds, in 8 bits with halved chroma.
    """
    out_px = size[0] * size[1]
    return 2 * FRAME_BYTES * made[0] * made[1] + (queued + 2) * 6 * out_px + encoder_frames * out_px * 3 // 2
