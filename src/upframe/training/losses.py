"""Losses of super-resolution training. Each takes (prediction, target) of one shape and returns a scalar."""

from __future__ import annotations

from torch import Tensor


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, the loss of RLFN's and VapSR's recipes."""
    return (prediction - target).abs().mean()
