"""Enlarge with a network of your own: any `torch.nn.Module` that makes (N, C, sH, sW) of (N, C, H, W).

Usage: python examples/custom_network.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

import upframe

PHOTO = Path(__file__).parent / "media" / "astronaut.png"


class Sharpened(nn.Module):
    """Bicubic enlargement and a 3×3 convolution that sharpens, as an example of a network that you have trained."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        kernel = torch.tensor([[0.0, -0.25, 0.0], [-0.25, 2.0, -0.25], [0.0, -0.25, 0.0]])
        self.weight = nn.Parameter(kernel.expand(3, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        large = nn.functional.interpolate(x, scale_factor=self.scale, mode="bicubic")
        padded = nn.functional.pad(large, (1, 1, 1, 1), mode="replicate")
        return nn.functional.conv2d(padded, self.weight, groups=3)


def main() -> None:
    # The scale is measured on a small input. `halo_px` is how far the network sees: tiles of large pictures overlap by it.
    model = upframe.Model.from_module(Sharpened(3), name="sharpened-x3", halo_px=4)
    print(f"{model.name} enlarges {model.scale} times")

    # You can call a model on tensors ...
    print(tuple(model(torch.rand(1, 3, 31, 17)).shape))

    # ... and use it in place of a model's name, with tiles, alpha, 16 bits, other sizes and videos.
    face = Image.open(PHOTO).crop((160, 40, 288, 168))
    print(upframe.upscale(face, model=model, width=500).size)


if __name__ == "__main__":
    main()
