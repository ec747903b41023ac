"""Unsharp masking, which makes the targets of real-world training sharper than the ground truth.

Source: X. Wang et al., "Real-ESRGAN", ICCV Workshops 2021 (arXiv 2107.10833), section 3.4; the numbers are those of
RealBasicVSR's published configurations (K. C. K. Chan et al., CVPR 2022, arXiv 2111.12704): pixel, cleaning and perceptual
losses compare with the sharpened truth, the discriminator and the degradations see the unsharpened one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from upframe.pixels import mirror_pad


def unsharp_mask(
    images: Tensor, *, kernel_size: int = 51, sigma: float = 0, weight: float = 0.5, threshold: float = 10
) -> Tensor:
    """Sharpen `images` where they have detail; flat and noisy areas stay as they are.

    The detail is the difference from a Gaussian blur. Where it exceeds the threshold, `weight` times the detail is added; the
    same Gaussian softens the border between sharpened and untouched areas.

    Args:
        images: (..., H, W) float in [0, 1], any leading axes, any size.
        kernel_size: Side of the Gaussian in pixels, odd.
        sigma: Its standard deviation; 0 derives it from the size, σ = 0.3·((size − 1) / 2 − 1) + 0.8, which is 8 for 51.
        threshold: Least detail that is sharpened, in units of 1/255.

    Returns:
        The same shape, dtype and device, in [0, 1]. Gradients pass.

    Raises:
        ValueError: if the kernel size is even.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"a kernel needs an odd size, not {kernel_size}")
    sigma = sigma or 0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8
    along = torch.arange(kernel_size, dtype=torch.float64, device=images.device) - kernel_size // 2
    taps = torch.exp(-(along**2) / (2 * sigma**2))
    taps = (taps / taps.sum()).to(images)
    detail = images - _blurred(images, taps)
    sharp = (images + weight * detail).clamp(0, 1)
    share = _blurred((detail.abs() * 255 > threshold).to(images), taps)
    return share * sharp + (1 - share) * images


def _blurred(images: Tensor, taps: Tensor) -> Tensor:
    """Convolve `images` with `taps` along both axes; borders are mirrored without repeating the edge."""
    reach = len(taps) // 2
    planes = images.reshape(-1, 1, *images.shape[-2:])
    planes = mirror_pad(planes, top=reach, bottom=reach, left=reach, right=reach)
    planes = F.conv2d(F.conv2d(planes, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    return planes.view(images.shape)
