"""RLFN's contrastive loss: closer to the ground truth and farther from the blurry enlargement, in shallow random features.

Source: F. Kong et al., "Residual Local Feature Network for Efficient Super-Resolution", CVPR Workshops 2022, arXiv
2205.07514, section 3.3 and equation 8. The loss is the sum over the layers j of a feature extractor φ of

    λ_j · d(φ_j(anchor), φ_j(positive)) / d(φ_j(anchor), φ_j(negative)),    d: mean absolute difference,

where the anchor is the network's output, the positive the ground truth, the negative the low-resolution picture enlarged
bicubically. This module is independent of the network.

The article's extractor is Conv 3×3 – Tanh – Conv 3×3 with random, frozen weights. The article does not state the width, the
initialisation, λ, the outputs used as layers, or how the quotient stays finite. upframe's choices, all but the third of them
options: 3 channels, He's normal initialisation without bias, the outputs of Tanh and of the second convolution, λ_j = 1, and
1e-7 added to the denominator.

VGG-19 as extractor is the article's counter-example, which lowers PSNR: layers 1, 3, 5, 9 and 13 in the counting of H. Wu et
al., "Contrastive Learning for Compact Single Image Dehazing", CVPR 2021, arXiv 2104.09367, which counts convolutions from 1.
They are the first convolutions of VGG-19's five blocks; the loss uses their activations, weighted 1/32, 1/16, 1/8, 1/4 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.errors import ModelError
from upframe.training.losses.comparison import as_pictures, checked_weights, comparable
from upframe.training.losses.vgg19 import VGG19Features

EXTRACTORS = ("random", "vgg19")
CHANNELS = 3
SEED = 0
EPS = 1e-7
VGG_LAYERS = (1, 6, 11, 20, 29)
"""relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1, as torchvision counts."""
LAYER_WEIGHTS = {"random": (1.0, 1.0), "vgg19": (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)}


class RandomFeatures(nn.Module):
    """Conv 3×3 – Tanh – Conv 3×3 with random weights that are never trained; its features are the outputs of Tanh and of the
    last convolution.

    Always in full precision, also under autocast.

    Args:
        channels: Width of both layers.
        seed: The same seed gives the same weights on every machine. torch's global generator is not used.

    Raises:
        ValueError: if `channels` is less than 1 or `seed` negative.
    """

    first: Tensor
    second: Tensor

    def __init__(self, *, channels: int = CHANNELS, seed: int = SEED) -> None:
        super().__init__()
        if channels < 1 or seed < 0:
            raise ValueError(f"channels must be 1 or more and seed 0 or more, not {channels} and {seed}")
        generator = torch.Generator(device="cpu").manual_seed(seed)
        for name, inputs in (("first", 3), ("second", channels)):
            weight = torch.empty(channels, inputs, 3, 3, device="cpu")
            nn.init.kaiming_normal_(weight, generator=generator)  # K. He et al., ICCV 2015: σ² = 2 / (9 · inputs)
            # Buffers, so that no optimiser finds them; not saved, because the seed determines them.
            self.register_buffer(name, weight, persistent=False)

    @property
    def layers(self) -> tuple[int, ...]:
        return (1, 2)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """(N, 3, H, W) → two times (N, channels, H, W)."""
        with torch.autocast(pictures.device.type, enabled=False):
            shallow = F.conv2d(pictures.to(self.first.dtype), self.first, padding=1).tanh()
            return [shallow, F.conv2d(shallow, self.second, padding=1)]


Features = RandomFeatures | VGG19Features
"""Feature extractor: pictures (N, 3, H, W) in [0, 1] to features (N, C, h, w), one tensor for each of its `layers`."""


class ContrastiveLoss(nn.Module):
    """Σ_j λ_j · d(φ_j(prediction), φ_j(target)) / (d(φ_j(prediction), φ_j(negative)) + eps).

    Each distance is a mean over the whole batch before the quotient is taken. With a quotient for each picture, flat pictures
    would dominate, because all three distances are small there. On 32 crops of B100 and a result that has 40 % of the lost
    detail, the norms of the crops' gradients then differ 29-fold; with means over the batch they differ 2.3-fold (1.2-fold for
    L1). The disadvantage: the loss of a batch is only approximately the mean of the losses of its parts.

    Args:
        extractor: φ.
        layer_weights: λ_j, chosen by upframe; the article does not give them.
        eps: Number added to the denominator.

    Raises:
        ValueError: if `eps` is not above 0; see also `checked_weights`.
    """

    def __init__(self, extractor: Features, *, layer_weights: Sequence[float], eps: float = EPS) -> None:
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be above 0, not {eps}")
        self.extractor = extractor
        self.layer_weights = checked_weights(tuple(layer_weights), layers=len(extractor.layers))
        self.eps = eps

    def forward(self, prediction: Tensor, target: Tensor, *, negative: Tensor) -> Tensor:
        """(N, 3, H, W) or (N, T, 3, H, W) in [0, 1], three times → scalar, without an upper bound."""
        anchor, positive, negative = (self.extractor(as_pictures(x)) for x in comparable(prediction, target, negative))
        total: Tensor = anchor[0].new_zeros(())
        for weight, own, good, bad in zip(self.layer_weights, anchor, positive, negative, strict=True):
            total = total + weight * F.l1_loss(own, good) / (F.l1_loss(own, bad) + self.eps)
        return total


def make_extractor(
    name: str = "random", *, channels: int | None = None, seed: int | None = None, weights: str | None = None
) -> Features:
    """Make an extractor by name.

    Args:
        name: "random" or "vgg19", with the layers of the article's counter-example.
        channels, seed: For "random" only; by default `CHANNELS` and `SEED`.
        weights: Weights file, for "vgg19" only, which needs it.

    Raises:
        ValueError: if the name is unknown, or the extractor does not take an argument.
        ModelError: if VGG-19 has no weights, or unusable ones.
    """
    if name == "random":
        if weights is not None:
            raise ValueError("the random extractor takes no weights; vgg19 does")
        return RandomFeatures(channels=CHANNELS if channels is None else channels, seed=SEED if seed is None else seed)
    if name != "vgg19":
        raise ValueError(f"there is no extractor {name}; there are {', '.join(EXTRACTORS)}")
    if channels is not None or seed is not None:
        raise ValueError("channels and seed belong to the random extractor, not to vgg19")
    if not weights:
        raise ModelError("VGG-19", "no weights file is given", "name torchvision's vgg19, as .pth or .safetensors")
    return VGG19Features.read(weights, layers=VGG_LAYERS)
