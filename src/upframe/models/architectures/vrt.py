"""VRT: a transformer that restores several frames of a clip at once, for video super-resolution, deblurring, denoising
and frame interpolation.

Paper: J. Liang, J. Cao, Y. Fan, K. Zhang, R. Ranjan, Y. Li, R. Timofte, L. Van Gool, "VRT: A Video Restoration
Transformer", IEEE Transactions on Image Processing 2024, https://arxiv.org/abs/2201.12288.
Official weights: JingyunLiang/VRT, CC BY-NC 4.0 (no commercial use), with a SPyNet inside whose own licence forbids passing
it on; they are loaded from the user's file and never shipped. This module is written from the paper and numeric fixtures.

Differences from the official code: none in the results. Windows are gathered from the clip, taken through a whole block
and put back a few at a time, so that no hidden tensor of the whole clip exists (`_tokens`, `_window_attention`); frames are
aligned and reconstructed one by one, large ones in bands of rows; flows are computed once per pair of frames and shared by
all stages. In half precision flow, positions, normalisation and the features between blocks stay float32.
Correctness: every tensor of the reference, gradients included, in float32 and float64.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._clip_flows import ClipFlows, clip_flows, corners_of_neighbours
from upframe.models.architectures._flow import SPyNet
from upframe.models.architectures._tokens import framewise, norm_linear, tokenwise
from upframe.models.architectures._vrt_constants import LEVELS, MULTIPLE
from upframe.models.architectures._vrt_stages import Block, BlockShape, Checkpointing, Resizing, Stage, TailLayer
from upframe.models.architectures._window_attention import Size3

RESIZING: tuple[Resizing, ...] = ("keep", "down", "down", "down", "up", "up", "up")  # at the start of each stage
TAIL_CHANNELS = 64  # of the pictures that are enlarged
TAIL_HALO = 3  # rows that the tail's convolutions reach: at most 1 + 1 at the input's size, the others at twice it or more
TAIL_PX = 1 << 16  # output pixels of a frame made at once; 1 kB each


class Upsample(nn.ModuleDict):
    """(N, C, H, W) → (N, C, sH, sW): convolutions and pixel shuffles, one for each factor of 2 or one for 3."""

    def __init__(self, scale: int, channels: int) -> None:
        factors = {2: (2,), 3: (3,), 4: (2, 2)}[scale]
        layers = {str(5 * i): _conv(channels, factor**2 * channels) for i, factor in enumerate(factors)}
        super().__init__(layers | {str(5 * len(factors)): _conv(channels, channels)})
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        for i, factor in enumerate(self.factors):
            x = F.leaky_relu_(F.pixel_shuffle(_by_frame(self[str(5 * i)], x), factor), 0.1)
        return _by_frame(self[str(5 * len(self.factors))], x)


def _conv(channels_in: int, channels_out: int) -> nn.Conv3d:
    """A 3×3 convolution of frames, in the published files a 1×3×3 one of clips."""
    return nn.Conv3d(channels_in, channels_out, (1, 3, 3), padding=(0, 1, 1))


def _by_frame(conv: nn.Module, x: Tensor) -> Tensor:
    """(N, C, H, W) through a convolution from `_conv`, which is faster as one of pictures."""
    assert isinstance(conv, nn.Conv3d)
    x = x.to(conv.weight.dtype, memory_format=torch.channels_last)
    return F.conv2d(x, conv.weight[:, :, 0], conv.bias, padding=1)


class VRT(nn.Module):
    """(N, T, 3, H, W) in [0, 1] → (N, T, 3, sH, sW); for interpolation (N, 4, 3, H, W) → (N, 1, 3, H, W).

    Sides are multiples of 8 and, for windows of 8, at least 64.

    Args:
        scale: 1 to 4; 1 restores frames at their size.
        window_frames, window_px: Size of the windows within which tokens attend to each other.
        width, depth: Channels, and blocks in each of the seven stages at several scales.
        mutual_depth: How many blocks of a stage attend in pairs of frames.
        tail_width, tail_depth, tail_layers: Channels, blocks in a layer and layers of the last stage.
        single_frame_layers: How many of these, the last ones, attend within a frame.
        mlp_ratio: Hidden channels of an MLP for one of its input.
        warped_frames: Neighbouring frames that are aligned to a frame: 2, 4 or 6, half of them on each side; 0 makes the
            network that interpolates, which needs no flow and takes `window_frames` frames.
        deformable_groups: Groups of channels with offsets of their own, for all frames on one side together.
        takes_sigma: Whether the network is told how much noise its input has.
        stochastic_depth: In training, the probability to skip the last block; it grows linearly from 0 at the first.

    Attributes:
        checkpointing: Which activations training computes again instead of keeping them; "none" at first.
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
        stochastic_depth: float = 0.2,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 3, 4) or warped_frames not in (0, 2, 4, 6) or (warped_frames == 0 and scale != 1):
            raise ValueError(f"no network enlarges {scale} times with {warped_frames} warped frames")
        self.scale, self.window_px, self.takes_sigma = scale, window_px, bool(takes_sigma)
        self.sources = warped_frames // 2
        self.interpolated_from = 0 if warped_frames else window_frames
        window: Size3 = (window_frames, window_px, window_px)
        shape = BlockShape(heads, mlp_ratio, bool(qkv_bias))
        drops = torch.linspace(0, stochastic_depth, 7 * depth + tail_layers * tail_depth, device="cpu").tolist()

        self.conv_first = _conv(27 + takes_sigma if warped_frames else 3, width)
        if warped_frames:
            self.spynet = SPyNet(layout="plain")
        for i, (resizing, level) in enumerate(zip(RESIZING, LEVELS, strict=True)):
            stage = Stage(
                *(width, width),
                resizing=resizing,
                level=level,
                window=window,
                mutual=mutual_depth,
                drops=drops[i * depth : (i + 1) * depth],
                shape=shape,
                sources=self.sources,
                deformable_groups=deformable_groups,
            )
            self.add_module(f"stage{i + 1}", stage)
        self.stage8 = nn.ModuleList([nn.ModuleDict({"1": nn.LayerNorm(width), "2": nn.Linear(width, tail_width)})])
        for i in range(tail_layers):
            alone = i >= tail_layers - single_frame_layers
            first = 7 * depth + i * tail_depth
            self.stage8.append(
                TailLayer(
                    tail_width,
                    window=(1, *window[1:]) if alone else window,
                    drops=drops[first : first + tail_depth],
                    shape=shape,
                )
            )
        self.norm = nn.LayerNorm(tail_width)
        self.conv_after_body = nn.Linear(tail_width, width)
        if self.interpolated_from:
            self.linear_fuse = nn.Conv2d(self.interpolated_from * width, TAIL_CHANNELS, 1)
            self.conv_last: nn.Module = nn.Conv2d(TAIL_CHANNELS, 3, 7)
        elif scale == 1:
            self.conv_last = _conv(width, 3)
        else:
            self.conv_before_upsample = nn.ModuleDict({"0": _conv(width, TAIL_CHANNELS)})
            self.upsample = Upsample(scale, TAIL_CHANNELS)
            self.conv_last = _conv(TAIL_CHANNELS, 3)
        self._initialise()
        self.checkpointing = "none"

    def _initialise(self) -> None:
        """Initialise transformer layers in the usual way; other layers initialise themselves."""
        for name, parameter in self.named_parameters():
            if name.endswith("relative_position_bias_table") or (
                name.startswith("stage") and parameter.dim() == 2 and name.endswith(".weight")
            ):
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def checkpointing(self) -> Checkpointing:
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, kind: Checkpointing) -> None:
        self.checkpoint(kind)

    def checkpoint(self, kind: Checkpointing, *, spared: Collection[int] = ()) -> None:
        """Set `checkpointing`, with exceptions.

        Args:
            spared: Layers that keep everything: 0 to 6 are the stages, 7 and on the layers of the last one. The published
                training on 16 frames uses "attention" and spares 0 to 5.

        Raises:
            ValueError: `kind` is another word.
        """
        if kind not in get_args(Checkpointing):
            raise ValueError(f"checkpointing is one of {', '.join(get_args(Checkpointing))}, not {kind!r}")
        self._checkpointing: Checkpointing = kind
        for i, layer in enumerate([*self._stages, *self.stage8[1:]]):
            for block in layer.modules():
                if isinstance(block, Block):
                    block.checkpointing = "none" if i in spared else kind

    def checkpoint_activations(self, *, attention: bool, feed_forward: bool, except_stages: tuple[int, ...] = ()) -> None:
        """As `interfaces.Checkpoints`; `except_stages` as `spared` of `checkpoint`."""
        if feed_forward and not attention:
            raise ValueError("VRT keeps a feed-forward's activations unless it computes attention again, too")
        self.checkpoint("all" if feed_forward else "attention" if attention else "none", spared=except_stages)

    @property
    def _stages(self) -> list[Stage]:
        return [cast("Stage", getattr(self, f"stage{i + 1}")) for i in range(len(LEVELS))]

    def forward(self, clip: Tensor, *, sigma: float | Tensor | None = None) -> Tensor:
        """Restore a clip; the result has the dtype of `clip` or, in half precision, float32.

        Args:
            clip: (N, T, 3, H, W); T more than half the warped frames.
            sigma: Standard deviation of the noise in `clip`, on the 0 to 1 scale: a number, one for each clip (N,), or
                anything that spreads to (N, T, 1, H, W). Required by networks that take it.

        Raises:
            ValueError: a size or number of frames that the network does not take, a missing `sigma`, or a `sigma` that the
                network does not take.
        """
        self._check(clip, sigma)
        clip = clip.to(torch.promote_types(clip.dtype, torch.float32))
        if self.interpolated_from:
            mean = clip.mean((1, 3, 4), keepdim=True)
            shallow = self._shallow(clip - mean, None, None)
            return self._interpolated(self._deep(shallow, None), shallow) + mean
        flows = clip_flows(self.spynet, clip, distances=self.sources, scales=1 + max(LEVELS))
        shallow = self._shallow(clip, flows, sigma)
        deep = self._deep(shallow, flows)
        del flows
        return framewise(
            lambda i: self._restored(clip[:, i], self._joined(deep[:, i], shallow[:, i])), clip.shape[1], dtype=clip.dtype
        )

    def _check(self, clip: Tensor, sigma: float | Tensor | None) -> None:
        _, t, c, h, w = clip.shape
        least = MULTIPLE * self.window_px
        if c != 3 or h % MULTIPLE or w % MULTIPLE or min(h, w) < least:
            raise ValueError(
                f"frames have 3 channels and sides that are multiples of {MULTIPLE} from {least} px, not {c, h, w}"
            )
        if self.interpolated_from and t != self.interpolated_from:
            raise ValueError(f"a frame is interpolated from {self.interpolated_from}, not {t}")
        if t < 1 + max(self.sources, 1):
            raise ValueError(f"a clip has at least {1 + max(self.sources, 1)} frames, not {t}")
        if self.takes_sigma and sigma is None:
            raise ValueError("sigma, the noise in the clip, is needed")
        if not self.takes_sigma and sigma is not None:
            raise ValueError("this network takes no sigma")

    def _shallow(self, clip: Tensor, flows: ClipFlows | None, sigma: float | Tensor | None) -> Tensor:
        """(N, T, H, W, C) of the frames, each with pixels of its neighbours along the flow and with the noise level."""
        given = [clip]
        if flows is not None:
            given += corners_of_neighbours(clip, flows)
        if sigma is not None:
            level = torch.as_tensor(sigma, dtype=clip.dtype, device=clip.device)
            given.append((level.view(-1, 1, 1, 1, 1) if level.dim() == 1 else level).expand_as(clip[:, :, :1]))

        def shallow(i: int) -> Tensor:
            joined = torch.cat([part[:, i] for part in given], dim=1)
            return _by_frame(self.conv_first, joined).permute(0, 2, 3, 1)

        return framewise(shallow, clip.shape[1], dtype=clip.dtype)

    def _deep(self, x: Tensor, flows: ClipFlows | None) -> Tensor:
        """(N, T, H, W, C) → (N, T, H, W, tail channels)."""
        stages = self._stages
        x1 = stages[0](x, flows)
        x2 = stages[1](x1, flows)
        x3 = stages[2](x2, flows)
        x = stages[4](stages[3](x3, flows), flows)
        x = stages[5](_sum(x, x3), flows)
        del x3
        x = stages[6](_sum(x, x2), flows)
        del x2
        x = _sum(x, x1)
        del x1
        norm, widen = self.stage8[0]["1"], self.stage8[0]["2"]  # type: ignore[index]
        x = tokenwise(lambda rows: norm_linear(rows, norm, widen).to(x.dtype), x)
        for layer in self.stage8[1:]:
            x = layer(x)
        return x

    def _joined(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """(N, H, W, tail channels), (N, H, W, C) → (N, C, H, W)."""
        joined = tokenwise(lambda d, s: norm_linear(d, self.norm, self.conv_after_body) + s, deep, shallow)
        return joined.permute(0, 3, 1, 2)

    def _restored(self, frame: Tensor, features: Tensor) -> Tensor:
        """(N, 3, sH, sW) from the input frame and its features, in bands of rows where it is large."""
        if self.scale == 1:
            return _by_frame(self.conv_last, features) + frame
        h, w = frame.shape[-2:]
        base = F.interpolate(frame, scale_factor=self.scale, mode="bilinear", align_corners=False)
        rows = h if torch.is_grad_enabled() else max(8, TAIL_PX // (self.scale**2 * w))
        bands = []
        for top in range(0, h, rows):
            first, last = max(top - TAIL_HALO, 0), min(top + rows + TAIL_HALO, h)
            x = F.leaky_relu_(_by_frame(self.conv_before_upsample["0"], features[:, :, first:last]), 0.01)
            detail = _by_frame(self.conv_last, self.upsample(x))
            made = slice(self.scale * top, self.scale * min(top + rows, h))
            bands.append(base[:, :, made] + detail[:, :, made.start - self.scale * first : made.stop - self.scale * first])
        return bands[0] if len(bands) == 1 else torch.cat(bands, dim=2)

    def _interpolated(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """(N, 1, 3, H, W) from the features of all frames."""
        frames = [self._joined(deep[:, i], shallow[:, i]).to(self.norm.weight.dtype) for i in range(deep.shape[1])]
        fused = F.leaky_relu_(self.linear_fuse(torch.cat(frames, dim=1)), 0.2)
        return self.conv_last(F.pad(fused, (3, 3, 3, 3), mode="reflect")).to(deep.dtype)[:, None]  # type: ignore[no-any-return]


def _sum(x: Tensor, y: Tensor) -> Tensor:
    """x + y; without gradients written into `x`."""
    return x + y if torch.is_grad_enabled() else x.add_(y)
