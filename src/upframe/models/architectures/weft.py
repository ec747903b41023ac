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
from upframe.models.architectures._layers import ResidualBlock, ResidualBlocks, conv1x1, conv3x3, convolved
from upframe.models.architectures._two_passes import Features, first_frame_first
from upframe.models.architectures.rlfn import RLFN
from upframe.models.interfaces import Keep

SLOPE = 0.1
GAIN = 16.0  # brings details and differences of colours, of some hundredths, to the size that convolutions begin with
GUIDES = 4  # channels that tell a branch how far its aligned features agree: the frames' difference, and the trust
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


@dataclass(frozen=True)
class _Pairs:
    """The frames of a clip, (N, 3, H, W) each, and the flows between neighbours."""

    frames: list[Tensor]
    to_next: list[Tensor]
    """Entry i leads from frame i to frame i + 1."""
    to_previous: list[Tensor]
    """Entry i leads from frame i + 1 to frame i."""

    def with_next(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frame i, the next one, and the flows there and back."""
        return self.frames[i], self.frames[i + 1], self.to_next[i], self.to_previous[i]

    def with_previous(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frame i, the previous one, and the flows there and back."""
        return self.frames[i], self.frames[i - 1], self.to_previous[i - 1], self.to_next[i - 1]


class Weft(nn.Module):
    """(N, T, 3, H, W) in [0, 1] → (N, T, 3, scale·H, scale·W), H, W ≥ 15 and any number of frames ≥ 1.

    Args:
        channels: Of what is propagated.
        blocks: Residual blocks in each of the two directions.
        trunk_channels, trunk_blocks, trunk_inner: Size of the trunk, RLFN's `channels`, `blocks` and `inner_channels`.
        idle: Whether fresh weights add nothing to the trunk's frames, so that training begins with them.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        channels: int = 32,
        blocks: int = 2,
        trunk_channels: int = 46,
        trunk_blocks: int = 4,
        trunk_inner: int = 48,
        idle: bool = False,
    ) -> None:
        super().__init__()
        self.scale, self.channels = scale, channels
        self.trunk = RLFN(channels=trunk_channels, blocks=trunk_blocks, scale=scale, inner_channels=trunk_inner)
        self.correlation_flow = CorrelationFlow()
        self.trust = Trust()
        self.entry = conv1x1(3 * scale**2, channels)
        self.backward_branch = ResidualBlocks(2 * channels + GUIDES, channels, blocks, slope=SLOPE)
        self.forward_branch = ResidualBlocks(3 * channels + GUIDES, channels, blocks, slope=SLOPE)
        self.fusion = conv3x3(2 * channels, trunk_inner)
        last = conv3x3(trunk_inner, 3 * scale**2)
        if idle:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.woven = nn.Sequential(last, nn.PixelShuffle(scale))
        for part in (self.entry, self.backward_branch, self.forward_branch, self.fusion):
            part.apply(_begun)
        self.trunk.requires_grad_(False)
        self.correlation_flow.requires_grad_(False)

    def forward(self, clip: Tensor, *, keep: Keep = "full") -> Tensor:
        """The enlarged clip, in float32 at least; `keep` is for inference, with gradients everything is held."""
        if torch.is_grad_enabled():
            return self._at_once(clip)
        n, t, c, h, w = clip.shape
        out = torch.empty((n, t, c, self.scale * h, self.scale * w), dtype=_exact(clip.dtype), device=clip.device)
        for i, frame in enumerate(self.stream(clip, keep=keep)):  # stacking would hold everything twice
            out[:, i] = frame
        return out

    def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
        """Yield the enlarged frames (N, 3, scale·H, scale·W) in float32 at least, without holding them.

        Inference mode is the one in force while the iterator is advanced.
        """
        pair = self._pairing(clip)

        def backward(i: int, later: Features | None) -> Features:
            alone = self._alone(pair.frames[i])
            return alone, self._from_later(pair, i, self._entered(pair.frames[i], alone), None if later is None else later[1])

        made: Tensor | None = None
        for i, (alone, from_later) in enumerate(first_frame_first(len(pair.frames), backward, keep=keep)):
            made = self._from_earlier(pair, i, self._entered(pair.frames[i], alone), from_later, made)
            yield self._woven(alone, from_later, made)

    def _at_once(self, clip: Tensor) -> Tensor:
        """`forward` with the trunk and the fusion of all frames in one batch, which takes a fifth off the time of training."""
        pair = self._pairing(clip)
        t = len(pair.frames)
        frames = torch.cat(pair.frames)
        alone = self._alone(frames)
        entries = self._entered(frames, alone).chunk(t)
        backward: list[Tensor] = []
        for i in reversed(range(t)):
            backward.append(self._from_later(pair, i, entries[i], backward[-1] if backward else None))
        backward.reverse()
        forward: list[Tensor] = []
        for i in range(t):
            forward.append(self._from_earlier(pair, i, entries[i], backward[i], forward[-1] if forward else None))
        return torch.stack(self._woven(alone, torch.cat(backward), torch.cat(forward)).chunk(t), dim=1)

    # Parts of a pass ----------------------------------------------------------------------------------------------------
    def _from_later(self, pair: _Pairs, i: int, entry: Tensor, later: Tensor | None) -> Tensor:
        """The feature of frame i in the backward pass, from that of the next frame."""
        aligned = self._nothing(entry) if later is None else self._aligned(later, *pair.with_next(i))
        return self.backward_branch(torch.cat([entry, *aligned], dim=1))  # type: ignore[no-any-return]

    def _from_earlier(self, pair: _Pairs, i: int, entry: Tensor, from_later: Tensor, earlier: Tensor | None) -> Tensor:
        """The feature of frame i in the forward pass, from that of the previous frame and that of the backward pass."""
        aligned = self._nothing(entry) if earlier is None else self._aligned(earlier, *pair.with_previous(i))
        return self.forward_branch(torch.cat([entry, from_later, *aligned], dim=1))  # type: ignore[no-any-return]

    def _alone(self, frame: Tensor) -> Tensor:
        """The frame as the trunk enlarges it, in float32 at least."""
        enlarged: Tensor = self.trunk(_channels_last(frame))
        return enlarged.to(frame.dtype)

    def _entered(self, frame: Tensor, alone: Tensor) -> Tensor:
        """The features of a frame alone: the detail that the trunk adds to each of its pixels."""
        n, c, h, w = frame.shape
        pixels = F.pixel_unshuffle(alone, self.scale).view(n, c, -1, h, w)
        detail = GAIN * (pixels - frame[:, :, None]).flatten(1, 2)
        entered: Tensor = self.entry(_channels_last(detail.to(self.entry.weight.dtype)))
        return entered

    def _woven(self, alone: Tensor, from_later: Tensor, from_earlier: Tensor) -> Tensor:
        """The frame as the trunk enlarges it, and what the other frames add to it."""
        fused = convolved(self.fusion, torch.cat([from_later, from_earlier], dim=1), slope=SLOPE)
        return alone + self.woven(fused).to(alone.dtype)  # type: ignore[no-any-return]

    def _aligned(self, feature: Tensor, frame: Tensor, neighbour: Tensor, there: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        """The feature of a neighbour where the frame has its places, as far as it can be trusted, and what shows how far.

        Args:
            there, back: Flows from the frame to the neighbour and back.
        """
        with torch.no_grad(), torch.autocast(feature.device.type, enabled=False):
            seen = flow_warp(torch.cat([neighbour, back], dim=1), there)
            difference = frame - seen[:, :3]
            gap = (there + seen[:, 3:]).square().sum(1, keepdim=True)
        trust = self.trust(difference, gap)
        guides = torch.cat([GAIN * difference * trust, trust], dim=1).to(feature.dtype)
        return flow_warp(feature, there) * trust.to(feature.dtype), guides

    def _nothing(self, entry: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros, for a frame without a neighbour, in place of `_aligned`."""
        n, _, h, w = entry.shape
        none = entry.new_zeros(n, self.channels + GUIDES, h, w).contiguous(memory_format=torch.channels_last)
        return none[:, : self.channels], none[:, self.channels :]

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


def _begun(layer: nn.Module) -> None:
    """Fresh weights that keep the size of features: torch's own would halve it at each layer, and blocks that add as much as
    they get would double it at each frame."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, a=SLOPE)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    elif isinstance(layer, ResidualBlock):  # after its convolutions
        with torch.no_grad():
            layer.conv2.weight.mul_(0.1)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Dtype of pixels and flow: half precision is too coarse for both."""
    return torch.promote_types(dtype, torch.float32)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
