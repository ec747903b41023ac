"""Reference form of VSR-Transformer, as its paper reads.

Paper: J. Cao, Y. Li, K. Zhang, L. Van Gool, "Video Super-Resolution Transformer", https://arxiv.org/abs/2106.06847.
Written from the paper and numeric fixtures.

Patches are cut out with `unfold`, attention is softmax(q k^T) v with the whole matrix in memory, and all frames go
through each part at once. Like the published network it takes frames of the trained size only. Correctness: every
fixture of the whole network in float64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import conv1x1, conv3x3
from upframe.models.reference._flow import SPyNet, warp
from upframe.models.reference._layers import ResidualBlock, ResidualBlocks

Flows = tuple[Tensor, Tensor]
"""Return the flows from each frame to the previous and to the next one, (N, T, 2, H, W) each; to itself at the ends."""


class Attention(nn.Module):
    """Spatial-temporal attention among the patches of all frames: (N, T, C, H, W) → the same."""

    def __init__(self, channels: int, patch_px: int, heads: int) -> None:
        super().__init__()
        self.patch_px, self.heads = patch_px, heads
        self.to_q = conv3x3(channels, channels, groups=channels)
        self.to_k = conv3x3(channels, channels, groups=channels)
        self.to_v = conv3x3(channels, channels)
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c, h, w = x.shape
        frames = x.reshape(n * t, c, h, w)
        q, k, v = (self._tokens(conv(frames), n) for conv in (self.to_q, self.to_k, self.to_v))
        weights = F.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        tokens = (weights @ v).transpose(1, 2).reshape(n * t, -1, c * self.patch_px**2)
        folded = F.fold(tokens.transpose(1, 2), (h, w), kernel_size=self.patch_px, stride=self.patch_px)
        return self.conv(folded).view(n, t, c, h, w) + x  # type: ignore[no-any-return]

    def _tokens(self, frames: Tensor, n: int) -> Tensor:
        """(N * T, C, H, W) → (N, heads, patches of all frames, values of a patch)."""
        patches = F.unfold(frames, kernel_size=self.patch_px, stride=self.patch_px).transpose(1, 2)
        return patches.reshape(n, -1, self.heads, patches.shape[2] // self.heads).transpose(1, 2)


class FeedForward(nn.Module):
    """Bidirectional feed-forward along optical flow: (N, T, C, H, W) → the same."""

    def __init__(self, channels: int, blocks: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.backward_resblocks = ResidualBlocks(channels + 3, channels, blocks, slope)
        self.forward_resblocks = ResidualBlocks(channels + 3, channels, blocks, slope)
        self.fusion = conv1x1(2 * channels, channels)

    def forward(self, x: Tensor, clip: Tensor, flows: Flows) -> Tensor:
        n, t, c, h, w = x.shape
        before, after = flows
        following = torch.cat([x[:, 1:], x[:, -1:]], dim=1)
        preceding = torch.cat([x[:, :1], x[:, :-1]], dim=1)
        from_after = warp(following.view(-1, c, h, w), after.reshape(-1, 2, h, w))
        from_before = warp(preceding.view(-1, c, h, w), before.reshape(-1, 2, h, w))
        frames = clip.reshape(-1, 3, h, w)
        backward = self.backward_resblocks(torch.cat([frames, from_after], dim=1))
        forward = self.forward_resblocks(torch.cat([frames, from_before], dim=1))
        fused = F.leaky_relu(self.fusion(torch.cat([backward, forward], dim=1)), self.slope)
        return fused.view(n, t, c, h, w)


class PreNorm(nn.Module):
    """fn(LayerNorm(x)), normalised over all values of a frame."""

    def __init__(self, channels: int, side_px: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm([channels, side_px, side_px])
        self.fn = fn

    def forward(self, x: Tensor, *context: Tensor | Flows) -> Tensor:
        return self.fn(self.norm(x), *context)  # type: ignore[no-any-return]


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, *context: Tensor | Flows) -> Tensor:
        return x + self.fn(x, *context)  # type: ignore[no-any-return]


class FlowNetwork(nn.Module):
    """The flows of every frame, as `Flows`."""

    def __init__(self) -> None:
        super().__init__()
        self.spynet = SPyNet()

    def forward(self, clip: Tensor) -> Flows:
        n, t, _, h, w = clip.shape
        before = torch.cat([clip[:, :1], clip[:, :-1]], dim=1)
        after = torch.cat([clip[:, 1:], clip[:, -1:]], dim=1)
        frames, before, after = (x.reshape(n * t, -1, h, w) for x in (clip, before, after))
        return self.spynet(frames, before).view(n, t, 2, h, w), self.spynet(frames, after).view(n, t, 2, h, w)


class SineCode(nn.Module):
    """The frequencies of the position code, a part of published weights."""

    inv_freq: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.values = 2 * math.ceil(frames / 6)  # sines and cosines for each of three axes
        self.register_buffer("inv_freq", 10000 ** (-torch.arange(0, self.values, 2).float() / self.values))

    def forward(self, x: Tensor) -> Tensor:
        """(T, C, H, W): the frame axis counts frequencies, and the position is that of channel, row and column."""
        t, c, h, w = x.shape[1:]
        code = x.new_zeros(3 * self.values, c, h, w)
        for axis, size in enumerate((c, h, w)):
            angle = torch.arange(size, dtype=x.dtype, device=x.device)[:, None] * self.inv_freq.to(x.dtype)
            values = torch.cat([angle.sin(), angle.cos()], dim=1).T  # (values, size)
            shape = [self.values, *(size if a == axis else 1 for a in range(3))]
            code[axis * self.values : (axis + 1) * self.values] = values.reshape(shape)
        return code[:t]


class VSRTransformer(nn.Module):
    """(N, T, 3, S, S) → (N, T, 3, 4 S, 4 S) with S = `window_px`; the arguments are explained in
    `architectures/vsr_transformer.py`."""

    def __init__(
        self,
        *,
        channels: int = 64,
        frames: int = 5,
        depth: int = 5,
        heads: int = 1,
        patch_px: int = 8,
        window_px: int = 64,
        extract_blocks: int = 5,
        reconstruct_blocks: int = 30,
        feed_forward_blocks: int = 30,
        slope: float = 0.1,
    ) -> None:
        super().__init__()
        self.window_px, self.slope = window_px, slope
        self.conv_first = conv3x3(3, channels)
        self.feature_extraction = nn.Sequential(*(ResidualBlock(channels) for _ in range(extract_blocks)))
        self.spynet = FlowNetwork()
        self.pos_embedding = nn.ModuleDict({"penc": SineCode(frames)})
        layers = nn.ModuleList()
        for _ in range(depth):
            attention = Attention(channels, patch_px, heads)
            feed_forward = FeedForward(channels, feed_forward_blocks, slope)
            parts = (PreNorm(channels, window_px, part) for part in (attention, feed_forward))
            layers.append(nn.ModuleList(Residual(part) for part in parts))
        self.transformer = nn.ModuleDict({"layers": layers})
        self.reconstruction = nn.Sequential(*(ResidualBlock(channels) for _ in range(reconstruct_blocks)))
        self.upconv1 = conv3x3(channels, 4 * channels)
        self.upconv2 = conv3x3(channels, 4 * channels)
        self.conv_hr = conv3x3(channels, channels)
        self.conv_last = conv3x3(channels, 3)

    def forward(self, clip: Tensor) -> Tensor:
        n, t, _, h, w = clip.shape
        if (h, w) != (self.window_px, self.window_px):
            raise ValueError(f"the reference form takes only frames of {self.window_px}x{self.window_px}, not {w}x{h}")
        flows = self.spynet(clip)
        frames = clip.reshape(n * t, 3, h, w)
        x = self.feature_extraction(F.leaky_relu(self.conv_first(frames), self.slope)).view(n, t, -1, h, w)
        x = x + self.pos_embedding["penc"](x)
        for attention, feed_forward in self.transformer["layers"]:  # type: ignore[attr-defined]  # ModuleDict hides the list
            x = attention(x)
            x = feed_forward(x, clip, flows)
        x = self.reconstruction(x.view(n * t, -1, h, w))
        x = F.leaky_relu(F.pixel_shuffle(self.upconv1(x), 2), self.slope)
        x = F.leaky_relu(F.pixel_shuffle(self.upconv2(x), 2), self.slope)
        x = self.conv_last(F.leaky_relu(self.conv_hr(x), self.slope))
        x = x + F.interpolate(frames, scale_factor=4, mode="bilinear", align_corners=False)
        return x.view(n, t, 3, 4 * h, 4 * w)  # type: ignore[no-any-return]
