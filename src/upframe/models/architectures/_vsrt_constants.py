"""Constants of VSR-Transformer that its network and its facts share; no torch."""

from __future__ import annotations

import math
from typing import Literal

SCALE = 4
WINDOW_PX = 64  # what published networks are trained on
# Of neighbouring windows. A small trained network on Vid4: 25.106 dB (RGB, first five frames' centre) with 0 px, 25.110 with
# 16, 25.111 with 32, which is half as much attention again; the published crops give the same at four times the work.
OVERLAP_PX = 16
FEED_FORWARD_BLOCKS = 30  # in each branch, as released
FEATURE_PX = 1 << 15  # pixels of a batch of frames in stacks of residual blocks at once, three features each

Directions = Literal["both", "backward", "forward", "none"]
BRANCHES: dict[Directions, tuple[str, ...]] = {
    "both": ("backward", "forward"),
    "backward": ("backward",),
    "forward": ("forward",),
    "none": ("own",),
}
"""Branches of a feed-forward, in the order in which it is fused. A branch is called `<side>_resblocks` if its features are
warped or the frame's own, and `unwarped_<side>_resblocks` else: weights without a flow network must not pass for published
ones that lack theirs."""


def sines_per_axis(size: int) -> int:
    """How many of `size` frames or channels an axis gets: a third, rounded up to an even number."""
    return 2 * math.ceil(size / 6)


def published_frames(depth: int) -> int:
    """Frames of the published network with this many layers: five on REDS, seven on Vimeo-90K, as many as layers."""
    return 7 if depth == 7 else 5
