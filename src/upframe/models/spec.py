"""Facts about a model, as data: other rooms read these facts and never test a model's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from upframe.errors import check_flag, check_number, check_whole

if TYPE_CHECKING:  # torch is not needed to state facts, and `upframe --help` must not import it
    from torch import Tensor, nn

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
        check_number("cleaning.threshold", self.threshold, least=0)
        check_whole("cleaning.max_passes", self.max_passes, least=0)
        check_number("cleaning.strength", self.strength, least=0, most=1)
        check_flag("cleaning.sequential", self.sequential)


@dataclass(frozen=True)
class Chunk:
    """The frames that a network works on at once."""

    px: int
    unit: Literal["rows", "frames"]
    """"rows": bands of a frame with at most `px` pixels. "frames": as many frames as have at most `px` pixels, at least one."""
    bytes_per_px: float
    """Memory for each pixel worked on."""

    def worked_px(self, frame_px: int, frames: int) -> int:
        """Pixels worked on at once, of a clip with frames of `frame_px` pixels."""
        if self.unit == "rows":
            return min(frame_px, self.px)
        return frame_px * min(max(self.px // frame_px, 1), frames)


@dataclass(frozen=True)
class Memory:
    """A law of the memory that a network for clips adds to the process at the peak of a call, input and output included, as
    `scripts/calibrate_memory.py` measures it; in bytes. Pixels are of the input as the network gets it, padded.

    Where a network works in steps, the largest of which depends on size and length, it has a law for each.
    """

    precision: Precision = "fp32"
    fixed: float = 0
    """Whatever the clip: kernels, scratch space of a constant size."""
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
    """The task of the network. "interpolate" takes a window of frames and makes the one in its middle, between the two
    central ones; the others make every frame of the window."""
    takes_sigma: bool = False
    """Whether the network is called with `sigma`, the standard deviation of the noise in the input, on the 0 to 1 scale."""
    phase_px: int = 1
    """Tiles start to read at multiples of this many input pixels: the step of a grid that the network lays over its
    input, so that a tile's grid falls on that of the whole picture."""
    takes_place: bool = False
    """Whether the network is called with `place`, a `Place`, for a tile of a larger picture."""
    size: SizeRule = SizeRule()
    window: Window | None = None
    """None for a network that treats every frame by itself."""
    score_scheme: Callable[[Tensor, Callable[[Tensor], Tensor]], Iterator[Tensor]] | None = None
    """How the authors cut clips when they measured the published scores: takes a clip (N, T, C, H, W) and the network,
    yields the frames made (N, C, H', W') in order. None where whole clips were used."""
    preparation: Cleaning | None = None
    """Defaults of a first step that has to see whole frames of the whole segment, once, before they are cut into tiles;
    the network then offers `interfaces.Prepares`. None for networks without such a step."""
    streams: bool = False
    """Whether the network offers `interfaces.Streams`: enlarged frames one by one, and memory that need not grow with the
    clip as fast as `Memory.feature_bytes` says."""
    channels: int = 3
    """Colour channels in and out."""
    parameters: int | None = None
    """Number of parameters; None where it is not stored, for networks of unpublished sizes (`registry.count_parameters`)."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """Precisions proven to stay within their stated error."""
    bf16_loss_db: float | None = None
    """PSNR on Y that bfloat16 costs on Set5, or on Vid4 where the network is for clips, in dB, measured with the official
    weights, or with ours where there are none; None where it was not measured, and then bfloat16 is never chosen by itself."""
    kernels_bf16_loss_db: float | None = None
    """The same where upframe's kernels run the network, which round less often."""
    exports: bool = False
    """Whether the network becomes one graph for frames of any height and width, so that all engines can run it and
    `upframe export` can write it. A network that `takes_place` then offers `interfaces.TakesPlace`."""
    activation_bytes_per_px: int = 0
    """Measured peak bytes that one input pixel adds during a float32 forward pass of a network for single pictures; for
    memory estimates."""
    memory: tuple[Memory, ...] = ()
    """Measured laws of the memory of a network for clips (`memory_plan`); the largest of those for a precision counts."""
    aliases: tuple[str, ...] = ()
    """Other names people type, for instance official file names without extension."""


@dataclass(frozen=True)
class Published:
    """A published or measured score, for the proof sheet of `upframe models verify`."""

    dataset: str
    psnr: float
    """dB on Y, protocol `sisr-y`."""
    ssim: float


@dataclass(frozen=True)
class Place:
    """Where a tile's input lies in its picture, for networks whose result depends on it."""

    origin: tuple[int, int]
    """(row, column) of the tile's first input pixel."""
    size: tuple[int, int]
    """(height, width) of the whole picture."""
