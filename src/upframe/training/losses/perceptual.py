"""The perceptual loss: distance between two pictures in the features of a frozen network.

Source: J. Johnson, A. Alahi, L. Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016,
arXiv 1603.08155. The file that a recipe names decides the network: VGG-19 as in RealBasicVSR, or EfficientNet-Lite0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.errors import ModelError
from upframe.models.weights_file import read_state
from upframe.training.losses.comparison import as_pictures, checked_weights, comparable
from upframe.training.losses.efficientnet import EfficientNetLite0Features
from upframe.training.losses.features import FeatureNetwork
from upframe.training.losses.vgg19 import VGG19Features

_NETWORKS: dict[str, type[FeatureNetwork]] = {
    "features.0.weight": VGG19Features,
    "_conv_stem.weight": EfficientNetLite0Features,
}
"""Networks by a parameter that only their files have."""


def read_perceptual(
    path: str | Path, *, layers: Sequence[int] | None = None, layer_weights: Sequence[float] | None = None
) -> PerceptualLoss:
    """Read the feature network in a file, whichever it is, and return the loss in its features.

    Args:
        layers, layer_weights: By default those of the network.

    Raises:
        ValueError: if there are layers without weights, or see `FeatureNetwork` and `checked_weights`.
        ModelError: if the file is missing, damaged, unsafe or holds no such network.
    """
    if layers is not None and layer_weights is None:
        raise ValueError("layers without layer_weights")
    state = read_state(path)
    network = next((network for name, network in _NETWORKS.items() if name in state), None)
    if network is None:
        titles = " or ".join(known.title for known in _NETWORKS.values())
        raise ModelError(path, f"holds no {titles}", "; or ".join(known.advice for known in _NETWORKS.values()))
    extractor = network(state, layers=network.default_layers if layers is None else layers, subject=path)
    return PerceptualLoss(extractor, layer_weights=network.default_weights if layer_weights is None else layer_weights)


class PerceptualLoss(nn.Module):
    """Σ over layers of weight · mean absolute difference of features, for pictures or all frames of clips.

    RealBasicVSR's style weight is 0 and its `norm_img` is off: pictures are in [0, 1], and only the network's mean and
    standard deviation normalise them.

    Args:
        extractor: Returns one tensor for each of `layer_weights`.
        layer_weights: Weight of each layer, 0 or more.

    Raises:
        ValueError: see `checked_weights`.
    """

    def __init__(self, extractor: FeatureNetwork, *, layer_weights: Sequence[float]) -> None:
        super().__init__()
        self.extractor = extractor
        self.layer_weights = checked_weights(tuple(layer_weights), layers=len(extractor.layers))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) or (N, T, 3, H, W) in [0, 1], twice → scalar."""
        prediction, target = (as_pictures(x) for x in comparable(prediction, target))
        if self.training and self.extractor.jitter_px > 1:
            top, left = torch.randint(self.extractor.jitter_px, (2,)).tolist()
            prediction, target = prediction[..., top:, left:], target[..., top:, left:]
        pairs = zip(self.extractor(prediction), self.extractor(target), strict=True)
        total = prediction.new_zeros(())
        for weight, (own, other) in zip(self.layer_weights, pairs, strict=True):
            total = total + weight * F.l1_loss(own, other)
        return total
