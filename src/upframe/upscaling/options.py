"""How a picture or clip is cut and computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from upframe.engines import EngineOptions, TorchOptions

MIN_TILE_PX = 16  # below this a tile is all halo

BLEND_PX = 8

SLICE_ROWS = 64  # rows converted and handed to the encoder at once

TileSize = int | tuple[int, int] | Literal["auto", "off"]


@dataclass(frozen=True)
class UpscaleOptions:
    """How a picture is cut into tiles."""

    tile: TileSize = "auto"
    """Core of a tile in input pixels, as one side or (height, width); "auto" chooses from the memory available; "off"
    runs the picture whole, its flat margins (margins.py) included."""
    halo: int | None = None
    """Input pixels of context around a tile; None takes the model's measured default."""
    blend: int = BLEND_PX
    """Input pixels over which neighbouring tiles are blended, on each side of their border."""
    engine: EngineOptions = TorchOptions()
    """The engine that runs the network, and its options."""
    window: int | None = None
    """Frames that a network with windows in time takes at once; None chooses from the memory available."""
    sigma: float | None = None
    """Standard deviation of the noise in the input, on the 0 to 255 scale, for networks that are told it."""
    as_published: bool = False
    """Whether clips are cut as the authors cut them when they measured their scores, instead of into our blended tiles
    and windows."""


def stated_core(tile: int | tuple[int, int] | Literal["off"], size: tuple[int, int]) -> tuple[int, int]:
    """Core (height, width) of tiles whose size the user stated, for pictures of `size`."""
    if tile == "off":
        return size
    return (tile, tile) if isinstance(tile, int) else tile
