"""RealBasicVSR: real-world video super-resolution, and BasicVSR, the recurrent network inside it.

Papers: K. C. K. Chan, S. Zhou, X. Xu, C. C. Loy, "Investigating Tradeoffs in Real-World Video Super-Resolution", CVPR
2022, https://arxiv.org/abs/2111.12704. K. C. K. Chan, X. Wang, K. Yu, C. Dong, C. C. Loy, "BasicVSR: The Search for
Essential Components in Video Super-Resolution and Beyond", CVPR 2021, https://arxiv.org/abs/2012.02181.
Official weights: ckkelvinchan/RealBasicVSR and open-mmlab/mmagic, Apache-2.0, with a SPyNet inside whose own licence
forbids passing it on; they are loaded from the user's file and never shipped. This module is written from the papers
and numeric fixtures.

Differences from the official code: cleaning never writes into the caller's tensor, and cleaning frame by frame can be
trained through; large frames are cleaned and reconstructed in bands of rows, which changes rounding at most; the
features that wait for their turn can be recomputed or kept in half precision, so a long clip need not hold them all. With
parameters in half precision features are, too; pixels, flow and positions stay float32.
Correctness: every tensor of the reference, gradients included, in float32 and float64; for bfloat16 see docs/speed.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._correlation_flow import CorrelationFlow
from upframe.models.architectures._flow import SPyNet, flow_warp
from upframe.models.architectures._layers import NarrowConv2d, ResidualBlocks, conv1x1, conv3x3, convolved
from upframe.models.architectures._realbasicvsr_constants import RECONSTRUCTION_PX, SCALE, FlowKind
from upframe.models.architectures._two_passes import Features, first_frame_first
from upframe.models.interfaces import Cleaned, Enlargement, Keep
from upframe.models.spec import Cleaning

SLOPE = 0.1  # of every LeakyReLU here
FLOW_BATCH_PX = 1 << 16  # pixels of frame pairs whose flow is computed at once: several pairs of a small clip
# Pixels of a frame that are worked on at once; larger frames are cut into bands of rows.
CLEANING_PX = 1 << 20  # a kilobyte each; bands overlap by 84 rows of the published network, so they should be tall
LEAST_ROWS = 8  # of a band that is reconstructed


class Upsample(nn.Module):
    """Double the size by a convolution and a pixel shuffle."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.upsample_conv = conv3x3(channels_in, channels_out * 4)

    def forward(self, x: Tensor, *, kept: slice = slice(None)) -> Tensor:
        """(N, C, H, W) → (N, C', 2H, 2W), or only the rows made from the input's rows `kept`."""
        if torch.is_grad_enabled() or not x.is_contiguous(memory_format=torch.channels_last):
            return F.pixel_shuffle(self.upsample_conv(x)[:, :, kept], 2)
        # The four pixels made from one are stored one after the other, instead of their channels interleaved: then the shuffle
        # moves whole rows of channels, in half the time.
        conv = self.upsample_conv
        c = conv.out_channels // 4
        weight = conv.weight.view(c, 4, *conv.weight.shape[1:]).transpose(0, 1).flatten(0, 1)
        bias = None if conv.bias is None else conv.bias.view(c, 4).t().flatten()
        made = F.conv2d(x, weight, bias, padding=1)[:, :, kept].permute(0, 2, 3, 1)
        n, h, w, _ = made.shape
        pixels = made.view(n, h, w, 2, 2, c).transpose(2, 3)  # (N, H, 2, W, 2, C')
        return pixels.reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)

    def kernel_form(self) -> Enlargement:
        return Enlargement(self.upsample_conv, factor=2, slope=SLOPE)

    def activated(self, x: Tensor, *, kept: slice = slice(None)) -> Tensor:
        """As `forward`, with LeakyReLU."""
        return F.leaky_relu_(self(x, kept=kept), SLOPE)


