"""Layers through which engines and networks meet: an engine looks for these, whatever the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PixelConv2d(nn.Conv2d):
    """The convolution that sees the pixels, 3×3 with bias, zero-padded to keep the size.

    Half precision has no room for pixels, and an error of these weights shifts the colours of a whole picture: most of what
    RLFN ×2 loses in bfloat16 (docs/speed.md). So it can stay float32 where the rest is not (`reduced`).
    """

    def __init__(self, colours: int, channels: int) -> None:
        super().__init__(colours, channels, 3, padding=1)
        self.maps: torch.dtype | None = None
        """Type that its result is converted to; None leaves it."""

    def forward(self, input: Tensor) -> Tensor:
        made = super().forward(input if self.maps is None else input.to(self.weight.dtype))
        return made if self.maps is None else made.to(self.maps)


def reduced(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`network`, changed in place to `dtype` but for convolutions that see pixels; these take float32 and give `dtype`."""
    exact = [module for module in network.modules() if isinstance(module, PixelConv2d)]
    states = [{name: value.clone() for name, value in module.state_dict().items()} for module in exact]
    network.to(dtype)
    for module, state in zip(exact, states, strict=True):
        module.float().load_state_dict(state)
        module.maps = dtype
    return network


def takes_float32(network: nn.Module) -> bool:
    """Whether `reduced` leaves it what sees pixels."""
    return any(isinstance(module, PixelConv2d) for module in network.modules())


class OneStepConv2d(nn.Conv2d):
    """A convolution that an engine may put in place of another: one that computes what follows it in the same step."""

    def in_one_step(self, x: Tensor, *, slope: float = 1, other: Tensor | None = None, into_other: bool = False) -> Tensor:
        """LeakyReLU of the convolution, and `other` added to it, which may be written into if `into_other`."""
        raise NotImplementedError
