"""Modulated deformable convolution, and its use to align neighbouring frames of a clip along the flow.

Papers: X. Zhu, H. Hu, S. Lin, J. Dai, "Deformable ConvNets v2", CVPR 2019, https://arxiv.org/abs/1811.11168; J. Liang et
al., "VRT: A Video Restoration Transformer", IEEE TIP 2024, https://arxiv.org/abs/2201.12288 (parallel warping). Written
from the papers and numeric fixtures.

The convolution is plain torch: `grid_sample` and a matrix product, a band of rows at a time so that the samples (nine for
every input value) never exist for a whole frame. Where torchvision is installed, its kernel is used on CUDA devices.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import conv3x3

BAND_VALUES = 1 << 22  # samples at once: 16 MB in float32


def deformable_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """Convolution whose taps are displaced at every output pixel. Samples are bilinear, and zero outside the picture.

    Args:
        x: (N, C, H, W).
        offset: (N, 2*G*K, H', W') displacements in pixels for G groups of channels and K kernel taps: for each group and
            tap (row by row) first down, then right.
        weight: (C', C/groups, kernel height, kernel width); the number of groups follows from C.
        mask: (N, G*K, H', W') factors of the samples; None for 1.

    Returns:
        (N, C', H', W') in the dtype of `weight`.
    """
    if x.device.type == "cuda" and _torchvision_has_kernel():
        return _by_torchvision(x, offset, weight, bias, mask, stride=stride, padding=padding, dilation=dilation)
    height, width = offset.shape[-2:]
    taps = weight.shape[2] * weight.shape[3]
    rows = max(1, BAND_VALUES // (x.shape[0] * x.shape[1] * taps * width))
    if torch.is_grad_enabled():
        rows = height
    source = x.to(torch.promote_types(x.dtype, torch.float32)).contiguous()
    bands = []
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        columns = _samples(
            source,
            offset[:, :, band],
            None if mask is None else mask[:, :, band],
            kernel=(weight.shape[2], weight.shape[3]),
            first=(top * stride - padding, -padding),
            stride=stride,
            dilation=dilation,
        )
        made = _weighted(columns.to(weight.dtype), weight)
        bands.append(made.view(*made.shape[:2], -1, width))
    out = bands[0] if len(bands) == 1 else torch.cat(bands, dim=2)
    if bias is None:
        return out
    return out + bias.view(-1, 1, 1) if torch.is_grad_enabled() else out.add_(bias.view(-1, 1, 1))


def _samples(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    *,
    kernel: tuple[int, int],
    first: tuple[int, int],
    stride: int,
    dilation: int,
) -> Tensor:
    """(N, C, taps, pixels) what each tap sees at each pixel; `first` is where the first tap of the first pixel rests."""
    n, c, h, w = x.shape
    taps = kernel[0] * kernel[1]
    groups, (rows, width) = offset.shape[1] // (2 * taps), offset.shape[-2:]
    offset = offset.to(x.dtype).view(n, groups, taps, 2, rows, width)
    place = {"dtype": x.dtype, "device": x.device}
    tap_y = (torch.arange(kernel[0], **place) * dilation).repeat_interleave(kernel[1])  # type: ignore[call-overload]
    tap_x = (torch.arange(kernel[1], **place) * dilation).repeat(kernel[0])  # type: ignore[call-overload]
    row = torch.arange(rows, **place) * stride + first[0]  # type: ignore[call-overload]
    column = torch.arange(width, **place) * stride + first[1]  # type: ignore[call-overload]
    y = offset[:, :, :, 0] + (tap_y[:, None, None] + row[:, None])
    x_ = offset[:, :, :, 1] + (tap_x[:, None, None] + column)
    # The outer edges of the outermost pixels are at -1 and 1, so that sides of one pixel need no exception.
    grid = torch.stack([(2 * x_ + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1).view(n * groups, taps * rows, width, 2)
    seen = F.grid_sample(
        x.view(n * groups, c // groups, h, w), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    if mask is not None:
        factor = mask.to(x.dtype).reshape(n * groups, 1, taps * rows, width)
        seen = seen * factor if torch.is_grad_enabled() else seen.mul_(factor)
    return seen.view(n, c, taps, rows * width)


def _weighted(columns: Tensor, weight: Tensor) -> Tensor:
    """(N, C, taps, pixels) → (N, C', pixels)."""
    n, c, taps, pixels = columns.shape
    groups = c // weight.shape[1]
    matrix = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1] * taps)
    return torch.matmul(matrix, columns.view(n, groups, -1, pixels)).flatten(1, 2)


@cache
def _torchvision_has_kernel() -> bool:
    try:
        importlib.import_module("torchvision")
        return hasattr(torch.ops.torchvision, "deform_conv2d")
    except Exception:  # absent, or built for another torch, which shows in many ways; nothing is lost without it
        return False


def _by_torchvision(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    *,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    """`deformable_conv2d` by torchvision's operator, which knows float32 and float64."""
    exact = torch.promote_types(x.dtype, torch.float32)
    taps = weight.shape[2] * weight.shape[3]
    groups = offset.shape[1] // (2 * taps)
    out: Tensor = torch.ops.torchvision.deform_conv2d(
        x.to(exact).contiguous(),
        weight.to(exact),
        offset.to(exact).contiguous(),
        offset.new_zeros(x.shape[0], 1, dtype=exact) if mask is None else mask.to(exact).contiguous(),
        weight.new_zeros(weight.shape[0], dtype=exact) if bias is None else bias.to(exact),
        *(stride, stride, padding, padding, dilation, dilation),
        x.shape[1] // weight.shape[1],
        groups,
        mask is not None,
    )
    return out.to(weight.dtype)


class FlowGuidedAlignment(nn.Module):
    """Align features of other frames to one frame: along the flow, corrected by learnt offsets.

    Args:
        sources: Number of other frames, aligned together. Each makes an equal part of the output channels, in order.
        groups: Groups of channels with offsets of their own, of all sources together.
        reach: Largest correction of the flow by an offset, in pixels.
    """

    def __init__(self, channels: int, *, sources: int, groups: int, reach: float) -> None:
        super().__init__()
        self.channels, self.sources, self.groups, self.reach = channels, sources, groups, reach
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv_offset = nn.Sequential(
            conv3x3((1 + sources) * channels + 2 * sources, channels),
            nn.LeakyReLU(0.1, inplace=True),
            conv3x3(channels, channels),
            nn.LeakyReLU(0.1, inplace=True),
            conv3x3(channels, channels),
            nn.LeakyReLU(0.1, inplace=True),
            conv3x3(channels, 27 * groups),
        )
        bound = (9 * channels) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        last = self.conv_offset[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)  # training starts from the flow itself
        nn.init.zeros_(last.bias)

    def forward(
        self, sources: Sequence[Tensor | None], warped: Sequence[Tensor], current: Tensor, flows: Sequence[Tensor]
    ) -> Tensor:
        """The aligned features.

        Args:
            sources: (N, C, H, W) of the other frames; None for one beyond the end of the clip, which counts as zeros.
            warped: The same, warped along the flow.
            current: (N, C, H, W) of the frame they are aligned to.
            flows: (N, 2, H, W) (dx, dy) from that frame to each of the others.

        Returns:
            (N, C, H, W) in the dtype of the parameters.
        """
        dtype = self.weight.dtype
        given = torch.cat([part.to(dtype) for part in (*warped, current, *flows)], dim=1)
        made = self.conv_offset(given.contiguous(memory_format=torch.channels_last))
        exact = torch.promote_types(dtype, torch.float32)
        groups, share = self.groups // self.sources, self.channels // self.sources
        parts = []
        for j, (source, flow) in enumerate(zip(sources, flows, strict=True)):
            out = slice(j * share, (j + 1) * share)
            if source is None:
                parts.append(self.bias[out].view(1, -1, 1, 1).expand(current.shape[0], -1, *current.shape[2:]))
                continue
            offset = made[:, j * 18 * groups : (j + 1) * 18 * groups].to(exact)
            offset = offset.tanh() if torch.is_grad_enabled() else offset.tanh_()
            displacement = flow.flip(1).to(exact).repeat(1, 9 * groups, 1, 1)
            offset = torch.add(displacement, offset, alpha=self.reach)
            mask = made[:, 18 * self.groups + j * 9 * groups : 18 * self.groups + (j + 1) * 9 * groups].sigmoid()
            parts.append(deformable_conv2d(source, offset, self.weight[out], self.bias[out], mask=mask, padding=1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
