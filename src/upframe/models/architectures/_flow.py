"""Optical flow and warping, shared by the video networks.

SPyNet. Paper: A. Ranjan, M. J. Black, "Optical Flow Estimation using a Spatial Pyramid Network", CVPR 2017,
https://arxiv.org/abs/1611.00850. The published weights may not be passed on; they come inside the user's checkpoint.
This module is written from the paper and numeric fixtures.

Differences from the published ports: one implementation serves both of their parameter layouts, works at any size
(some fail at 32 px or less), and keeps flow and positions in float32 when the network runs in half precision, where
bfloat16 could not tell pixel 257 from 258. Correctness: every fixture of both ports in float32 and float64.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layout = Literal["mm", "plain"]
"""Parameter names of the published ports: "mm" `basic_module.L.basic_module.K.conv.*` (RealBasicVSR, VSR-Transformer),
"plain" `basic_module.L.basic_module.2K.*` (VRT)."""

LEVELS = 6
MULTIPLE = 2 ** (LEVELS - 1)  # both sides are resized to a multiple of this, so that every level halves exactly
CHANNELS = (8, 32, 64, 32, 16, 2)  # of a level: 3 reference + 3 warped + 2 flow in, a flow out; §3.2 of the paper
GATHERED_CHANNELS = 16  # from which on it is faster to warp all channels of a pixel at once
MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB in [0, 1]
STD = (0.229, 0.224, 0.225)


def flow_warp(
    x: Tensor,
    flow: Tensor,
    *,
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear",
    padding: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = True,
) -> Tensor:
    """Sample `x` at each pixel's position plus `flow`. This warps the frame that a flow leads *to* back onto its origin.

    Args:
        x: (N, C, H, W).
        flow: (N, 2, H, W) displacements (dx, dy) in pixels.
        align_corners: Whether -1 and 1 are the centres of the outermost pixels. Positions are normalised for True
            in either case, as the published code does; so only True samples where the flow says.

    Returns:
        (N, C, H, W) in the dtype of `x`.
    """
    if (interpolation, padding, align_corners) == ("bilinear", "zeros", True) and _gathers(x, flow):
        return _gathered(x, flow)
    h, w = x.shape[-2:]
    exact = torch.promote_types(x.dtype, torch.float32)  # half precision has no room for positions
    pixels, half_span = _pixel_grid(h, w, exact, x.device)
    grid = (flow.to(exact).permute(0, 2, 3, 1) + pixels) / half_span - 1
    return F.grid_sample(x.to(exact), grid, mode=interpolation, padding_mode=padding, align_corners=align_corners).to(x.dtype)


def _gathers(x: Tensor, flow: Tensor) -> bool:
    """Whether `_gathered` can warp this and saves time: the channels of a pixel must lie side by side, and be many."""
    if x.device.type != "cpu" or (torch.is_grad_enabled() and (x.requires_grad or flow.requires_grad)):
        return False
    return x.shape[1] >= GATHERED_CHANNELS and x.is_contiguous(memory_format=torch.channels_last)


def _gathered(x: Tensor, flow: Tensor) -> Tensor:
    """`flow_warp` of a channels-last `x`, bilinear with zeros beyond the border: sums of four weighted rows of a table.

    A quarter of the time of `grid_sample`, which reads a channel at a time, and channels-last again: with 64 channels of
    180×320 and the layout mended, 3 ms in place of 11 on one thread. Without gradients.
    """
    n, c, h, w = x.shape
    exact = torch.promote_types(x.dtype, torch.float32)  # half precision has no room for positions
    pixels, _ = _pixel_grid(h, w, exact, x.device)
    flow = flow.to(exact)
    columns, column_weights = _neighbours(flow[:, 0] + pixels[..., 0], w)
    rows, row_weights = _neighbours(flow[:, 1] + pixels[..., 1], h)
    first = torch.arange(0, n * h * w, h * w, dtype=torch.int32).view(n, 1, 1)
    starts = [first + w * row for row in rows]
    places = torch.stack([start + column for start in starts for column in columns], dim=-1)
    weights = torch.stack([of_row * of_column for of_row in row_weights for of_column in column_weights], dim=-1)
    table = x.to(exact).permute(0, 2, 3, 1).reshape(-1, c)
    warped = F.embedding_bag(places.view(-1, 4), table, per_sample_weights=weights.view(-1, 4), mode="sum")
    return warped.to(x.dtype).view(n, h, w, c).permute(0, 3, 1, 2)


def _neighbours(position: Tensor, length: int) -> tuple[list[Tensor], list[Tensor]]:
    """The whole places before and after each position on a line of `length` places, and their weights; int32 and floats.

    A place beyond the ends becomes the nearest one and weighs nothing. A position that is no number has no weights either.
    """
    before = position.floor()
    share = position - before
    places, weights = [], []
    for place, weight in ((before, 1 - share), (before + 1, share)):
        places.append(place.clamp(0, length - 1).int().clamp_(0, length - 1))  # again, since no number becomes some integer
        weights.append(weight * ((place >= 0) & (place < length)))
    return places, weights


@lru_cache(maxsize=16)  # a clip needs one a size, SPyNet one a level
def _pixel_grid(h: int, w: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(H, W, 2) the (x, y) of each pixel, and (2,) pixels per unit of axes from -1 to 1. Cached: do not write into them."""
    with torch.inference_mode(False):  # they are used by later calls that may need gradients
        y, x = torch.meshgrid(
            torch.arange(h, dtype=dtype, device=device), torch.arange(w, dtype=dtype, device=device), indexing="ij"
        )
        half_span = torch.tensor([max(w - 1, 1) / 2, max(h - 1, 1) / 2], dtype=dtype, device=device)
        return torch.stack([x, y], dim=-1), half_span


