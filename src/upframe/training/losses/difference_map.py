"""Draw the difference between two pictures in the features of an extractor.

Source: RLFN's article (F. Kong et al., CVPR Workshops 2022, arXiv 2205.07514), section 3.3, which compares extractors for its
contrastive loss by the mean over the channels of |φ(y₁) − φ(y₂)|, y₁ a photograph and y₂ the same photograph blurred. An
extractor suits the loss if the map shows edges and texture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from upframe.pixels import mirror_pad
from upframe.training.degradations.blur_kernels import gaussian_kernels


def difference_maps(one: Tensor, other: Tensor, extractor: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
    """Return the mean over the channels of |φ_j(one) − φ_j(other)| for every layer j.

    Args:
        one, other: (N, 3, H, W) in [0, 1].
        extractor: φ; returns a tensor (N, C, h, w) for each layer.

    Returns:
        One (N, 1, h, w) for each layer, not normalised.
    """
    pairs = zip(extractor(one), extractor(other), strict=True)
    return [(a - b).abs().mean(1, keepdim=True) for a, b in pairs]


def blurred(pictures: Tensor, *, sigma_px: float) -> Tensor:
    """Convolve (N, C, H, W) with an isotropic Gaussian, cut off at three standard deviations; borders are mirrored.

    Raises:
        ValueError: if `sigma_px` is not above 0.
    """
    if not sigma_px > 0:
        raise ValueError(f"sigma_px must be above 0, not {sigma_px}")
    reach = math.ceil(3 * sigma_px)
    sigma = torch.tensor([sigma_px])
    kernel = gaussian_kernels(
        "iso", 2 * reach + 1, sigma_x=sigma, sigma_y=sigma, rotation=torch.zeros(1), beta=torch.ones(1)
    ).to(pictures)
    planes = mirror_pad(pictures.flatten(0, 1)[:, None], top=reach, bottom=reach, left=reach, right=reach)
    return F.conv2d(planes, kernel[:, None]).view(pictures.shape)


def as_sheet(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Return the maps of one pair side by side, each with its largest difference as white.

    Args:
        maps: (1, 1, h, w) each, of any sizes; smaller ones are enlarged by repeating pixels.
        size: (height, width) of each map in the sheet.

    Returns:
        (1, height, width · len(maps)) in [0, 1].
    """
    shown = []
    for layer in maps:
        peak = layer.amax()
        scaled = layer / peak if peak > 0 else layer  # without a difference the map stays black
        shown.append(F.interpolate(scaled, size=size, mode="nearest-exact")[0])
    return torch.cat(shown, dim=-1)
