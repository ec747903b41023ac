"""Flow and warping in reference form: new positions for every warp, a full pyramid for every call."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from upframe.models.architectures import _flow


def warp(
    x: Tensor, flow: Tensor, *, interpolation: Literal["bilinear", "nearest"] = "bilinear", padding: str = "zeros"
) -> Tensor:
    """`x` (N, C, H, W) sampled at each pixel's position plus `flow` (N, 2, H, W), (dx, dy) in pixels."""
    h, w = x.shape[-2:]
    grid_y, grid_x = torch.meshgrid(
        torch.arange(h, dtype=x.dtype, device=x.device), torch.arange(w, dtype=x.dtype, device=x.device), indexing="ij"
    )
    positions = torch.stack([grid_x, grid_y], dim=2) + flow.permute(0, 2, 3, 1)  # (N, H, W, 2)
    x_unit = 2 * positions[..., 0] / max(w - 1, 1) - 1
    y_unit = 2 * positions[..., 1] / max(h - 1, 1) - 1
    grid = torch.stack([x_unit, y_unit], dim=3)
    return F.grid_sample(x, grid, mode=interpolation, padding_mode=padding, align_corners=True)


class SPyNet(_flow.SPyNet):
    """SPyNet with upframe's parameters and the computation written out. Sides need not be multiples of 32."""

    def pyramid(self, reference: Tensor, support: Tensor, *, scales: int = 4) -> list[Tensor]:
        """The flow from `reference` to `support` (N, 3, H, W) at `scales` resolutions, finest first."""
        h, w = reference.shape[-2:]
        h_even, w_even = -(-h // 32) * 32, -(-w // 32) * 32
        references = [self._normalised(reference, h_even, w_even)]
        supports = [self._normalised(support, h_even, w_even)]
        for _ in range(5):
            references.insert(0, F.avg_pool2d(references[0], 2))
            supports.insert(0, F.avg_pool2d(supports[0], 2))
        flow = reference.new_zeros(reference.shape[0], 2, h_even // 32, w_even // 32)
        flows: list[Tensor] = []
        for level, network in enumerate(self.basic_module):
            if level:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = warp(supports[level], flow, padding="border")
            flow = flow + network(torch.cat([references[level], warped, flow], dim=1))
            flows.insert(0, flow)
        return [self._resized(flows[k], h // 2**k, w // 2**k) for k in range(scales)]

    def _normalised(self, frames: Tensor, h: int, w: int) -> Tensor:
        resized = F.interpolate(frames, size=(h, w), mode="bilinear", align_corners=False)
        return (resized - self.mean) / self.std

    @staticmethod
    def _resized(flow: Tensor, h: int, w: int) -> Tensor:
        factors = flow.new_tensor([w / flow.shape[3], h / flow.shape[2]]).view(1, 2, 1, 1)
        return F.interpolate(flow, size=(h, w), mode="bilinear", align_corners=False) * factors
