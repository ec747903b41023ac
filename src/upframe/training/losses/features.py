"""Frozen networks in whose features losses compare pictures: what they share. `vgg19.py` and `efficientnet.py` hold two.

The user provides the weights. They were trained on ImageNet pictures, so upframe does not distribute them; reading a file
executes nothing in it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from upframe.errors import ModelError
from upframe.models.weights_file import State, read_state


class FeatureNetwork(nn.Module):
    """A stack of layers, counted from 0, that returns the outputs of some; gradients pass to the pictures.

    Always in full precision, also under autocast.

    Args:
        state: Parameters under the names of the file; others are ignored.
        layers: Layers whose outputs are returned, ascending.
        subject: Source of the state, for errors.

    Raises:
        ValueError: if `layers` are not such numbers.
        ModelError: if the state is not that of this network.
    """

    title: ClassVar[str]
    """Name of the network in messages."""
    advice: ClassVar[str]
    """The file to pass."""
    layer_count: ClassVar[int]
    default_layers: ClassVar[tuple[int, ...]]
    """Layers of the perceptual loss if a recipe names none, and their weights."""
    default_weights: ClassVar[tuple[float, ...]]
    normalisation: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]]
    """Mean and standard deviation of pictures in [0, 1] by which the input was normalised when the weights were trained."""

    jitter_px: ClassVar[int] = 1
    """In training, the perceptual loss cuts fewer random rows and columns than this off the top and the left. A network whose
    first layer skips pixels would otherwise print its grid."""

    mean: Tensor
    std: Tensor

    def __init__(self, state: State, *, layers: Sequence[int], subject: str | Path | None = None) -> None:
        super().__init__()
        self.layers = checked_layers(layers, count=self.layer_count)
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
            stack = nn.Sequential(*self.stack())
        own = {name: value.shape for name, value in stack.state_dict().items()}
        given = self.parameters_in(state)
        wrong = [name for name, shape in own.items() if name not in given or given[name].shape != shape]
        if wrong:
            happened = f"holds no {self.title}: {self.name_in_file(wrong[0])} is missing or of another shape"
            raise ModelError(subject or self.title, happened, self.advice)
        stack.load_state_dict({name: given[name] for name in own}, assign=True)
        self.features = nn.Sequential(*list(stack)[: self.layers[-1] + 1])
        self.requires_grad_(False)
        for name, values in zip(("mean", "std"), self.normalisation, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @staticmethod
    @abstractmethod
    def stack() -> list[nn.Module]:
        """Return the layers with fresh weights."""

    @staticmethod
    @abstractmethod
    def parameters_in(state: State) -> State:
        """Return what a file's state holds of the stack's parameters, under the stack's names."""

    @staticmethod
    @abstractmethod
    def name_in_file(name: str) -> str:
        """Return the file's name of a parameter of the stack."""

    @classmethod
    def read(cls, path: str | Path, *, layers: Sequence[int]) -> Self:
        """Read the network from a .pth or .safetensors file, without executing anything in it.

        Raises:
            ValueError: see `FeatureNetwork`.
            ModelError: if the file is missing, damaged, unsafe or holds something else.
        """
        layers = checked_layers(layers, count=cls.layer_count)  # before half a gigabyte is read
        return cls(read_state(path), layers=layers, subject=path)

    @property
    def least_px(self) -> int:
        """Smallest side of a picture for which the last layer is not empty."""
        poolings = sum(isinstance(layer, nn.MaxPool2d) for layer in self.features)
        return 1 << poolings

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] → the outputs of `layers`, in their order.

        Raises:
            ValueError: if a side is shorter than `least_px`.
        """
        if min(pictures.shape[-2:]) < self.least_px:
            size = "×".join(map(str, pictures.shape[-2:]))
            raise ValueError(f"layer {self.layers[-1]} of {self.title} needs {self.least_px} px a side, not {size}")
        found = []
        with torch.autocast(pictures.device.type, enabled=False):
            x = (pictures.to(self.mean.dtype) - self.mean) / self.std
            for i, layer in enumerate(self.features):
                x = layer(x)
                if i in self.layers:
                    found.append(x)
        return found


def checked_layers(layers: Sequence[int], *, count: int) -> tuple[int, ...]:
    """Return the layers as a tuple.

    Raises:
        ValueError: if they are not ascending numbers below `count`.
    """
    whole = all(isinstance(layer, int) and 0 <= layer < count for layer in layers)
    if not layers or not whole or list(layers) != sorted(set(layers)):
        raise ValueError(f"layers must be ascending whole numbers from 0 to {count - 1}, not {tuple(layers)}")
    return tuple(layers)
