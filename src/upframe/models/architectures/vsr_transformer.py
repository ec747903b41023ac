"""VSR-Transformer: video super-resolution by attention over patches of a whole window of frames, and by flow.

Paper: J. Cao, Y. Li, K. Zhang, L. Van Gool, "Video Super-Resolution Transformer", 2021,
https://arxiv.org/abs/2106.06847.
Official weights: caojiezhang/VSR-Transformer, whose code is Apache-2.0 and which states no other licence for the weights;
they hold a SPyNet that was fine-tuned from one whose licence forbids passing it on. They are loaded from the user's file
and never shipped. This module is written from the paper and numeric fixtures.

Differences from the official code: any size and any number of frames instead of 64×64 and the trained number. Layer norm and
attention, which the published weights fix to 64×64, work in windows of that size that overlap and are blended inside every
layer, while flow, convolutions and the feed-forward see the whole frame. Memory is therefore linear in the size. At 64×64 there
is one window, and the result is that of the official code. Besides the code's position code and slope of activations, those of
the paper are available; `attention`, `directions`, `flow` and `position` also make the networks of the paper's ablations.
Correctness: every tensor of the reference, gradients included, in float32 and float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from upframe.models.architectures._flow import SPyNet, flow_warp
from upframe.models.architectures._layers import ResidualBlock, ResidualBlocks, conv1x1, conv3x3
from upframe.models.architectures._position_code import PositionCode, PositionEncoding
from upframe.models.architectures._vsrt_constants import (
    BRANCHES,
    FEATURE_PX,
    FEED_FORWARD_BLOCKS,
    OVERLAP_PX,
    SCALE,
    WINDOW_PX,
    Directions,
)
from upframe.models.architectures._window_blend import Windows
from upframe.pixels import mirror_pad

# Pixels of frames that are worked on at once; they change rounding at most.
FLOW_PX = 1 << 15  # pairs of frames
RECONSTRUCTION_PX = 1 << 12  # nine kilobytes each, at 16 times the pixels; bands of rows that overlap by 4


# Layers ---------------------------------------------------------------------------------------------------------------
class WindowNorm(nn.Module):
    """Layer norm over (C, side, side), with a weight and a bias for each of these values: (B, C, H, W) → the same."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, side, side))
        self.bias = nn.Parameter(torch.zeros(channels, side, side))

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # as they lie in memory
        weight, bias = self.weight.permute(1, 2, 0).contiguous(), self.bias.permute(1, 2, 0).contiguous()
        side = windows.side

        def normed(row: int, column: int) -> Tensor:
            # Statistics are in float32 at least, whatever the dtype.
            return F.layer_norm(pixels[:, row : row + side, column : column + side], weight.shape, weight, bias)

        return windows.blended(pixels, normed).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Spatial-temporal convolutional self-attention (STCSA), x + attention(x): (N·T, C, H, W) → the same.

    A token is a patch of a frame, and all tokens of a window, of all its frames, attend to each other. Queries and keys come
    from depth-wise convolutions, values from a full one.

    Args:
        heads: Must divide `channels`.
    """

    def __init__(self, channels: int, *, patch_px: int, heads: int) -> None:
        super().__init__()
        self.patch_px, self.heads = patch_px, heads
        self.to_q = conv3x3(channels, channels, groups=channels)
        self.to_k = conv3x3(channels, channels, groups=channels)
        self.to_v = conv3x3(channels, channels)
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor, t: int, windows: Windows) -> Tensor:
        side = windows.side

        def attended(row: int, column: int) -> Tensor:
            top, left = max(row - 1, 0), max(column - 1, 0)  # the convolutions look one pixel beyond the window
            around = x[..., top : row + side + 1, left : column + side + 1]
            rows, columns = slice(row - top, row - top + side), slice(column - left, column - left + side)
            q, k, v = (self._tokens(conv(around)[..., rows, columns], t) for conv in (self.to_q, self.to_k, self.to_v))
            return self._pixels(F.scaled_dot_product_attention(q, k, v), t, side)

        mixed = windows.blended(x.permute(0, 2, 3, 1), attended).permute(0, 3, 1, 2)
        return _by_frames(x, FEATURE_PX, lambda part: self.conv(mixed[part]).add_(x[part]))

    def _tokens(self, x: Tensor, t: int) -> Tensor:
        """(N·T, C, side, side) → (N, heads, tokens, features); heads share the channels out, and the order of the features
        inside a head, which does not matter, is that of the memory."""
        p, heads = self.patch_px, self.heads
        b, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1).reshape(b // t, t, h // p, p, w // p, p, heads, c // heads)
        return x.permute(0, 6, 1, 2, 4, 3, 5, 7).reshape(b // t, heads, t * (h // p) * (w // p), p * p * (c // heads))

    def _pixels(self, tokens: Tensor, t: int, side: int) -> Tensor:
        """(N, heads, tokens, features) → (N·T, side, side, C)."""
        p = self.patch_px
        n, heads, _, features = tokens.shape
        x = tokens.view(n, heads, t, side // p, side // p, p, p, features // (p * p))
        return x.permute(0, 2, 3, 5, 4, 6, 1, 7).reshape(n * t, side, side, heads * features // (p * p))


class PlainBlock(nn.Module):
    """A residual block in place of attention, with almost as many parameters: (N·T, C, H, W) → the same.

    Each frame sees only itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = ResidualBlock(channels)

    def forward(self, x: Tensor, t: int, windows: Windows) -> Tensor:
        return _by_frames(x, FEATURE_PX, lambda part: self.block(x[part]))


