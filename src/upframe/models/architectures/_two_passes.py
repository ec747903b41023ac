"""Two passes through time, from the last frame to the first and back, without holding more of the first than is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from upframe.models.interfaces import Keep

Features = tuple[Tensor, ...]
"""Made of one frame by a pass."""


def first_frame_first(count: int, step: Callable[[int, Features | None], Features], *, keep: Keep) -> Iterator[Features]:
    """Yield the features of a pass from the last frame to the first, the first frame's first.

    Args:
        count: Number of frames.
        step: Makes the features of a frame from those of the next one, None for the last frame. With `keep` "recompute" it is
            called a second time for most frames.
        keep: How features are held until it is their turn.
    """
    block = math.ceil(math.sqrt(count)) if keep == "recompute" else count
    held: list[Features] = []  # of the block that is needed next, its first frame last
    checkpoints: dict[int, Features] = {}  # features of the first frame of each later block
    made: Features | None = None
    for i in reversed(range(count)):
        made = step(i, made)
        if i < block:
            held.append(_halved(made) if keep == "half" else made)
        elif i % block == 0:
            checkpoints[i] = made
    assert made is not None
    kinds = [(part.device, part.dtype) for part in made]
    for start in range(0, count, block):
        if start:
            end = min(start + block, count)
            made = checkpoints.get(end)
            for i in reversed(range(start + 1, end)):
                made = step(i, made)
                held.append(made)
            held.append(checkpoints.pop(start))
        made = None  # waiting features are held once, and released when used
        while held:
            yield tuple(part.to(*kind) for part, kind in zip(held.pop(), kinds, strict=True))


def _halved(features: Features) -> Features:
    """Move features to the host's memory at two bytes per value; features already in half precision stay unchanged."""
    return tuple(part.to("cpu", torch.float16 if part.element_size() > 2 else part.dtype) for part in features)
