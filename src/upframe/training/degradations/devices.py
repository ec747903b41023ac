"""Steps of pictures from phones, web pages and scanners: ways of damage, the size at which it happens, editing in a camera.

Sources: second-order damage from X. Wang et al., "Real-ESRGAN", ICCV Workshops 2021 (arXiv 2107.10833). The ways and their
numbers are upframe's own choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from upframe.pixels import resize
from upframe.training.degradations.blur_kernels import gaussian_kernels
from upframe.training.degradations.pixels import blurred, luma
from upframe.training.degradations.steps import Frames, Operation, Step, Values, Walk, draw_all


# Several ways ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OneOf:
    """One of several sequences of steps. An empty sequence does nothing."""

    ways: tuple[tuple[float, tuple[Step, ...]], ...]
    """Probability and steps of each way; the probabilities sum to 1."""

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.ways]
        if any(weight < 0 for weight in weights) or abs(sum(weights) - 1) > 1e-9:
            raise ValueError(f"probabilities of the ways sum to {sum(weights)}, not 1")

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnSequence:
        way = int(rng.choice(len(self.ways), p=[weight for weight, _ in self.ways]))
        return DrawnSequence(tuple(draw_all(self.ways[way][1], frames, rng)))


def sometimes(probability: float, *steps: Step) -> OneOf:
    """Return a step that takes all of `steps` with this probability, and does nothing otherwise."""
    return OneOf(((probability, steps), (1 - probability, ())))


@dataclass(frozen=True)
class DrawnSequence:
    operations: tuple[Operation, ...]

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        for operation in self.operations:
            frames = operation.apply(frames, size=size, rng=rng)
        return frames

    def describe(self, frame: int) -> str:
        return ", ".join(operation.describe(frame) for operation in self.operations) or "nothing"


# Sizes ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ResizeToMultiple:
    """Resizing to a multiple of the final output, by bicubic with antialiasing: the size at which a device damages a picture.

    At 1, a clip of the ground truth becomes MATLAB's bicubic reduction of it, and a clip of the output's size stays as it is.
    """

    multiple: Walk

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnResizeToMultiple:
        return DrawnResizeToMultiple(self.multiple.draw(frames, rng))


@dataclass(frozen=True)
class DrawnResizeToMultiple:
    multiple: Values

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        height, width = size
        sizes = [(round(height * m), round(width * m)) for m in self.multiple.tolist()]
        return [_antialiased(frame, to) for frame, to in zip(frames, sizes, strict=True)]

    def describe(self, frame: int) -> str:
        return f"to {self.multiple[frame]:.2f} of the size"


def _antialiased(frame: Tensor, size: tuple[int, int]) -> Tensor:
    return frame if tuple(frame.shape[-2:]) == size else resize(frame, size).clamp(0, 1)


# Editing in a camera ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Denoising:
    """A camera's remedy for noise: the colour is blurred widely, the brightness a little. Coarse clots of noise remain."""

    luma_sigma: Walk
    """Standard deviation of the Gaussian in pixels; below 0.1 nothing is blurred."""
    colour_sigma: Walk

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnDenoising:
        return DrawnDenoising(self.luma_sigma.draw(frames, rng), self.colour_sigma.draw(frames, rng))


@dataclass(frozen=True)
class DrawnDenoising:
    luma_sigma: Values
    colour_sigma: Values

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        brightness = [luma(frame) for frame in frames]
        colour = [frame - light for frame, light in zip(frames, brightness, strict=True)]
        pairs = zip(_smoothed(brightness, self.luma_sigma), _smoothed(colour, self.colour_sigma), strict=True)
        return [light + rest for light, rest in pairs]

    def describe(self, frame: int) -> str:
        return f"denoised {self.luma_sigma[frame]:.2f}/{self.colour_sigma[frame]:.2f}"


@dataclass(frozen=True)
class Sharpening:
    """Unsharp masking: the difference from a Gaussian blur is added."""

    sigma: Walk
    """Standard deviation of the Gaussian in pixels."""
    amount: Walk
    """Factor of the difference."""

    def draw(self, frames: int, rng: np.random.Generator) -> DrawnSharpening:
        return DrawnSharpening(self.sigma.draw(frames, rng), self.amount.draw(frames, rng))


@dataclass(frozen=True)
class DrawnSharpening:
    sigma: Values
    amount: Values

    def apply(self, frames: Frames, *, size: tuple[int, int], rng: np.random.Generator) -> Frames:
        triples = zip(frames, _smoothed(frames, self.sigma), self.amount.tolist(), strict=True)
        return [(frame + amount * (frame - soft)).clamp(0, 1) for frame, soft, amount in triples]

    def describe(self, frame: int) -> str:
        return f"sharpened {self.sigma[frame]:.2f} by {self.amount[frame]:.2f}"


_LEAST_SIGMA = 0.1  # a narrower Gaussian is one pixel


def _smoothed(frames: Sequence[Tensor], sigma: Values) -> Frames:
    """Blur each frame by an isotropic Gaussian of its σ."""
    wide = np.maximum(sigma, _LEAST_SIGMA)
    widths = torch.from_numpy(wide)
    side = 2 * int(np.ceil(3 * wide.max())) + 1
    none = torch.ones(len(wide), dtype=torch.float64)
    kernels = gaussian_kernels("iso", side, sigma_x=widths, sigma_y=widths, rotation=none, beta=none)
    return blurred(list(frames), kernels)