class FeedForward(nn.Module):
    """Bidirectional optical-flow-based feed-forward (BOFF): (N·T, C, H, W) → the same.

    Each frame sees the features of the next and the previous frame, warped to its own.

    Args:
        directions, flow: As `VSRTransformer`.
    """

    def __init__(self, channels: int, blocks: int, *, slope: float, directions: Directions = "both", flow: bool = True) -> None:
        super().__init__()
        self.slope = slope
        # Parameters have published names only if their layers are the published ones: then weights show their purpose.
        moves = "" if flow or directions == "none" else "unwarped_"
        self.branches = {side: f"{moves}{side}_resblocks" for side in BRANCHES[directions]}
        for name in self.branches.values():
            self.add_module(name, ResidualBlocks(channels + 3, channels, blocks, slope=slope))
        self.fusion = conv1x1(len(self.branches) * channels, channels)

    def forward(self, x: Tensor, frames: Tensor, flows: tuple[Tensor, Tensor] | None, t: int) -> Tensor:
        """Return the residual that the caller adds to `x`.

        Args:
            frames: (N·T, 3, H, W) the input frames.
            flows: From each frame to the previous and to the next one, or to itself at the ends of the clip; (N·T, 2, H, W)
                each. With None, features are not warped.
        """
        sources = {
            "backward": [i + 1 if (i + 1) % t else i for i in range(len(x))],
            "forward": [i - 1 if i % t else i for i in range(len(x))],
            "own": list(range(len(x))),
        }
        flow_of = {} if flows is None else {"forward": flows[0], "backward": flows[1]}

        def branch(side: str, part: slice) -> Tensor:
            seen = x[sources[side][part]]
            if side in flow_of:
                seen = flow_warp(seen, flow_of[side][part])
            given = torch.cat([frames[part].to(self.fusion.weight.dtype), seen], dim=1)
            given = given.contiguous(memory_format=torch.channels_last)
            return self.get_submodule(self.branches[side])(given)  # type: ignore[no-any-return]

        def added(part: slice) -> Tensor:
            made = torch.cat([branch(side, part) for side in self.branches], dim=1)
            return F.leaky_relu_(self.fusion(made), self.slope)

        return _by_frames(x, FEATURE_PX, added)


