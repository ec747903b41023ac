"""Protocols of optional abilities of networks, so that engines need not know any network.

A network offers `Prepares` if its spec has a `preparation`, and `Streams` if its spec says `streams`. Any of its modules may
offer `HasKernelForm`: then upframe's kernels can replace the module.

Clips are float32 for any precision of a network's parameters: the network chooses which values it reduces, and returns float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from upframe.models.spec import Cleaning, Place

Keep = Literal["full", "half", "recompute"]
"""How to keep the features of a first pass through time until the second pass reaches their frame:

* "full": all are held. Fastest.
* "recompute": features of one frame in √T are held and the others computed a second time, √T at once. This takes memory for
  about 2·√T frames and twice the work of the first pass, and gives the same result.
* "half": all are held in float16 in the host's memory, so at half the size of float32 and none of it on the device. Each
  feature is rounded only once, on the way to its frame: the recurrence itself uses unrounded ones. A network in half precision
  keeps them unchanged.
"""


@dataclass(frozen=True)
class Cleaned:
    """A clip after cleaning, and figures of the cleaning."""

    clip: Tensor
    """(N, T, C, H, W), like the caller's clip; the caller's own tensor if nothing was cleaned."""
    passes: int
    """Number of passes of the cleaning network."""
    residues: tuple[float, ...]
    """Mean absolute change that each pass made, on the 0-255 scale of `Cleaning.threshold`."""


class Prepares(Protocol):
    """Has a preparation that must see whole frames of the whole segment, once, before they are cut into tiles."""

    def prepare(self, clip: Tensor, options: Cleaning | None = None, *, max_px: int | None = None) -> Cleaned:
        """Prepare a clip.

        Args:
            clip: (N, T, C, H, W) in [0, 1], whole frames of a whole segment; not modified.
            options: None for the network's defaults, which its forward pass uses too.
            max_px: Pixels of a frame to process at once; limits memory, changes rounding at most.
        """
        ...

    def __call__(self, clip: Tensor, *, prepared: bool = False) -> Tensor:
        """Enlarge a clip; `prepared` states that `prepare` made `clip`, or the clip of which it is a tile."""
        ...


class Streams(Protocol):
    """Yields enlarged frames one by one, also for clips whose features of two passes through time do not fit into memory."""

    def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
        """Yield the enlarged frames (N, C, sH, sW) of a clip, which must be prepared if the network has a preparation."""
        ...


class Checkpoints(Protocol):
    """Can compute activations a second time in the backward pass instead of keeping them."""

    def checkpoint_activations(self, *, attention: bool, feed_forward: bool, except_stages: tuple[int, ...] = ()) -> None:
        """Choose the activations to recompute; gradients stay the same.

        Args:
            attention, feed_forward: Activations inside attentions, and inside the parts that follow them.
            except_stages: Stages of the network, from 0, that keep their activations.

        Raises:
            ValueError: the network does not offer this choice.
        """
        ...


class TakesPlace(Protocol):
    """Offered by networks whose spec says `takes_place`."""

    def place_tensors(self, size: Sequence[int], place: Place) -> tuple[Tensor, ...]:
        """Return the tensors that replace the argument `place` of `forward` in graphs, for a tile of `size` (height, width)."""
        ...


# For kernels ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Enlargement:
    """A 3×3 convolution, then a pixel shuffle: (N, C, H, W) → (N, C', factor·H, factor·W).

    The module is called as `module(x, kept=slice)`, for the output of some of the input's rows. Its method `activated` takes
    the same arguments and also applies a LeakyReLU.
    """

    convolution: nn.Conv2d
    factor: int
    slope: float
    """Slope of the LeakyReLU."""


@dataclass(frozen=True)
class SpatialAttention:
    """A block that ends in a 1×1 convolution and an attention whose map is made on a coarse grid and stretched.

    With x = fusion(refined(input)), r = reduce(x) and g = skip(r) + stretched(pooled(r)), the result is x · sigmoid(expand(g)).
    The module is called as `module(x, spread)`, where `spread` is None or made by `spread_in_place`.
    """

    refined: Callable[[Tensor], Tensor]
    fusion: nn.Conv2d
    reduce: nn.Conv2d
    skip: nn.Conv2d
    expand: nn.Conv2d
    pooled: Callable[[Tensor], Tensor]
    """The coarse grid."""
    spread_in_place: Callable[[Sequence[int], Place], tuple[Tensor, Tensor]]
    """Weights (h, cells) and (cells', w) of the grid's cells in each row and column of a tile (height, width)."""


@dataclass(frozen=True)
class PixelAttentionBlock:
    """x → norm(project_back(a · attention(a)) + x) with a = GELU(project(x)), where the attention is a 1×1, a depth-wise 5×5
    and a depth-wise 5×5 convolution with dilation 3, and the projections are 1×1."""

    project: nn.Conv2d
    pointwise: nn.Conv2d
    depthwise: nn.Conv2d
    depthwise_dilated: nn.Conv2d
    project_back: nn.Conv2d
    norm: nn.LayerNorm
    """Over the channels of each pixel."""


@dataclass(frozen=True)
class PixelAttentionBlocks:
    """Several such blocks of the same size, one after the other."""

    blocks: tuple[PixelAttentionBlock, ...]


KernelForm = Enlargement | SpatialAttention | PixelAttentionBlocks
"""A computation that upframe's kernels support, and the layers with its weights."""


@runtime_checkable
class HasKernelForm(Protocol):
    """Offered by a module whose whole computation is one that kernels support."""

    def kernel_form(self) -> KernelForm | None:
        """The module's layers by their function; None if the kernels do not support the way in which it was built.

        The engine checks whether the kernels were compiled for its sizes.
        """
        ...
