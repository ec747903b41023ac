"""Blur kernels of real-world degradations: Gaussians, generalised and flat-topped ones, and the ideal low-pass (sinc).

Source: X. Wang, L. Xie, C. Dong, Y. Shan, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data",
ICCV Workshops 2021 (arXiv 2107.10833), section 3. With q = pᵀ Σ⁻¹ p for the offset p from the centre:

    Gaussian     exp(−q / 2)
    generalised  exp(−q^β / 2)
    plateau      1 / (1 + q^β)
    sinc         ω / (2π r) · J₁(ω r), r = |p|, the impulse response of the ideal low-pass with cutoff ω

Checked against reference tensors of every kind, to the rounding of float32.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

GaussianKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
KernelKind = Literal[GaussianKind, "sinc"]
KERNEL_KINDS: tuple[str, ...] = get_args(KernelKind)


def gaussian_kernels(
    kind: GaussianKind, size: int, *, sigma_x: Tensor, sigma_y: Tensor, rotation: Tensor, beta: Tensor
) -> Tensor:
    """Return kernels of one kind and size, one for each entry of the parameters.

    Args:
        kind: The isotropic kinds use `sigma_x` only; the Gaussian kinds ("iso", "aniso") ignore `beta`.
        size: Side in pixels, odd.
        sigma_x: (T,) standard deviation along the kernel's first axis, in pixels.
        sigma_y: (T,) standard deviation along the second axis, in pixels.
        rotation: (T,) angle from the columns' axis to the first axis, in radians.
        beta: (T,) exponent of the shape.

    Returns:
        (T, size, size) float32, [row, column], each summing to 1.

    Raises:
        ValueError: if `size` is even.
    """
    y, x = _offsets(size)
    a = sigma_x.double().view(-1, 1, 1)
    b = sigma_y.double().view(-1, 1, 1) if kind.endswith("aniso") else a
    cos, sin = torch.cos(rotation.double()).view(-1, 1, 1), torch.sin(rotation.double()).view(-1, 1, 1)
    q = ((x * cos + y * sin) / a) ** 2 + ((y * cos - x * sin) / b) ** 2
    if kind in ("iso", "aniso"):
        kernels = torch.exp(-0.5 * q)
    elif kind in ("generalized_iso", "generalized_aniso"):
        kernels = torch.exp(-0.5 * q ** beta.double().view(-1, 1, 1))
    else:
        kernels = 1 / (1 + q ** beta.double().view(-1, 1, 1))
    return _normalised(kernels)


def sinc_kernels(size: int, *, cutoff: Tensor, pad_to: int = 0) -> Tensor:
    """Return ideal low-pass kernels, which make ringing like that of sharpening and compression around edges.

    Args:
        size: Side in pixels, odd.
        cutoff: (T,) ω in radians per pixel; π keeps all frequencies along the axes.
        pad_to: Pad the kernels with zeros to this side; 0 pads nothing.

    Returns:
        (T, size, size) float32, or (T, pad_to, pad_to), each summing to 1.

    Raises:
        ValueError: if `size` is even, or `pad_to` is even or smaller.
    """
    y, x = _offsets(size)
    radius = torch.hypot(y, x)
    radius[size // 2, size // 2] = 1  # replaced below by the limit for r → 0: J₁(z) ≈ z / 2
    omega = cutoff.double().view(-1, 1, 1)
    kernels = omega * torch.special.bessel_j1(omega * radius) / (2 * math.pi * radius)
    kernels[:, size // 2, size // 2] = omega[:, 0, 0] ** 2 / (4 * math.pi)
    kernels = _normalised(kernels)
    if not pad_to:
        return kernels
    if pad_to < size or pad_to % 2 == 0:
        raise ValueError(f"a kernel of {size} cannot be padded to {pad_to}")
    border = (pad_to - size) // 2
    return torch.nn.functional.pad(kernels, (border, border, border, border))


def _offsets(size: int) -> tuple[Tensor, Tensor]:
    """Return row and column offsets from the centre, (size, size) float64 each."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a kernel needs an odd size, not {size}")
    along = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(along, along, indexing="ij")
    return y, x


def _normalised(kernels: Tensor) -> Tensor:
    return (kernels / kernels.sum((-2, -1), keepdim=True)).float()
