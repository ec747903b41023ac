"""Real-world degradations of clips and pictures: second-order, replayable, with parameters that walk over the frames of a clip.

    ground truth → first order (blur, resize, noise, JPEG, video codec) → second order (the same, milder)
                 → {codec} and {final size, sinc} in random order → 8 bits

Sources: second order and the final sinc from X. Wang et al., "Real-ESRGAN", ICCV Workshops 2021 (arXiv 2107.10833); video
compression and the *stochastic degradation scheme* from K. C. K. Chan et al., "Investigating Tradeoffs in Real-World Video
Super-Resolution" (RealBasicVSR), CVPR 2022 (arXiv 2111.12704): only half of a clip's frames are read and `mirrored` to the
full length, and because the parameters walk, the second half looks different from the first.

All randomness comes from the generator argument: the same state gives the same bytes. `draw` first draws every parameter of
every frame; `apply` then draws the noise, frame by frame. The caller's clip is never changed.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upframe.errors import UsageError
from upframe.training.degradations.devices import Denoising, OneOf, ResizeToMultiple, Sharpening, sometimes
from upframe.training.degradations.steps import (
    Blur,
    Jpeg,
    Noise,
    Operation,
    Resize,
    ResizeToOutput,
    Step,
    VideoCompression,
    Walk,
    Weighted,
    draw_all,
)


# Configuration --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Degradations:
    """Steps of a degradation, in order."""

    name: str
    steps: tuple[Step, ...]
    shuffled: tuple[tuple[Step, ...], ...]
    """Groups of steps that follow in random order; one step among them is `ResizeToOutput`."""
    scale: int = 4
    """Ground-truth pixels per output pixel, along each axis."""

    def __post_init__(self) -> None:
        everything = [*self.steps, *(step for group in self.shuffled for step in group)]
        if sum(isinstance(step, ResizeToOutput) for step in everything) != 1:
            raise ValueError(f"{self.name}: exactly one step must be ResizeToOutput")
        if self.scale < 1:
            raise ValueError(f"{self.name}: scale {self.scale}")

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Return `degrade(clip, self, rng)`. A configuration is callable, and can be pickled."""
        return degrade(clip, self, rng)

    def without_walk(self) -> Degradations:
        """Return the same degradations with every parameter constant over the clip, for comparison."""
        still: Degradations = _map_walks(self, lambda walk: dataclasses.replace(walk, step=0.0))
        return still


