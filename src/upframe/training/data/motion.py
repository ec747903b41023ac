"""Synthetic motion: two views of one photo with exactly known optical flow, to train a flow network."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upframe.datasets.footage import FootageSet
from upframe.errors import InputError
from upframe.training.data.samples import Sample
from upframe.training.recipes.recipe import DataRecipe

_OVERSAMPLING = 2
"""Photo pixels per pixel of a view: both views are resampled in the same way, so that they are equally sharp."""
_LARGEST = 0.2
"""Largest displacement, as a fraction of the patch's side."""
_NOISE = 0.02
"""Largest standard deviation of the noise of a view, on the 0 to 1 scale."""


class MotionPairs:
    """Draws pairs of views and their flow; a `samples.Source`.

    The second view shows the photo unchanged, b(y) = photo(2·y). The first shows it displaced, a(x) = photo(2·(x + f(x))), with
    smooth f: the sum of a shift, a rotation and zoom, and a random field of low frequency. So b(x + f(x)) = a(x): f is the flow
        from a to
    b, and warping b by it gives a. The motion varies from none to a fifth of the patch. Each view has independent noise.

    `Sample.lq` is (2, 3, P, P), a and b, in [0, 1]; `Sample.gt` is (2, P, P), (dx, dy) in pixels.

    Raises:
        InputError: if no photo is large enough.
    """

    def __init__(self, footage: FootageSet, data: DataRecipe) -> None:
        self._data = data
        self._border_px = math.ceil(_LARGEST * data.patch_px) + 1
        self._side = pair_side_px(data)
        sizes = {clip.frames[0]: footage.store.size(clip.frames[0]) for clip in footage.clips}
        self._sizes = {key: size for key, size in sizes.items() if min(size) >= self._side}
        if not self._sizes:
            raise InputError("training data", f"no photo in it holds {self._side} px", "use smaller patches")
        self.footage = footage
        self._keys = list(self._sizes)
        areas = [h * w for h, w in self._sizes.values()]
        self._share = np.cumsum(areas) / np.sum(areas)

    def __call__(self, rng: np.random.Generator, /) -> Sample:
        patch, side = self._data.patch_px, self._side
        key = self._keys[int(np.searchsorted(self._share, rng.random(), side="right"))]
        height, width = self._sizes[key]
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        crop = self.footage.store.read(key)[top : top + side, left : left + side]
        photo = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255
        flips = rng.random(3) < 0.5
        data = self._data
        axes = [a for a, flip in ((-1, flips[0] and data.hflip), (-2, flips[1] and data.vflip)) if flip]
        photo = photo.flip(axes) if axes else photo
        photo = photo.transpose(-2, -1) if flips[2] and data.transpose else photo
        # A box as wide as a pixel of the views, so that neither view aliases.
        photo = F.avg_pool2d(F.pad(photo, (0, 1, 0, 1), mode="replicate"), _OVERSAMPLING, stride=1)
        flow = smooth_flow(patch, largest_px=_LARGEST * patch * float(rng.random()) ** 2, rng=rng)
        views = torch.cat([self._view(photo, flow), self._view(photo, torch.zeros_like(flow))])
        sigmas = rng.random(2) * _NOISE
        noise = torch.from_numpy(rng.standard_normal(tuple(views.shape), dtype=np.float32))
        views = views + noise * torch.from_numpy(sigmas).float().view(2, 1, 1, 1)
        return Sample(views.clamp(0, 1), flow)

    def _view(self, photo: Tensor, flow: Tensor) -> Tensor:
        """Return (1, 3, P, P): the photo (1, 3, S, S) sampled at x + flow(x)."""
        patch = flow.shape[-1]
        at = torch.arange(patch, dtype=torch.float32)
        y, x = torch.meshgrid(at, at, indexing="ij")
        places = (torch.stack([x, y]) + flow + self._border_px) * _OVERSAMPLING
        grid = places.permute(1, 2, 0)[None] * 2 / (photo.shape[-1] - 1) - 1
        view: Tensor = F.grid_sample(photo, grid, mode="bilinear", padding_mode="border", align_corners=True)
        return view


def pair_side_px(data: DataRecipe) -> int:
    """Return the side of the part of a photo that one pair of views needs."""
    return (data.patch_px + 2 * (math.ceil(_LARGEST * data.patch_px) + 1)) * _OVERSAMPLING


def smooth_flow(side: int, *, largest_px: float, rng: np.random.Generator) -> Tensor:
    """Return a random smooth flow (2, side, side), (dx, dy) in pixels, whose longest vector is `largest_px`."""
    at = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(at, at, indexing="ij")
    shift, turn, zoom = rng.standard_normal(2), rng.normal(0, 0.5), rng.normal(0, 0.5)
    affine = torch.stack([shift[0] + zoom * x - turn * y, shift[1] + turn * x + zoom * y])
    cells = int(rng.integers(2, 6))
    coarse = torch.from_numpy(rng.standard_normal((1, 2, cells, cells)) * rng.uniform(0, 1))
    waves: Tensor = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)[0]
    flow = affine.double() + waves
    longest: Tensor = flow.norm(dim=0).max().clamp_min(1e-9)
    return (flow * (largest_px / longest)).float()
