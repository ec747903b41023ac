"""The steps of degradations: the parameters that each may draw, and the effect of the drawn step on a clip.

A step is configuration (`Blur`, `Resize`, ...). Its `draw` returns an operation (`DrawnBlur`, ...) with the parameters of every
frame, or None to skip the step. All parameters are drawn before any pixel changes, so that they can be printed, counted and
replayed. The `apply` of an operation makes new frames and never writes into its input.

The split between choices for a clip and choices that walk from frame to frame follows RealBasicVSR (K. C. K. Chan, S. Zhou, X.
Xu, C. C. Loy, "Investigating Tradeoffs in Real-World Video Super-Resolution", CVPR 2022, arXiv 2111.12704): kinds, kernel
sizes, filters, gray or coloured noise, codec and bit rate are constant over the clip; every other number p takes a random walk
p(i+1) = p(i) + r(i+1), r uniform in ±step, clipped to the range of its first draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upframe import pixels
from upframe.media.compression import jpeg_compressed, video_compressed
from upframe.training.degradations.blur_kernels import KERNEL_KINDS, KernelKind, gaussian_kernels, sinc_kernels
from upframe.training.degradations.pixels import ResizeFilter, blurred, luma, poisson_noise, resized

Frames = list[Tensor]
"""Frames of a clip, (3, h, w) float32 each, nominally in [0, 1]. While sizes walk, every frame may have its own."""
Values = NDArray[np.float64]
"""Values of a parameter, one for each frame, (T,)."""
Weighted = tuple[tuple[str, float], ...]
"""Choices with their probabilities, which sum to 1."""

_SMALL_KERNEL = 13
"""Side from which sinc kernels may have lower cutoffs."""


class Operation(Protocol):
    """A step with all parameters drawn; only the noise is still random."""

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        """Return `frames` degraded; `size` is (height, width) of the final output."""
        ...

    def describe(self, frame: int) -> str:
        """Describe the operation on this frame in a few words of ASCII, which every font has."""
        ...


class Step(Protocol):
    """Configuration of an operation."""

    def draw(self, frames: int, rng: np.random.Generator) -> Operation | None:
        """Draw the operation for a clip of this many frames, or None if the step is skipped."""
        ...


# Parameters -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Walk:
    """A number drawn uniformly for the first frame, and its walk over the others."""

    low: float
    high: float
    step: float = 0.0
    """Largest change between successive frames; 0 keeps the number."""

    def __post_init__(self) -> None:
        if not self.low <= self.high or self.step < 0:
            raise ValueError(f"no range: {self.low} to {self.high} in steps of {self.step}")

    def draw(self, frames: int, rng: np.random.Generator) -> Values:
        """Draw (T,) values, the first uniform in the range."""
        return self.follow(rng.uniform(self.low, self.high), frames, rng)

    def follow(self, first: float, frames: int, rng: np.random.Generator) -> Values:
        """Draw (T,) values of the walk that begins at `first`."""
        values = np.full(frames, first, dtype=np.float64)
        if self.step:
            for i, change in enumerate(rng.uniform(-self.step, self.step, frames - 1), start=1):
                values[i] = min(max(values[i - 1] + change, self.low), self.high)
        return values


def _choose(choices: Weighted, rng: np.random.Generator) -> str:
    names, weights = zip(*choices, strict=True)
    return str(names[int(rng.choice(len(names), p=weights))])


def _check_weights(choices: Weighted, *, known: Sequence[str] | None = None) -> None:
    unknown = [name for name, _ in choices if known is not None and name not in known]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is none of {', '.join(known or ())}")
    total = sum(weight for _, weight in choices)
    if any(weight < 0 for _, weight in choices) or abs(total - 1) > 1e-9:
        raise ValueError(f"probabilities of {', '.join(name for name, _ in choices)} sum to {total}, not 1")


def _check_probability(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{value} is not a probability")


# Blur -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Blur:
    """A blur kernel of random kind, size and shape."""

    kinds: Weighted
    sigma: Walk
    """Standard deviation in pixels, drawn separately for each axis."""
    probability: float = 1.0
    sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    """Sides of the kernel, equally likely."""
    rotation: Walk = Walk(-math.pi, math.pi, 0.31416)
    beta_generalized: Walk = Walk(0.5, 4.0, 0.05)
    beta_plateau: Walk = Walk(1.0, 2.0, 0.1)
    cutoff_small: Walk = Walk(math.pi / 3, math.pi, 0.0628)
    """ω of sinc kernels with sides below 13: a small kernel cannot hold a low-pass with a lower cutoff."""
    cutoff: Walk = Walk(math.pi / 5, math.pi, 0.0628)
    """ω of larger sinc kernels."""

    def __post_init__(self) -> None:
        _check_weights(self.kinds, known=KERNEL_KINDS)
        _check_probability(self.probability)

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnBlur | None:
        if rng.random() >= self.probability:
            return None
        kind = cast(KernelKind, _choose(self.kinds, rng))
        size = int(rng.choice(self.sizes))
        sigma_x, sigma_y = self.sigma.draw(frames, rng), self.sigma.draw(frames, rng)
        beta = (self.beta_plateau if kind.startswith("plateau") else self.beta_generalized).draw(frames, rng)
        cutoff = (self.cutoff_small if size < _SMALL_KERNEL else self.cutoff).draw(frames, rng)
        return DrawnBlur(kind, size, sigma_x, sigma_y, self.rotation.draw(frames, rng), beta, cutoff)


@dataclass(frozen=True)
class DrawnBlur:
    kind: KernelKind
    size: int
    sigma_x: Values
    sigma_y: Values
    """Not used by the isotropic kinds."""
    rotation: Values
    beta: Values
    """Used by the generalised and plateau kinds."""
    cutoff: Values
    """Used only by "sinc", whose only parameter it is."""

    def kernels(self) -> Tensor:
        """(T, size, size) float32."""
        if self.kind == "sinc":
            return sinc_kernels(self.size, cutoff=torch.from_numpy(self.cutoff))
        return gaussian_kernels(
            self.kind,
            self.size,
            sigma_x=torch.from_numpy(self.sigma_x),
            sigma_y=torch.from_numpy(self.sigma_y),
            rotation=torch.from_numpy(self.rotation),
            beta=torch.from_numpy(self.beta),
        )

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        return blurred(frames, self.kernels())

    def describe(self, frame: int) -> str:
        if self.kind == "sinc":
            return f"sinc {self.size} cutoff {self.cutoff[frame]:.2f}"
        y = f"/{self.sigma_y[frame]:.2f}" if self.kind.endswith("aniso") else ""
        return f"{self.kind} {self.size} sigma {self.sigma_x[frame]:.2f}{y}"


# Resizing -------------------------------------------------------------------------------------------------------------
_FILTERS: Weighted = (("bilinear", 1 / 3), ("area", 1 / 3), ("bicubic", 1 / 3))


@dataclass(frozen=True)
class Resize:
    """A change of size, up, down or none, by a random filter without antialiasing."""

    modes: Weighted
    """Probabilities of "up", "down" and "keep"."""
    scale: Walk
    """Factor of the size. For the first frame, "up" draws from 1 to `high`, "down" from `low` to 1, and "keep" is 1; the walk
    uses the whole range."""
    filters: Weighted = _FILTERS

    def __post_init__(self) -> None:
        _check_weights(self.modes, known=("up", "down", "keep"))
        _check_weights(self.filters, known=get_args(ResizeFilter))
        if not 0 < self.scale.low <= 1 <= self.scale.high:
            raise ValueError(f"scales {self.scale.low} to {self.scale.high} do not contain 1")

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnResize:
        mode = _choose(self.modes, rng)
        ends = {"up": (1.0, self.scale.high), "down": (self.scale.low, 1.0), "keep": (1.0, 1.0)}[mode]
        scale = self.scale.follow(rng.uniform(*ends), frames, rng)
        return DrawnResize(mode, cast(ResizeFilter, _choose(self.filters, rng)), scale)


@dataclass(frozen=True)
class DrawnResize:
    mode: str
    filter: ResizeFilter
    scale: Values

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        height, width = frames[0].shape[-2:]
        sizes = [(_even(height * s), _even(width * s)) for s in self.scale.tolist()]
        return [resized(frame, to, filter=self.filter) for frame, to in zip(frames, sizes, strict=True)]

    def describe(self, frame: int) -> str:
        return f"{self.filter} x{self.scale[frame]:.2f}"


def _even(length: float) -> int:
    """Round down to an even number; codecs with halved colour need even sides."""
    return max(2 * int(length // 2), 2)


@dataclass(frozen=True)
class ResizeToOutput:
    """Resizing to the final output, by a random filter."""

    filters: Weighted = _FILTERS

    def __post_init__(self) -> None:
        _check_weights(self.filters, known=get_args(ResizeFilter))

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnResizeToOutput:
        return DrawnResizeToOutput(cast(ResizeFilter, _choose(self.filters, rng)))


@dataclass(frozen=True)
class DrawnResizeToOutput:
    filter: ResizeFilter

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        return [resized(frame, size, filter=self.filter) for frame in frames]

    def describe(self, frame: int) -> str:
        return f"{self.filter} to size"


# Noise ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Noise:
    """Sensor noise: Gaussian, or Poisson, whose strength depends on the brightness."""

    gaussian_sigma: Walk
    """Standard deviation in units of 1/255."""
    poisson_scale: Walk
    """Factor of photon noise with as many levels as the frame has, at most 256."""
    kinds: Weighted = (("gaussian", 0.5), ("poisson", 0.5))
    gray_probability: float = 0.4
    """Probability that all channels get the same noise."""

    def __post_init__(self) -> None:
        _check_weights(self.kinds, known=("gaussian", "poisson"))
        _check_probability(self.gray_probability)

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnNoise:
        kind = cast(Literal["gaussian", "poisson"], _choose(self.kinds, rng))
        strength = (self.gaussian_sigma if kind == "gaussian" else self.poisson_scale).draw(frames, rng)
        return DrawnNoise(kind, strength, bool(rng.random() < self.gray_probability))


@dataclass(frozen=True)
class DrawnNoise:
    kind: Literal["gaussian", "poisson"]
    strength: Values
    """σ in units of 1/255, or the Poisson scale."""
    is_gray: bool

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        return [frame + s * self._noise(frame, rng) for frame, s in zip(frames, self.strength.tolist(), strict=True)]

    def _noise(self, frame: Tensor, rng: np.random.Generator) -> Tensor:
        """Draw noise of strength 1 for a frame, (1 or 3, h, w)."""
        if self.kind == "poisson":
            return poisson_noise(luma(frame) if self.is_gray else frame, rng)
        shape = (1 if self.is_gray else 3, *frame.shape[-2:])
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) / 255

    def describe(self, frame: int) -> str:
        return f"{'gray ' if self.is_gray else ''}{self.kind} {self.strength[frame]:.2f}"


# Compression ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Jpeg:
    """JPEG compression of each frame."""

    quality: Walk
    """1 to 95; rounded to integers after the walk."""

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnJpeg:
        return DrawnJpeg(np.rint(self.quality.draw(frames, rng)).astype(np.int64))


@dataclass(frozen=True)
class DrawnJpeg:
    quality: NDArray[np.int64]

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        return [
            pixels.to_unit(jpeg_compressed(pixels.from_unit(frame, np.uint8), quality=quality))
            for frame, quality in zip(frames, self.quality.tolist(), strict=True)
        ]

    def describe(self, frame: int) -> str:
        return f"jpeg {self.quality[frame]}"


@dataclass(frozen=True)
class VideoCompression:
    """Compression of the clip as one MP4 video. Frames of other sizes are first resized to the size of the first."""

    encoders: Weighted = (("libx264", 1 / 3), ("h264", 1 / 3), ("mpeg4", 1 / 3))
    """FFmpeg's names. "h264" is FFmpeg's preferred H.264 encoder, which is also libx264 in PyAV's wheels."""
    bit_rate: tuple[int, int] = (10_000, 100_000)
    """Bits per second, uniform, ends included."""
    frame_rate: int = 1
    """Frames per second; at 1 the bit rate is the number of bits of a frame."""

    def __post_init__(self) -> None:
        _check_weights(self.encoders)

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnVideoCompression:
        low, high = self.bit_rate
        return DrawnVideoCompression(_choose(self.encoders, rng), int(rng.integers(low, high + 1)), self.frame_rate)


@dataclass(frozen=True)
class DrawnVideoCompression:
    encoder: str
    bit_rate: int
    frame_rate: int

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        height, width = frames[0].shape[-2:]
        alike = [resized(frame, (height, width), filter="bilinear") for frame in frames]
        video = np.stack([pixels.from_unit(frame, np.uint8) for frame in alike])
        video = video_compressed(video, encoder=self.encoder, bit_rate=self.bit_rate, frame_rate=self.frame_rate)
        return [pixels.to_unit(picture) for picture in video]

    def describe(self, frame: int) -> str:
        return f"{self.encoder} {self.bit_rate / 1000:.0f} kbit"


def draw_all(steps: Sequence[Step], frames: int, rng: np.random.Generator) -> list[Operation]:
    """Draw the operations of `steps` in order, without skipped ones."""
    drawn = [step.draw(frames, rng) for step in steps]
    return [operation for operation in drawn if operation is not None]
