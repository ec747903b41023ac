"""What a network for single frames may offer besides its forward pass, so that engines need not know which it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from upframe.upscaling.tiling import Place


class TakesPlace(Protocol):
    """Offered by networks whose spec says `takes_place`."""

    def place_tensors(self, size: Sequence[int], place: Place) -> tuple[Tensor, ...]:
        """What `forward` takes in lieu of `place`, for a tile of `size` (height, width): graphs have no inputs but tensors."""
        ...
