"""Reference form of VapSR, as its paper reads.

Paper: L. Zhou et al., "Efficient Image Super-Resolution using Vast-Receptive-Field Attention", ECCVW 2022,
https://arxiv.org/abs/2210.05960. Pictures are (N, C, H, W); the norm over channels permutes to (N, H, W, C) and back with
copies. Correctness: equal to upframe's network except for rounding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import conv1x1, conv3x3


class Attention(nn.Module):
    """Vast-receptive-field attention (paper, §3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pointwise = conv1x1(channels, channels)
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.depthwise_dilated = nn.Conv2d(channels, channels, 5, padding=6, dilation=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.depthwise_dilated(self.depthwise(self.pointwise(x)))
        return x * attention  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention between two projections, the shortcut, and the norm over the channels of every pixel."""

    def __init__(self, channels: int, attention_channels: int) -> None:
        super().__init__()
        self.proj_1 = conv1x1(channels, attention_channels)
        self.atten_branch = Attention(attention_channels)
        self.proj_2 = conv1x1(attention_channels, channels)
        self.pixel_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.proj_2(self.atten_branch(F.gelu(self.proj_1(x)))) + x
        normed = self.pixel_norm(y.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2).contiguous()  # type: ignore[no-any-return]


class VapSR(nn.Module):
    """(N, C, H, W) → (N, C, scale·H, scale·W); the arguments are explained in `architectures/vapsr.py`."""

    def __init__(
        self,
        *,
        channels: int = 48,
        attention_channels: int = 64,
        blocks: int = 21,
        scale: int = 4,
        groups: int = 1,
        colours: int = 3,
    ) -> None:
        super().__init__()
        self.conv_first = conv3x3(colours, channels)
        self.body = nn.Sequential(*(Block(channels, attention_channels) for _ in range(blocks)))
        self.conv_body = conv3x3(channels, channels, groups=groups)
        if scale == 4:
            self.upsampler = nn.Sequential(
                conv3x3(channels, 64), nn.PixelShuffle(2), nn.LeakyReLU(0.1), conv3x3(16, colours * 4), nn.PixelShuffle(2)
            )
        else:
            self.upsampler = nn.Sequential(
                conv3x3(channels, 56), nn.LeakyReLU(0.1), conv3x3(56, colours * scale**2), nn.PixelShuffle(scale)
            )

    def forward(self, x: Tensor) -> Tensor:
        head = self.conv_first(x)
        return self.upsampler(self.conv_body(self.body(head)) + head)  # type: ignore[no-any-return]
