"""Reference forms of BasicVSR and RealBasicVSR, as their papers read.

Papers: K. C. K. Chan et al., "BasicVSR", CVPR 2021, https://arxiv.org/abs/2012.02181, and "Investigating Tradeoffs in
Real-World Video Super-Resolution", CVPR 2022, https://arxiv.org/abs/2111.12704. Whole frames, all flows at once, every feature
kept until the end, and one cleaning pass over all frames together. Correctness: equal to upframe's networks except for
rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import conv1x1, conv3x3
from upframe.models.reference._flow import SPyNet, warp
from upframe.models.reference._layers import ResidualBlocks


class Upsample(nn.Module):
    """Twice the size by a convolution and a pixel shuffle."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.upsample_conv = conv3x3(channels_in, 4 * channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.upsample_conv(x), 2)


class BasicVSR(nn.Module):
    """(N, T, 3, H, W) → (N, T, 3, 4 H, 4 W); the arguments are explained in `architectures/realbasicvsr.py`."""

    def __init__(self, *, channels: int = 64, blocks: int = 30) -> None:
        super().__init__()
        self.channels = channels
        self.spynet = SPyNet()
        self.backward_resblocks = ResidualBlocks(channels + 3, channels, blocks)
        self.forward_resblocks = ResidualBlocks(channels + 3, channels, blocks)
        self.fusion = conv1x1(2 * channels, channels)
        self.upsample1 = Upsample(channels, channels)
        self.upsample2 = Upsample(channels, 64)
        self.conv_hr = conv3x3(64, 64)
        self.conv_last = conv3x3(64, 3)

    def forward(self, clip: Tensor) -> Tensor:
        n, t, _, h, w = clip.shape
        flows_backward, flows_forward = self._flows(clip)
        feature = clip.new_zeros(n, self.channels, h, w)
        backward: list[Tensor] = []
        for i in range(t - 1, -1, -1):
            if i < t - 1:
                feature = warp(feature, flows_backward[:, i])
            feature = self.backward_resblocks(torch.cat([clip[:, i], feature], dim=1))
            backward.insert(0, feature)
        feature = torch.zeros_like(feature)
        enlarged = []
        for i in range(t):
            if i:
                feature = warp(feature, flows_forward[:, i - 1])
            feature = self.forward_resblocks(torch.cat([clip[:, i], feature], dim=1))
            y = F.leaky_relu(self.fusion(torch.cat([backward[i], feature], dim=1)), 0.1)
            y = F.leaky_relu(self.upsample1(y), 0.1)
            y = F.leaky_relu(self.upsample2(y), 0.1)
            y = self.conv_last(F.leaky_relu(self.conv_hr(y), 0.1))
            enlarged.append(y + F.interpolate(clip[:, i], scale_factor=4, mode="bilinear", align_corners=False))
        return torch.stack(enlarged, dim=1)

    def _flows(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Flows i → i + 1 and i + 1 → i, (N, T - 1, 2, H, W) each."""
        n, t, c, h, w = clip.shape
        if t == 1:
            none = clip.new_zeros(n, 0, 2, h, w)
            return none, none
        earlier, later = clip[:, :-1].reshape(-1, c, h, w), clip[:, 1:].reshape(-1, c, h, w)
        backward, forward = self.spynet(earlier, later), self.spynet(later, earlier)
        return backward.view(n, t - 1, 2, h, w), forward.view(n, t - 1, 2, h, w)


class RealBasicVSR(nn.Module):
    """(N, T, 3, H, W) → (N, T, 3, 4 H, 4 W), cleaned once; the arguments are explained in `architectures/realbasicvsr.py`."""

    def __init__(self, *, channels: int = 64, propagation_blocks: int = 20, cleaning_blocks: int = 20) -> None:
        super().__init__()
        self.image_cleaning = nn.Sequential(ResidualBlocks(3, channels, cleaning_blocks), conv3x3(channels, 3))
        self.basicvsr = BasicVSR(channels=channels, blocks=propagation_blocks)

    def forward(self, clip: Tensor) -> Tensor:
        n, t, c, h, w = clip.shape
        frames = clip.reshape(n * t, c, h, w)
        cleaned = frames + self.image_cleaning(frames)
        return self.basicvsr(cleaned.view(n, t, c, h, w))  # type: ignore[no-any-return]
