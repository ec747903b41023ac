"""Constants of BasicVSR and RealBasicVSR that the networks and their facts share; no torch."""

from __future__ import annotations

from typing import Literal

FlowKind = Literal["spynet", "correlation"]

SCALE = 4
# Pixels of a frame that are reconstructed at once, in bands of rows: nine kilobytes each, at 16 times the pixels. Bands of 45
# rows cost 3 % more than the whole.
RECONSTRUCTION_PX = 1 << 14
