"""The discriminator of real-world training: a U-Net with spectral normalisation that judges every pixel.

Source: X. Wang, L. Xie, C. Dong, Y. Shan, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data",
ICCV Workshops 2021, arXiv 2107.10833, section 3.4 and figure 6; RealBasicVSR (arXiv 2111.12704) trains against the same
network. Spectral normalisation: T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida, "Spectral Normalization for Generative
Adversarial Networks", ICLR 2018, arXiv 1802.05957, algorithm 1.

Difference from the official code: pictures may have any size from 8 px, because each upsampling goes to the size of the skip
connection instead of doubling. Correctness: compared with outputs and norms of both published implementations, in float32 and
float64.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import conv3x3

LEAST_PX = 8
_SLOPE = 0.2
_EPS = 1e-12  # of the normalisations in the power iteration, as in torch and for the published weights


class SpectralConv2d(nn.Module):
    """A convolution without bias whose weight, as a (C_out, C_in·k·k) matrix, is divided by its largest singular value.

    In training mode, each pass improves the singular vectors by one power iteration and keeps them; in evaluation mode they do
    not change. The state's names are those of the published weights: `weight_orig`, `weight_u`, `weight_v`. torch's
    `parametrizations.spectral_norm` uses other names, and its function that uses these is deprecated.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel_px: int, *, stride: int = 1) -> None:
        super().__init__()
        fresh = nn.Conv2d(channels_in, channels_out, kernel_px, bias=False).weight
        self.weight_orig = nn.Parameter(fresh.detach().clone())
        self.register_buffer("weight_u", F.normalize(torch.randn(channels_out), dim=0, eps=_EPS))
        self.register_buffer("weight_v", F.normalize(torch.randn(fresh[0].numel()), dim=0, eps=_EPS))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(), stride=self.stride, padding=1)

    def weight(self) -> Tensor:
        """Return the normalised weight; in training mode, first improve the estimate of its norm."""
        with torch.autocast(self.weight_orig.device.type, enabled=False):  # a norm in bfloat16 is off by half a per cent
            matrix = self.weight_orig.flatten(1)
            if self.training:
                u, v = self._iterated(matrix.detach())
            else:
                u, v = self.weight_u.clone(), self.weight_v.clone()
            return self.weight_orig / torch.dot(u, matrix @ v)

    @torch.no_grad()
    def _iterated(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors after one power iteration, as new tensors. The backward pass needs these values, and another
        forward pass may change the buffers before it."""
        v = F.normalize(matrix.T @ self.weight_u, dim=0, eps=_EPS)
        u = F.normalize(matrix @ v, dim=0, eps=_EPS)
        self.weight_u.copy_(u)
        self.weight_v.copy_(v)
        return u, v


class UNetDiscriminator(nn.Module):
    """Scores each pixel by how much it looks like one of a true picture.

    Its weights load under the names of both published implementations, `conv0` … `conv9` and `conv_0` … `conv_9`, and are saved
    under the names of the first.

    Args:
        channels: Width of its first layer; the deepest has eight times as many.
    """

    def __init__(self, *, channels: int = 64) -> None:
        super().__init__()
        self.conv0 = conv3x3(3, channels)
        self.conv1 = SpectralConv2d(channels, channels * 2, 4, stride=2)
        self.conv2 = SpectralConv2d(channels * 2, channels * 4, 4, stride=2)
        self.conv3 = SpectralConv2d(channels * 4, channels * 8, 4, stride=2)
        self.conv4 = SpectralConv2d(channels * 8, channels * 4, 3)
        self.conv5 = SpectralConv2d(channels * 4, channels * 2, 3)
        self.conv6 = SpectralConv2d(channels * 2, channels, 3)
        self.conv7 = SpectralConv2d(channels, channels, 3)
        self.conv8 = SpectralConv2d(channels, channels, 3)
        self.conv9 = conv3x3(channels, 1)
        self.register_load_state_dict_pre_hook(_take_either_name)  # type: ignore[no-untyped-call]

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], sides of 8 px or more → (N, 1, H, W) scores before a sigmoid.

        Raises:
            ValueError: if a side is smaller.
        """
        if min(pictures.shape[-2:]) < LEAST_PX:
            raise ValueError(f"the discriminator needs {LEAST_PX} px a side, not {tuple(pictures.shape[-2:])}")
        full = _active(self.conv0(pictures))
        half = _active(self.conv1(full))
        quarter = _active(self.conv2(half))
        x = _active(self.conv3(quarter))  # (N, 8·channels, H/8, W/8)
        for skip, conv in ((quarter, self.conv4), (half, self.conv5), (full, self.conv6)):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = _active(conv(x)) + skip
        x = _active(self.conv8(_active(self.conv7(x))))
        scores: Tensor = self.conv9(x)
        return scores


def _active(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)


def _take_either_name(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Rename conv_3 to conv3 in the copy of a state that is about to be loaded."""
    pattern = re.compile(re.escape(prefix) + r"conv_(\d\..*)")
    for name in [name for name in state if pattern.fullmatch(name)]:
        state[pattern.sub(rf"{prefix}conv\1", name)] = state.pop(name)
