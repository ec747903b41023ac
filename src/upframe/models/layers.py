"""Layers that engines look for in any network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PixelConv2d(nn.Conv2d):
    """The convolution that sees the pixels, 3×3 with bias, zero-padded to keep the size.

    Half precision is too coarse for pixels, and an error of these weights shifts the colours of a whole picture: it causes most
    of the loss of RLFN ×2 in bfloat16 (docs/speed.md). So this layer can stay float32 while the others are not (`reduced`).
    """

    def __init__(self, colours: int, channels: int) -> None:
        super().__init__(colours, channels, 3, padding=1)
        self.maps: torch.dtype | None = None
        """Dtype of the result; None keeps it."""

    def forward(self, input: Tensor) -> Tensor:
        made = super().forward(input if self.maps is None else input.to(self.weight.dtype))
        return made if self.maps is None else made.to(self.maps)


def reduced(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change `network` in place to `dtype`, except convolutions that see pixels, which take float32 and return `dtype`."""
    exact = [module for module in network.modules() if isinstance(module, PixelConv2d)]
    states = [{name: value.clone() for name, value in module.state_dict().items()} for module in exact]
    network.to(dtype)
    for module, state in zip(exact, states, strict=True):
        module.float().load_state_dict(state)
        module.maps = dtype
    return network


def takes_float32(network: nn.Module) -> bool:
    """Whether `reduced` keeps convolutions that see pixels in float32."""
    return any(isinstance(module, PixelConv2d) for module in network.modules())


class OneStepConv2d(nn.Conv2d):
    """A convolution by which an engine may replace another, to compute the following operations in the same step."""

    def in_one_step(self, x: Tensor, *, slope: float = 1, other: Tensor | None = None, into_other: bool = False) -> Tensor:
        """Apply LeakyReLU to the convolution and add `other`, which may be overwritten if `into_other`."""
        raise NotImplementedError
