"""Features of VGG-19.

Sources: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, arXiv
1409.1556, configuration E. Layers and weights of the perceptual loss: RealBasicVSR's published configuration (K. C. K. Chan et
al., CVPR 2022, arXiv 2111.12704), which uses the features before the activations, as in X. Wang et al., "ESRGAN", ECCV
Workshops 2018, arXiv 1809.00219, section 3.2.

The weights are any file with torchvision's names, `features.0.weight` to `features.34.bias`, such as its `vgg19` (not
`vgg19_bn`); the classifier is not used. They were trained for research.
"""

from __future__ import annotations

from torch import nn

from upframe.models.weights_file import State
from upframe.training.losses.features import FeatureNetwork

_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # width and number of convolutions; each ends with a pooling
_PREFIX = "features."


class VGG19Features(FeatureNetwork):
    """Layers are counted as torchvision does: convolutions, activations and poolings alike. The output of a convolution is the
    feature before the activation."""

    title = "VGG-19"
    advice = "pass torchvision's vgg19, the one without batch normalisation"
    layer_count = 37
    default_layers = (2, 7, 16, 25, 34)
    default_weights = (0.1, 0.1, 1.0, 1.0, 1.0)
    normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @staticmethod
    def stack() -> list[nn.Module]:
        layers: list[nn.Module] = []
        channels = 3
        for width, convolutions in _BLOCKS:
            for _ in range(convolutions):
                # Activations must not overwrite the features before them, which are returned.
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=False)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        return layers

    @staticmethod
    def parameters_in(state: State) -> State:
        return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}

    @staticmethod
    def name_in_file(name: str) -> str:
        return _PREFIX + name
