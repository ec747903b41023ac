"""Layers that two or more networks share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv3x3(channels_in: int, channels_out: int, *, groups: int = 1) -> nn.Conv2d:
    """3×3 convolution with bias, zero-padded to keep the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, groups=groups)


def conv1x1(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 1)


def multiply_input_by(factor: float, weight: Tensor) -> Tensor:
    """The weight of a convolution that shall behave as if its input were multiplied by `factor`."""
    return weight * factor


def added(mine: Tensor, other: Tensor) -> Tensor:
    """`mine + other`, written into `mine`, which nobody else holds, unless its gradient needs what is there."""
    return mine + other if torch.is_grad_enabled() else mine.add_(other)


def multiplied(mine: Tensor, other: Tensor) -> Tensor:
    """`mine * other`, likewise."""
    return mine * other if torch.is_grad_enabled() else mine.mul_(other)


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))), without normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu_(self.conv1(x)))
        return y.add_(x)


class ResidualBlocks(nn.Module):
    """A convolution to `channels` with LeakyReLU, then `blocks` residual blocks."""

    def __init__(self, channels_in: int, channels: int, blocks: int, *, slope: float) -> None:
        super().__init__()
        self.main = nn.Sequential(
            conv3x3(channels_in, channels),
            nn.LeakyReLU(slope, inplace=True),
            nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks))),
        )

    def forward(self, x: Tensor) -> Tensor:
        # Channels-last takes a tenth to a quarter off the convolutions' time on CPUs; what they return keeps the layout.
        return self.main(x.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


class DepthwiseConv2d(nn.Conv2d):
    """Depth-wise convolution with a bias that keeps the size, with gradients that a CPU computes three times as fast.

    Same parameters and results as `nn.Conv2d(channels, channels, kernel, groups=channels)`. oneDNN takes 25 to 40 ms for
    the gradients of a dilated 5×5 one where the forward pass takes 0.4 (8×64×48×48, one thread): the gradient of the input
    is itself such a convolution, with the kernel turned round, and that of each tap a sum of products.
    """

    def __init__(self, channels: int, kernel: int, *, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=channels)

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        assert self.bias is not None
        made: Tensor = _Depthwise.apply(input.to(dtype), self.weight.to(dtype), self.bias.to(dtype), self.dilation[0])  # type: ignore[no-untyped-call]
        return made


class _Depthwise(torch.autograd.Function):
    """(N, C, H, W), (C, 1, K, K), (C,), dilation → (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        d, k = ctx.dilation, weight.shape[-1]
        of_x = of_weight = of_bias = None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                of_x = F.conv2d(gradient, weight.flip(-2, -1), padding=d * (k // 2), dilation=d, groups=len(weight))
            if ctx.needs_input_grad[1]:
                of_weight = _gradient_of_taps(x, gradient, k, d)
            if ctx.needs_input_grad[2]:
                of_bias = gradient.sum((0, 2, 3), dtype=torch.promote_types(gradient.dtype, torch.float32)).to(gradient.dtype)
        return of_x, of_weight, of_bias, None


# A block of this many channels fills the registers of AVX-512. With fewer, oneDNN 3.12 pads, and got a dilated kernel's
# gradient in bfloat16 wrong.
_BLOCK = 16


def _gradient_of_taps(x: Tensor, gradient: Tensor, k: int, d: int) -> Tensor:
    """For each tap of the kernel the shifted input times the output's gradient, summed: (C, 1, K, K).

    Taken from the gradient of a convolution that mixes 16 channels at a time, of which all but the diagonal is thrown away.
    A matrix unit does that in a third of the time of the sums in bfloat16, in half of it in float32 (16×64×48×48).
    """
    channels = gradient.shape[1]
    if channels % _BLOCK or gradient.dtype not in (torch.float32, torch.bfloat16):
        return _summed_taps(x, gradient, k, d)
    weight = gradient.new_empty(channels, _BLOCK, k, k).contiguous(memory_format=torch.channels_last)
    groups, padding = channels // _BLOCK, d * (k // 2)
    step, at, spread = [1, 1], [padding, padding], [d, d]
    mixed = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, step, at, spread, False, [0, 0], groups, [False, True, False]
    )[1]
    each = torch.arange(channels)
    return mixed[each, each % _BLOCK].unsqueeze(1)  # type: ignore[no-any-return]


def _summed_taps(x: Tensor, gradient: Tensor, k: int, d: int) -> Tensor:
    h, w = gradient.shape[-2:]
    padded = F.pad(x, [d * (k // 2)] * 4)
    sums = [(padded[:, :, i * d : i * d + h, j * d : j * d + w] * gradient).sum((0, 2, 3)) for i in range(k) for j in range(k)]
    return torch.stack(sums, 1).view(-1, 1, k, k)
