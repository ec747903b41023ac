"""Make training pairs of patterns whose mean a network must keep: dithers, line and dot screens, checkerboards, flat colours.

Usage: python scripts/make_pattern_pairs.py --out PAIRS --scale 4 [--count 40] [--seed 1]

Photographs hold no pattern at the limit of resolution, so a network that saw only them may print a dithered grey 60 code values
too dark. PAIRS/lq and PAIRS/gt get mosaics of cells of 48 px. The target of a pattern that the input cannot resolve is its
enlargement by a filter that keeps the mean and does not overshoot; the target of a coarser dot screen is the sharp screen
itself. Recipes with low_quality=paired train on them, beside pairs by scripts/make_teacher_pairs.py in the same folders.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELL_PX = 48
CELLS = 4  # cells on each side of a mosaic
MARGIN_PX = 8  # around a cell while it is enlarged: more than the reach of the filter
SUPERSAMPLED = 4

Grey = NDArray[np.float64]
"""(H, W) in [0, 1]: the share of ink at each pixel."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder of the pairs")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--count", type=int, default=40, help="number of mosaics")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    rng = np.random.default_rng(chosen.seed)
    for folder in ("lq", "gt"):
        (chosen.out / folder).mkdir(parents=True, exist_ok=True)
    for number in range(chosen.count):
        for folder, picture in zip(("lq", "gt"), mosaic(chosen.scale, rng), strict=True):
            Image.fromarray(picture).save(chosen.out / folder / f"patterns_{chosen.seed}_{number:03}.png")


def mosaic(scale: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An input of 192×192 pixels and its target, (H, W, 3) each."""
    rows = [[cell(scale, rng) for _ in range(CELLS)] for _ in range(CELLS)]
    low, high = (np.concatenate([np.concatenate([pair[i] for pair in row], 1) for row in rows], 0) for i in (0, 1))
    return low, high


def cell(scale: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One pattern in one pair of colours."""
    if rng.random() < 0.25:
        colour = rng.choice([rng.integers(0, 256, 3), np.full(3, 0), np.full(3, 255), np.full(3, rng.integers(256))])
        return tuple(np.tile(colour.astype(np.uint8), (CELL_PX * s, CELL_PX * s, 1)) for s in (1, scale))  # type: ignore[return-value]
    if rng.random() < 0.2:
        low, high = dot_screen(scale, rng)
    else:
        low = FINE[int(rng.integers(len(FINE)))](rng)
        high = _enlarged(low, scale)
    paper, ink = (np.full(3, 255), np.full(3, 0)) if rng.random() < 0.6 else rng.integers(0, 256, (2, 3))
    return _printed(_centre(low, 1), paper, ink), _printed(_centre(high, scale), paper, ink)


# Patterns at the limit of resolution ------------------------------------------------------------------------------------
def _grid() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    side = CELL_PX + 2 * MARGIN_PX
    rows, columns = np.mgrid[:side, :side]
    return rows, columns


def _tone(rng: np.random.Generator) -> Grey:
    """A flat tone or a ramp, to be dithered."""
    rows, columns = _grid()
    start, stop = rng.random(2)
    along = columns if rng.random() < 0.5 else rows
    return np.full(rows.shape, start) if rng.random() < 0.6 else start + (stop - start) * along / len(rows)


def checks(rng: np.random.Generator) -> Grey:
    """A checkerboard with fields of 1 or 2 pixels."""
    rows, columns = _grid()
    side = int(rng.integers(1, 3))
    return ((rows // side + columns // side) % 2).astype(float)


def lines(rng: np.random.Generator) -> Grey:
    """Lines of 1 pixel at a distance of 2 to 4, along rows or columns."""
    rows, columns = _grid()
    return ((rows if rng.random() < 0.5 else columns) % int(rng.integers(2, 5)) == 0).astype(float)


def points(rng: np.random.Generator) -> Grey:
    """Single pixels on a lattice, or all but these."""
    rows, columns = _grid()
    step, shift = int(rng.integers(2, 5)), int(rng.integers(0, 2))
    marked = (rows % step == 0) & ((columns + shift * (rows // step % 2)) % step == 0)
    return (marked if rng.random() < 0.5 else ~marked).astype(float)


def ordered(rng: np.random.Generator) -> Grey:
    """Bayer's ordered dither of 2×2, 4×4 or 8×8."""
    matrix = np.zeros((1, 1))
    for _ in range(int(rng.integers(1, 4))):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    rows, columns = _grid()
    side = len(matrix)
    return (_tone(rng) > (matrix[rows % side, columns % side] + 0.5) / side**2).astype(float)


def diffused(rng: np.random.Generator) -> Grey:
    """Floyd and Steinberg's error diffusion, as Pillow has it."""
    tone = Image.fromarray(np.rint(_tone(rng) * 255).astype(np.uint8))
    return np.asarray(tone.convert("1")).astype(float)


def noise(rng: np.random.Generator) -> Grey:
    """Independent pixels: white noise, black and white."""
    return (_tone(rng) > rng.random(_grid()[0].shape)).astype(float)


FINE: tuple[Callable[[np.random.Generator], Grey], ...] = (checks, lines, points, ordered, ordered, diffused, diffused, noise)


# A pattern that is resolved -----------------------------------------------------------------------------------------------
def dot_screen(scale: int, rng: np.random.Generator) -> tuple[Grey, Grey]:
    """Round dots, 5 to 12 input pixels apart on a turned lattice: the share of each pixel, in the input and the target."""
    period, angle, radius = rng.uniform(5, 12), rng.uniform(0, np.pi / 2), rng.uniform(0.2, 0.6)
    side = (CELL_PX + 2 * MARGIN_PX) * scale * SUPERSAMPLED
    place = (np.arange(side) + 0.5) / (scale * SUPERSAMPLED * period)
    across = place[None] * np.cos(angle) + place[:, None] * np.sin(angle)
    along = place[:, None] * np.cos(angle) - place[None] * np.sin(angle)
    dots = (np.hypot(across - np.rint(across), along - np.rint(along)) < radius).astype(float)
    return _pooled(dots, scale * SUPERSAMPLED), _pooled(dots, SUPERSAMPLED)


def _pooled(values: Grey, factor: int) -> Grey:
    height, width = (side // factor for side in values.shape)
    return values.reshape(height, factor, width, factor).mean((1, 3))


# Ink on paper ---------------------------------------------------------------------------------------------------------------
def _enlarged(low: Grey, scale: int) -> Grey:
    size = (low.shape[1] * scale, low.shape[0] * scale)
    enlarged = Image.fromarray(low.astype(np.float32)).resize(size, Image.Resampling.HAMMING)
    return np.clip(np.asarray(enlarged, dtype=float), 0, 1)


def _centre(values: Grey, scale: int) -> Grey:
    edge = MARGIN_PX * scale
    return values[edge:-edge, edge:-edge]


def _printed(share: Grey, paper: NDArray[np.int64], ink: NDArray[np.int64]) -> NDArray[np.uint8]:
    mixed = paper + (ink - paper) * share[..., None]
    return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)


if __name__ == "__main__":
    main()
