"""Is a test picture among the training pictures? Found by exact pixels and by a perceptual hash.

The perceptual hash survives resizing, recompression, mild colour changes and all eight orientations. It does not find a
small crop of a large picture.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upframe.pixels import resize, rgb_to_y, to_unit

HASH_SIDE = 8  # 8×8 low frequencies: 64 bits
SAMPLED_PX = 32
ALIKE_BITS = 8
"""Pictures whose hashes differ in at most this many of 64 bits are taken for one. Unrelated photographs differ in about
32; recompressed and resized copies in 0 to 4."""


@dataclass(frozen=True)
class Leak:
    train: str
    test: str
    kind: Literal["exact", "alike"]
    bits: int
    """Hash bits that differ."""


def find_leaks(train: Mapping[str, NDArray[Any]], test: Mapping[str, NDArray[Any]]) -> list[Leak]:
    """Every pair of a training and a test picture that show the same, (H, W, C) pixels by name."""
    exact = {_digest(pixels): name for name, pixels in train.items()}
    names = list(train)
    hashes = np.array([perceptual_hash(p) for p in train.values()], dtype=np.uint64)
    leaks = []
    for test_name, pixels in test.items():
        if (digest := _digest(pixels)) in exact:
            leaks.append(Leak(exact[digest], test_name, "exact", 0))
            continue
        distances = np.min([np.bitwise_count(hashes ^ np.uint64(h)) for h in _all_orientations(pixels)], axis=0)
        leaks += [Leak(names[i], test_name, "alike", int(distances[i])) for i in np.flatnonzero(distances <= ALIKE_BITS)]
    return leaks


def perceptual_hash(pixels: NDArray[Any]) -> int:
    """64 bits: which of the lowest 8×8 DCT coefficients of the picture's luma (without the mean) exceed their median."""
    return _hash(_thumbnail(pixels))


def _all_orientations(pixels: NDArray[Any]) -> list[int]:
    small = _thumbnail(pixels)
    turned = [torch.rot90(small, k) for k in range(4)]
    return [_hash(t) for t in (*turned, *(t.flip(1) for t in turned))]


def _thumbnail(pixels: NDArray[Any]) -> Tensor:
    unit = to_unit(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2))
    return resize(rgb_to_y(unit).double(), (SAMPLED_PX, SAMPLED_PX))[0]


def _hash(small: Tensor) -> int:
    n = SAMPLED_PX
    k = torch.arange(HASH_SIDE, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) * k / n)  # DCT-II
    low = (basis @ small @ basis.T).flatten()
    bits = low > low[1:].median()
    bits[0] = False  # the mean says nothing about what is shown
    return sum(1 << i for i, bit in enumerate(bits.tolist()) if bit)


def _digest(pixels: NDArray[Any]) -> str:
    return hashlib.sha256(repr((pixels.shape, pixels.dtype.name)).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
