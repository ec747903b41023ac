"""Reference form of Weft: every step in the order of its description, all flows at once, every feature kept until the end.

Correctness: equal to `architectures/weft.py` except for rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._correlation_flow import CorrelationFlow
from upframe.models.architectures._fine_flow import fine_flow
from upframe.models.architectures._layers import conv1x1, conv3x3
from upframe.models.reference._flow import warp
from upframe.models.reference._layers import ResidualBlocks
from upframe.models.reference.rlfn import RLFN


class Trust(nn.Module):
    """Sigmoid of 4, less the squared gap of the flows and the mean difference of the colours around, each times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.doubt = nn.Parameter(torch.zeros(2))

    def forward(self, difference: Tensor, gap: Tensor) -> Tensor:
        ones = torch.ones_like(gap)
        box = torch.ones(1, 1, 3, 3, dtype=gap.dtype)
        count = F.conv2d(ones, box, padding=1)
        around = F.conv2d(difference.abs().mean(1, keepdim=True), box, padding=1) / count
        return torch.sigmoid(4 - self.doubt[0].exp() * gap - self.doubt[1].exp() * around)


class Weft(nn.Module):
    """(N, T, 3, H, W) → (N, T, 3, scale·H, scale·W); the arguments are explained in `architectures/weft.py`."""

    def __init__(
        self, *, scale: int, channels: int, blocks: int, trunk_channels: int, trunk_blocks: int, trunk_inner: int
    ) -> None:
        super().__init__()
        self.scale, self.channels = scale, channels
        self.trunk = RLFN(channels=trunk_channels, blocks=trunk_blocks, scale=scale, inner_channels=trunk_inner)
        self.correlation_flow = CorrelationFlow()
        self.trust = Trust()
        self.entry = conv1x1(3 * scale**2, channels)
        self.backward_branch = ResidualBlocks(2 * channels + 4, channels, blocks)
        self.forward_branch = ResidualBlocks(3 * channels + 4, channels, blocks)
        self.fusion = conv3x3(2 * channels, trunk_inner)
        self.woven = nn.Sequential(conv3x3(trunk_inner, 3 * scale**2), nn.PixelShuffle(scale))

    def forward(self, clip: Tensor) -> Tensor:
        frames = list(clip.unbind(1))
        last = len(frames) - 1
        to_next = [fine_flow(self.correlation_flow, frames[i], frames[i + 1]) for i in range(last)]
        to_previous = [fine_flow(self.correlation_flow, frames[i + 1], frames[i]) for i in range(last)]
        trunks = [self.trunk(frame) for frame in frames]
        entries = [self._entered(frame, trunk) for frame, trunk in zip(frames, trunks, strict=True)]
        backward: list[Tensor] = []
        for i in range(last, -1, -1):
            if i == last:
                aligned = self._nothing(frames[i])
            else:
                aligned = self._aligned(backward[0], frames[i], frames[i + 1], to_next[i], to_previous[i])
            backward.insert(0, self.backward_branch(torch.cat([entries[i], aligned], dim=1)))
        forward: list[Tensor] = []
        for i in range(last + 1):
            if i == 0:
                aligned = self._nothing(frames[i])
            else:
                aligned = self._aligned(forward[-1], frames[i], frames[i - 1], to_previous[i - 1], to_next[i - 1])
            forward.append(self.forward_branch(torch.cat([entries[i], backward[i], aligned], dim=1)))
        enlarged = []
        for trunk, *both in zip(trunks, backward, forward, strict=True):
            woven = F.leaky_relu(self.fusion(torch.cat(both, dim=1)), 0.1)
            enlarged.append(trunk + self.woven(woven))
        return torch.stack(enlarged, dim=1)

    def _entered(self, frame: Tensor, trunk: Tensor) -> Tensor:
        """The features of a frame alone: the difference of each enlarged pixel to the pixel that it lies in."""
        detail = F.pixel_unshuffle(trunk, self.scale) - frame.repeat_interleave(self.scale**2, dim=1)
        return self.entry(16 * detail)  # type: ignore[no-any-return]

    def _aligned(self, feature: Tensor, frame: Tensor, neighbour: Tensor, there: Tensor, back: Tensor) -> Tensor:
        """Features of the neighbour and the difference of the frames, times the trust in them; and the trust."""
        difference = frame - warp(neighbour, there)
        gap = (there + warp(back, there)).square().sum(1, keepdim=True)
        trust = self.trust(difference, gap)
        return torch.cat([warp(feature, there) * trust, 16 * difference * trust, trust], dim=1)

    def _nothing(self, frame: Tensor) -> Tensor:
        return frame.new_zeros(frame.shape[0], self.channels + 4, *frame.shape[2:])
