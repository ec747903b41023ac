"""The perceptual loss: distance between the VGG-19 features of two pictures.

Sources: J. Johnson, A. Alahi, L. Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016,
arXiv 1603.08155. VGG-19: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015, arXiv 1409.1556, configuration E. Layers and weights: RealBasicVSR's published configuration (K. C. K. Chan et
al., CVPR 2022, arXiv 2111.12704), which uses the features before the activations, as in X. Wang et al., "ESRGAN", ECCV
Workshops 2018, arXiv 1809.00219, section 3.2.

The user provides the weights: any file with torchvision's names, `features.0.weight` to `features.34.bias`, such as its `vgg19`
(not `vgg19_bn`); the classifier is not used. They were trained on ImageNet pictures for research, so upframe does not
distribute them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.errors import ModelError
from upframe.models.weights_file import State, read_state
from upframe.training.losses.comparison import as_pictures, checked_weights, comparable

# Layers of the feature stack, counted as torchvision does: convolutions, activations and poolings alike, from 0.
REALBASICVSR_LAYERS = (2, 7, 16, 25, 34)
REALBASICVSR_LAYER_WEIGHTS = (0.1, 0.1, 1.0, 1.0, 1.0)

_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # width and number of convolutions; each ends with a pooling
_LAYERS = 37
# Mean and standard deviation of ImageNet's pictures in [0, 1], which normalised the input when the weights were trained.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class VGG19Features(nn.Module):
    """Features of VGG-19, frozen; gradients pass to the pictures. Always in full precision, also under autocast.

    Args:
        state: Parameters under torchvision's names; others are ignored.
        layers: Layers whose outputs are returned, ascending, 0 to 36. The output of a convolution is the feature before the
            activation.
        subject: Source of the state, for errors.

    Raises:
        ValueError: if `layers` are not such numbers.
        ModelError: if the state is not that of a VGG-19.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: State, *, layers: Sequence[int], subject: str | Path = "VGG-19") -> None:
        super().__init__()
        self.layers = _checked_layers(layers)
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
            stack = nn.Sequential(*_stack())
        own = {f"features.{name}": value.shape for name, value in stack.state_dict().items()}
        wrong = [name for name, shape in own.items() if name not in state or state[name].shape != shape]
        if wrong:
            happened = f"holds no VGG-19: {wrong[0]} is missing or of another shape"
            raise ModelError(subject, happened, "pass torchvision's vgg19, the one without batch normalisation")
        stack.load_state_dict({name.removeprefix("features."): state[name] for name in own}, assign=True)
        self.features = nn.Sequential(*list(stack)[: self.layers[-1] + 1])
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        poolings = sum(isinstance(layer, nn.MaxPool2d) for layer in self.features)
        self.least_px = 2**poolings
        """Smallest side of a picture for which the last layer is not empty."""

    @staticmethod
    def read(path: str | Path, *, layers: Sequence[int]) -> VGG19Features:
        """Read VGG-19 from a .pth or .safetensors file, without executing anything in it.

        Raises:
            ValueError: see `VGG19Features`.
            ModelError: if the file is missing, damaged, unsafe or holds something else.
        """
        layers = _checked_layers(layers)  # before half a gigabyte is read
        return VGG19Features(read_state(path), layers=layers, subject=path)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] → the outputs of `layers`, in their order.

        Raises:
            ValueError: if a side is shorter than `least_px`.
        """
        if min(pictures.shape[-2:]) < self.least_px:
            size = "×".join(map(str, pictures.shape[-2:]))
            raise ValueError(f"layer {self.layers[-1]} of VGG-19 needs {self.least_px} px a side, not {size}")
        found = []
        with torch.autocast(pictures.device.type, enabled=False):
            x = (pictures.to(self.mean.dtype) - self.mean) / self.std
            for i, layer in enumerate(self.features):
                x = layer(x)
                if i in self.layers:
                    found.append(x)
        return found


class PerceptualLoss(nn.Module):
    """Σ over layers of weight · mean absolute difference of features, for pictures or all frames of clips.

    The published configuration's style weight is 0 and its `norm_img` is off: pictures are in [0, 1], and only ImageNet's mean
    and standard deviation normalise them.

    Args:
        extractor: Returns one tensor for each of `layer_weights`.
        layer_weights: Weight of each layer, 0 or more.

    Raises:
        ValueError: see `checked_weights`.
    """

    def __init__(self, extractor: VGG19Features, *, layer_weights: Sequence[float]) -> None:
        super().__init__()
        self.extractor = extractor
        self.layer_weights = checked_weights(tuple(layer_weights), layers=len(extractor.layers))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) or (N, T, 3, H, W) in [0, 1], twice → scalar."""
        prediction, target = comparable(prediction, target)
        pairs = zip(self.extractor(as_pictures(prediction)), self.extractor(as_pictures(target)), strict=True)
        total = prediction.new_zeros(())
        for weight, (own, other) in zip(self.layer_weights, pairs, strict=True):
            total = total + weight * F.l1_loss(own, other)
        return total


def _stack() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for width, convolutions in _BLOCKS:
        for _ in range(convolutions):
            # Activations must not overwrite the features before them, which are returned.
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=False)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return layers


def _checked_layers(layers: Sequence[int]) -> tuple[int, ...]:
    whole = all(isinstance(layer, int) and 0 <= layer < _LAYERS for layer in layers)
    if not layers or not whole or list(layers) != sorted(set(layers)):
        raise ValueError(f"layers must be ascending whole numbers from 0 to {_LAYERS - 1}, not {tuple(layers)}")
    return tuple(layers)
