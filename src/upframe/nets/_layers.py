"""Layers that two or more networks share."""

from __future__ import annotations

from torch import Tensor, nn


def conv3x3(channels_in: int, channels_out: int, *, groups: int = 1) -> nn.Conv2d:
    """3×3 convolution with bias, zero-padded to keep the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, groups=groups)


def conv1x1(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 1)


def multiply_input_by(factor: float, weight: Tensor) -> Tensor:
    """The weight of a convolution that shall behave as if its input were multiplied by `factor`."""
    return weight * factor
