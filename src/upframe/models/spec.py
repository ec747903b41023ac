"""Facts about a model, as data: other packages read these facts and never test a model's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from upframe.errors import check_flag, check_number, check_whole

if TYPE_CHECKING:  # facts need no torch, and `upframe --help` must not import it
    from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "fp16"]
Tiling = Literal["exact", "approximate", "never"]
Suits = Literal["photos", "drawings"]
"""Pictures that a model suits best: photos, or drawings such as anime and comics."""
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
    """Number of frames that a video network takes at once."""

    frames: int | None
    """Frames per window; None for a bidirectional recurrent network, which takes the whole segment."""
    overlap: int
    """Frames that neighbouring windows share."""
    minimum: int = 1
    """Fewest frames the network takes; a shorter clip is mirrored at its end."""
    multiple: int = 1
    """The length of windows is a multiple of this if the clip allows it: the network pads other lengths with zeros, which costs
    time and a little quality."""


@dataclass(frozen=True)
class Cleaning:
    """Options of a network that cleans clips before it enlarges them; the defaults are those of the release."""

    threshold: float = 255.0
    """Cleaning is repeated until a pass changes the clip by less than this: mean absolute change over all frames, pixels
    and channels, on the 0-255 scale. The paper uses 1.5, its GAN configuration 5; at 255 one pass always suffices."""
    max_passes: int = 3
    """Largest number of passes; 0 does not change the clip."""
    strength: float = 1.0
    """Share of the change that is applied, 0 to 1; 0 does not change the clip."""
    sequential: bool = True
    """Whether to clean frame by frame, which limits memory, or all frames at once; the results agree up to rounding."""

    def __post_init__(self) -> None:
        check_number("cleaning.threshold", self.threshold, least=0)
        check_whole("cleaning.max_passes", self.max_passes, least=0)
        check_number("cleaning.strength", self.strength, least=0, most=1)
        check_flag("cleaning.sequential", self.sequential)


@dataclass(frozen=True)
class Chunk:
    """The part of a clip that a network computes at once."""

    px: int
    unit: Literal["rows", "frames"]
    """"rows": bands of a frame with at most `px` pixels. "frames": as many frames as have at most `px` pixels, at least one."""
    bytes_per_px: float
    """Bytes for each pixel computed at once."""

    def worked_px(self, frame_px: int, frames: int) -> int:
        """Number of pixels computed at once, in a clip with frames of `frame_px` pixels."""
        if self.unit == "rows":
            return min(frame_px, self.px)
        return frame_px * min(max(self.px // frame_px, 1), frames)


@dataclass(frozen=True)
class Memory:
    """A law of the peak memory in bytes that a call of a network adds to the process, input and output included, as measured by
    `scripts/calibrate_memory.py`. Pixels are those of the network's padded input.

    If a network works in steps, and size and length decide which is the largest, it has a law for each step.
    """

    precision: Precision = "fp32"
    kernels: bool = False
    """Whether upframe's kernels compute the network, or PyTorch operation by operation."""
    fixed: float = 0
    """Constant part: kernels, scratch space."""
    per_px: float = 0
    """For each pixel of one frame."""
    per_px_frame: float = 0
    """For each pixel of every frame."""
    feature_bytes: float = 0
    """For each pixel of every frame whose features wait for a second pass: of all frames, or as `interfaces.Keep` says."""
    chunk: Chunk | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A network and the facts about it. Every field is a claim with a test."""

    name: str
    """Registry id, `family-variant-xN`."""
    family: str
    """The published system, e.g. "RLFN"."""
    build: Callable[[], nn.Module]
    """Builds the network with untrained weights. Takes and returns (N, C, H, W) when `window` is None, else
    (N, T, C, H, W); values in [0, 1]."""
    scale: int
    """Output pixels per input pixel, along each side."""
    halo_px: int
    """Default context around a tile in input pixels, chosen by measurement (docs/tiling.md)."""
    exact_halo_px: int | None
    """Context in input pixels with which a tile equals the untiled result; None if no finite halo suffices."""
    tiling: Tiling
    """Whether tiles with `exact_halo_px` are exact, only approximate, or not allowed."""
    paper: str
    """Title, venue and link."""
    licence: str
    """Licence of the officially published weights; the cards of shipped weights state theirs."""
    task: Task = "upscale"
    """The task of the network. "interpolate" takes a window of frames and makes one new frame between the two central ones;
    other tasks enlarge every frame of the window."""
    suits: Suits = "photos"
    """Pictures that the published weights suit best."""
    takes_sigma: bool = False
    """Whether the network is called with `sigma`, the standard deviation of the noise in the input, on the 0 to 1 scale."""
    phase_px: int = 1
    """Input regions of tiles start at multiples of this many pixels: the step of the network's grid, so that a tile's grid
    coincides with that of the whole picture."""
    takes_place: bool = False
    """Whether the network is called with `place`, a `Place`, for a tile of a larger picture."""
    size: SizeRule = SizeRule()
    window: Window | None = None
    """None for a network that processes each frame alone."""
    score_scheme: Callable[[Tensor, Callable[[Tensor], Tensor]], Iterator[Tensor]] | None = None
    """How the authors cut clips when they measured the published scores: takes a clip (N, T, C, H, W) and the network, yields
    the output frames (N, C, H', W') in order. None if whole clips were used."""
    preparation: Cleaning | None = None
    """Defaults of a preparation that must see whole frames of the whole segment, once, before they are cut into tiles; the
    network then offers `interfaces.Prepares`. None for networks without such a step."""
    streams: bool = False
    """Whether the network offers `interfaces.Streams`: enlarged frames one by one, and memory that need not grow with the
    clip as fast as `Memory.feature_bytes` says."""
    channels: int = 3
    """Colour channels in and out."""
    parameters: int | None = None
    """Number of parameters; None for networks of unpublished sizes (`registry.count_parameters`)."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """Precisions that tests have shown to stay within their stated error."""
    bf16_loss_db: float | None = None
    """Loss of PSNR on Y by bfloat16 in dB, on Set5, or on Vid4 for video networks, measured with the official weights, or with
    shipped ones if there are none; None if not measured, and then "auto" never chooses bfloat16."""
    kernels_bf16_loss_db: float | None = None
    """The same loss with upframe's kernels, which round less often."""
    exports: bool = False
    """Whether the network can be exported as one graph for frames of any height and width, so that all engines can run it and
    `upframe export` can write it. If it also has `takes_place`, it offers `interfaces.TakesPlace`."""
    activation_bytes_per_px: int = 0
    """Most peak bytes that one input pixel adds during a float32 forward pass of a network for single pictures, of all engines;
    for the choice of tiles."""
    memory: tuple[Memory, ...] = ()
    """Measured laws of the network's memory (`upscaling.memory`); the largest law for a precision counts."""
    aliases: tuple[str, ...] = ()
    """Other names that users type, for instance official file names without extension."""


@dataclass(frozen=True)
class Published:
    """A published or measured score, for the proof sheet of `upframe models verify`."""

    dataset: str
    psnr: float
    """dB on Y, protocol `sisr-y`."""
    ssim: float


@dataclass(frozen=True)
class Place:
    """Position of a tile's input in its picture, for networks whose result depends on it."""

    origin: tuple[int, int]
    """(row, column) of the tile's first input pixel."""
    size: tuple[int, int]
    """(height, width) of the whole picture."""
