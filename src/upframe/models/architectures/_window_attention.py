"""Attention within windows of a clip, shifted or not: a plan of the windows, and the computation.

Papers: Z. Liu et al., "Swin Transformer", ICCV 2021, https://arxiv.org/abs/2103.14030 (shifted windows, relative position
table); J. Liang et al., "VRT: A Video Restoration Transformer", IEEE TIP 2024, https://arxiv.org/abs/2201.12288 (mutual
attention between the two frames of a window). Written from the papers and numeric fixtures.

Instead of rolling, padding and cutting the whole clip for every layer, a plan states once for each clip size the position of
every token in its window. A layer gathers the tokens of a few windows, computes, and scatters them back. Windows are sorted by
their mask: a shift joins tokens that are not neighbours only in the last window of each axis, so at most eight masks of one
window's size exist for any size of clip, and most windows need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._attention import attend, quick_head
from upframe.models.architectures._tokens import linear

Size3 = tuple[int, int, int]
"""Frames, rows and columns."""

SEPARATED = -100.0  # added to the logit of two tokens of different regions; as published, so not minus infinity


# Plan -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class WindowGroup:
    """Windows that need the same mask. Do not write into the tensors: they are cached."""

    tokens: Tensor
    """(windows, tokens) int64: where each token lies in the clip seen as (N*D*H*W, C). 0 where `inside` is False."""
    inside: Tensor | None
    """(windows, tokens) bool: False for padding behind the end of an axis; None if there is none."""
    mask: Tensor | None
    """(tokens, tokens) float32, 0 or `SEPARATED`, to be added to the logits; None if all tokens are neighbours."""


@dataclass(frozen=True)
class WindowPlan:
    """Every window of a clip."""

    window: Size3
    """Size of the windows: the wanted one, but no axis longer than the clip's."""
    groups: tuple[WindowGroup, ...]

    @property
    def tokens(self) -> int:
        """Tokens in a window."""
        return self.window[0] * self.window[1] * self.window[2]

    @cached_property
    def inverse(self) -> Tensor:
        """(N*D*H*W,) int64: where each token of the clip comes in the tokens of all groups, one after the other."""
        order = torch.cat([group.tokens.flatten() for group in self.groups])
        inside = torch.cat(
            [group.tokens.new_ones(group.tokens.numel(), dtype=torch.bool) if group.inside is None else group.inside.flatten()
             for group in self.groups]
        )  # fmt: skip
        places = torch.arange(order.numel(), device=order.device)[inside]
        inverse = torch.empty_like(places)
        inverse[order[inside]] = places
        return inverse


class _Axis(NamedTuple):
    window: int
    positions: Tensor  # (windows, window) of each token on the axis; beyond its end for padding
    late: Tensor  # (window,) bool: the tokens of the last window that a shift has brought from the axis's start
    parts: tuple[tuple[slice, bool], ...]  # windows of the axis by whether they are the last one of a shifted axis


