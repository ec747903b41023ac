"""The stages of VRT: blocks of windowed attention, groups of them, and a stage with its alignment.

Paper and correctness: see `vrt`. Features of a clip are (N, D, H, W, C), contiguous: a frame of them is a channels-last picture
without a copy, and a token is a row. In half precision the features stay float32 and only the residuals are computed in half;
otherwise the rounding of every block would add up along the network.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from upframe.models.architectures._clip_flows import ClipFlows, Direction
from upframe.models.architectures._deformable import FlowGuidedAlignment
from upframe.models.architectures._flow import flow_warp
from upframe.models.architectures._tokens import GatedMLP, framewise, layer_norm, linear, norm_linear, tokens_at_once, tokenwise
from upframe.models.architectures._window_attention import Prepared, Size3, WindowAttention, WindowGroup, plan_windows

Checkpointing = Literal["none", "attention", "all"]
"""Activations that a training step computes a second time instead of keeping them: none, those of attention (the published
setting), or also those of the MLPs. Less memory, more time, the same gradients."""


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), in windows of a clip.

    Args:
        shifted: Whether its windows are half a window from those of a block that is not.
        drop: Probability in training that a sample skips each of the two (stochastic depth).
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        window: Size3,
        shifted: bool,
        mutual: bool,
        mlp_ratio: int,
        qkv_bias: bool,
        drop: float,
    ) -> None:
        super().__init__()
        self.window, self.shifted, self.drop = window, shifted, drop
        self.checkpointing: Checkpointing = "none"
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads=heads, window=window, mutual=mutual, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = GatedMLP(channels, mlp_ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, H, W, C) → the same shape. Without gradients and stochastic depth the result is written into `x`."""
        n, d, h, w, _ = x.shape
        plan = plan_windows((n, d, h, w), self.window, shifted=self.shifted, device=x.device)
        prepared = self.attn.prepared(plan.tokens)
        if torch.is_grad_enabled() or (self.training and self.drop):
            rows = x.flatten(0, 3)
            attended = []
            for group in plan.groups:
                if self.checkpointing == "none" or not torch.is_grad_enabled():
                    attended.append(self._attended(rows, group, prepared))
                else:
                    attended.append(checkpoint(self._attended, rows, group, prepared, use_reentrant=False))
            x = x + self._kept(torch.cat(attended).index_select(0, plan.inverse).view(x.shape))
            if self.checkpointing == "all" and torch.is_grad_enabled():
                return x + self._kept(checkpoint(self._mixed, x, use_reentrant=False))
            return x + self._kept(self._mixed(x))
        rows = x.view(-1, x.shape[-1])
        windows = max(1, tokens_at_once(x.device) // plan.tokens)
        for group in plan.groups:
            for start in range(0, len(group.tokens), windows):
                part = slice(start, start + windows)
                inside = None if group.inside is None else group.inside[part]
                self._update(rows, WindowGroup(group.tokens[part], inside, group.mask), prepared)
        return x

    def _update(self, rows: Tensor, group: WindowGroup, prepared: Prepared) -> None:
        """Both parts of the block for a few windows, written into `rows`; each token lies in one window only."""
        places = group.tokens.view(-1)
        part = rows.index_select(0, places)
        part.add_(self._attention(part, group, prepared))
        if group.inside is not None:
            inside = group.inside.view(-1)
            places, part = places[inside], part[inside]
        part.add_(self.mlp(layer_norm(part, self.norm2)))
        rows.index_copy_(0, places, part)

    def _attended(self, rows: Tensor, group: WindowGroup, prepared: Prepared) -> Tensor:
        """Compute the residual of attention for the tokens of these windows, (windows * tokens, C)."""
        return self._attention(rows.index_select(0, group.tokens.view(-1)), group, prepared)

    def _attention(self, part: Tensor, group: WindowGroup, prepared: Prepared) -> Tensor:
        """As `_attended`, from the tokens themselves, (windows * tokens, C)."""
        normed = layer_norm(part, self.norm1, self.attn.proj.weight.dtype)
        if group.inside is not None:  # padding takes part as zeros
            normed = normed * group.inside.view(-1, 1)
        return self.attn(normed.view(*group.tokens.shape, -1), group.mask, prepared).flatten(0, 1)  # type: ignore[no-any-return]

    def _mixed(self, x: Tensor) -> Tensor:
        return tokenwise(lambda rows: self.mlp(layer_norm(rows, self.norm2)), x)

    def _kept(self, added: Tensor) -> Tensor:
        """Drop the residual of some samples in training, and scale the others to compensate."""
        if not (self.training and self.drop):
            return added
        keep = 1 - self.drop
        shape = (added.shape[0], *[1] * (added.dim() - 1))
        return added * torch.empty(shape, dtype=added.dtype, device=added.device).bernoulli_(keep).div_(keep)


class BlockShape(NamedTuple):
    """Arguments that all blocks of a network share."""

    heads: int
    mlp_ratio: int
    qkv_bias: bool


class Group(nn.Module):
    """Blocks one after the other, every second one shifted: (N, D, H, W, C) → the same shape.

    Args:
        drops: Stochastic depth of each block.
    """

    def __init__(self, channels: int, *, window: Size3, mutual: bool, drops: list[float], shape: BlockShape) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(channels, window=window, shifted=i % 2 == 1, mutual=mutual, drop=drop, **shape._asdict())
            for i, drop in enumerate(drops)
        )

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            x = x.clone()  # blocks write into it
        for block in self.blocks:
            x = block(x)
        return x


def _plus_linear(x: Tensor, group: Group, layer: nn.Linear) -> Tensor:
    """x + linear(group(x)); without gradients written into `x`."""
    return tokenwise(
        lambda rows, grouped: rows + linear(grouped.to(layer.weight.dtype), layer.weight, layer.bias), x, group(x), into=x
    )