class SPyNet(nn.Module):
    """Flow between two frames: (N, 3, H, W) twice → (N, 2, H, W), any size.

    Args:
        layout: How parameters are named; changes nothing else.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, layout: Layout = "mm") -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(_Level(layout) for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, reference: Tensor, support: Tensor) -> Tensor:
        """Flow from `reference` to `support`: warping `support` by it gives `reference`.

        Args:
            reference, support: (N, 3, H, W) RGB in [0, 1].

        Returns:
            (N, 2, H, W) (dx, dy) in pixels, at least float32.
        """
        return self.pyramid(reference, support, scales=1)[0]

    def pyramid(self, reference: Tensor, support: Tensor, *, scales: int = 4) -> list[Tensor]:
        """The flow at several resolutions, finest first: entry k is (N, 2, H // 2^k, W // 2^k), in pixels of that size.

        Args:
            reference, support: As for `forward`; sides of at least 2^(scales - 1) px.
            scales: 1 to 6.
        """
        h, w = reference.shape[-2:]
        by_level = self._levels(reference, support)
        return [_resized(by_level[-1 - k], (h >> k, w >> k)) for k in range(scales)]

    def _levels(self, reference: Tensor, support: Tensor) -> list[Tensor]:
        """Flows of all levels, coarsest first, for the frames resized to multiples of 32."""
        h, w = (-(-side // MULTIPLE) * MULTIPLE for side in reference.shape[-2:])
        references, supports = self._image_pyramid(reference, (h, w)), self._image_pyramid(support, (h, w))
        flow = references[-1].new_zeros(reference.shape[0], 2, h // MULTIPLE, w // MULTIPLE)
        flows = []
        for level, network in enumerate(self.basic_module):
            ref, supp = references[-1 - level], supports[-1 - level]
            if level:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = flow_warp(supp, flow, padding="border")
            given = torch.cat([ref, warped, flow], dim=1)
            flow = flow + network(given.to(self.mean.dtype, memory_format=torch.channels_last))
            flows.append(flow)
        return flows

    def _image_pyramid(self, frames: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Normalised frames at `size` and halved from level to level, finest first, at least float32."""
        frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
        if frames.shape[-2:] != size:
            frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        images = [(frames - self.mean) / self.std]
        for _ in range(LEVELS - 1):
            images.append(F.avg_pool2d(images[-1], 2))
        return images


class _Level(nn.Module):
    """One level's network: five 7×7 convolutions, (N, 8, H, W) → (N, 2, H, W)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for i, (channels_in, channels_out) in enumerate(pairwise(CHANNELS)):
            conv = nn.Conv2d(channels_in, channels_out, 7, padding=3)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # it learns in half the steps of torch's default
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            activation = [nn.ReLU(inplace=True)] if i < len(CHANNELS) - 2 else []
            if layout == "plain":
                stages += [conv, *activation]
            else:
                named = OrderedDict[str, nn.Module](conv=conv)
                if activation:
                    named["activate"] = activation[0]
                stages.append(nn.Sequential(named))
        with torch.no_grad():
            conv.weight.mul_(0.1)  # a level begins by leaving the flow nearly as it is
        self.basic_module = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x)  # type: ignore[no-any-return]


def _resized(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """A flow for frames of another size: resampled, and each component in the new pixels."""
    h, w = flow.shape[-2:]
    if (h, w) == size:
        return flow
    dx, dy = F.interpolate(flow, size=size, mode="bilinear", align_corners=False).unbind(1)
    return torch.stack([dx * (size[1] / w), dy * (size[0] / h)], dim=1)


def with_normalisation(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return `state` with the buffers `mean` and `std` of the SPyNet at `prefix`, which some files lack."""
    completed = dict(state)
    if any(name.startswith(f"{prefix}basic_module.") for name in state):
        completed.setdefault(f"{prefix}mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        completed.setdefault(f"{prefix}std", torch.tensor(STD).view(1, 3, 1, 1))
    return completed
