"""Layers that two or more networks share."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.layers import OneStepConv2d


def conv3x3(channels_in: int, channels_out: int, *, groups: int = 1) -> nn.Conv2d:
    """3×3 convolution with bias, zero-padded to keep the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, groups=groups)


def conv1x1(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 1)


def added(mine: Tensor, other: Tensor) -> Tensor:
    """Return `mine + other`, computed in `mine`, which nobody else holds, unless a gradient needs its old value."""
    return mine + other if torch.is_grad_enabled() else mine.add_(other)


def multiplied(mine: Tensor, other: Tensor) -> Tensor:
    """Return `mine * other`, computed in the same way."""
    return mine * other if torch.is_grad_enabled() else mine.mul_(other)


def convolved(conv: nn.Conv2d, x: Tensor, *, slope: float) -> Tensor:
    """LeakyReLU of `conv(x)`; ReLU where the slope is 0.

    Without a gradient, oneDNN applies it on a CPU before the sums leave the registers: this saves 5 % of the time of a 3×3
    convolution in bfloat16 with 64 channels, and rounds once instead of twice.
    """
    if isinstance(conv, OneStepConv2d):
        return conv.in_one_step(x, slope=slope)
    if not _fuses(conv, x):
        y: Tensor = conv(x)
        return F.leaky_relu_(y, slope) if slope else F.relu_(y)
    activation, scalars = ("leaky_relu", [slope]) if slope else ("relu", [])
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *_arguments(conv), activation, scalars, "")
    return fused


def convolved_onto(conv: nn.Conv2d, x: Tensor, other: Tensor) -> Tensor:
    """`conv(x) + other`; `other`, which nobody else holds, may be written into."""
    if isinstance(conv, OneStepConv2d):
        return conv.in_one_step(x, other=other, into_other=True)
    if not _fuses(conv, x) or other.dtype != x.dtype:
        y: Tensor = conv(x)
        return y.add_(other)
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise_(other, x, *_arguments(conv), "add", 1.0, None, [], None)
    return fused


def convolved_beside(conv: nn.Conv2d, x: Tensor, other: Tensor, *, slope: float = 1) -> Tensor:
    """LeakyReLU of `conv(x)`, plus `other`, which stays as it is; without LeakyReLU where the slope is 1."""
    if isinstance(conv, OneStepConv2d):
        return conv.in_one_step(x, slope=slope, other=other)
    if slope == 1:
        y: Tensor = conv(x)
        return y.add_(other)
    return added(convolved(conv, x, slope=slope), other)


