"""What is known about a model, as data: code outside `nets/` reads these facts and never tests a model's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # torch is not needed to state facts, and `upframe --help` must not import it
    from torch import nn

Precision = Literal["fp32", "bf16", "fp16"]
Tiling = Literal["exact", "approximate", "never"]
Task = Literal["upscale", "deblur", "denoise", "interpolate"]


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
    minimum: int = 1
    """Fewest frames the network takes; a shorter clip is mirrored at its end."""
    multiple: int = 1
    """Windows are cut at multiples of this many frames where the clip allows it: the network pads other lengths with
    zeros, which costs time and a little quality."""


@dataclass(frozen=True)
class Cleaning:
    """How a network that cleans clips before it enlarges them goes about it; the defaults are those of the release."""

    threshold: float = 255.0
    """Cleaning is repeated until a pass changes the clip by less than this: mean absolute change over all frames, pixels
    and channels, on the 0-255 scale. The paper uses 1.5, its GAN configuration 5; at 255 one pass always suffices."""
    max_passes: int = 3
    """Most passes; 0 leaves the clip as it is."""
    strength: float = 1.0
    """Share of the whole change that is applied, 0 to 1; 0 leaves the clip as it is."""
    sequential: bool = True
    """Frame by frame, which bounds memory, or all frames at once; the results agree to rounding."""

    def __post_init__(self) -> None:
        if not (self.threshold >= 0 and self.max_passes >= 0 and 0 <= self.strength <= 1):
            raise ValueError(f"threshold and max_passes must not be negative and strength must be 0 to 1: {self}")


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
    task: Task = "upscale"
    """What the network is for. "interpolate" takes a window of frames and makes the one in its middle, between the two
    central ones; the others make every frame of the window."""
    takes_sigma: bool = False
    """Whether the network is called with `sigma`, the standard deviation of the noise in the input, on the 0 to 1 scale."""
    phase_px: int = 1
    """Tiles start to read at multiples of this many input pixels: the step of a grid that the network lays over its
    input, so that a tile's grid falls on that of the whole picture."""
    takes_place: bool = False
    """Whether the network is called with `place`, a `tiling.Place`, for a tile of a larger picture."""
    size: SizeRule = SizeRule()
    window: Window | None = None
    """None for a network that treats every frame by itself."""
    preparation: Cleaning | None = None
    """Defaults of a first step that has to see whole frames of the whole segment, once, before they are cut into tiles;
    the network then offers `nets.clips.Prepares`. None for networks without such a step."""
    streams: bool = False
    """Whether the network offers `nets.clips.Streams`: enlarged frames one by one, and memory that need not grow with the
    clip as `clip_bytes_per_px` says."""
    channels: int = 3
    """Colour channels in and out."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """Precisions proven to stay within their stated error."""
    activation_bytes_per_px: int = 0
    """Measured peak bytes that one input pixel adds during a float32 forward pass, whatever the number of frames; for
    memory estimates."""
    clip_bytes_per_px: int = 0
    """Measured bytes that one input pixel of each frame adds to that, in a network for clips."""
    aliases: tuple[str, ...] = ()
    """Other names people type, for instance official file names without extension."""


@dataclass(frozen=True)
class Published:
    """A published or measured score, for the proof sheet of `upframe models verify`."""

    dataset: str
    psnr: float
    """dB on Y, protocol `sisr-y`."""
    ssim: float
