"""Reference form of RLFN, as its paper reads.

Paper: F. Kong et al., "Residual Local Feature Network for Efficient Super-Resolution", CVPRW 2022,
https://arxiv.org/abs/2205.07514. Pictures are always (N, C, H, W), and no operation works in place. Correctness: equal to
upframe's network except for rounding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import conv1x1, conv3x3


class ESA(nn.Module):
    """Enhanced spatial attention (paper, fig. 4c)."""

    def __init__(self, channels: int, reduced: int = 16) -> None:
        super().__init__()
        self.conv1 = conv1x1(channels, reduced)
        self.conv_f = conv1x1(reduced, reduced)
        self.conv2 = nn.Conv2d(reduced, reduced, 3, stride=2)
        self.conv3 = conv3x3(reduced, reduced)
        self.conv4 = conv1x1(reduced, channels)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        pooled = F.max_pool2d(self.conv2(reduced), kernel_size=7, stride=3)
        spread = F.interpolate(self.conv3(pooled), size=x.shape[2:], mode="bilinear", align_corners=False)
        return x * (self.conv4(spread + self.conv_f(reduced))).sigmoid()  # type: ignore[no-any-return]


class Block(nn.Module):
    """Residual local feature block (paper, fig. 3b)."""

    def __init__(self, channels: int, inner_channels: int) -> None:
        super().__init__()
        self.c1_r = conv3x3(channels, inner_channels)
        self.c2_r = conv3x3(inner_channels, inner_channels)
        self.c3_r = conv3x3(inner_channels, channels)
        self.c5 = conv1x1(channels, channels)
        self.esa = ESA(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.c1_r(x), 0.05)
        y = F.leaky_relu(self.c2_r(y), 0.05)
        y = F.leaky_relu(self.c3_r(y), 0.05)
        return self.esa(self.c5(y + x))  # type: ignore[no-any-return]


class RLFN(nn.Module):
    """(N, C, H, W) → (N, C, scale·H, scale·W); the arguments are explained in `architectures/rlfn.py`."""

    def __init__(
        self, *, channels: int = 52, blocks: int = 6, scale: int = 4, inner_channels: int | None = None, colours: int = 3
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.conv_1 = conv3x3(colours, channels)
        for i in range(1, blocks + 1):
            self.add_module(f"block_{i}", Block(channels, inner_channels or channels))
        self.conv_2 = conv3x3(channels, channels)
        self.upsampler = nn.Sequential(conv3x3(channels, colours * scale**2), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        head = self.conv_1(x)
        y = head
        for i in range(1, self.blocks + 1):
            y = self.get_submodule(f"block_{i}")(y)
        return self.upsampler(self.conv_2(y) + head)  # type: ignore[no-any-return]
