"""Weft: upframe's own video network, a network for photos through which aligned features of the other frames are woven.

No paper. Its parts are published: the trunk is RLFN (`rlfn.py`), which enlarges each frame alone; propagation to both sides
along the flow is that of K. C. K. Chan et al., "BasicVSR", CVPR 2021, https://arxiv.org/abs/2012.02181, and handing the
features of the first pass to the second that of "IconVSR" there; propagating the enlarged frame with its pixels as channels is
that of M. S. M. Sajjadi et al., "Frame-Recurrent Video Super-Resolution", CVPR 2018, https://arxiv.org/abs/1801.04590; the flow
is `_fine_flow.py`. New here is how they are joined. What the other frames add goes through a convolution that may begin at
zero (`idle`): then training begins with the trunk's frames, and can only add. And each pixel of a neighbour counts by how far
it can be trusted: by the difference of the aligned frames and of the flows there and back.

Correctness: the trunk's frames while it is idle, in float32 and float64; every tensor of the reference form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._correlation_flow import CorrelationFlow
from upframe.models.architectures._fine_flow import fine_flow
from upframe.models.architectures._flow import flow_warp
from upframe.models.architectures._layers import ResidualBlocks, conv3x3
from upframe.models.architectures._two_passes import Features, first_frame_first
from upframe.models.architectures.rlfn import RLFN
from upframe.models.interfaces import Keep

SLOPE = 0.1
GAIN = 16.0  # brings details and differences of colours, of some hundredths, to the size that convolutions begin with
GUIDES = 4  # channels that tell a direction how far the neighbour agrees: the frames' difference, and the trust
FLOW_BATCH_PX = 1 << 16  # pixels of frame pairs whose flow is computed at once: several pairs of a small clip
TRUST = 4.0  # logit of the trust in a pixel that agrees in everything
DOUBT = (4.0, 40.0)  # what a squared pixel of flow there and back, and a difference of all colours of 1, take from it at first


class Trust(nn.Module):
    """How far each pixel of an aligned neighbour can be trusted, (N, 1, H, W) from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.doubt = nn.Parameter(torch.tensor(DOUBT).log())

    def forward(self, difference: Tensor, gap: Tensor) -> Tensor:
        """From the difference of the frames (N, 3, H, W) and the squared gap of the flows (N, 1, H, W)."""
        of_gap, of_difference = self.doubt.to(gap.dtype).exp()
        apart = F.avg_pool2d(difference.abs().mean(1, keepdim=True), 3, stride=1, padding=1, count_include_pad=False)
        trust: Tensor = (TRUST - of_gap * gap - of_difference * apart).sigmoid()
        return trust


class Direction(nn.Module):
    """The detail that one direction adds to that of a frame, (N, details, H, W), all multiplied by `GAIN`.

    Args:
        details: Channels of a frame's detail.
        others: Details beside the frame's own, as differences to it.
        idle: Whether fresh weights add nothing.
    """

    def __init__(self, details: int, others: int, *, channels: int, blocks: int, idle: bool) -> None:
        super().__init__()
        self.seen = ResidualBlocks((1 + others) * details + GUIDES, channels, blocks, slope=SLOPE)
        self.learnt = conv3x3(channels, details)
        self.mixed = conv3x3(others * details, details)
        if idle:
            for layer in (self.learnt, self.mixed):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, own: Tensor, others: list[Tensor], guides: Tensor) -> Tensor:
        differences = _channels_last(torch.cat(others, dim=1))
        seen = self.seen(torch.cat([own, differences, guides], dim=1))
        return self.learnt(seen) + self.mixed(differences)  # type: ignore[no-any-return]


_Pair = tuple[Tensor, Tensor, Tensor, Tensor]
"""A frame, a neighbour, and the flows there and back."""


@dataclass(frozen=True)
class _Pairs:
    """The frames of a clip, (N, 3, H, W) each, and the flows between neighbours."""

    frames: list[Tensor]
    to_next: list[Tensor]
    """Entry i leads from frame i to frame i + 1."""
    to_previous: list[Tensor]
    """Entry i leads from frame i + 1 to frame i."""

    def with_next(self, i: int) -> _Pair | None:
        if i + 1 == len(self.frames):
            return None
        return self.frames[i], self.frames[i + 1], self.to_next[i], self.to_previous[i]

    def with_previous(self, i: int) -> _Pair | None:
        if i == 0:
            return None
        return self.frames[i], self.frames[i - 1], self.to_previous[i - 1], self.to_next[i - 1]