class TailLayer(nn.Module):
    """x + linear(group(x)), of the last stage. Without gradients the result is written into `x`."""

    def __init__(self, channels: int, *, window: Size3, drops: list[float], shape: BlockShape) -> None:
        super().__init__()
        self.residual_group = Group(channels, window=window, mutual=False, drops=drops, shape=shape)
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return _plus_linear(x, self.residual_group, self.linear)


Resizing = Literal["keep", "down", "up"]


def folded(x: Tensor) -> Tensor:
    """(N, D, H, W, C) → (N, D, H/2, W/2, 4C): channels of the pixels of a 2×2 square, column by column."""
    n, d, h, w, c = x.shape
    return x.view(n, d, h // 2, 2, w // 2, 2, c).permute(0, 1, 2, 4, 5, 3, 6).reshape(n, d, h // 2, w // 2, 4 * c)


def unfolded(x: Tensor) -> Tensor:
    """(N, D, H, W, 4C) → (N, D, 2H, 2W, C): undoes `folded`."""
    n, d, h, w, c = x.shape
    return x.view(n, d, h, w, 2, 2, c // 4).permute(0, 1, 2, 5, 3, 4, 6).reshape(n, d, 2 * h, 2 * w, c // 4)


class Reshape(nn.ModuleDict):
    """The start of a stage: (N, D, H, W, C) to the stage's scale, normalised, and to its channels where these change."""

    def __init__(self, channels_in: int, channels: int, resizing: Resizing) -> None:
        self.resizing = resizing
        if resizing == "keep":
            super().__init__({"1": nn.LayerNorm(channels)})
        else:
            width = 4 * channels_in if resizing == "down" else channels_in // 4
            super().__init__({"1": nn.LayerNorm(width), "2": nn.Linear(width, channels)})

    def forward(self, x: Tensor) -> Tensor:
        norm = self["1"]
        assert isinstance(norm, nn.LayerNorm)
        if self.resizing == "keep":
            return tokenwise(lambda rows: layer_norm(rows, norm), x)
        layer = self["2"]
        assert isinstance(layer, nn.Linear)
        moved = folded(x) if self.resizing == "down" else unfolded(x)
        return tokenwise(lambda rows: norm_linear(rows, norm, layer).to(x.dtype), moved)


class Stage(nn.Module):
    """Mutual and self attention at one scale, then alignment of neighbouring frames along the flow.

    Args:
        level: The flows' scale, 0 for full size, and so on by halves.
        mutual: How many of the blocks, the first ones, attend in pairs of frames.
        sources: Neighbouring frames on each side that are aligned; 0 for a stage without alignment.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        *,
        resizing: Resizing,
        level: int,
        window: Size3,
        mutual: int,
        drops: list[float],
        shape: BlockShape,
        sources: int,
        deformable_groups: int,
    ) -> None:
        super().__init__()
        self.level, self.sources = level, sources
        self.reshape = Reshape(channels_in, channels, resizing)
        self.residual_group1 = Group(channels, window=(2, *window[1:]), mutual=True, drops=drops[:mutual], shape=shape)
        self.linear1 = nn.Linear(channels, channels)
        self.residual_group2 = Group(channels, window=window, mutual=False, drops=drops[mutual:], shape=shape)
        self.linear2 = nn.Linear(channels, channels)
        if sources:
            self.pa_deform = FlowGuidedAlignment(channels, sources=sources, groups=deformable_groups, reach=10 / 2**level)
            self.pa_fuse = GatedMLP(3 * channels, 3 * channels, channels)

    def forward(self, x: Tensor, flows: ClipFlows | None) -> Tensor:
        """(N, D, H', W', C') → (N, D, H, W, C).

        Args:
            flows: Of the clip at all scales; None for a stage without alignment.
        """
        x = self.reshape(x)
        x = _plus_linear(x, self.residual_group1, self.linear1)
        x = _plus_linear(x, self.residual_group2, self.linear2)
        return x if flows is None else self._aligned(x, flows)

    def _aligned(self, x: Tensor, flows: ClipFlows) -> Tensor:
        """Join every frame with its neighbours aligned to it, one frame at a time."""

        def joined(i: int) -> Tensor:
            around = [self._brought(x, flows, i, "backward"), self._brought(x, flows, i, "forward")]
            return tokenwise(lambda *rows: self.pa_fuse(torch.cat(rows, dim=-1)), x[:, i].to(around[0].dtype), *around)

        return framewise(joined, x.shape[1], dtype=x.dtype)

    def _brought(self, x: Tensor, flows: ClipFlows, frame: int, direction: Direction) -> Tensor:
        """(N, H, W, C) of later or earlier frames, aligned to `frame`; zeros beyond the ends of the clip."""
        dtype = self.pa_deform.weight.dtype
        step = 1 if direction == "backward" else -1
        if not 0 <= frame + step < x.shape[1]:
            return torch.zeros_like(x[:, frame], dtype=dtype)
        current = x[:, frame].permute(0, 3, 1, 2)
        sources: list[Tensor | None] = []
        warped, led = [], []
        for distance in range(1, self.sources + 1):
            flow = flows.flow(frame, direction=direction, distance=distance, scale=self.level)
            if flow is None:
                sources.append(None)
                warped.append(torch.zeros_like(current, dtype=dtype))
                led.append(current.new_zeros(current.shape[0], 2, *current.shape[2:]))
                continue
            source = x[:, frame + step * distance].permute(0, 3, 1, 2).contiguous()
            sources.append(source)
            warped.append(flow_warp(source, flow))
            led.append(flow)
        return self.pa_deform(sources, warped, current, led).permute(0, 2, 3, 1)  # type: ignore[no-any-return]
