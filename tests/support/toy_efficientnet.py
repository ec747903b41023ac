"""An EfficientNet-Lite0 with random weights, under the names of its file, for the losses that look through one."""

from __future__ import annotations

import math
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

# Table 1 of arXiv 1905.11946 for B0, without squeeze-and-excitation: widths in and out, kernel, stride, expansion of a block.
BLOCKS = (
    (32, 16, 3, 1, 1), (16, 24, 3, 2, 6), (24, 24, 3, 1, 6), (24, 40, 5, 2, 6), (40, 40, 5, 1, 6), (40, 80, 3, 2, 6),
    (80, 80, 3, 1, 6), (80, 80, 3, 1, 6), (80, 112, 5, 1, 6), (112, 112, 5, 1, 6), (112, 112, 5, 1, 6), (112, 192, 5, 2, 6),
    (192, 192, 5, 1, 6), (192, 192, 5, 1, 6), (192, 192, 5, 1, 6), (192, 320, 3, 1, 6),
)  # fmt: skip


def lite0_state(*, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the size of the signal, batch normalisations that do something, and a classifier nobody asks for."""
    generator = torch.Generator().manual_seed(seed)
    state = {"_fc.weight": torch.ones(2, 2)}

    def convolution(name: str, norm: str, width: int, inputs: int, kernel: int) -> None:
        state[name] = torch.randn(width, inputs, kernel, kernel, generator=generator) / math.sqrt(inputs * kernel**2)
        for part, centre in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            state[f"{norm}.{part}"] = centre + 0.2 * torch.rand(width, generator=generator)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    convolution("_conv_stem.weight", "_bn0", 32, 3, 3)
    for number, (inputs, width, kernel, _, expansion) in enumerate(BLOCKS):
        block, inner = f"_blocks.{number}", inputs * expansion
        if expansion > 1:
            convolution(f"{block}._expand_conv.weight", f"{block}._bn0", inner, inputs, 1)
        convolution(f"{block}._depthwise_conv.weight", f"{block}._bn1", inner, 1, kernel)
        convolution(f"{block}._project_conv.weight", f"{block}._bn2", width, inner, 1)
    return state


def write_lite0(path: Path) -> Path:
    safetensors.torch.save_file(lite0_state(), path)
    return path


def lite0_layer(pictures: Tensor, state: dict[str, Tensor], layer: int) -> Tensor:
    """The output of a layer, by walking through the names: 0 the stem, 1 its activation, then the blocks."""

    def passed(x: Tensor, name: str, norm: str, stride: int) -> Tensor:
        weight = state[name]
        kernel = weight.shape[-1]
        # TensorFlow's "SAME": as much padding as the last window lacks, the odd pixel at the end.
        lacking = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
        (top, left), (bottom, right) = [n // 2 for n in lacking], [n - n // 2 for n in lacking]
        x = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        parts = [state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, eps=1e-3)

    x = passed(pictures * 2 - 1, "_conv_stem.weight", "_bn0", 2)
    if layer == 0:
        return x
    x = x.clamp(0, 6)
    for number, (inputs, width, _, stride, expansion) in enumerate(BLOCKS[: layer - 1]):
        block, before = f"_blocks.{number}", x
        if expansion > 1:
            x = passed(x, f"{block}._expand_conv.weight", f"{block}._bn0", 1).clamp(0, 6)
        x = passed(x, f"{block}._depthwise_conv.weight", f"{block}._bn1", stride).clamp(0, 6)
        x = passed(x, f"{block}._project_conv.weight", f"{block}._bn2", 1)
        x = x + before if stride == 1 and inputs == width else x
    return x