class BasicVSR(nn.Module):
    """(N, T, 3, H, W) in [0, 1] → (N, T, 3, 4H, 4W), any size ≥ 1 and any number of frames ≥ 1.

    Features run through the clip from its end to its start and then from its start to its end, each time warped from
    frame to frame along the flow; a frame is reconstructed from both.

    Args:
        blocks: Residual blocks in each of the two propagation branches.
        reconstruction_channels: At four times the size, where most of the arithmetic of a network with few blocks is.
        flow: Flow network. "spynet" as published; "correlation" is upframe's own, which the shipped weights use.
    """

    def __init__(
        self, *, channels: int = 64, blocks: int = 30, reconstruction_channels: int = 64, flow: FlowKind = "spynet"
    ) -> None:
        super().__init__()
        self.channels = channels
        if flow == "spynet":
            self.spynet = SPyNet()
        else:
            self.correlation_flow = CorrelationFlow()
        self.backward_resblocks = ResidualBlocks(channels + 3, channels, blocks, slope=SLOPE)
        self.forward_resblocks = ResidualBlocks(channels + 3, channels, blocks, slope=SLOPE)
        self.fusion = conv1x1(2 * channels, channels)
        self.upsample1 = Upsample(channels, channels)
        self.upsample2 = Upsample(channels, reconstruction_channels)
        self.conv_hr = conv3x3(reconstruction_channels, reconstruction_channels)
        self.conv_last = NarrowConv2d(reconstruction_channels, 3)

    @property
    def flow_network(self) -> SPyNet | CorrelationFlow:
        """The flow network in use."""
        found = self.get_submodule("spynet" if hasattr(self, "spynet") else "correlation_flow")
        assert isinstance(found, SPyNet | CorrelationFlow)
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters, in which features are kept and convolved."""
        dtype: torch.dtype = self.fusion.weight.dtype
        return dtype

    def forward(self, clip: Tensor, *, keep: Keep = "full") -> Tensor:
        """The enlarged clip, in float32 at least; `keep` is for inference, with gradients only "full" saves anything."""
        n, t, c, h, w = clip.shape
        frames = self.stream(clip, keep=keep)
        if torch.is_grad_enabled():
            return torch.stack(list(frames), dim=1)
        out = torch.empty((n, t, c, SCALE * h, SCALE * w), dtype=_exact(clip.dtype), device=clip.device)
        for i, frame in enumerate(frames):  # stacking would hold everything twice
            out[:, i] = frame
        return out

    def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
        """Yield the enlarged frames (N, 3, 4H, 4W) in float32 at least, without holding them.

        Gradient and inference modes are those in force while the iterator is advanced.
        """
        frames = list(clip.to(_exact(clip.dtype)).unbind(1))
        backward_flows = self._flows(frames[:-1], frames[1:])
        waiting = self._backward_features(frames, backward_flows, keep)
        mirrored = _is_mirrored(clip)  # then frame i lies at t - 1 - i too, and the flows as well
        forward_flows = backward_flows[::-1] if mirrored else None
        feature: Tensor | None = None
        for i, backward_feature in enumerate(waiting):
            if forward_flows is None:  # only now, after the backward pass, the peak of memory
                forward_flows = self._flows(frames[1:], frames[:-1])
            flow = forward_flows[i - 1] if i else None
            feature = self._step(self.forward_resblocks, frames[i], feature, flow)
            yield self._reconstructed(frames[i], backward_feature, feature)

    def _flows(self, references: list[Tensor], supports: list[Tensor]) -> list[Tensor]:
        """Flow from each reference to its support, (N, 2, H, W) each, several pairs at a time."""
        flows: list[Tensor] = []
        if not references:
            return flows
        n, _, h, w = references[0].shape
        at_once = max(1, FLOW_BATCH_PX // (n * h * w))
        for start in range(0, len(references), at_once):
            part = slice(start, start + at_once)
            pairs = (torch.stack(frames[part], dim=1).flatten(0, 1) for frames in (references, supports))
            flows += self.flow_network(*pairs).unflatten(0, (n, -1)).unbind(1)
        return flows

    def _backward_features(self, frames: list[Tensor], flows: list[Tensor], keep: Keep) -> Iterator[Tensor]:
        """Features of the backward branch, first frame first although they are made last frame first."""

        def step(i: int, later: Features | None) -> Features:
            flow = flows[i] if later is not None else None
            return (self._step(self.backward_resblocks, frames[i], None if later is None else later[0], flow),)

        for (feature,) in first_frame_first(len(frames), step, keep=keep):
            yield feature

    def _step(self, branch: nn.Module, frame: Tensor, feature: Tensor | None, flow: Tensor | None) -> Tensor:
        """The feature of `frame` from that of its neighbour; `flow` leads from `frame` to the neighbour."""
        if feature is None or flow is None:
            n, _, h, w = frame.shape
            warped = frame.new_zeros(n, self.channels, h, w, dtype=self.dtype).contiguous(memory_format=torch.channels_last)
        else:
            warped = flow_warp(feature, flow)
        # Where both are channels-last, so is the whole.
        return branch(torch.cat([frame.to(self.dtype, memory_format=torch.channels_last), warped], dim=1))  # type: ignore[no-any-return]

    def _reconstructed(self, frame: Tensor, backward_feature: Tensor, forward_feature: Tensor) -> Tensor:
        """The enlarged frame (N, 3, 4H, 4W), in bands of rows where it is large."""
        h, w = frame.shape[-2:]
        base = F.interpolate(frame, scale_factor=SCALE, mode="bilinear", align_corners=False)
        rows = max(LEAST_ROWS, math.ceil(h / math.ceil(h * w / RECONSTRUCTION_PX)))  # bands of the same size
        for top in range(0, h, rows):
            band = slice(top, min(top + rows, h))
            base[:, :, SCALE * band.start : SCALE * band.stop].add_(self._detail(backward_feature, forward_feature, band))
        return base

    def _detail(self, backward_feature: Tensor, forward_feature: Tensor, band: slice) -> Tensor:
        """Compute the residual to the bilinear enlargement of a band of rows, from the features of both branches.

        Convolutions at 1, 2, 4 and 4 times the size each read one row further. Two rows around the band suffice: each
        convolution drops the outermost rows of its result, which saw a border that is not the picture's.
        """
        above, below = min(2, band.start), min(2, backward_feature.shape[2] - band.stop)
        seen = slice(band.start - above, band.stop + below)
        x = torch.cat([backward_feature[:, :, seen], forward_feature[:, :, seen]], dim=1)
        x = F.leaky_relu_(self.fusion(x), SLOPE)
        # A row at most is kept of each side, which is two rows once enlarged.
        x = self.upsample1.activated(x, kept=slice(max(above - 1, 0), x.shape[2] - max(below - 1, 0)))
        above, below = min(above, 1), min(below, 1)
        x = self.upsample2.activated(x, kept=slice(above, x.shape[2] - below))
        detail: Tensor = self.conv_last(convolved(self.conv_hr, x, slope=SLOPE))
        return detail[:, :, 2 * above : detail.shape[2] - 2 * below]


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Dtype of pixels and flow: half precision is too coarse for both."""
    return torch.promote_types(dtype, torch.float32)


