"""A VGG-19 with random weights, under torchvision's names, for the losses that look through one."""

from __future__ import annotations

import math
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

# Configuration E of arXiv 1409.1556, table 1: widths of the convolutions, 0 for max pooling.
CONFIGURATION = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0)


def vgg19_state(*, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the size of the signal from layer to layer, and a classifier's that nobody asks for."""
    generator = torch.Generator().manual_seed(seed)
    state = {"classifier.0.weight": torch.ones(2, 2)}
    index, channels = 0, 3
    for width in CONFIGURATION:
        if width == 0:
            index += 1
            continue
        weight = torch.randn(width, channels, 3, 3, generator=generator) * math.sqrt(2 / (9 * channels))
        state[f"features.{index}.weight"] = weight
        state[f"features.{index}.bias"] = torch.randn(width, generator=generator) * 0.1
        index, channels = index + 2, width  # a convolution and its activation
    return state


def write_vgg19(path: Path) -> Path:
    safetensors.torch.save_file(vgg19_state(), path)
    return path


def vgg19_layer(pictures: Tensor, state: dict[str, Tensor], layer: int) -> Tensor:
    """The output of a layer, by walking through the names."""
    x = (pictures - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    index = 0
    for width in CONFIGURATION:
        steps = ["pool"] if width == 0 else ["convolution", "activation"]
        for step in steps:
            if step == "convolution":
                x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
            else:
                x = F.max_pool2d(x, 2) if step == "pool" else x.clamp_min(0)
            if index == layer:
                return x
            index += 1
    raise AssertionError(layer)