class Weft(nn.Module):
    """(N, T, 3, H, W) in [0, 1] → (N, T, 3, scale·H, scale·W), H, W ≥ 15 and any number of frames ≥ 1.

    Args:
        channels: Inside each of the two directions.
        blocks: Residual blocks in each of them.
        trunk_channels, trunk_blocks, trunk_inner: Size of the trunk, RLFN's `channels`, `blocks` and `inner_channels`.
        idle: Whether fresh weights add nothing to the trunk's frames, so that training begins with them.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        channels: int = 32,
        blocks: int = 1,
        trunk_channels: int = 46,
        trunk_blocks: int = 4,
        trunk_inner: int = 48,
        idle: bool = False,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.trunk = RLFN(channels=trunk_channels, blocks=trunk_blocks, scale=scale, inner_channels=trunk_inner)
        self.correlation_flow = CorrelationFlow()
        self.trust = Trust()
        details = 3 * scale**2
        self.backward_direction = Direction(details, 1, channels=channels, blocks=blocks, idle=idle)
        self.forward_direction = Direction(details, 2, channels=channels, blocks=blocks, idle=idle)
        self.trunk.requires_grad_(False)
        self.correlation_flow.requires_grad_(False)

    def forward(self, clip: Tensor, *, keep: Keep = "full") -> Tensor:
        """The enlarged clip, in float32 at least; `keep` is for inference, with gradients everything is held."""
        n, t, c, h, w = clip.shape
        if torch.is_grad_enabled():
            alone = self.trunk(_channels_last(clip.flatten(0, 1))).view(n, t, c, self.scale * h, self.scale * w)
            return torch.stack(list(self._woven(clip, keep=keep, alone=list(alone.unbind(1)))), dim=1)
        out = torch.empty((n, t, c, self.scale * h, self.scale * w), dtype=_exact(clip.dtype), device=clip.device)
        for i, frame in enumerate(self.stream(clip, keep=keep)):  # stacking would hold everything twice
            out[:, i] = frame
        return out

    def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
        """Yield the enlarged frames (N, 3, scale·H, scale·W) in float32 at least, without holding them.

        Inference mode is the one in force while the iterator is advanced.
        """
        return self._woven(clip, keep=keep)

    def _woven(self, clip: Tensor, *, keep: Keep, alone: list[Tensor] | None = None) -> Iterator[Tensor]:
        """As `stream`; `alone` are the frames as the trunk enlarges them, which takes less time for all at once."""
        pair = self._pairing(clip)

        def backward(i: int, later: Features | None) -> Features:
            frame = pair.frames[i]
            enlarged = (self.trunk(_channels_last(frame)) if alone is None else alone[i]).to(frame.dtype)
            own = self._detail(frame, enlarged)
            aligned, guides = self._aligned(own, None if later is None else later[1], pair.with_next(i))
            return enlarged, enlarged + self._enlarged(self.backward_direction(own, [aligned], guides))

        made: Tensor | None = None
        for i, (enlarged, from_later) in enumerate(first_frame_first(len(pair.frames), backward, keep=keep)):
            own = self._detail(pair.frames[i], enlarged)
            aligned, guides = self._aligned(own, made, pair.with_previous(i))
            others = [self._detail(pair.frames[i], from_later) - own, aligned]
            made = from_later + self._enlarged(self.forward_direction(own, others, guides))
            yield made

    # Parts of a pass ----------------------------------------------------------------------------------------------------
    def _detail(self, frame: Tensor, enlarged: Tensor) -> Tensor:
        """The differences of the enlarged pixels to the pixel in which they lie, times `GAIN`: (N, 3·scale², H, W)."""
        n, c, h, w = frame.shape
        pixels = F.pixel_unshuffle(enlarged, self.scale).view(n, c, -1, h, w)
        detail = GAIN * (pixels - frame[:, :, None]).flatten(1, 2)
        return _channels_last(detail.to(self.trust.doubt.dtype))

    def _enlarged(self, added: Tensor) -> Tensor:
        """Detail that is added to an enlarged frame, in its pixels."""
        return F.pixel_shuffle(added.to(_exact(added.dtype)), self.scale) / GAIN

    def _aligned(self, own: Tensor, made: Tensor | None, pair: _Pair | None) -> tuple[Tensor, Tensor]:
        """How the detail of a neighbour differs where the frame has its places, as far as it can be trusted, and the guides.

        Enlarged frames are aligned, not features: interpolating between features a pixel apart would lose the detail.

        Args:
            own: The frame's detail.
            made: The neighbour as it was enlarged; None if the frame has no neighbour there.
        """
        if made is None or pair is None:
            n, _, h, w = own.shape
            return torch.zeros_like(own), own.new_zeros(n, GUIDES, h, w)
        frame, neighbour, there, back = pair
        with torch.no_grad(), torch.autocast(own.device.type, enabled=False):
            seen = flow_warp(torch.cat([neighbour, back], dim=1), there)
            difference = frame - seen[:, :3]
            gap = (there + seen[:, 3:]).square().sum(1, keepdim=True)
            fine = self.scale * F.interpolate(there, scale_factor=self.scale, mode="bilinear", align_corners=False)
        trust = self.trust(difference, gap)
        moved = self._detail(frame, flow_warp(made, fine, padding="border"))
        guides = torch.cat([GAIN * difference * trust, trust], dim=1).to(own.dtype)
        return (moved - own) * trust.to(own.dtype), guides

    def _pairing(self, clip: Tensor) -> _Pairs:
        frames = list(clip.to(_exact(clip.dtype)).unbind(1))
        return _Pairs(frames, self._flows(frames[:-1], frames[1:]), self._flows(frames[1:], frames[:-1]))

    def _flows(self, references: list[Tensor], supports: list[Tensor]) -> list[Tensor]:
        """Flow from each reference to its support, (N, 2, H, W) each, several pairs at a time; without gradients."""
        flows: list[Tensor] = []
        if not references:
            return flows
        n, _, h, w = references[0].shape
        at_once = max(1, FLOW_BATCH_PX // (n * h * w))
        with torch.no_grad(), torch.autocast(references[0].device.type, enabled=False):
            for start in range(0, len(references), at_once):
                part = slice(start, start + at_once)
                pairs = (torch.stack(frames[part], dim=1).flatten(0, 1) for frames in (references, supports))
                found = fine_flow(self.correlation_flow, *pairs)
                flows += found.view(n, -1, *found.shape[1:]).unbind(1)
        return flows


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Dtype of pixels and flow: half precision is too coarse for both."""
    return torch.promote_types(dtype, torch.float32)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