def _axis(length: int, window: int, *, shifted: bool) -> _Axis:
    if length <= window:
        window, shifted = length, False
    count = -(-length // window)
    shift = window // 2 if shifted else 0
    positions = (torch.arange(count * window, device="cpu") + shift) % (count * window)
    late = torch.arange(window, device="cpu") >= window - shift
    parts = ((slice(0, -1), False), (slice(-1, None), True)) if shift else ((slice(None), False),)
    return _Axis(window, positions.view(count, window), late, parts)


@lru_cache(maxsize=32)  # a network has six kinds of windows on at most four scales
def plan_windows(clip: tuple[int, int, int, int], window: Size3, *, shifted: bool, device: torch.device) -> WindowPlan:
    """Positions of the tokens of all windows of a clip.

    Args:
        clip: N, D, H, W.
        window: Size of a window. An axis that is no longer than that is one window and is not shifted; others are padded
            at their end to a multiple of it.
        shifted: Whether windows start half a window later on each axis; the last one then reaches round to the start.
    """
    n, *lengths = clip
    with torch.inference_mode(False):  # the plan is used by later calls that may need gradients
        axes = [_axis(length, side, shifted=shifted) for length, side in zip(lengths, window, strict=True)]
        place = torch.arange(n, device="cpu").view(n, 1, 1, 1, 1, 1, 1)  # N, then windows, then tokens, on each axis
        inside = torch.ones_like(place, dtype=torch.bool)
        for i, (axis, length) in enumerate(zip(axes, lengths, strict=True)):
            shape = [1] * 7
            shape[1 + i], shape[4 + i] = axis.positions.shape
            position = axis.positions.view(shape)
            place, inside = place * length + position, inside & (position < length)
        groups = []
        for parts in product(*(axis.parts for axis in axes)):
            chosen = (slice(None), *(part for part, _ in parts))
            group_inside = inside.expand_as(place)[chosen].reshape(-1, place[0, 0, 0, 0].numel()).contiguous()
            tokens = place[chosen].reshape(group_inside.shape).contiguous()
            if not len(tokens):
                continue
            mask = _mask(axes, [is_last for _, is_last in parts])
            whole = bool(group_inside.all())
            groups.append(
                WindowGroup(
                    (tokens if whole else tokens * group_inside).to(device),
                    None if whole else group_inside.to(device),
                    None if mask is None else mask.to(device),
                )
            )
        size = (axes[0].window, axes[1].window, axes[2].window)
        return WindowPlan(size, tuple(groups))


def _mask(axes: Sequence[_Axis], is_last: Sequence[bool]) -> Tensor | None:
    """(tokens, tokens) mask of the windows that are last on these axes; None if there is no such axis."""
    if not any(is_last):
        return None
    region = torch.zeros(1, dtype=torch.int64, device="cpu")
    for axis, last in zip(axes, is_last, strict=True):
        on_axis = axis.late.long() if last else torch.zeros_like(axis.late, dtype=torch.int64)
        region = (2 * region[:, None] + on_axis).flatten()
    return torch.where(region[:, None] == region, 0.0, SEPARATED)


# Positions ------------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=8)
def relative_position_index(window: Size3) -> Tensor:
    """(tokens, tokens) int64: the row of a relative position table for a query (row) and a key (column).

    A table of a (Wd, Wh, Ww) window has (2Wd - 1)(2Wh - 1)(2Ww - 1) rows, one for each displacement. Do not write into it.
    """
    with torch.inference_mode(False):
        places = torch.stack(torch.meshgrid(*(torch.arange(side, device="cpu") for side in window), indexing="ij"))
        places = places.flatten(1)  # (3, tokens)
        index = torch.zeros(places.shape[1], places.shape[1], dtype=torch.int64, device="cpu")
        for axis, side in zip(places, window, strict=True):
            index = index * (2 * side - 1) + axis[:, None] - axis + side - 1
        return index


@lru_cache(maxsize=8)
def sine_position_code(height: int, width: int, channels: int) -> Tensor:
    """(1, height * width, channels) float32: half of the channels tell the row, half the column. Do not write into it.

    N. Carion et al., "End-to-End Object Detection with Transformers", §A.4, normalised to 2π.
    """
    with torch.inference_mode(False):
        half = channels // 2
        y = torch.arange(1, height + 1, dtype=torch.float32, device="cpu") / (height + 1e-6) * (2 * torch.pi)
        x = torch.arange(1, width + 1, dtype=torch.float32, device="cpu") / (width + 1e-6) * (2 * torch.pi)
        i = torch.arange(half, dtype=torch.float32, device="cpu")
        wavelength = 10_000 ** (2 * (i // 2) / half)
        even = i % 2 == 0
        code_y, code_x = (torch.where(even, (p[:, None] / wavelength).sin(), (p[:, None] / wavelength).cos()) for p in (y, x))
        rows, columns = code_y[:, None].expand(height, width, half), code_x.expand(height, width, half)
        return torch.cat([rows, columns], dim=-1).view(1, height * width, 2 * half)


# Attention ------------------------------------------------------------------------------------------------------------
class Prepared(NamedTuple):
    """Values that `WindowAttention` derives from its parameters for windows of one size, the same for every window."""

    qkv_self: tuple[Tensor, Tensor | None]
    """Weight and bias; each head widened with zeros to a size that is quick to multiply."""
    head: int
    """Channels of such a head."""
    proj: Tensor
    """(C, channels of all heads so widened, after those of the mutual part if there is one)."""
    table: Tensor
    """(heads, tokens, tokens), at least float32: what the relative position of two tokens adds to their logit."""


class WindowAttention(nn.Module):
    """Multi-head attention within a window, and between its two frames if `mutual`.

    Args:
        window: Size of the windows; those of a shorter clip may be shorter in time.
        mutual: Whether each of the two frames of a window also attends to the other one alone, which aligns them.
        qkv_bias: Whether queries, keys and values have a bias.
    """

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, channels: int, *, heads: int, window: Size3, mutual: bool, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads, self.head = heads, channels // heads
        self.mutual = mutual
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1), heads)
        )
        # They could be computed, but published files hold them. Copies, as files cannot hold one tensor under two names.
        device = torch.empty(0).device  # that parameters are made on
        self.register_buffer("relative_position_index", relative_position_index(window).to(device, copy=True))
        if mutual:
            self.register_buffer("position_bias", sine_position_code(*window[1:], channels).to(device, copy=True))
        self.qkv_self = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear((1 + mutual) * channels, channels)
        if mutual:
            self.qkv_mut = nn.Linear(channels, 3 * channels, bias=qkv_bias)

    def prepared(self, tokens: int) -> Prepared:
        """Compute everything that does not depend on the input, for windows of this many tokens. Differentiable."""
        index = self.relative_position_index[:tokens, :tokens]
        table = self.relative_position_bias_table.t().contiguous().index_select(1, index.reshape(-1))
        table = table.to(torch.promote_types(table.dtype, torch.float32))
        head = quick_head(self.head, self.proj.weight.device)
        extra = head - self.head
        weight: Tensor = self.qkv_self.weight
        bias: Tensor | None = self.qkv_self.bias
        proj: Tensor = self.proj.weight
        if extra:
            weight = F.pad(weight.view(3 * self.heads, self.head, -1), (0, 0, 0, extra)).flatten(0, 1)
            bias = None if bias is None else F.pad(bias.view(3 * self.heads, self.head), (0, extra)).flatten()
            channels = self.heads * self.head
            of_self = F.pad(proj[:, -channels:].reshape(-1, self.heads, self.head), (0, extra)).flatten(1)
            proj = torch.cat([proj[:, :-channels], of_self], dim=1)
        return Prepared((weight, bias), head, proj, table.view(self.heads, tokens, tokens))

    def forward(self, x: Tensor, mask: Tensor | None = None, prepared: Prepared | None = None) -> Tensor:
        """(windows, tokens, C) → the same shape; tokens frame by frame, row by row.

        Args:
            mask: (tokens, tokens) added to all logits.
            prepared: `self.prepared(tokens)`, to do that once for several calls.
        """
        windows, tokens, channels = x.shape
        prepared = prepared or self.prepared(tokens)
        bias = prepared.table if mask is None else prepared.table + mask
        scale = self.head**-0.5
        q, k, v = self._qkv(x, *prepared.qkv_self, head=prepared.head)
        parts = [attend(q, k, v, scale=scale, bias=bias)]
        if self.mutual:
            half = tokens // 2
            placed = (x.view(windows, 2, half, channels) + self.position_bias).view(x.shape)
            q, k, v = self._qkv(placed, self.qkv_mut.weight, self.qkv_mut.bias, head=self.head)
            # Only what lies apart on the picture is kept apart: a frame wrapped round in time still serves the other.
            apart = None if mask is None else mask[:half, :half]
            first, second = slice(0, half), slice(half, None)
            aligned = [
                attend(q[:, second], k[:, first], v[:, first], scale=scale, bias=apart),
                attend(q[:, first], k[:, second], v[:, second], scale=scale, bias=apart),
            ]
            parts.insert(0, torch.cat(aligned, dim=1))
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return linear(joined.reshape(windows * tokens, -1), prepared.proj, self.proj.bias).view(x.shape)

    def _qkv(self, x: Tensor, weight: Tensor, bias: Tensor | None, *, head: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (windows, tokens, heads, head) each."""
        q, k, v = linear(x.flatten(0, 1), weight, bias).view(*x.shape[:2], 3, self.heads, head).unbind(2)
        return q, k, v
