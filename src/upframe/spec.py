"""What is known about a model, as data: code outside `nets/` reads these facts and never tests a model's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # torch is not needed to state facts, and `upframe --help` must not import it
    from torch import nn

Precision = Literal["fp32", "bf16", "fp16"]
Tiling = Literal["exact", "approximate", "never"]


@dataclass(frozen=True)
class SizeRule:
    """Which input sizes a network accepts; other sizes are padded by mirroring and the result is cropped."""

    minimum: int = 1
    """Smallest side in input pixels."""
    multiple: int = 1
    """Each side must be a multiple of this many input pixels."""

    def padded(self, side_px: int) -> int:
        """The smallest accepted side that holds `side_px` pixels."""
        side = max(side_px, self.minimum)
        return -(-side // self.multiple) * self.multiple


@dataclass(frozen=True)
class Window:
    """How many frames a video network takes at once."""

    frames: int | None
    """Frames per window; None for a bidirectional recurrent network, which takes the whole segment."""
    overlap: int
    """Frames that neighbouring windows share."""


@dataclass(frozen=True)
class ModelSpec:
    """A network and the facts about it. Every field is a claim with a test."""

    name: str
    """Registry id, `family-variant-xN`."""
    family: str
    """The published system, e.g. "RLFN"."""
    build: Callable[[], nn.Module]
    """Makes the network with untrained weights. Takes and returns (N, C, H, W) when `window` is None, else
    (N, T, C, H, W); values in [0, 1]."""
    scale: int
    """Output pixels per input pixel, along each side."""
    halo_px: int
    """Input pixels of context around a tile that are used by default, chosen by measurement (docs/tiling.md)."""
    exact_halo_px: int | None
    """Input pixels of context that make a tile equal to the untiled result; None when no finite halo does."""
    tiling: Tiling
    """Whether tiles with `exact_halo_px` are exact, only approximate, or not allowed."""
    paper: str
    """Title, venue and link."""
    licence: str
    """Licence of the officially published weights; ours are stated in their cards."""
    phase_px: int = 1
    """Tiles start to read at multiples of this many input pixels: the step of a grid that the network lays over its
    input, so that a tile's grid falls on that of the whole picture."""
    takes_place: bool = False
    """Whether the network is called with `place`, a `tiling.Place`, for a tile of a larger picture."""
    size: SizeRule = SizeRule()
    window: Window | None = None
    """None for a network that treats every frame by itself."""
    channels: int = 3
    """Colour channels in and out."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """Precisions proven to stay within their stated error."""
    activation_bytes_per_px: int = 0
    """Measured peak bytes that one input pixel adds during a float32 forward pass; for memory estimates."""
    aliases: tuple[str, ...] = ()
    """Other names people type, for instance official file names without extension."""


@dataclass(frozen=True)
class Published:
    """A published or measured score, for the proof sheet of `upframe models verify`."""

    dataset: str
    psnr: float
    """dB on Y, protocol `sisr-y`."""
    ssim: float
