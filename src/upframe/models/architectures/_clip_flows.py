"""Optical flow between the frames of a clip at several scales and distances, computed once for a whole network.

From J. Liang et al., "VRT: A Video Restoration Transformer", IEEE TIP 2024, https://arxiv.org/abs/2201.12288, and numeric
fixtures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from upframe.models.architectures._flow import SPyNet, flow_warp

PAIRS_PX = 1 << 15  # pixels of frame pairs whose flow is computed at once: several pairs of a small clip

Direction = Literal["backward", "forward"]
"""Direction of aligned features: "backward" from later frames, "forward" from earlier ones."""


@dataclass(frozen=True)
class ClipFlows:
    """Flows of a clip of T frames."""

    backward: tuple[tuple[Tensor, ...], ...]
    """`backward[d][s]` (N, T - 1 - d, 2, H >> s, W >> s): entry i leads from frame i to frame i + 1 + d, in pixels."""
    forward: tuple[tuple[Tensor, ...], ...]
    """`forward[d][s]`: entry i leads from frame i + 1 + d to frame i."""

    def flow(self, frame: int, *, direction: Direction, distance: int, scale: int) -> Tensor | None:
        """(N, 2, h, w) from `frame` to the one `distance` frames later or earlier; None where the clip ends before."""
        flows = (self.backward if direction == "backward" else self.forward)[distance - 1][scale]
        entry = frame if direction == "backward" else frame - distance
        return flows[:, entry] if 0 <= entry < flows.shape[1] else None


def clip_flows(spynet: SPyNet, clip: Tensor, *, distances: int, scales: int = 4) -> ClipFlows:
    """Flows between all frames up to `distances` apart; those of more than one step are composed of single steps.

    Args:
        clip: (N, T, 3, H, W) RGB in [0, 1]; T > distances.
    """
    earlier, later = clip[:, :-1], clip[:, 1:]
    return composed(_pyramid(spynet, earlier, later, scales), _pyramid(spynet, later, earlier, scales), distances=distances)


def composed(backward: tuple[Tensor, ...], forward: tuple[Tensor, ...], *, distances: int) -> ClipFlows:
    """The flows of a clip from those between neighbouring frames, `backward[s]` and `forward[s]` as in `ClipFlows`."""
    later, earlier = [backward], [forward]
    for step in range(1, distances):
        later.append(tuple(_joined(far[:, :-1], near[:, step:]) for far, near in zip(later[-1], backward, strict=True)))
        earlier.append(
            tuple(_joined(far[:, 1:], near[:, : near.shape[1] - step]) for far, near in zip(earlier[-1], forward, strict=True))
        )
    return ClipFlows(tuple(later), tuple(earlier))


def _pyramid(spynet: SPyNet, references: Tensor, supports: Tensor, scales: int) -> tuple[Tensor, ...]:
    """`spynet.pyramid` of all frames (N, T, 3, H, W), a few pairs at a time."""
    n, t, _, h, w = references.shape
    step = max(1, PAIRS_PX // (h * w))
    references, supports = references.flatten(0, 1), supports.flatten(0, 1)
    parts = [spynet.pyramid(references[i : i + step], supports[i : i + step], scales=scales) for i in range(0, n * t, step)]
    joined = [torch.cat(flows) for flows in zip(*parts, strict=True)]
    return tuple(flow.view(n, t, *flow.shape[1:]) for flow in joined)


def _joined(far: Tensor, near: Tensor) -> Tensor:
    """Flows (N, T, 2, H, W) to a frame, and on from there to the next: together from start to end."""
    return far + flow_warp(near.flatten(0, 1), far.flatten(0, 1)).view(far.shape)


def sampled_corners(frames: Tensor, flows: Tensor) -> Tensor:
    """The four pixels around the one that each pixel's flow leads to: a warp that loses no detail to interpolation.

    Args:
        frames: (N, C, H, W) that the flows lead to.
        flows: (N, 2, H, W) (dx, dy) in pixels.

    Returns:
        (N, 4*C, H, W): all channels at (x floor, y floor), then (floor, ceil), (ceil, floor), (ceil, ceil); zero outside.
    """
    n, c, h, w = frames.shape
    x = torch.arange(w, dtype=flows.dtype, device=flows.device) + flows[:, 0]
    y = torch.arange(h, dtype=flows.dtype, device=flows.device)[:, None] + flows[:, 1]
    pixels = frames.flatten(2)
    corners = []
    for at_x in (x.floor(), x.ceil()):
        for at_y in (y.floor(), y.ceil()):
            inside = (at_x >= 0) & (at_x < w) & (at_y >= 0) & (at_y < h)
            place = torch.where(inside, at_y * w + at_x, 0).long()
            seen = pixels.gather(2, place.flatten(1)[:, None].expand(n, c, -1)).view(n, c, h, w)
            corners.append(seen * inside[:, None])
    return torch.cat(corners, dim=1)


def corners_of_neighbours(clip: Tensor, flows: ClipFlows) -> tuple[Tensor, Tensor]:
    """Return, for every frame, the corners sampled from the next frame and from the previous one.

    Returns:
        (N, T, 4*C, H, W) twice; zeros for the last frame and for the first.
    """
    n, t, c, h, w = clip.shape
    after = sampled_corners(clip[:, 1:].flatten(0, 1), flows.backward[0][0].flatten(0, 1)).view(n, t - 1, 4 * c, h, w)
    before = sampled_corners(clip[:, :-1].flatten(0, 1), flows.forward[0][0].flatten(0, 1)).view(n, t - 1, 4 * c, h, w)
    nothing = torch.zeros_like(after[:, :1])
    return torch.cat([after, nothing], dim=1), torch.cat([nothing, before], dim=1)
