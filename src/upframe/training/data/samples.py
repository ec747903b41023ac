"""Samples, batches of samples, and the interface of a source of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One training pair: a picture (3, h, w) or a clip (T, 3, h, w), float32 in [0, 1]."""

    lq: Tensor
    """Degraded, (3, h, w) or (T, 3, h, w)."""
    gt: Tensor
    """Ground truth, `scale` times as high and wide: (3, h·s, w·s) or (T, 3, h·s, w·s)."""


class Source(Protocol):
    """Draws samples. All samples of a source have one shape, so that they can be stacked.

    `rng` alone decides a sample: the same generator state gives the same bytes, in any process and after any earlier samples. A
    source can be pickled, for worker processes.

    Raises:
        InputError: if a file is missing or damaged; the message names it.
    """

    def __call__(self, rng: np.random.Generator, /) -> Sample: ...


@dataclass(frozen=True)
class Batch:
    """Samples of one step, stacked on a new first axis."""

    lq: Tensor
    """(N, 3, h, w) or (N, T, 3, h, w), float32 in [0, 1]."""
    gt: Tensor
    """(N, 3, h·s, w·s) or (N, T, 3, h·s, w·s), float32 in [0, 1]."""

    def __len__(self) -> int:
        return len(self.lq)

    def split(self, parts: int) -> list[Batch]:
        """Return `parts` batches of equal size in order, for gradient accumulation; views, not copies.

        Raises:
            ValueError: if the batch cannot be divided evenly.
        """
        if parts < 1 or len(self) % parts:
            raise ValueError(f"a batch of {len(self)} cannot be divided by {parts}")
        return [Batch(lq, gt) for lq, gt in zip(self.lq.chunk(parts), self.gt.chunk(parts), strict=True)]


def stack(samples: Sequence[Sample]) -> Batch:
    """Return the batch of these samples, in their order."""
    return Batch(torch.stack([s.lq for s in samples]), torch.stack([s.gt for s in samples]))
