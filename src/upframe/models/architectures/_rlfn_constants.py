"""Constants of RLFN that its network and its facts share; no torch."""

from __future__ import annotations

from typing import Literal

GRID_PX = 6  # ESA pools with stride 2 · 3
ESA_CHANNELS = 16  # §3.2 of the paper: one conv group instead of three, 16 channels throughout

Block = Literal["rlfb", "rfdb", "rfdbr"]
"""Kind of block: the published one, or one of the two that the paper compares it with."""
