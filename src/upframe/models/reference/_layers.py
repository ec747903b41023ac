"""Blocks that the reference forms of video networks share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import conv3x3


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))  # type: ignore[no-any-return]


class ResidualBlocks(nn.Module):
    """A convolution to `channels` with LeakyReLU, then `blocks` residual blocks."""

    def __init__(self, channels_in: int, channels: int, blocks: int, slope: float = 0.1) -> None:
        super().__init__()
        self.main = nn.Sequential(
            conv3x3(channels_in, channels),
            nn.LeakyReLU(slope),
            nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks))),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)  # type: ignore[no-any-return]
