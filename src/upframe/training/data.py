"""Training patches: cropped from photographs held in memory, degraded on the fly by the bicubic of the test sets."""

from __future__ import annotations

import fnmatch
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upframe import pixels as px
from upframe.errors import InputError
from upframe.media.images import is_image_name, read_pixels

log = logging.getLogger(__name__)

# The cubic kernel widened by s reaches 2·s pixels of the ground truth; 3 low-resolution pixels of context hold it.
_CONTEXT_PX = 3


@dataclass(frozen=True)
class Batch:
    lq: Tensor
    """(N, 3, P, P) float32 in [0, 1], rounded to 8 bits as a stored low-resolution file would be."""
    gt: Tensor
    """(N, 3, s·P, s·P) float32 in [0, 1]."""


def load_photos(folder: Path, *, exclude: tuple[str, ...] = (), minimum_px: int) -> dict[str, NDArray[np.uint8]]:
    """All 8-bit RGB pictures below `folder` by name, decoded; smaller ones than `minimum_px` are left out.

    Raises:
        InputError: for a damaged file, by name, or when nothing usable is there.
    """
    photos: dict[str, NDArray[np.uint8]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and is_image_name(p)):
        name = path.relative_to(folder).as_posix()
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in exclude):
            continue
        pixels = read_pixels(path)
        if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
            log.warning("%s is not 8-bit RGB and is left out", name)
        elif min(pixels.shape[:2]) < minimum_px:
            log.warning("%s is smaller than %d px and is left out", name, minimum_px)
        else:
            photos[name] = np.ascontiguousarray(pixels)
    if not photos:
        raise InputError(folder, "no usable photographs (8-bit RGB) in it", "pass a folder of photos")
    return photos


class PatchSampler:
    """Draws the batch of any step. The draw depends on (seed, step) alone, so a resumed run sees what it would have seen.

    Args:
        photos: Decoded (H, W, 3) uint8 pictures.
        patch_px: Side of the low-resolution patch.
    """

    def __init__(self, photos: list[NDArray[np.uint8]], *, scale: int, patch_px: int, batch: int, seed: int) -> None:
        self._scale, self._patch, self._batch, self._seed = scale, patch_px, batch, seed
        self._side = (patch_px + 2 * _CONTEXT_PX) * scale
        self._photos = [p for p in photos if min(p.shape[:2]) >= self._side]
        if not self._photos:
            raise ValueError(f"no picture holds a patch of {self._side} px")
        area = np.array([p.shape[0] * p.shape[1] for p in self._photos], dtype=np.float64)
        self._probability = area / area.sum()  # every pixel equally likely, whatever the size of its picture

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng((self._seed, step))
        s, context = self._scale, _CONTEXT_PX * self._scale
        crops = np.empty((self._batch, self._side, self._side, 3), dtype=np.uint8)
        for i, chosen in enumerate(rng.choice(len(self._photos), self._batch, p=self._probability)):
            photo = self._photos[chosen]
            # Multiples of the scale: the patch's grid is then that of the whole picture's low-resolution version.
            top = int(rng.integers((photo.shape[0] - self._side) // s + 1)) * s
            left = int(rng.integers((photo.shape[1] - self._side) // s + 1)) * s
            crops[i] = photo[top : top + self._side, left : left + self._side]
        gt = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
        lq = px.matlab_bicubic_8bit(gt, s)[..., _CONTEXT_PX:-_CONTEXT_PX, _CONTEXT_PX:-_CONTEXT_PX].float()
        gt = gt[..., context:-context, context:-context]
        return _augment(Batch(lq / 255, gt / 255), rng)


def _augment(batch: Batch, rng: np.random.Generator) -> Batch:
    """Each sample flipped and rotated into one of the eight orientations of the square."""
    lq, gt = [], []
    for i, pose in enumerate(rng.integers(8, size=len(batch.lq))):
        lq.append(_pose(batch.lq[i], int(pose)))
        gt.append(_pose(batch.gt[i], int(pose)))
    return Batch(torch.stack(lq), torch.stack(gt))


def _pose(x: Tensor, pose: int) -> Tensor:
    x = torch.rot90(x, pose % 4, (-2, -1))
    return x.flip(-1) if pose >= 4 else x


def pixel_total(photos: dict[str, NDArray[Any]]) -> int:
    return sum(p.shape[0] * p.shape[1] for p in photos.values())
