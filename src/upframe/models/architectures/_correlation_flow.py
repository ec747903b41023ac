"""upframe's own small optical-flow network: warping, feature correlation and one decoder for all scales of a pyramid.

Papers: D. Sun, X. Yang, M.-Y. Liu, J. Kautz, "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume",
CVPR 2018, https://arxiv.org/abs/1709.02371, for the pyramid of warped features and their correlation; J. Hur, S. Roth,
"Iterative Residual Refinement for Joint Optical Flow and Occlusion Estimation", CVPR 2019,
https://arxiv.org/abs/1904.05290, for one set of weights at all scales. New here are the soft maximum at the start of each
scale, a number of scales that depends on the size, and weights with a licence to redistribute them, which SPyNet's do not have.

SPyNet must learn to match from nothing; correlation matches before any training. In equal training on motion of 3 px, SPyNet
had the error of zero flow after 1,000 steps; this network had less after 50 steps and a fifth of it after 2,000. It needs 66
thousand multiplications per pixel and scale, SPyNet 240 thousand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._flow import MEAN, STD, flow_warp
from upframe.models.architectures._layers import conv3x3, convolved

SLOPE = 0.1
COARSEST_PX = 8  # the shorter side of the coarsest scale is this long or less than twice as long
MAX_SCALES = 7
DECODER = (48, 32, 24)


class CorrelationFlow(nn.Module):
    """Flow between two frames: (N, 3, H, W) twice → (N, 2, H, W), any size.

    Args:
        channels: Of the features that are compared.
        radius_px: Displacements that are compared at each scale, in its pixels, to each side.
    """

    def __init__(self, *, channels: int = 24, radius_px: int = 2) -> None:
        super().__init__()
        self.radius_px = radius_px
        places = (2 * radius_px + 1) ** 2
        self.features = nn.Sequential(
            conv3x3(3, channels),
            nn.LeakyReLU(SLOPE),
            conv3x3(channels, channels),
            nn.LeakyReLU(SLOPE),
            conv3x3(channels, channels),
        )
        sides = (places + channels + 2, *DECODER)
        layers: list[nn.Module] = []
        for i in range(len(DECODER)):
            layers += [conv3x3(sides[i], sides[i + 1]), nn.LeakyReLU(SLOPE)]
        last = conv3x3(DECODER[-1], 2)
        with torch.no_grad():
            last.weight.mul_(0.1)  # a scale begins with what correlation alone says
        self.decoder = nn.Sequential(*layers, last)
        self.sharpness = nn.Parameter(torch.tensor(20.0))

    def forward(self, reference: Tensor, support: Tensor) -> Tensor:
        """Flow from `reference` to `support`: warping `support` by it gives `reference`.

        Args:
            reference, support: (N, 3, H, W) RGB in [0, 1].

        Returns:
            (N, 2, H, W) (dx, dy) in pixels, at least float32.
        """
        return self.pyramid(reference, support)[0]

    def pyramid(self, reference: Tensor, support: Tensor, *, scales: int = MAX_SCALES) -> list[Tensor]:
        """The flow at several resolutions, finest first, each half as large as the one before, rounded up.

        Args:
            scales: Largest number of resolutions; small frames have fewer.
        """
        references, supports = self._scales(reference), self._scales(support)
        exact = torch.promote_types(reference.dtype, torch.float32)
        smallest = references[-1]
        flow = smallest.new_zeros(len(smallest), 2, *smallest.shape[-2:], dtype=exact)
        flows = []
        for i, (ref, supp) in enumerate(zip(reversed(references), reversed(supports), strict=True)):
            if i:
                h, w = ref.shape[-2:]
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)[..., :h, :w]
            seen, sought = (_through(self.features, frames.to(self.sharpness.dtype)) for frames in (ref, supp))
            flow = flow + self._residual(seen, sought, flow)
            flows.append(flow)
        return flows[::-1][:scales]

    def _scales(self, frames: Tensor) -> list[Tensor]:
        """Normalised frames, finest first; the number of scales follows from their size."""
        mean, std = (frames.new_tensor(constant).view(1, 3, 1, 1) for constant in (MEAN, STD))
        scales = [((frames - mean) / std).contiguous(memory_format=torch.channels_last)]
        while min(scales[-1].shape[-2:]) >= 2 * COARSEST_PX and len(scales) < MAX_SCALES:
            scales.append(F.avg_pool2d(scales[-1], 2, ceil_mode=True))
        return scales

    def _residual(self, reference: Tensor, support: Tensor, flow: Tensor) -> Tensor:
        """Predict the update of the flow from the features of both frames."""
        reference = _normalised(reference)
        warped = _normalised(flow_warp(support, flow, padding="border"))
        steps = range(-self.radius_px, self.radius_px + 1)
        matches: Tensor = _Matches.apply(reference, warped, self.radius_px)  # type: ignore[no-untyped-call]
        shares = (self.sharpness * matches.to(flow.dtype)).softmax(dim=1)
        offsets = torch.tensor([(dx, dy) for dy in steps for dx in steps], dtype=flow.dtype, device=flow.device)
        guess = torch.einsum("nphw,pc->nchw", shares, offsets)
        seen = torch.cat([matches, reference, flow.to(matches.dtype)], dim=1).contiguous(memory_format=torch.channels_last)
        refined: Tensor = guess + _through(self.decoder, seen).to(flow.dtype)
        return refined


def _through(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Apply the convolutions to `x`, with a LeakyReLU after each but the last, fused."""
    *before, last = (layer for layer in layers if isinstance(layer, nn.Conv2d))
    for conv in before:
        x = convolved(conv, x, slope=SLOPE)
    return last(x)  # type: ignore[no-any-return]


def _normalised(x: Tensor) -> Tensor:
    """`x` (N, C, H, W) with vectors of length 1 at each pixel; sums over what lies side by side take a third of the time."""
    return F.normalize(x.permute(0, 2, 3, 1).contiguous(), dim=-1).permute(0, 3, 1, 2)


class _Matches(torch.autograd.Function):
    """Scalar products of each pixel's feature with those of another map around the same place; beyond the border zeros.

    (N, C, H, W) twice → (N, (2r + 1)², H, W), displacements by rows. Plain autograd would fill a map of zeros for every
    displacement in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, reference: Tensor, other: Tensor, radius_px: int) -> Tensor:
        padded = F.pad(other, (radius_px,) * 4)
        ctx.save_for_backward(reference, padded)
        ctx.radius_px = radius_px
        return torch.stack([(reference * part).sum(1) for part in _shifted(padded, reference, radius_px)], dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        reference, padded = ctx.saved_tensors
        radius_px: int = ctx.radius_px
        to_reference, to_padded = torch.zeros_like(reference), torch.zeros_like(padded)
        there = _shifted(padded, reference, radius_px)
        back = _shifted(to_padded, reference, radius_px)
        for i, (part, into) in enumerate(zip(there, back, strict=True)):
            grad = grads[0][:, i : i + 1]
            to_reference.addcmul_(grad, part)
            into.addcmul_(grad, reference)
        inner = to_padded[..., radius_px:-radius_px, radius_px:-radius_px]
        return to_reference, inner, None


def _shifted(padded: Tensor, like: Tensor, radius_px: int) -> Iterator[Tensor]:
    """Views of `padded` of the size of `like`, one for each displacement."""
    h, w = like.shape[-2:]
    for top in range(2 * radius_px + 1):
        for left in range(2 * radius_px + 1):
            yield padded[..., top : top + h, left : left + w]
