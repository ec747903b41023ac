"""Options for cutting and computing a picture or clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from upframe.engines import EngineOptions, TorchOptions
from upframe.errors import OptionError, check_flag, check_number, check_whole

MIN_TILE_PX = 16  # a smaller tile would be nearly all halo

BLEND_PX = 8

SLICE_ROWS = 64  # rows that are converted and passed to the encoder at once

MAX_SIGMA = 255

TileSize = int | tuple[int, int] | Literal["auto", "off"]


@dataclass(frozen=True)
class UpscaleOptions:
    """How a picture is cut into tiles.

    Raises:
        OptionError: if a value is invalid; the message names the field.
    """

    tile: TileSize = "auto"
    """Core of a tile in input pixels, as one side or (height, width); "auto" chooses from free memory; "off" runs the picture
    whole, including its flat borders (flat_borders.py)."""
    halo: int | None = None
    """Input pixels of context around a tile; None takes the model's measured default."""
    blend: int = BLEND_PX
    """Input pixels over which neighbouring tiles are blended, on each side of their border."""
    engine: EngineOptions = TorchOptions()
    """The engine that runs the network, and its options."""
    window: int | None = None
    """Number of frames that a network with temporal windows takes at once; None chooses from free memory."""
    sigma: float | None = None
    """Standard deviation of the noise in the input, on the 0 to 255 scale, for networks that take it."""
    as_published: bool = False
    """Whether to cut clips as the authors did for their published scores, instead of into upframe's blended tiles and
    windows."""

    def __post_init__(self) -> None:
        check_whole("blend", self.blend, least=0)
        check_tile(self.tile, blend=self.blend)
        if self.halo is not None:
            check_whole("halo", self.halo, least=0)
        if not isinstance(self.engine, get_args(EngineOptions)):
            raise OptionError("engine", self.engine, "is not the options of an engine", "use `engines.engine_options`")
        if self.window is not None:
            check_whole("window", self.window, least=1)
        if self.sigma is not None:
            check_number("sigma", self.sigma, least=0, most=MAX_SIGMA)
        check_flag("as_published", self.as_published)


def check_tile(tile: object, *, blend: int) -> None:
    """Refuse a value that is not the size of a tile, or that leaves a tile no pixel outside the blend with its neighbours.

    Raises:
        OptionError: for such a value; the message gives the smallest size that works.
    """
    if isinstance(tile, str) and tile in ("auto", "off"):
        return
    sides = tile if isinstance(tile, tuple) else (tile, tile)
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
        raise OptionError("tile", tile, 'must be "auto", "off", a side or (height, width) in pixels')
    least = least_tile_px(blend)
    if min(sides) < least:
        raise OptionError("tile", tile, f"too small for a blend of {blend} px", f"use {least} or more")


def least_tile_px(blend: int) -> int:
    """Smallest side of a stated tile."""
    return max(MIN_TILE_PX, 4 * blend)


def stated_core(tile: int | tuple[int, int] | Literal["off"], size: tuple[int, int]) -> tuple[int, int]:
    """Core (height, width) of tiles whose size the user stated, for pictures of `size`."""
    if tile == "off":
        return size
    return (tile, tile) if isinstance(tile, int) else tile