def _fuses(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether oneDNN is available for this convolution and neither gradient nor autocast prevents it."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling():  # also when exporting: graphs are to hold what every runtime knows
        return False
    if x.dtype != conv.weight.dtype or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    return x.numel() > 0 and _has_fused(x.dtype)


@cache
def _has_fused(dtype: torch.dtype) -> bool:
    """Whether torch was built with oneDNN's fused convolutions, and they know this type on this CPU."""
    # Also what `torch.compile` calls on CPUs. They carry a leading underscore, so what lacks them goes without.
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    operators = torch.ops.mkldnn
    if not (hasattr(operators, "_convolution_pointwise") and hasattr(operators, "_convolution_pointwise_")):
        return False
    return dtype == torch.float32 or bool(operators._is_mkldnn_bf16_supported())


def _arguments(conv: nn.Conv2d) -> tuple[Any, ...]:
    return conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups


class NarrowConv2d(nn.Conv2d):
    """A 3×3 convolution as `conv3x3`, to few channels, computed for 2×2 pixels at a time where sizes are even.

    oneDNN computes 16 channels even where 3 are wanted. Written as a 4×4 convolution of stride 2 to four times the channels,
    12 of the 16 are of use: two thirds of the time for 64 to 3 channels, with the same sums.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        h, w = input.shape[-2:]
        if input.device.type != "cpu" or torch.is_grad_enabled() or h % 2 or w % 2:
            return super().forward(input)
        weight = self.weight.new_zeros(self.out_channels, 2, 2, self.in_channels, 4, 4)
        for i in range(2):
            for j in range(2):
                weight[:, i, j, :, i : i + 3, j : j + 3] = self.weight
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(input, weight.flatten(0, 2), bias, stride=2, padding=1), 2)


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))), without normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return convolved_beside(self.conv2, convolved(self.conv1, x, slope=0), x)

    def onto(self, x: Tensor) -> Tensor:
        """The same; `x`, which nobody else holds, may be written into."""
        return convolved_onto(self.conv2, convolved(self.conv1, x, slope=0), x)


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
        first, activation, blocks = self.main.children()
        assert isinstance(first, nn.Conv2d) and isinstance(activation, nn.LeakyReLU)
        # Channels-last takes a tenth to a quarter off the convolutions' time on CPUs; their results keep the layout.
        x = convolved(first, x.contiguous(memory_format=torch.channels_last), slope=activation.negative_slope)
        for block in blocks.children():
            assert isinstance(block, ResidualBlock)
            x = block.onto(x)
        return x


class DepthwiseConv2d(nn.Conv2d):
    """Depth-wise convolution with a bias that keeps the size, with gradients that a CPU computes three times as fast.

    Same parameters and results as `nn.Conv2d(channels, channels, kernel, groups=channels)`. oneDNN takes 25 to 40 ms for
    the gradients of a dilated 5×5 one where the forward pass takes 0.4 (8×64×48×48, one thread). Here the gradient of the
    input is a depth-wise convolution with the kernel turned round, and the gradient of each tap is a sum of products.
    """

    def __init__(self, channels: int, kernel: int, *, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=channels)

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        if not torch.is_grad_enabled():
            if torch.compiler.is_compiling():  # also when exporting: graphs are to hold one operation
                return super().forward(input)
            return _depthwise(input, self.weight, self.bias, self.dilation[0])
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
        return _depthwise(x, weight, bias, dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        d, k = ctx.dilation, weight.shape[-1]
        of_x = of_weight = of_bias = None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                of_x = _depthwise(gradient, weight.flip(-2, -1), None, d)
            if ctx.needs_input_grad[1]:
                of_weight = _gradient_of_taps(x, gradient, k, d)
            if ctx.needs_input_grad[2]:
                of_bias = gradient.sum((0, 2, 3), dtype=torch.promote_types(gradient.dtype, torch.float32)).to(gradient.dtype)
        return of_x, of_weight, of_bias, None


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """(N, C, H, W), (C, 1, K, K), (C,), dilation → (N, C, H, W), zero-padded to keep the size.

    Without AVX-512 oneDNN has no fast dilated kernels for channels-last maps: 96 ms for 64 channels of 320×180 where those that
    are not dilated take 1.7. So a map is split into d × d maps of every d-th pixel of rows and columns, which are convolved
    without dilation and joined again.
    """
    padding = dilation * (weight.shape[-1] // 2)
    if dilation == 1 or _HAS_DILATED:
        return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=len(weight))
    n, c, h, w = x.shape
    d, tall, wide = dilation, -(-h // dilation), -(-w // dilation)
    whole = F.pad(x, (0, wide * d - w, 0, tall * d - h)).permute(0, 2, 3, 1)  # (N, H, W, C)
    parts = whole.reshape(n, tall, d, wide, d, c).permute(0, 2, 4, 1, 3, 5).reshape(n * d * d, tall, wide, c)
    made = F.conv2d(parts.permute(0, 3, 1, 2), weight, bias, padding=padding // d, groups=c).permute(0, 2, 3, 1)
    joined = made.reshape(n, d, d, tall, wide, c).permute(0, 3, 1, 4, 2, 5).reshape(n, tall * d, wide * d, c)
    return joined.permute(0, 3, 1, 2)[:, :, :h, :w]


_HAS_DILATED = torch.backends.cpu.get_cpu_capability() == "AVX512"


# A block of this many channels fills the registers of AVX-512. With fewer, oneDNN 3.12 pads, and got a dilated kernel's
# gradient in bfloat16 wrong.
_BLOCK = 16


def _gradient_of_taps(x: Tensor, gradient: Tensor, k: int, d: int) -> Tensor:
    """Sum, for each tap of the kernel, the shifted input times the output's gradient: (C, 1, K, K).

    It is the diagonal of the gradient of a convolution that mixes 16 channels at a time. A matrix unit computes that in a
    third of the time of the sums in bfloat16, and in half of it in float32 (16×64×48×48).
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
