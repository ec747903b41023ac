"""VapSR: efficient super-resolution with vast-receptive-field pixel attention.

Paper: L. Zhou, H. Cai, J. Gu, Z. Li, Y. Liu, X. Chen, Y. Qiao, C. Dong, "Efficient Image Super-Resolution using
Vast-Receptive-Field Attention", ECCV Workshops 2022, https://arxiv.org/abs/2210.05960.
Official weights: zhoumumu/VapSR; the repository states no licence, so they are loaded from the user's file and never
shipped. This module is written from the paper and numeric fixtures.

Differences from the official code: none in what is computed. Correctness: every tensor of the reference in float32 and
float64, and the published Set5/Set14/BSD100 scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from upframe.nets._layers import DepthwiseConv2d, conv1x1, conv3x3
from upframe.spec import ModelSpec

PAPER = "Efficient Image Super-Resolution using Vast-Receptive-Field Attention, ECCVW 2022, https://arxiv.org/abs/2210.05960"


class VastAttention(nn.Module):
    """Pixel attention over 17×17: point-wise, then 5×5 depth-wise, then 5×5 depth-wise with dilation 3 (paper, §3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pointwise = conv1x1(channels, channels)
        self.depthwise = DepthwiseConv2d(channels, 5)
        self.depthwise_dilated = DepthwiseConv2d(channels, 5, dilation=3)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.depthwise_dilated(self.depthwise(self.pointwise(x)))  # type: ignore[no-any-return]


class PixelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every pixel of (N, C, H, W), the paper's "pixel normalisation"."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class VAB(nn.Module):
    """Vast-receptive-field attention block."""

    def __init__(self, channels: int, attention_channels: int) -> None:
        super().__init__()
        self.proj_1 = conv1x1(channels, attention_channels)
        self.atten_branch = VastAttention(attention_channels)
        self.proj_2 = conv1x1(attention_channels, channels)
        self.pixel_norm = PixelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.proj_2(self.atten_branch(F.gelu(self.proj_1(x))))
        return self.pixel_norm(y + x)  # type: ignore[no-any-return]


class VapSR(nn.Module):
    """(N, C, H, W) → (N, C, scale·H, scale·W), any size ≥ 1.

    Args:
        groups: Groups of the one trailing convolution `conv_body` (2 in VapSR-S).
    """

    def __init__(
        self,
        *,
        channels: int = 48,
        attention_channels: int = 64,
        blocks: int = 21,
        scale: int = 4,
        groups: int = 1,
        colours: int = 3,
    ) -> None:
        super().__init__()
        self.conv_first = conv3x3(colours, channels)
        self.body = nn.Sequential(*(VAB(channels, attention_channels) for _ in range(blocks)))
        self.conv_body = conv3x3(channels, channels, groups=groups)
        if scale == 4:  # two shuffles with 16 channels between them, as in EDSR but narrower
            self.upsampler = nn.Sequential(
                conv3x3(channels, 64),
                nn.PixelShuffle(2),
                nn.LeakyReLU(0.1, inplace=True),
                conv3x3(16, colours * 4),
                nn.PixelShuffle(2),
            )
        else:
            self.upsampler = nn.Sequential(
                conv3x3(channels, 56),
                nn.LeakyReLU(0.1, inplace=True),
                conv3x3(56, colours * scale**2),
                nn.PixelShuffle(scale),
            )

    def forward(self, x: Tensor) -> Tensor:
        head = self.conv_first(x)
        return self.upsampler(self.conv_body(self.body(head)) + head)  # type: ignore[no-any-return]


def receptive_radius(blocks: int) -> int:
    """Input pixels beyond a tile that can change its result, exactly.

    2 + 2·3 for the two 5×5 convolutions of a block, and 1 for each of the four 3×3 convolutions around the body. In the
    ×4 upsampler the second of these works on twice the size, but the pixel it reaches still lies in the next input pixel.
    """
    return 8 * blocks + 4


def configuration(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The arguments of `VapSR` that parameters of these shapes were made with.

    Raises:
        KeyError: a parameter that it has to look at is absent.
        ValueError: shapes that no VapSR has.
    """
    channels, colours = shapes["conv_first.weight"][:2]
    channels_per_group = shapes["conv_body.weight"][1]
    if channels % channels_per_group:
        raise ValueError(f"{channels} channels do not divide into groups of {channels_per_group}")
    if "upsampler.3.weight" in shapes:
        scale = 4
    else:
        outputs = shapes["upsampler.2.weight"][0]
        scale = math.isqrt(outputs // colours)
        if scale < 1 or colours * scale**2 != outputs:
            raise ValueError(f"{outputs} output channels are no square number of {colours}")
    return {
        "channels": channels,
        "attention_channels": shapes["body.0.proj_1.weight"][0],
        "blocks": sum(name.startswith("body.") and name.endswith(".proj_1.weight") for name in shapes),
        "scale": scale,
        "groups": channels // channels_per_group,
        "colours": colours,
    }


def spec_for(
    *, channels: int, attention_channels: int, blocks: int, scale: int, groups: int = 1, colours: int = 3
) -> ModelSpec:
    """The published spec of this size, or one made for it, named for instance `vapsr-c24a32b4-x3`."""
    size = (channels, attention_channels, blocks, groups)
    for spec in SPECS:
        if _SIZES[spec.name] == size and spec.scale == scale and colours == 3:
            return spec
    grouped = "" if groups == 1 else f"g{groups}"
    gray = {1: "-gray", 3: ""}.get(colours, f"-{colours}ch")
    name = f"vapsr-c{channels}a{attention_channels}b{blocks}{grouped}{gray}-x{scale}"
    return _spec(name, size, scale, colours=colours)


def _spec(
    name: str, size: tuple[int, int, int, int], scale: int, *, colours: int = 3, aliases: tuple[str, ...] = ()
) -> ModelSpec:
    channels, attention_channels, blocks, groups = size
    exact_halo_px = receptive_radius(blocks)
    return ModelSpec(
        name=name,
        family="VapSR",
        build=partial(
            VapSR,
            channels=channels,
            attention_channels=attention_channels,
            blocks=blocks,
            scale=scale,
            groups=groups,
            colours=colours,
        ),
        scale=scale,
        halo_px=min(16, exact_halo_px),
        activation_bytes_per_px=3000,  # measured, 288 to 512 px a side, the largest of all variants
        exact_halo_px=exact_halo_px,
        tiling="exact",
        precisions=("fp32", "bf16"),
        bf16_loss_db=_BF16_LOSS_DB.get(name),
        exports=True,
        paper=PAPER,
        licence="none stated",
        channels=colours,
        aliases=aliases,
    )


_SIZES: dict[str, tuple[int, int, int, int]] = {  # channels, channels of the attention, blocks, groups of `conv_body`
    "vapsr-x2": (48, 64, 20, 1),  # the published ×2 and ×3 networks have one block fewer than the paper's 21
    "vapsr-x3": (48, 64, 20, 1),
    "vapsr-x4": (48, 64, 21, 1),
    "vapsr-s-x4": (32, 64, 11, 2),
}

_BF16_LOSS_DB = {  # Set5, sisr-y, official weights, rounded up
    "vapsr-x2": 0.016,
    "vapsr-x3": 0.009,
    "vapsr-x4": 0.005,
    "vapsr-s-x4": 0.007,
}

SPECS: tuple[ModelSpec, ...] = (
    _spec("vapsr-x2", _SIZES["vapsr-x2"], 2, aliases=("VapSR_X2",)),
    _spec("vapsr-x3", _SIZES["vapsr-x3"], 3, aliases=("VapSR_X3",)),
    _spec("vapsr-x4", _SIZES["vapsr-x4"], 4, aliases=("VapSR_X4", "VapSR")),
    _spec("vapsr-s-x4", _SIZES["vapsr-s-x4"], 4, aliases=("VapSR-S", "VapSR_S")),
)