def _is_mirrored(clip: Tensor) -> bool:
    """Whether the second half of the clip is exactly the first in reverse, as training data made by mirroring is."""
    half, odd = divmod(clip.shape[1], 2)
    return not odd and all(torch.equal(clip[:, i], clip[:, -1 - i]) for i in range(half))


class RealBasicVSR(nn.Module):
    """(N, T, 3, H, W) in [0, 1] → (N, T, 3, 4H, 4W), any size ≥ 1 and any number of frames ≥ 1.

    A cleaning network removes noise and artefacts from every frame, in as many passes as the clip needs, before BasicVSR runs.
    The number of passes is decided for all frames together, and therefore not tile by tile: `prepare` whole frames once, then
    call with `prepared=True`.

    The flow network is frozen from the start, but gradients pass through it to the cleaning network.

    Args:
        recurrent_cleaning: Whether the cleaning network also gets its features of the previous frame, warped along the flow, as
            in propagation: the paper's counter-example, in which noise spreads. Whole frames at once.
        idle_cleaning: Whether fresh weights do not change frames, so that the other parts can be trained before the cleaning.
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        propagation_blocks: int = 20,
        cleaning_blocks: int = 20,
        reconstruction_channels: int = 64,
        flow: FlowKind = "spynet",
        recurrent_cleaning: bool = False,
        idle_cleaning: bool = False,
    ) -> None:
        super().__init__()
        self.recurrent_cleaning = recurrent_cleaning
        self.cleaning_radius_px = 2 * cleaning_blocks + 2
        residue = conv3x3(channels, 3)
        if idle_cleaning:
            nn.init.zeros_(residue.weight)
            nn.init.zeros_(residue.bias)  # type: ignore[arg-type]
        given = 3 + channels if recurrent_cleaning else 3
        self.image_cleaning = nn.Sequential(ResidualBlocks(given, channels, cleaning_blocks, slope=SLOPE), residue)
        self.basicvsr = BasicVSR(
            channels=channels, blocks=propagation_blocks, reconstruction_channels=reconstruction_channels, flow=flow
        )
        self.basicvsr.flow_network.requires_grad_(False)

    def forward(self, clip: Tensor, *, prepared: bool = False, keep: Keep = "full") -> Tensor:
        """Enlarge a clip; clean it as released (one pass) unless it comes from `prepare`."""
        return self.basicvsr(clip if prepared else self.prepare(clip).clip, keep=keep)  # type: ignore[no-any-return]

    def stream(self, clip: Tensor, *, keep: Keep = "full") -> Iterator[Tensor]:
        """Like `BasicVSR.stream`, for a clip from `prepare`."""
        return self.basicvsr.stream(clip, keep=keep)

    def prepare(self, clip: Tensor, options: Cleaning | None = None, *, max_px: int | None = None) -> Cleaned:
        """Clean a clip (dynamic refinement, §3.3 of the paper).

        Passes end when the mean change over the whole clip falls below the threshold; this last pass is kept.

        Args:
            clip: (N, T, 3, H, W) in [0, 1], whole frames of a whole segment; not modified.
            options: None as released: a threshold that no picture reaches, so one pass.
            max_px: Pixels of a frame to clean at once when cleaning frame by frame; None leaves it to this module.
        """
        options = options or Cleaning()
        residues: list[float] = []
        cleaned = clip  # pixels stay in float32; in half precision only the residue is computed
        for _ in range(options.max_passes if options.strength else 0):
            if self.recurrent_cleaning:
                residue = self._residue_in_time(cleaned)
            else:
                residue = (
                    self._residue(cleaned, max_px or CLEANING_PX) if options.sequential else self._residue_at_once(cleaned)
                )
            cleaned = cleaned.to(_exact(clip.dtype)) + residue
            residues.append(255 * _mean_abs(residue))
            if residues[-1] < options.threshold:
                break
        if 0 < options.strength < 1:
            cleaned = torch.lerp(clip.to(cleaned.dtype), cleaned, options.strength)
        return Cleaned(cleaned, len(residues), tuple(residues))

    def _residue_at_once(self, clip: Tensor) -> Tensor:
        return self._residue_of(clip.flatten(0, 1)).view(clip.shape)

    def _residue_of(self, frames: Tensor) -> Tensor:
        return self.image_cleaning(frames.to(self.basicvsr.dtype))  # type: ignore[no-any-return]

    def _residue(self, clip: Tensor, max_px: int) -> Tensor:
        """Compute the residual of cleaning, frame by frame, in bands of rows if frames are large."""
        h, w = clip.shape[-2:]
        halo = self.cleaning_radius_px
        rows = max(halo, max_px // w)
        if h <= rows + halo:
            return torch.stack([self._residue_of(clip[:, i]) for i in range(clip.shape[1])], dim=1)
        frames = []
        for i in range(clip.shape[1]):
            bands = []
            for top in range(0, h, rows):
                first, last = max(top - halo, 0), min(top + rows + halo, h)
                band = self._residue_of(clip[:, i, :, first:last])
                bands.append(band[:, :, top - first : min(top + rows, h) - first])
            frames.append(torch.cat(bands, dim=2))
        return torch.stack(frames, dim=1)

    def _residue_in_time(self, clip: Tensor) -> Tensor:
        """Compute the residual of recurrent cleaning."""
        frames = list(clip.unbind(1))
        flows = self.basicvsr._flows(frames[1:], frames[:-1])
        blocks, last = self.image_cleaning
        feature: Tensor | None = None
        residues = []
        for i, frame in enumerate(frames):
            feature = self.basicvsr._step(blocks, frame, feature, flows[i - 1] if i else None)
            residues.append(last(feature))
        return torch.stack(residues, dim=1)


def _mean_abs(residue: Tensor) -> float:
    return float(residue.detach().abs().mean(dtype=torch.promote_types(residue.dtype, torch.float32)))
