"""Reference form of VRT, as its paper reads.

Paper: J. Liang, J. Cao, Y. Fan, K. Zhang, R. Ranjan, Y. Li, R. Timofte, L. Van Gool, "VRT: A Video Restoration
Transformer", https://arxiv.org/abs/2201.12288. Written from the paper and numeric fixtures.

Each step follows the paper's description: clips are (N, C, T, H, W) between the parts of a stage and
(N, T, H, W, C) inside them, windows are cut out and put back by copies, masks are built for every group, attention is
softmax(q k^T + bias + mask) v, and a clip is worked on whole. Correctness: every fixture of the reference in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.reference._flow import SPyNet, warp

Triple = tuple[int, int, int]
Flows = list[Tensor]
"""One (N, T - 1, 2, h, w) for each distance in frames, nearest first."""


# Windows --------------------------------------------------------------------------------------------------------------
def window_partition(x: Tensor, window: Triple) -> Tensor:
    """(N, D, H, W, C) → (N * windows, tokens, C)."""
    n, d, h, w, c = x.shape
    x = x.view(n, d // window[0], window[0], h // window[1], window[1], w // window[2], window[2], c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).contiguous().view(-1, math.prod(window), c)


def window_reverse(windows: Tensor, window: Triple, shape: tuple[int, int, int, int]) -> Tensor:
    """The reverse of `window_partition`; `shape` is (N, D, H, W)."""
    n, d, h, w = shape
    x = windows.view(n, d // window[0], h // window[1], w // window[2], *window, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).contiguous().view(n, d, h, w, -1)


def fitted_window(size: Sequence[int], window: Triple, shift: Triple) -> tuple[Triple, Triple]:
    """Window and shift for a clip: an axis that is no longer than the window is one window and is not shifted."""
    fits = [side <= full for side, full in zip(size, window, strict=True)]
    return (
        cast("Triple", tuple(side if small else full for side, full, small in zip(size, window, fits, strict=True))),
        cast("Triple", tuple(0 if small else by for by, small in zip(shift, fits, strict=True))),
    )


def shift_mask(size: Triple, window: Triple, shift: Triple, like: Tensor) -> Tensor:
    """(windows, tokens, tokens): -100 between tokens that only the cyclic shift made neighbours, else 0."""
    region = like.new_zeros(1, *size, 1)
    number = 0
    cuts = [
        (slice(-length), slice(-length, -by), slice(-by, None)) if by else (slice(None),)
        for length, by in zip(window, shift, strict=True)
    ]
    for d in cuts[0]:
        for h in cuts[1]:
            for w in cuts[2]:
                region[:, d, h, w, :] = number
                number += 1
    by_window = window_partition(region, window).squeeze(-1)
    difference = by_window.unsqueeze(1) - by_window.unsqueeze(2)
    return difference.masked_fill(difference != 0, -100.0).masked_fill(difference == 0, 0.0)


# Attention ------------------------------------------------------------------------------------------------------------
class WindowAttention(nn.Module):
    """Self-attention among the tokens of a window and, if `mutual`, attention between its two frames."""

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, channels: int, window: Triple, heads: int, *, mutual: bool, qkv_bias: bool) -> None:
        super().__init__()
        self.window, self.heads, self.mutual = window, heads, mutual
        self.scale = (channels // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros(math.prod(2 * side - 1 for side in window), heads))
        self.register_buffer("relative_position_index", _relative_position_index(window))
        self.qkv_self = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(2 * channels if mutual else channels, channels)
        if mutual:
            self.register_buffer("position_bias", _sine_code(window[1:], channels // 2))
            self.qkv_mut = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run on windows (N * windows, tokens, C)."""
        count, tokens, channels = x.shape
        q, k, v = self._heads(self.qkv_self(x))
        out = self._attend(q, k, v, self._relative_bias(tokens), mask).reshape(count, tokens, channels)
        if self.mutual:
            half = tokens // 2
            q, k, v = self._heads(self.qkv_mut(x + self.position_bias.repeat(1, 2, 1)))
            q1, q2 = torch.chunk(q, 2, dim=2)
            k1, k2 = torch.chunk(k, 2, dim=2)
            v1, v2 = torch.chunk(v, 2, dim=2)
            first_mask = mask[:, :half, :half] if mask is not None else None
            first = self._attend(q2, k1, v1, None, first_mask)
            second = self._attend(q1, k2, v2, None, first_mask)
            out = torch.cat([torch.cat([first, second], dim=1).reshape(count, tokens, channels), out], dim=2)
        return self.proj(out)  # type: ignore[no-any-return]

    def _heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        count, tokens, channels = qkv.shape
        split = qkv.reshape(count, tokens, 3, self.heads, channels // (3 * self.heads)).permute(2, 0, 3, 1, 4)
        return split.unbind(0)  # three of (N * windows, heads, tokens, channels of a head)

    def _relative_bias(self, tokens: int) -> Tensor:
        index = self.relative_position_index[:tokens, :tokens].reshape(-1)
        return self.relative_position_bias_table[index].reshape(tokens, tokens, -1).permute(2, 0, 1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
        """(N * windows, heads, tokens, d) three times → (N * windows, tokens, heads, d)."""
        attention = (q * self.scale) @ k.transpose(-2, -1)
        if bias is not None:
            attention = attention + bias.unsqueeze(0)
        if mask is not None:
            count, heads, tokens, _ = attention.shape
            by_clip = attention.view(count // mask.shape[0], mask.shape[0], heads, tokens, tokens)
            attention = (by_clip + mask.unsqueeze(1).unsqueeze(0)).view(-1, heads, tokens, tokens)
        return (F.softmax(attention, dim=-1) @ v).transpose(1, 2)


def _relative_position_index(window: Triple) -> Tensor:
    """Return the row of the table for each difference of query and key, (tokens, tokens)."""
    axes = [torch.arange(side) for side in window]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (3, tokens)
    distance = coordinates[:, :, None] - coordinates[:, None, :]
    d, h, w = (distance[axis] + side - 1 for axis, side in enumerate(window))
    return d * (2 * window[1] - 1) * (2 * window[2] - 1) + h * (2 * window[2] - 1) + w


def _sine_code(size: tuple[int, int], channels: int) -> Tensor:
    """(1, H * W, 2 * channels): `channels` for the row and as many for the column."""
    h, w = size
    y = (torch.arange(1, h + 1, dtype=torch.float32) / (h + 1e-6) * 2 * math.pi).view(h, 1).expand(h, w)
    x = (torch.arange(1, w + 1, dtype=torch.float32) / (w + 1e-6) * 2 * math.pi).view(1, w).expand(h, w)
    step = torch.arange(channels, dtype=torch.float32)
    divisor = 10000 ** (2 * torch.div(step, 2, rounding_mode="floor") / channels)
    codes = []
    for axis in (y, x):
        angle = axis[..., None] / divisor
        codes.append(torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=3).flatten(2))
    return torch.cat(codes, dim=2).reshape(1, h * w, 2 * channels)


class GatedMLP(nn.Module):
    """fc2(GELU(fc11(x)) * fc12(x)) on the last axis."""

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(channels, hidden)
        self.fc12 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc11(x)) * self.fc12(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and gated MLP, each normalised before and added to its input: (N, D, H, W, C) → the same."""

    def __init__(
        self, channels: int, heads: int, window: Triple, shift: Triple, *, mutual: bool, mlp_ratio: int, qkv_bias: bool
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, heads, mutual=mutual, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = GatedMLP(channels, channels * mlp_ratio, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self._attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def _attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        n, d, h, w, _ = x.shape
        window, shift = fitted_window((d, h, w), self.window, self.shift)
        missing = [-side % length for side, length in zip((d, h, w), window, strict=True)]
        x = F.pad(x, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        padded = (n, *x.shape[1:4])
        shifted = any(shift)
        if shifted:
            x = torch.roll(x, shifts=[-by for by in shift], dims=(1, 2, 3))
        attended = self.attn(window_partition(x, window), mask if shifted else None)
        x = window_reverse(attended, window, cast("tuple[int, int, int, int]", padded))
        if shifted:
            x = torch.roll(x, shifts=list(shift), dims=(1, 2, 3))
        return x[:, :d, :h, :w, :]


class Group(nn.Module):
    """Blocks of one window, every second one shifted: (N, C, D, H, W) → the same."""

    def __init__(
        self, channels: int, depth: int, heads: int, window: Triple, *, mutual: bool, mlp_ratio: int, qkv_bias: bool
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = (window[0] // 2, window[1] // 2, window[2] // 2)
        self.blocks = nn.ModuleList(
            Block(
                channels,
                heads,
                window,
                self.shift if i % 2 else (0, 0, 0),
                mutual=mutual,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
            )
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        window, shift = fitted_window(x.shape[2:], self.window, self.shift)
        padded = tuple(-(-side // length) * length for side, length in zip(x.shape[2:], window, strict=True))
        mask = shift_mask(cast("Triple", padded), window, shift, x)
        x = x.permute(0, 2, 3, 4, 1).contiguous()  # (N, D, H, W, C)
        for block in self.blocks:
            x = block(x, mask)
        return x.permute(0, 4, 1, 2, 3).contiguous()


# Parallel warping -----------------------------------------------------------------------------------------------------
def deform_conv(x: Tensor, offset: Tensor, modulation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Modulated deformable 3×3 convolution.

    Args:
        x: (N, C, H, W).
        offset: (N, 2 * 9 * groups of offsets, H, W), (dy, dx) for each tap in row-major order.
        modulation: (N, 9 * groups of offsets, H, W).
        weight: (C out, C / groups, 3, 3).
    """
    n, channels, h, w = x.shape
    parts = modulation.shape[1] // 9
    offset = offset.view(n * parts, 9, 2, h, w)
    rows = torch.arange(h, dtype=x.dtype, device=x.device).view(1, 1, h, 1)
    columns = torch.arange(w, dtype=x.dtype, device=x.device).view(1, 1, 1, w)
    taps = torch.arange(-1, 2, dtype=x.dtype, device=x.device)
    y = rows + taps.repeat_interleave(3).view(1, 9, 1, 1) + offset[:, :, 0]
    x_at = columns + taps.repeat(3).view(1, 9, 1, 1) + offset[:, :, 1]
    grid = torch.stack([2 * x_at / max(w - 1, 1) - 1, 2 * y / max(h - 1, 1) - 1], dim=-1).view(n * parts, 9 * h, w, 2)
    sampled = F.grid_sample(x.reshape(n * parts, channels // parts, h, w), grid, align_corners=True)
    sampled = sampled.view(n, parts, channels // parts, 9, h * w) * modulation.view(n, parts, 1, 9, h * w)
    groups = channels // weight.shape[1]
    sampled = sampled.view(n, groups, weight.shape[1] * 9, h * w)
    filtered = weight.reshape(1, groups, weight.shape[0] // groups, -1) @ sampled
    return filtered.view(n, -1, h, w) + bias.view(1, -1, 1, 1)


class FlowGuidedDeformation(nn.Module):
    """Aligns the features of `sources` frames with those of the current one, along flows and learnt residual offsets."""

    def __init__(self, channels: int, sources: int, deformable_groups: int, max_residue: float) -> None:
        super().__init__()
        self.max_residue = max_residue
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv_offset = nn.Sequential(
            nn.Conv2d((1 + sources) * channels + 2 * sources, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, 27 * deformable_groups, 3, padding=1),
        )
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, sources: list[Tensor], warped: list[Tensor], current: Tensor, flows: list[Tensor]) -> Tensor:
        o1, o2, modulation = torch.chunk(self.conv_offset(torch.cat([*warped, current, *flows], dim=1)), 3, dim=1)
        offset = self.max_residue * torch.tanh(torch.cat([o1, o2], dim=1))
        parts = torch.chunk(offset, len(flows), dim=1)
        offset = torch.cat(
            [part + flow.flip(1).repeat(1, part.shape[1] // 2, 1, 1) for part, flow in zip(parts, flows, strict=True)], dim=1
        )
        return deform_conv(torch.cat(sources, dim=1), offset, torch.sigmoid(modulation), self.weight, self.bias)


# Stages ---------------------------------------------------------------------------------------------------------------
class ChannelsLast(nn.Module):
    """(N, C, D, H, W) → (N, D, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 4, 1).contiguous()


class ChannelsFirst(nn.Module):
    """(N, D, H, W, C) → (N, C, D, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 4, 1, 2, 3).contiguous()


class Halve(nn.Module):
    """(N, C, D, H, W) → (N, D, H/2, W/2, 4 C); a pixel's place in its 2×2 cell comes first, column before row."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, d, h, w = x.shape
        x = x.view(n, c, d, h // 2, 2, w // 2, 2).permute(0, 2, 3, 5, 6, 4, 1)
        return x.reshape(n, d, h // 2, w // 2, 4 * c)


class Double(nn.Module):
    """(N, C, D, H, W) → (N, D, 2 H, 2 W, C/4), the reverse of `Halve`."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, d, h, w = x.shape
        x = x.view(n, 2, 2, c // 4, d, h, w).permute(0, 4, 5, 2, 6, 1, 3)
        return x.reshape(n, d, 2 * h, 2 * w, c // 4)


class Stage(nn.Module):
    """Change of resolution, attention groups and parallel warping at one resolution."""

    def __init__(
        self,
        channels: int,
        depth: int,
        heads: int,
        window: Triple,
        *,
        reshape: Literal["none", "down", "up"],
        mutual_depth: int,
        mlp_ratio: int,
        qkv_bias: bool,
        sources: int,
        deformable_groups: int,
        max_residue: float,
    ) -> None:
        super().__init__()
        self.sources = sources
        if reshape == "none":
            self.reshape = nn.Sequential(ChannelsLast(), nn.LayerNorm(channels), ChannelsFirst())
        else:
            factor, rearrange = (4 * channels, Halve()) if reshape == "down" else (channels // 4, Double())
            self.reshape = nn.Sequential(rearrange, nn.LayerNorm(factor), nn.Linear(factor, channels), ChannelsFirst())
        pair = (2, *window[1:])
        self.residual_group1 = Group(channels, mutual_depth, heads, pair, mutual=True, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias)
        self.linear1 = nn.Linear(channels, channels)
        self.residual_group2 = Group(
            channels, depth - mutual_depth, heads, window, mutual=False, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias
        )
        self.linear2 = nn.Linear(channels, channels)
        if sources:
            self.pa_deform = FlowGuidedDeformation(channels, sources, deformable_groups, max_residue)
            self.pa_fuse = GatedMLP(3 * channels, 3 * channels, channels)

    def forward(self, x: Tensor, flows_backward: Flows, flows_forward: Flows) -> Tensor:
        x = self.reshape(x)
        x = self.linear1(self.residual_group1(x).transpose(1, 4)).transpose(1, 4) + x
        x = self.linear2(self.residual_group2(x).transpose(1, 4)).transpose(1, 4) + x
        if not self.sources:
            return x
        frames = x.transpose(1, 2)  # (N, D, C, H, W)
        backward = self._aligned(frames, flows_backward)
        # Forward is backward in a clip that runs the other way.
        forward = self._aligned(frames.flip(1), flows_forward).flip(1)
        fused = self.pa_fuse(torch.cat([frames, backward, forward], dim=2).permute(0, 1, 3, 4, 2))
        return fused.permute(0, 4, 1, 2, 3)  # type: ignore[no-any-return]

    def _aligned(self, frames: Tensor, flows: Flows) -> Tensor:
        """Return, for every frame, the features of later frames aligned with it; zeros for the last."""
        count = frames.shape[1]
        aligned = []
        for i in range(count - 1):
            sources, warped, here = [], [], []
            for distance, flow in enumerate(flows, start=1):
                inside = i + distance < count
                sources.append(frames[:, i + distance] if inside else torch.zeros_like(frames[:, i]))
                here.append(flow[:, i] if inside else torch.zeros_like(flow[:, 0]))
                warped.append(warp(sources[-1], here[-1]))
            aligned.append(self.pa_deform(sources, warped, frames[:, i], here))
        aligned.append(torch.zeros_like(frames[:, 0]))
        return torch.stack(aligned, dim=1)


class ReconstructionGroup(nn.Module):
    """x + linear(group(x)) on (N, C, D, H, W)."""

    def __init__(self, channels: int, depth: int, heads: int, window: Triple, *, mlp_ratio: int, qkv_bias: bool) -> None:
        super().__init__()
        self.residual_group = Group(channels, depth, heads, window, mutual=False, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias)
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.residual_group(x).transpose(1, 4)).transpose(1, 4)  # type: ignore[no-any-return]


class SwapAxes(nn.Module):
    """(N, C, D, H, W) ↔ (N, D, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def _conv(channels_in: int, channels_out: int) -> nn.Conv3d:
    """A 3×3 convolution of every frame."""
    return nn.Conv3d(channels_in, channels_out, (1, 3, 3), padding=(0, 1, 1))


# The network ----------------------------------------------------------------------------------------------------------
class VRT(nn.Module):
    """(N, T, C, H, W) → (N, T, C, scale·H, scale·W), or the frame in the middle when it interpolates.

    Sides must be multiples of 8 and at least 8 windows long; the arguments are explained in `architectures/vrt.py`.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        window_frames: int = 6,
        window_px: int = 8,
        width: int = 120,
        depth: int = 8,
        mutual_depth: int = 6,
        tail_width: int = 180,
        tail_depth: int = 4,
        tail_layers: int = 6,
        single_frame_layers: int = 2,
        heads: int = 6,
        mlp_ratio: int = 2,
        warped_frames: int = 2,
        deformable_groups: int = 12,
        takes_sigma: bool = False,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.scale, self.warped_frames = scale, warped_frames
        window = (window_frames, window_px, window_px)
        self.conv_first = _conv((27 if warped_frames else 3) + bool(takes_sigma), width)
        if warped_frames:
            self.spynet = SPyNet(layout="plain")
        for i in range(7):
            stage = Stage(
                width,
                depth,
                heads,
                window,
                reshape="none" if i == 0 else "down" if i <= 3 else "up",
                mutual_depth=mutual_depth,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                sources=warped_frames // 2,
                deformable_groups=deformable_groups,
                max_residue=10 / 2 ** min(i, 6 - i),
            )
            self.add_module(f"stage{i + 1}", stage)
        layers: list[nn.Module] = [
            nn.Sequential(ChannelsLast(), nn.LayerNorm(width), nn.Linear(width, tail_width), ChannelsFirst())
        ]
        for i in range(tail_layers):
            own = (1, *window[1:]) if i >= tail_layers - single_frame_layers else window
            layers.append(ReconstructionGroup(tail_width, tail_depth, heads, own, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias))
        self.stage8 = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(tail_width)
        self.conv_after_body = nn.Linear(tail_width, width)
        if not warped_frames:
            self.linear_fuse = nn.Conv2d(width * window_frames, 64, 1)
            self.conv_last: nn.Module = nn.Conv2d(64, 3, 7)
        elif scale == 1:
            self.conv_last = _conv(width, 3)
        else:
            self.conv_before_upsample = nn.Sequential(_conv(width, 64), nn.LeakyReLU(0.01))
            self.upsample = self._upsampler(scale)
            self.conv_last = _conv(64, 3)

    @staticmethod
    def _upsampler(scale: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for factor in {2: [2], 3: [3], 4: [2, 2]}[scale]:
            layers += [_conv(64, 64 * factor**2), SwapAxes(), nn.PixelShuffle(factor), SwapAxes(), nn.LeakyReLU(0.1)]
        return nn.Sequential(*layers, _conv(64, 64))

    def forward(self, clip: Tensor, sigma: Tensor | float | None = None) -> Tensor:
        """Run on `clip` (N, T, C, H, W); `sigma` is the noise level on the 0 to 1 scale of a network that wants it."""
        if not self.warped_frames:
            return self._interpolated(clip)
        backward, forward = self._flows(clip)
        x = torch.cat([clip, *self._nearest_images(clip, backward[0], forward[0])], dim=2)
        if sigma is not None:
            level = torch.as_tensor(sigma, dtype=clip.dtype, device=clip.device).reshape(-1, 1, 1, 1, 1)
            x = torch.cat([x, level.expand(clip.shape[0], clip.shape[1], 1, *clip.shape[3:])], dim=2)
        head = self.conv_first(x.transpose(1, 2))
        x = head + self._trunk(head, self._long_flows(backward), self._long_flows([flow.flip(1) for flow in forward]))
        if self.scale == 1:
            return self.conv_last(x).transpose(1, 2) + clip  # type: ignore[no-any-return]
        x = self.conv_last(self.upsample(self.conv_before_upsample(x))).transpose(1, 2)
        enlarged = F.interpolate(
            clip.transpose(1, 2), scale_factor=(1, self.scale, self.scale), mode="trilinear", align_corners=False
        )
        return x + enlarged.transpose(1, 2)  # type: ignore[no-any-return]

    def _interpolated(self, clip: Tensor) -> Tensor:
        mean = clip.mean(dim=(1, 3, 4), keepdim=True)
        head = self.conv_first((clip - mean).transpose(1, 2))
        x = head + self._trunk(head, [[]] * 4, [[]] * 4)
        fused = F.leaky_relu(self.linear_fuse(torch.cat(x.unbind(2), dim=1)), 0.2)
        return self.conv_last(F.pad(fused, (3, 3, 3, 3), mode="reflect")).unsqueeze(1) + mean  # type: ignore[no-any-return]

    def _trunk(self, x: Tensor, backward: list[Flows], forward: list[Flows]) -> Tensor:
        """Stages 1 to 8; flows for each of the four scales, the forward ones from the last frame to the first."""
        levels = list(zip(backward, forward, strict=True))
        x1 = self.get_submodule("stage1")(x, *levels[0])
        x2 = self.get_submodule("stage2")(x1, *levels[1])
        x3 = self.get_submodule("stage3")(x2, *levels[2])
        x4 = self.get_submodule("stage4")(x3, *levels[3])
        y = self.get_submodule("stage5")(x4, *levels[2])
        y = self.get_submodule("stage6")(y + x3, *levels[1])
        y = self.get_submodule("stage7")(y + x2, *levels[0])
        y = y + x1
        for layer in self.stage8:
            y = layer(y)
        y = self.norm(y.permute(0, 2, 3, 4, 1))
        return self.conv_after_body(y).permute(0, 4, 1, 2, 3)  # type: ignore[no-any-return]

    def _flows(self, clip: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Flows i → i + 1 and i + 1 → i at four scales, each (N, T - 1, 2, h, w)."""
        n, t = clip.shape[:2]
        earlier = clip[:, :-1].reshape(-1, *clip.shape[2:])
        later = clip[:, 1:].reshape(-1, *clip.shape[2:])
        backward = self.spynet.pyramid(earlier, later)
        forward = self.spynet.pyramid(later, earlier)
        return (
            [flow.view(n, t - 1, *flow.shape[1:]) for flow in backward],
            [flow.view(n, t - 1, *flow.shape[1:]) for flow in forward],
        )

    def _long_flows(self, flows: list[Tensor]) -> list[Flows]:
        """Return, for each scale, the flows to the next frame, the one after it and so on, in the direction of each branch."""
        by_scale = []
        for flow in flows:
            reach = [flow]
            for distance in range(2, self.warped_frames // 2 + 1):
                long = []
                for i in range(flow.shape[1] - distance + 1):
                    here, there = reach[-1][:, i], flow[:, i + distance - 1]
                    long.append(here + warp(there, here))
                reach.append(torch.stack(long, dim=1))
            by_scale.append(reach)
        return by_scale

    @staticmethod
    def _nearest_images(clip: Tensor, backward: Tensor, forward: Tensor) -> list[Tensor]:
        """The next frame and the previous one, each sampled at the four pixels around where the flow leads."""

        def corners(frame: Tensor, flow: Tensor) -> Tensor:
            h, w = frame.shape[-2:]
            columns = torch.arange(w, dtype=flow.dtype, device=flow.device).view(1, 1, w)
            rows = torch.arange(h, dtype=flow.dtype, device=flow.device).view(1, h, 1)
            x, y = columns + flow[:, 0], rows + flow[:, 1]
            samples = []
            for x_near in (x.floor(), x.ceil()):
                for y_near in (y.floor(), y.ceil()):
                    whole = torch.stack([x_near - columns, y_near - rows], dim=1)
                    samples.append(warp(frame, whole, interpolation="nearest"))
            return torch.cat(samples, dim=1)

        count = clip.shape[1]
        none = clip.new_zeros(clip.shape[0], 4 * clip.shape[2], *clip.shape[3:])
        after = [*(corners(clip[:, i + 1], backward[:, i]) for i in range(count - 1)), none]
        before = [none, *(corners(clip[:, i - 1], forward[:, i - 1]) for i in range(1, count))]
        return [torch.stack(after, dim=1), torch.stack(before, dim=1)]
