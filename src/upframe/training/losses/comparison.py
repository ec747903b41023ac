"""Checks of the tensors that a loss compares."""

from __future__ import annotations

import torch
from torch import Tensor


def comparable(*compared: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in one precision in which a loss may sum: float32, or float64 if one of them is float64.

    In half precision, a sum over a picture loses digits, and small constants vanish.

    Raises:
        ValueError: if the shapes differ; torch would broadcast the smaller tensor, and training would be wrong.
    """
    first = compared[0]
    for other in compared[1:]:
        if other.shape != first.shape:
            raise ValueError(f"a loss compares tensors of one shape, not {tuple(first.shape)} and {tuple(other.shape)}")
    precision = torch.float64 if any(x.dtype == torch.float64 for x in compared) else torch.float32
    return tuple(x.to(precision) for x in compared)


def as_pictures(images: Tensor) -> Tensor:
    """Return pictures (N, C, H, W) as they are, and clips (N, T, C, H, W) with their frames in the batch: (N·T, C, H, W)."""
    if images.ndim not in (4, 5):
        raise ValueError(f"pictures have 4 axes and clips 5, not {images.ndim}")
    return images.flatten(0, -4)


def checked_weights(weights: tuple[float, ...], *, layers: int) -> tuple[float, ...]:
    """Check the weights of a loss that sums distances in several layers, and return them.

    Raises:
        ValueError: if there is not one for each layer, one is below 0 or not a number, or none is above 0.
    """
    if len(weights) != layers:
        raise ValueError(f"layer_weights has {len(weights)} numbers for {layers} layers")
    if not all(isinstance(weight, int | float) and 0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise ValueError(f"layer_weights must be numbers of 0 or more, one of them above 0, not {weights}")
    return tuple(map(float, weights))
