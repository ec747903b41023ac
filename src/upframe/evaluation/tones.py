"""Tones that an enlargement must keep: flat colours, white, black, and the mean of patterns.

Test sets of photographs do not show these faults. A network may print a dithered grey 60 code values too dark, or draw a dark
rim around a flat background, and still lead in PSNR. Any resampling filter keeps both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from upframe.engines import TorchOptions
from upframe.media.frames import Pixels
from upframe.models.registry import Model
from upframe.upscaling.clips import ClipUpscaler
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

FLAT_LIMIT = 3.0
"""Code values of 255 by which a flat colour of a shipped model may be off, at the border as well."""
PATTERN_LIMIT = 5.0
"""Code values by which the mean of a patterned area may be off."""

SIDE_PX = 64
STILL_FRAMES = 5
"""Frames for which a video network sees a picture."""
_BLOCK_PX = 32  # side of an area whose mean is compared: a pattern may brighten here and darken there
_COLOURS = ((128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (40, 90, 160),
            (220, 180, 150), (16, 16, 16), (240, 240, 240))  # fmt: skip


@dataclass(frozen=True)
class Tones:
    """Largest errors, in code values of 255. Zero is best."""

    flat: float
    """Of any pixel of a picture in one colour, up to its border."""
    ends: float
    """Of any pixel of a white or black picture."""
    pattern: float
    """Of the mean of an area of 32×32 input pixels in a black and white pattern."""

    @property
    def passed(self) -> bool:
        """Whether a model may ship: white and black exact, the others within their limits."""
        return self.ends == 0 and self.flat <= FLAT_LIMIT and self.pattern <= PATTERN_LIMIT

    def to_dict(self) -> dict[str, float]:
        return {name: round(value, 2) for name, value in asdict(self).items()}


def takes_tones(model: Model) -> bool:
    """Whether the tones of a model can be measured: it enlarges pictures or videos in RGB. Video networks that do not stream
    would take minutes."""
    spec = model.spec
    return (spec.window is None or spec.streams) and spec.channels == 3 and not spec.takes_sigma


def measure_tones(model: Model) -> Tones:
    """Measure a network in RGB, as `upscale` runs it in float32. A video network sees each picture for some frames; the worst
    of them counts.

    Raises:
        ValueError: `takes_tones` is False.
    """
    if not takes_tones(model):
        raise ValueError(f"{model.name} has no tones")
    options = UpscaleOptions(engine=TorchOptions(device="cpu", precision="fp32"))
    if model.spec.window is None:
        with Upscaler(model, options) as upscaler:
            return measured(upscaler)
    with contextlib.closing(ClipUpscaler(model, options)) as clips:
        return _measured(lambda picture: clips.frames([picture] * STILL_FRAMES))


def measured(enlarge: Callable[[Pixels], Pixels]) -> Tones:
    """Measure any function from (H, W, 3) uint8 to the same, enlarged."""
    return _measured(lambda picture: [enlarge(picture)])


_Enlarge = Callable[[Pixels], Iterable[Pixels]]


def _measured(enlarge: _Enlarge) -> Tones:
    return Tones(
        flat=max(_flat_error(enlarge, colour) for colour in _COLOURS),
        ends=max(_flat_error(enlarge, (value, value, value)) for value in (0, 255)),
        pattern=max(_pattern_error(enlarge, pattern) for _, pattern in patterns()),
    )


def _flat_error(enlarge: _Enlarge, colour: tuple[int, int, int]) -> float:
    flat = np.tile(np.array(colour, np.uint8), (SIDE_PX, SIDE_PX, 1))
    return max(float(np.abs(large.astype(float) - colour).max()) for large in enlarge(flat))


def _pattern_error(enlarge: _Enlarge, pattern: NDArray[np.bool_]) -> float:
    small = np.repeat(pattern[..., None].astype(np.uint8) * np.uint8(255), 3, axis=2)
    before = _block_means(small)
    return max(float(np.abs(before - _block_means(large)).max()) for large in enlarge(small))


def _block_means(picture: Pixels) -> NDArray[np.float64]:
    side = len(picture) * _BLOCK_PX // SIDE_PX
    blocks: NDArray[np.float64] = picture.astype(float).reshape(len(picture) // side, side, -1, side, 3)
    means: NDArray[np.float64] = blocks.mean((1, 3))
    return means


def patterns() -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Name and pixels (64, 64) of each pattern: screens as in print and games, and two dithered ramps."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    ramp = x / (SIDE_PX - 1)
    yield "checkerboard", (x + y) % 2 == 0
    yield "checkerboard of 2 px", (x // 2 + y // 2) % 2 == 0
    yield "rows", y % 2 == 0
    yield "columns", x % 2 == 0
    yield "points", (x % 2 == 0) & (y % 2 == 0)
    yield "holes", (x % 2 != 0) | (y % 2 != 0)
    yield "dots of 4 px", (x % 4 - 1.5) ** 2 + (y % 4 - 1.5) ** 2 < 2.5
    yield "ordered dither", ramp > (_BAYER[y % 4, x % 4] + 0.5) / 16
    yield "error diffusion", diffused(ramp)


_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])


def diffused(tone: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Dither (H, W) in [0, 1] by error diffusion (R. W. Floyd, L. Steinberg, 1976)."""
    height, width = tone.shape
    left = np.zeros((height + 1, width + 2))
    left[:height, 1:-1] = tone
    for row in range(height):
        for column in range(1, width + 1):
            value = left[row, column]
            left[row, column] = value > 0.5
            error = (value - left[row, column]) / 16
            left[row, column + 1] += 7 * error
            left[row + 1, column - 1 : column + 2] += np.array([3, 5, 1]) * error
    return left[:height, 1:-1] > 0.5
