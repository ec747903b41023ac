"""Constants of VRT that its network and its facts share; no torch."""

from __future__ import annotations

import math

LEVELS = (0, 1, 2, 3, 2, 1, 0)  # of each stage: how often the picture is halved
MULTIPLE = 2 ** max(LEVELS)

# Names in weights files.
BIAS_TABLE = "relative_position_bias_table"
FIRST_GROUP = "stage1.residual_group1.blocks."
SECOND_GROUP = "stage1.residual_group2.blocks."


def table_side(rows: int) -> int:
    """Side in pixels of the square windows of two frames whose table has this many relative positions."""
    side = (math.isqrt(rows // 3) + 1) // 2
    if 3 * (2 * side - 1) ** 2 != rows:
        raise ValueError(f"no square window of two frames has {rows} relative positions")
    return side


def table_frames(rows: int, side: int) -> int:
    """Frames in windows of this side whose table has this many relative positions."""
    frames = (rows // (2 * side - 1) ** 2 + 1) // 2
    if (2 * frames - 1) * (2 * side - 1) ** 2 != rows:
        raise ValueError(f"no window of {side}×{side} px has {rows} relative positions")
    return frames