def _map_walks(value: Any, change: Callable[[Walk], Walk]) -> Any:
    """Return a copy of a tree of dataclasses and tuples with `change` applied to every `Walk`."""
    if isinstance(value, Walk):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_map_walks(item, change) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _map_walks(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


# Degrading ------------------------------------------------------------------------------------------------------------
def draw(config: Degradations, frames: int, rng: np.random.Generator) -> tuple[Operation, ...]:
    """Draw all operations on a clip of `frames` frames, except the noise."""
    operations = draw_all(config.steps, frames, rng)
    for group in rng.permutation(len(config.shuffled)):
        operations += draw_all(config.shuffled[int(group)], frames, rng)
    return tuple(operations)


def apply(operations: Sequence[Operation], clip: Tensor, *, scale: int, rng: np.random.Generator) -> Tensor:
    """Apply `operations` to `clip`, and round to 8 bits.

    Args:
        clip: (T, 3, H, W) float32 in [0, 1] on the CPU, H and W multiples of `scale`; it is not changed.
        rng: Source of the noise.

    Returns:
        A new tensor (T, 3, H / scale, W / scale), float32 multiples of 1/255 in [0, 1].

    Raises:
        ValueError: if the clip has another shape or dtype.
    """
    if clip.ndim != 4 or clip.shape[1] != 3 or clip.dtype != torch.float32 or not clip.numel():
        raise ValueError(f"a clip must be (T, 3, H, W) float32, not {tuple(clip.shape)} {clip.dtype}")
    height, width = clip.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"{height}x{width} is not a multiple of {scale}")
    with torch.no_grad():
        frames = list(clip.unbind(0))
        for operation in operations:
            frames = operation.apply(frames, size=(height // scale, width // scale), rng=rng)
        return (torch.stack(frames) * 255).round_().clamp_(0, 255).div_(255)


def degrade(clip: Tensor, config: Degradations, rng: np.random.Generator) -> Tensor:
    """Degrade a clip by the steps of `config`.

    Args:
        clip: (T, 3, H, W) float32 in [0, 1], H and W multiples of `config.scale`; a picture is a clip of one frame. It is not
            changed.
        rng: The only source of randomness.

    Returns:
        (T, 3, H / scale, W / scale) float32, rounded to 8 bits.

    Raises:
        ValueError: if the clip has another shape or dtype.
    """
    return apply(draw(config, len(clip), rng), clip, scale=config.scale, rng=rng)


def mirrored(clip: Tensor) -> Tensor:
    """Append the reverse of a clip (T, ...) to it: (2T, ...). A clip of L frames needs only L/2 frames from the file."""
    return torch.cat([clip, clip.flip(0)])


# Published settings and upframe's -------------------------------------------------------------------------------------------
_KERNELS: Weighted = (
    ("iso", 0.405),
    ("aniso", 0.225),
    ("generalized_iso", 0.108),
    ("generalized_aniso", 0.027),
    ("plateau_iso", 0.108),
    ("plateau_aniso", 0.027),
    ("sinc", 0.1),
)
_FINAL_SINC = Blur(
    probability=0.8,
    kinds=(("sinc", 1.0),),
    sigma=Walk(1.0, 1.0),  # a sinc has none
    cutoff=Walk(math.pi / 3, math.pi, 0.0628),
)


def _modes(up: float, down: float, keep: float) -> Weighted:
    return (("up", up), ("down", down), ("keep", keep))


_OFFICIAL_FIRST: tuple[Step, ...] = (
    Blur(kinds=_KERNELS, sigma=Walk(0.2, 3.0, 0.02)),
    Resize(_modes(0.2, 0.7, 0.1), Walk(0.15, 1.5, 0.015)),
    Noise(gaussian_sigma=Walk(1, 30, 0.1), poisson_scale=Walk(0.05, 3.0, 0.005)),
    Jpeg(Walk(30, 95, 3)),
)
_OFFICIAL_SECOND: tuple[Step, ...] = (
    Blur(kinds=_KERNELS, sigma=Walk(0.2, 1.5, 0.02), probability=0.8),
    Resize(_modes(0.3, 0.4, 0.3), Walk(0.3, 1.2, 0.03)),
    Noise(gaussian_sigma=Walk(1, 25, 0.1), poisson_scale=Walk(0.05, 2.5, 0.005)),
)


def realbasicvsr(*, scale: int = 4) -> Degradations:
    """Return RealBasicVSR's degradations with the values of its published configurations, for clips only."""
    return Degradations(
        "realbasicvsr",
        steps=(*_OFFICIAL_FIRST, VideoCompression(), *_OFFICIAL_SECOND, Jpeg(Walk(30, 95, 3))),
        shuffled=((VideoCompression(),), (ResizeToOutput(), _FINAL_SINC)),
        scale=scale,
    )


def photo_real(*, scale: int = 4) -> Degradations:
    """Return Real-ESRGAN's second-order degradations of pictures: `realbasicvsr` without video, with the last JPEG before or
    after the sinc."""
    return Degradations(
        "photo-real",
        steps=(*_OFFICIAL_FIRST, *_OFFICIAL_SECOND),
        shuffled=((Jpeg(Walk(30, 95, 3)),), (ResizeToOutput(), _FINAL_SINC)),
        scale=scale,
    )


_MILD_FIRST: tuple[Step, ...] = (
    Blur(kinds=_KERNELS, sigma=Walk(0.2, 1.5, 0.02), probability=0.8),
    Resize(_modes(0.1, 0.6, 0.3), Walk(0.4, 1.2, 0.015)),
    Noise(gaussian_sigma=Walk(0.5, 10, 0.1), poisson_scale=Walk(0.05, 1.0, 0.005)),
    Jpeg(Walk(60, 95, 3)),
)
_MILD_SECOND: tuple[Step, ...] = (
    Blur(kinds=_KERNELS, sigma=Walk(0.2, 0.8, 0.02), probability=0.3),
    Resize(_modes(0.2, 0.3, 0.5), Walk(0.6, 1.2, 0.03)),
    Noise(gaussian_sigma=Walk(0.5, 5, 0.1), poisson_scale=Walk(0.05, 0.5, 0.005)),
)


def photo_mild(*, scale: int = 4) -> Degradations:
    """Return a milder `photo_real` for small networks, chosen by upframe: less noise, better JPEG, little second blur.

    On crops of photographs, PSNR against a clean bicubic reduction is 30.6 dB, and 25.8 dB for `photo_real`.
    """
    return Degradations(
        "photo-mild",
        steps=(*_MILD_FIRST, *_MILD_SECOND),
        shuffled=((Jpeg(Walk(60, 95, 3)),), (ResizeToOutput(), dataclasses.replace(_FINAL_SINC, probability=0.3))),
        scale=scale,
    )


def video_mild(*, scale: int = 4) -> Degradations:
    """Return `photo_mild` for clips, with one video codec at the end at two to four times the published bit rates."""
    return Degradations(
        "video-mild",
        steps=(*_MILD_FIRST, *_MILD_SECOND),
        shuffled=(
            (VideoCompression(bit_rate=(40_000, 200_000)),),
            (ResizeToOutput(), dataclasses.replace(_FINAL_SINC, probability=0.3)),
        ),
        scale=scale,
    )


_LIGHT_BLUR = Blur(kinds=(("iso", 0.6), ("aniso", 0.4)), sigma=Walk(0.2, 0.9), sizes=(7, 9), probability=0.5)
_AT_SIZE = ResizeToMultiple(Walk(1.0, 1.0))
_SHARPENED_PAGE = sometimes(0.3, Sharpening(Walk(0.5, 1.0), Walk(0.2, 0.8)))
_WEB: tuple[Step, ...] = (
    _AT_SIZE,
    _LIGHT_BLUR,
    sometimes(0.4, ResizeToMultiple(Walk(1.0, 2.0)), Jpeg(Walk(40, 95)), _SHARPENED_PAGE),
    ResizeToOutput(),
    Jpeg(Walk(20, 95)),
)
"""Reduced for a page and compressed, perhaps a second time."""
_PHONE: tuple[Step, ...] = (
    OneOf(((0.5, (_AT_SIZE,)), (0.5, (ResizeToMultiple(Walk(1.0, 2.0)),)))),
    _LIGHT_BLUR,
    Noise(gaussian_sigma=Walk(1, 15), poisson_scale=Walk(0.1, 1.5)),
    sometimes(0.6, Denoising(luma_sigma=Walk(0, 0.8), colour_sigma=Walk(0.3, 2.0))),
    sometimes(0.6, Sharpening(Walk(0.5, 1.2), Walk(0.2, 0.8))),
    Jpeg(Walk(40, 95)),
    ResizeToOutput(),
    sometimes(0.4, Jpeg(Walk(20, 95))),
)
"""A small sensor, what the camera does about its noise, its file, and perhaps a messenger's."""
_SCAN: tuple[Step, ...] = (
    _AT_SIZE,
    Blur(kinds=(("iso", 0.6), ("aniso", 0.4)), sigma=Walk(0.4, 1.6), sizes=(9, 11)),
    Noise(gaussian_sigma=Walk(2, 18), poisson_scale=Walk(0.2, 1.5), gray_probability=0.7),
    Blur(kinds=(("iso", 1.0),), sigma=Walk(0.3, 0.8), sizes=(7,), probability=0.7),
    sometimes(0.4, Sharpening(Walk(0.6, 1.5), Walk(0.2, 1.0))),
    sometimes(0.7, Jpeg(Walk(30, 95))),
)
"""A soft print with grain that the scanner blurs. It does not fade: a network that undoes this shifts colours."""


def phone_and_web(*, scale: int = 4) -> Degradations:
    """Return upframe's degradations of pictures for `photo-real-x4`: those of phones, web pages and scans, and none at all.

    All damage happens at one to two times the output's size, as in a file that somebody wants to enlarge. So it is cheap, and
    at `scale=1` it degrades inputs that are small already, such as those of a teacher's pairs. The clean eighth keeps the
    tones and the detail of good pictures.
    """
    ways = ((0.125, (_AT_SIZE,)), (0.375, _WEB), (0.35, _PHONE), (0.15, _SCAN))
    return Degradations("phone-and-web", steps=(OneOf(ways), ResizeToOutput()), shuffled=(), scale=scale)


DEGRADATIONS: dict[str, Callable[..., Degradations]] = {
    "realbasicvsr": realbasicvsr,
    "photo-real": photo_real,
    "photo-mild": photo_mild,
    "video-mild": video_mild,
    "phone-and-web": phone_and_web,
}


def find_degradations(name: str, *, scale: int = 4) -> Degradations:
    """Return the degradations called `name`.

    Raises:
        UsageError: if the name is unknown; the message suggests the nearest one.
    """
    key = name.lower().replace("_", "-")
    if key not in DEGRADATIONS:
        near = difflib.get_close_matches(key, DEGRADATIONS, n=1, cutoff=0) or list(DEGRADATIONS)
        there = ", ".join(DEGRADATIONS)
        raise UsageError(f"degradations {name}", "no such degradations", f"did you mean {near[0]}? There are: {there}")
    return DEGRADATIONS[key](scale=scale)