class _PreNorm(nn.Module):
    def __init__(self, norm: WindowNorm, fn: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.fn = fn


class _Residual(nn.Module):
    """x + f(norm(x)); the two classes give parameters their published names."""

    def __init__(self, norm: WindowNorm, fn: nn.Module) -> None:
        super().__init__()
        self.fn = _PreNorm(norm, fn)

    def forward(self, x: Tensor, windows: Windows, *context: object) -> Tensor:
        return _added(self.fn.fn(self.fn.norm(x, windows), *context), x)


def _added(made: Tensor, x: Tensor) -> Tensor:
    """made + x, in the memory of `made` if no gradient needs it."""
    return made + x if torch.is_grad_enabled() else made.add_(x)


def _by_frames(frames: Tensor, max_px: int, make: Callable[[slice], Tensor]) -> Tensor:
    """Call `make` for slices of the frames (B, ..., H, W) of at most `max_px` pixels, or of one frame, and join the results."""
    h, w = frames.shape[-2:]
    at_once = max(1, max_px // (h * w))
    parts = [slice(start, min(start + at_once, len(frames))) for start in range(0, len(frames), at_once)]
    if len(parts) == 1:
        return make(parts[0])
    if torch.is_grad_enabled():
        return torch.cat([make(part) for part in parts])
    result: Tensor | None = None  # joining afterwards would hold everything twice
    for part in parts:
        made = make(part)
        if result is None:
            last = made.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            result = torch.empty((len(frames), *made.shape[1:]), dtype=made.dtype, device=made.device, memory_format=layout)
        result[part] = made
    assert result is not None
    return result


# Network --------------------------------------------------------------------------------------------------------------
class Flows(nn.Module):
    """Flow from each frame of a clip to its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.spynet = SPyNet()

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, 2, H, W) to the frame before and to the frame after, at least float32.

        For the first frame's backward flow and the last frame's forward flow, the network compares a frame with itself; the
        result need not be zero.
        """
        n, t = clip.shape[:2]
        frames = clip.flatten(0, 1)
        before = [i - 1 if i % t else i for i in range(n * t)]
        after = [i + 1 if (i + 1) % t else i for i in range(n * t)]

        def flows(neighbours: list[int]) -> Tensor:
            parts = _by_frames(frames, FLOW_PX, lambda part: self.spynet(frames[part], frames[neighbours[part]]))
            return parts.view(n, t, *parts.shape[1:])

        return flows(before), flows(after)


class _Layers(nn.Module):
    """Gives parameters their published names."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers


class VSRTransformer(nn.Module):
    """(N, T, 3, H, W) in [0, 1] → (N, T, 3, 4H, 4W), any size ≥ 1 and any number of frames ≥ 1.

    Frames below 64 pixels are mirrored up to that.

    Args:
        frames: Frames that the network is trained with; others are possible.
        depth: Layers, each an attention and a feed-forward.
        heads: Must divide `channels`.
        patch_px: Side of a token; must divide `window_px`.
        window_px: Side of the patches that the network is trained on; more than `OVERLAP_PX`.
        extract_blocks: Residual blocks before the layers.
        reconstruct_blocks: Residual blocks after them.
        feed_forward_blocks: Residual blocks in each branch of a feed-forward.
        position: As `PositionEncoding`; changes no parameter.
        slope: Of all LeakyReLUs: 0.1 as released, 0.01 in the paper.
        attention: Whether layers begin with attention; else with a residual block, which sees one frame.
        directions: Frames whose features a feed-forward sees beside the input frame: the next and the previous one, the next
            one ("backward" in time), the previous one, or the frame itself.
        flow: Whether these are warped; without warping there is no flow network.

    Raises:
        ValueError: numbers that do not divide, windows that are too small, unknown directions or position codes.

    Attributes:
        checkpointing: Whether training computes the inside of a layer a second time instead of keeping it.
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        frames: int = 5,
        depth: int = 5,
        heads: int = 1,
        patch_px: int = 8,
        window_px: int = WINDOW_PX,
        extract_blocks: int = 5,
        reconstruct_blocks: int = 30,
        feed_forward_blocks: int = FEED_FORWARD_BLOCKS,
        position: PositionCode = "code",
        slope: float = 0.1,
        attention: bool = True,
        directions: Directions = "both",
        flow: bool = True,
    ) -> None:
        super().__init__()
        if channels % heads or window_px % patch_px:
            raise ValueError(f"{heads} heads must divide {channels} channels, and {patch_px} px {window_px} px")
        if window_px <= OVERLAP_PX:
            raise ValueError(f"window_px is {window_px}; windows overlap by {OVERLAP_PX} px, so use more")
        if directions not in BRANCHES:
            raise ValueError(f"directions is {directions}; use {', '.join(BRANCHES)}")
        self.channels, self.window_px, self.slope = channels, window_px, slope
        self.checkpointing = False
        self.conv_first = conv3x3(3, channels)
        self.feature_extraction = nn.Sequential(*(ResidualBlock(channels) for _ in range(extract_blocks)))
        self.spynet = Flows() if flow and directions != "none" else None
        self.pos_embedding = PositionEncoding(frames=frames, variant=position)
        layers = nn.ModuleList()
        for _ in range(depth):
            mixing = Attention(channels, patch_px=patch_px, heads=heads) if attention else PlainBlock(channels)
            feed_forward = FeedForward(channels, feed_forward_blocks, slope=slope, directions=directions, flow=flow)
            norms = (WindowNorm(channels, window_px) for _ in range(2))
            layers.append(nn.ModuleList(map(_Residual, norms, (mixing, feed_forward))))
        self.transformer = _Layers(layers)
        self.reconstruction = nn.Sequential(*(ResidualBlock(channels) for _ in range(reconstruct_blocks)))
        self.upconv1 = conv3x3(channels, channels * 4)
        self.upconv2 = conv3x3(channels, channels * 4)
        self.conv_hr = conv3x3(channels, channels)
        self.conv_last = conv3x3(channels, 3)

    def checkpoint_activations(self, *, attention: bool, feed_forward: bool, except_stages: tuple[int, ...] = ()) -> None:
        """As `interfaces.Checkpoints`; here it is all layers or none."""
        if except_stages:
            raise ValueError("VSR-Transformer has no stages to except")
        self.checkpointing = attention or feed_forward

    def forward(self, clip: Tensor) -> Tensor:
        n, t, _, h, w = clip.shape
        side = self.window_px
        if min(h, w) < side:
            clip = mirror_pad(clip, bottom=max(side - h, 0), right=max(side - w, 0))
        windows = Windows((clip.shape[-2], clip.shape[-1]), side, OVERLAP_PX)
        frames = clip.flatten(0, 1)
        flows: tuple[Tensor, Tensor] | None = None
        if self.spynet is not None:
            flow_before, flow_after = self.spynet(clip)
            flows = (flow_before.flatten(0, 1), flow_after.flatten(0, 1))
        x = _by_frames(frames, FEATURE_PX, lambda part: self._run(self._extracted, frames[part]))
        for summand in self.pos_embedding(t, self.channels, windows, x.dtype, x.device):
            x = _added(x.view(n, t, *x.shape[1:]), summand).flatten(0, 1)
        for layer in self.transformer.layers:
            attention, feed_forward = cast("nn.ModuleList", layer)
            x = self._run(attention, x, windows, t, windows)
            x = self._run(feed_forward, x, windows, frames, flows, t)
        x = _by_frames(x, FEATURE_PX, lambda part: self._run(self.reconstruction, x[part]))
        enlarged = _by_frames(x, RECONSTRUCTION_PX, lambda part: self._enlarged(frames[part], x[part], (h, w)))
        return enlarged.view(n, t, *enlarged.shape[1:])

    def _extracted(self, frames: Tensor) -> Tensor:
        """Compute features of single frames, channels-last, which saves a tenth to a quarter of the convolutions' time on
        CPUs."""
        x = self.conv_first(frames.to(self.conv_first.weight.dtype, memory_format=torch.channels_last))
        return self.feature_extraction(F.leaky_relu_(x, self.slope))  # type: ignore[no-any-return]

    def _enlarged(self, frames: Tensor, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge frames from their features, in bands of rows if they are large.

        Args:
            size: (height, width) of the frames without what was mirrored.
        """
        h, w = x.shape[-2:]
        base = F.interpolate(frames, scale_factor=SCALE, mode="bilinear", align_corners=False)
        rows = max(RECONSTRUCTION_PX // w, 8)
        for top in range(0, size[0], rows):
            # Four 3×3 convolutions at 1, 2, 4 and 4 times the size reach 1 + 1/2 + 1/4 + 1/4 = 2 rows.
            first, last = max(top - 2, 0), min(top + rows + 2, h)
            detail = self._run(self._detail, x[:, :, first:last])
            made = slice(SCALE * top, SCALE * min(top + rows, h))
            base[:, :, made] += detail[:, :, made.start - SCALE * first : made.stop - SCALE * first]
        return base[..., : SCALE * size[0], : SCALE * size[1]]

    def _detail(self, x: Tensor) -> Tensor:
        """Compute the residual to the bilinear enlargement."""
        x = F.leaky_relu_(F.pixel_shuffle(self.upconv1(x), 2), self.slope)
        x = F.leaky_relu_(F.pixel_shuffle(self.upconv2(x), 2), self.slope)
        return self.conv_last(F.leaky_relu_(self.conv_hr(x), self.slope))  # type: ignore[no-any-return]

    def _run(self, module: Callable[..., Tensor], *given: object) -> Tensor:
        """Return the module's result; with `checkpointing`, only its input is kept for the backward pass."""
        if self.checkpointing and torch.is_grad_enabled():
            return cast("Tensor", checkpoint(module, *given, use_reentrant=False))
        return module(*given)
