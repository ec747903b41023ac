"""Reference form of Weft: every step in the order of its description, all flows at once, every feature kept until the end.

Correctness: equal to `architectures/weft.py` except for rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._correlation_flow import CorrelationFlow
from upframe.models.architectures._fine_flow import fine_flow
from upframe.models.architectures._layers import conv3x3
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


class Direction(nn.Module):
    """The detail that one direction adds to a frame, from its own and the differences of others to it."""

    def __init__(self, details: int, others: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.seen = ResidualBlocks((1 + others) * details + 4, channels, blocks)
        self.learnt = conv3x3(channels, details)
        self.mixed = conv3x3(others * details, details)

    def forward(self, own: Tensor, others: list[Tensor], guides: Tensor) -> Tensor:
        seen = self.seen(torch.cat([own, *others, guides], dim=1))
        return self.learnt(seen) + self.mixed(torch.cat(others, dim=1))  # type: ignore[no-any-return]


class Weft(nn.Module):
    """(N, T, 3, H, W) → (N, T, 3, scale·H, scale·W); the arguments are explained in `architectures/weft.py`."""

    def __init__(
        self, *, scale: int, channels: int, blocks: int, trunk_channels: int, trunk_blocks: int, trunk_inner: int
    ) -> None:
        super().__init__()
        self.scale = scale
        self.trunk = RLFN(channels=trunk_channels, blocks=trunk_blocks, scale=scale, inner_channels=trunk_inner)
        self.correlation_flow = CorrelationFlow()
        self.trust = Trust()
        self.backward_direction = Direction(3 * scale**2, 1, channels, blocks)
        self.forward_direction = Direction(3 * scale**2, 2, channels, blocks)

    def forward(self, clip: Tensor) -> Tensor:
        frames = list(clip.unbind(1))
        last = len(frames) - 1
        to_next = [fine_flow(self.correlation_flow, frames[i], frames[i + 1]) for i in range(last)]
        to_previous = [fine_flow(self.correlation_flow, frames[i + 1], frames[i]) for i in range(last)]
        alone = [self.trunk(frame) for frame in frames]
        details = [self._detail(enlarged, frame) for enlarged, frame in zip(alone, frames, strict=True)]
        backward: list[Tensor] = []
        for i in range(last, -1, -1):
            if i == last:
                aligned, guides = self._nothing(details[i])
            else:
                pair = (frames[i], frames[i + 1], to_next[i], to_previous[i])
                aligned, guides = self._aligned(details[i], backward[0], *pair)
            added = self.backward_direction(details[i], [aligned], guides)
            backward.insert(0, alone[i] + F.pixel_shuffle(added, self.scale) / 16)
        forward: list[Tensor] = []
        for i in range(last + 1):
            if i == 0:
                aligned, guides = self._nothing(details[i])
            else:
                pair = (frames[i], frames[i - 1], to_previous[i - 1], to_next[i - 1])
                aligned, guides = self._aligned(details[i], forward[-1], *pair)
            others = [self._detail(backward[i], frames[i]) - details[i], aligned]
            added = self.forward_direction(details[i], others, guides)
            forward.append(backward[i] + F.pixel_shuffle(added, self.scale) / 16)
        return torch.stack(forward, dim=1)

    def _detail(self, enlarged: Tensor, frame: Tensor) -> Tensor:
        """The difference of each enlarged pixel to the pixel that it lies in, times 16."""
        return 16 * (F.pixel_unshuffle(enlarged, self.scale) - frame.repeat_interleave(self.scale**2, dim=1))

    def _aligned(
        self, own: Tensor, made: Tensor, frame: Tensor, neighbour: Tensor, there: Tensor, back: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The difference of the neighbour's detail to the frame's, times the trust in it; and what shows the trust."""
        difference = frame - warp(neighbour, there)
        gap = (there + warp(back, there)).square().sum(1, keepdim=True)
        trust = self.trust(difference, gap)
        s = self.scale
        fine = s * F.interpolate(there, scale_factor=s, mode="bilinear", align_corners=False)
        moved = self._detail(warp(made, fine, padding="border"), frame)
        return (moved - own) * trust, torch.cat([16 * difference * trust, trust], dim=1)

    def _nothing(self, own: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(own), own.new_zeros(own.shape[0], 4, *own.shape[2:])
