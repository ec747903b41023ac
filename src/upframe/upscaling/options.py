"""Options for the size of an output, and for cutting and computing a picture or clip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from upframe.engines import EngineOptions, TorchOptions
from upframe.errors import OptionError, check_flag, check_number, check_whole

if TYPE_CHECKING:
    from upframe.models.registry import Model

MIN_TILE_PX = 16  # a smaller tile would be nearly all halo

BLEND_PX = 8

SLICE_ROWS = 64  # rows that are converted and passed to the encoder at once

MAX_SIGMA = 255

TileSize = int | tuple[int, int] | Literal["auto", "off"]


MOST_SCALE, MOST_SIDE, MOST_MEGAPIXELS = 10_000, 1_000_000, 1_000_000
"""Bounds of the sizes that may be asked for, far above what any machine makes."""


@dataclass(frozen=True)
class Target:
    """Size of an output, stated in at most one way; `width` and `height` together are one way."""

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    long_side: int | None = None
    short_side: int | None = None
    megapixels: float | None = None

    def __post_init__(self) -> None:
        for name in ("width", "height", "long_side", "short_side"):
            if (side := getattr(self, name)) is not None:
                check_whole(name, side, least=1, most=MOST_SIDE)
        for name, most in (("scale", MOST_SCALE), ("megapixels", MOST_MEGAPIXELS)):
            if (number := getattr(self, name)) is not None:
                check_number(name, number, above=0, most=most)
        ways = ("scale", "width", "long_side", "short_side", "megapixels")
        given = [way for way in ways if getattr(self, way) is not None]
        if self.height is not None and self.width is None:
            given.append("height")
        if len(given) > 1:
            happened = f"contradicts `{given[0]}={getattr(self, given[0])}`; each sets the output size"
            raise OptionError(given[1], getattr(self, given[1]), happened, "give one of them")

    def size_for(self, size: tuple[int, int], *, native: int) -> tuple[int, int]:
        """Compute the output (height, width) for an input of `size`, each side rounded to the nearest pixel and at least 1.

        Args:
            native: The network's enlargement, used if no size is stated.
        """
        h, w = size
        if self.width is not None or self.height is not None:
            return self.height or _whole_px(h * (self.width or 0) / w), self.width or _whole_px(w * (self.height or 0) / h)
        scale = float(native) if self.scale is None else self.scale
        if self.long_side is not None:
            scale = self.long_side / max(h, w)
        elif self.short_side is not None:
            scale = self.short_side / min(h, w)
        elif self.megapixels is not None:
            scale = math.sqrt(self.megapixels * 1e6 / (h * w))
        return _whole_px(h * scale), _whole_px(w * scale)

    def label(self, native: int) -> str:
        """The scale in an output's name: `4`, `2.5`, or the stated size."""
        if self.width is not None and self.height is not None:
            return f"{self.width}x{self.height}"
        if self.width is not None:
            return f"{self.width}w"
        if self.height is not None:
            return f"{self.height}h"
        if self.long_side is not None:
            return f"{self.long_side}long"
        if self.short_side is not None:
            return f"{self.short_side}short"
        if self.megapixels is not None:
            return f"{self.megapixels:g}mp"
        return f"{self.scale if self.scale is not None else native:g}"


def _whole_px(side: float) -> int:
    return max(math.floor(side + 0.5), 1)


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


def border_of(model: Model) -> int:
    """Mirrored pixels that the weights of a model need around a picture."""
    return model.card.border_px if model.card is not None else 0


def stated_core(tile: int | tuple[int, int] | Literal["off"], size: tuple[int, int]) -> tuple[int, int]:
    """Core (height, width) of tiles whose size the user stated, for pictures of `size`."""
    if tile == "off":
        return size
    return (tile, tile) if isinstance(tile, int) else tile
