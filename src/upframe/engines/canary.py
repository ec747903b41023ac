"""The canary: a small picture that a device must enlarge as the CPU does before it gets anybody's picture.

Drivers of GPUs return black, torn or stale frames without any error: with a wrong version, after a reset, or when their memory
runs short. So a graph on a device is compared with torch on the CPU once, when it is loaded, and each of its frames is looked
at: one that is black although its input is not counts as lack of memory, so that smaller tiles are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from upframe.errors import ResourceError

_SIZE = (40, 56)
TOLERANCE = 2 / 255
"""Largest allowed difference from the CPU on the 0 to 1 scale. Measured on Vulkan: 1e-6 for RLFN, 5e-4 for VapSR, whose GELU
is approximated there. GPUs that multiply with the 10 bits of TF32 make some 1e-3. A wrong driver is off by tens of code values.
"""


Run = Callable[[Sequence[Tensor]], Tensor]


def picture(channels: int) -> Tensor:
    """The canary: noise (1, C, H, W) in [0, 1], which shows any error of any layer."""
    return torch.rand(1, channels, *_SIZE, generator=torch.Generator().manual_seed(17))


def guarded(run: Run, given: Sequence[Tensor], expected: Tensor, *, engine: str, device: str) -> Run:
    """Return `run` with the guard against black frames, after the canary came out alive.

    Args:
        given: The canary as `run` takes it. expected: The CPU's result.

    Raises:
        ResourceError: if the device makes other pixels than the CPU.
    """
    with torch.inference_mode():
        difference = float((run(given).float() - expected).abs().max())
    if not difference <= TOLERANCE:  # also NaN
        happened = f"makes wrong pixels, off by {difference * 255:.0f} of 255 from the CPU's in a test picture"
        raise ResourceError(f"engine {engine} on {device}", happened, "update its driver, or use `engine='auto'`")

    def watched(given: Sequence[Tensor]) -> Tensor:
        made = run(given)
        if not made.any() and given[0].any():
            raise MemoryError("the device returned a black frame")
        return made

    return watched
