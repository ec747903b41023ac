"""VapSR: efficient super-resolution with vast-receptive-field pixel attention.

Paper: L. Zhou, H. Cai, J. Gu, Z. Li, Y. Liu, X. Chen, Y. Qiao, C. Dong, "Efficient Image Super-Resolution using
Vast-Receptive-Field Attention", ECCV Workshops 2022, https://arxiv.org/abs/2210.05960.
Official weights: zhoumumu/VapSR; the repository states no licence, so they are loaded from the user's file and never
shipped. This module is written from the paper and numeric fixtures.

Differences from the official code: none in the computation; the arguments in `Ablations` also make the networks that led to the
article's (`training/recipes/presets/vapsr.py` has these steps as recipes). Correctness: every tensor of the reference in
float32 and float64, and the published Set5/Set14/BSD100 scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, TypedDict, Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import DepthwiseConv2d, PixelConv2d, conv1x1, conv3x3, convolved_beside, multiplied
from upframe.models.spec import ModelSpec

PAPER = "Efficient Image Super-Resolution using Vast-Receptive-Field Attention, ECCVW 2022, https://arxiv.org/abs/2210.05960"


class Ablations(TypedDict, total=False):
    """Differences from the published networks; `VapSR` explains them."""

    projection_px: int
    dense_px: int
    dilated_px: int
    attention_last: bool
    pixel_norm: bool
    one_shuffle: bool


class VastAttention(nn.Module):
    """Pixel attention over 17×17: point-wise, then 5×5 depth-wise, then 5×5 depth-wise with dilation 3 (paper, §3.2).

    Args:
        dilated_px: Side of the dilated kernel.
    """

    def __init__(self, channels: int, *, dilated_px: int = 5) -> None:
        super().__init__()
        self.pointwise = conv1x1(channels, channels)
        self.depthwise = DepthwiseConv2d(channels, 5)
        self.depthwise_dilated = DepthwiseConv2d(channels, dilated_px, dilation=3)

    def forward(self, x: Tensor) -> Tensor:
        return multiplied(self.depthwise_dilated(self.depthwise(self.pointwise(x))), x)


class DenseAttention(nn.Module):
    """Pixel attention whose map one convolution makes, from `kernel_px`×`kernel_px` pixels: where the article starts.

    Without a bias: only so do the parameters come to the printed numbers.
    """

    def __init__(self, channels: int, kernel_px: int) -> None:
        super().__init__()
        self.dense = nn.Conv2d(channels, channels, kernel_px, padding=kernel_px // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.dense(x)  # type: ignore[no-any-return]


class PixelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every pixel of (N, C, H, W), the paper's "pixel normalisation"."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class VAB(nn.Module):
    """Vast-receptive-field attention block; the arguments are explained at `VapSR`."""

    def __init__(
        self,
        channels: int,
        attention_channels: int,
        *,
        projection_px: int = 1,
        dense_px: int = 0,
        dilated_px: int = 5,
        attention_last: bool = False,
        pixel_norm: bool = True,
    ) -> None:
        super().__init__()
        self.proj_1 = _projection(channels, attention_channels, projection_px)
        width = channels if attention_last else attention_channels
        attention = DenseAttention(width, dense_px) if dense_px else VastAttention(width, dilated_px=dilated_px)
        self.atten_branch = nn.Identity() if attention_last else attention
        self.proj_2 = _projection(attention_channels, channels, projection_px)
        # Under another name, so that weights tell where the attention sits.
        self.last_atten_branch = attention if attention_last else nn.Identity()
        self.pixel_norm = PixelNorm(channels) if pixel_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.last_atten_branch(self.proj_2(self.atten_branch(F.gelu(self.proj_1(x)))))
        return self.pixel_norm(y.add_(x))  # type: ignore[no-any-return]


def _projection(channels_in: int, channels_out: int, kernel_px: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_px, padding=kernel_px // 2)


class VapSR(nn.Module):
    """(N, C, H, W) → (N, C, scale·H, scale·W), any size ≥ 1.

    Args:
        attention_channels: Between the two projections of a block, where the attention is.
        groups: Groups of the one trailing convolution `conv_body` (2 in VapSR-S).
        projection_px: Side of the projections' kernels; 3 before the article made everything dense small.
        dense_px: Side of one dense convolution that makes the attention's map; 0 is the decomposed form, 1 pixel attention.
        dilated_px: Side of the dilated kernel of the decomposed form.
        attention_last: Whether the attention comes behind the second projection instead of between the two.
        pixel_norm: Whether blocks end in a pixel normalisation.
        one_shuffle: Whether the picture is made by one convolution and one pixel shuffle.

    Raises:
        ValueError: the side of a kernel is even, or an option needs a part that this network does not have.
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
        projection_px: int = 1,
        dense_px: int = 0,
        dilated_px: int = 5,
        attention_last: bool = False,
        pixel_norm: bool = True,
        one_shuffle: bool = False,
    ) -> None:
        super().__init__()
        if any(side < 1 or side % 2 == 0 for side in (projection_px, dense_px or 1, dilated_px)):
            raise ValueError(f"kernels have odd sides, not all of {projection_px}, {dense_px} and {dilated_px} px")
        if dense_px and dilated_px != 5:
            raise ValueError("a dense attention has no dilated kernel")
        block = partial(
            VAB,
            channels,
            attention_channels,
            projection_px=projection_px,
            dense_px=dense_px,
            dilated_px=dilated_px,
            attention_last=attention_last,
            pixel_norm=pixel_norm,
        )
        self.conv_first = PixelConv2d(colours, channels)
        self.body = nn.Sequential(*(block() for _ in range(blocks)))
        self.conv_body = conv3x3(channels, channels, groups=groups)
        if one_shuffle:
            self.upsampler = nn.Sequential(conv3x3(channels, colours * scale**2), nn.PixelShuffle(scale))
        elif scale == 4:  # two shuffles with 16 channels between them, as in EDSR but narrower
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
        return self.upsampler(convolved_beside(self.conv_body, self.body(head), head))  # type: ignore[no-any-return]


def receptive_radius(blocks: int, **ablations: Unpack[Ablations]) -> int:
    """Input pixels beyond a tile that can change its result, exactly.

    2 + 2·3 for the two 5×5 convolutions of a block, and 1 for each of the four 3×3 convolutions around the body. In the
    ×4 upsampler the second of these works on twice the size, but the pixel it reaches still lies in the next input pixel.
    """
    dense_px = ablations.get("dense_px", 0)
    attention = dense_px // 2 if dense_px else 2 + 3 * (ablations.get("dilated_px", 5) // 2)
    projections = 2 * (ablations.get("projection_px", 1) // 2)
    around = 3 if ablations.get("one_shuffle") else 4
    return (projections + attention) * blocks + around


def configuration(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments of `VapSR` for parameters of these shapes; of `Ablations` only those that differ.

    Raises:
        KeyError: a parameter that it has to look at is absent.
        ValueError: shapes that no VapSR has.
    """
    channels, colours = shapes["conv_first.weight"][:2]
    channels_per_group = shapes["conv_body.weight"][1]
    if channels % channels_per_group:
        raise ValueError(f"{channels} channels do not divide into groups of {channels_per_group}")
    ablations = _ablations(shapes)
    if "upsampler.3.weight" in shapes:
        scale = 4
    else:
        outputs = shapes["upsampler.0.weight" if ablations.get("one_shuffle") else "upsampler.2.weight"][0]
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
        **ablations,
    }


def _ablations(shapes: Mapping[str, tuple[int, ...]]) -> Ablations:
    """Return the differences of these shapes from published ones."""
    found: Ablations = {}
    if (projection_px := shapes["body.0.proj_1.weight"][-1]) != 1:
        found["projection_px"] = projection_px
    at = "atten_branch"
    if any(".last_atten_branch." in name for name in shapes):
        found["attention_last"] = True
        at = "last_atten_branch"
    if f"body.0.{at}.dense.weight" in shapes:
        found["dense_px"] = shapes[f"body.0.{at}.dense.weight"][-1]
    elif (dilated_px := shapes[f"body.0.{at}.depthwise_dilated.weight"][-1]) != 5:
        found["dilated_px"] = dilated_px
    if not any(".pixel_norm." in name for name in shapes):
        found["pixel_norm"] = False
    if not any(name.startswith(("upsampler.2.", "upsampler.3.")) for name in shapes):
        found["one_shuffle"] = True
    return found


def spec_for(
    *,
    channels: int,
    attention_channels: int,
    blocks: int,
    scale: int,
    groups: int = 1,
    colours: int = 3,
    **ablations: Unpack[Ablations],
) -> ModelSpec:
    """The published spec of this size, or one made for it, named for instance `vapsr-c24a32b4-x3`.

    Args:
        ablations: As `configuration` finds them: none that are as published.
    """
    size = (channels, attention_channels, blocks, groups)
    for spec in SPECS:
        if _SIZES[spec.name] == size and spec.scale == scale and colours == 3 and not ablations:
            return spec
    grouped = "" if groups == 1 else f"g{groups}"
    gray = {1: "-gray", 3: ""}.get(colours, f"-{colours}ch")
    name = f"vapsr-c{channels}a{attention_channels}b{blocks}{grouped}{gray}{_marks(ablations)}-x{scale}"
    return _spec(name, size, scale, colours=colours, ablations=ablations)


def _marks(ablations: Ablations) -> str:
    """Return the suffix of a name for `ablations`, for instance "-k9-nonorm"."""
    given: Mapping[str, Any] = ablations
    sides = (f"-{mark}{given[key]}" for key, mark in _SIDES.items() if key in given)
    return "".join((*sides, *(f"-{mark}" for key, mark in _CHOICES.items() if key in given)))


_SIDES = {"projection_px": "p", "dense_px": "k", "dilated_px": "d"}
_CHOICES = {"attention_last": "last", "pixel_norm": "nonorm", "one_shuffle": "light"}


def _spec(
    name: str,
    size: tuple[int, int, int, int],
    scale: int,
    *,
    colours: int = 3,
    aliases: tuple[str, ...] = (),
    ablations: Ablations | None = None,
) -> ModelSpec:
    channels, attention_channels, blocks, groups = size
    ablations = ablations or {}
    exact_halo_px = receptive_radius(blocks, **ablations)
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
            **ablations,
        ),
        scale=scale,
        halo_px=min(16, exact_halo_px),
        activation_bytes_per_px=3000,  # measured, 288 to 512 px a side, the largest of all variants
        exact_halo_px=exact_halo_px,
        tiling="exact",
        precisions=("fp32", "bf16"),
        bf16_loss_db=_BF16_LOSS_DB.get(name, (None, None))[0],
        kernels_bf16_loss_db=_BF16_LOSS_DB.get(name, (None, None))[1],
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
    "vapsr-s-x2": (32, 64, 11, 2),  # ×2 and ×3 of VapSR-S are upframe's own
    "vapsr-s-x3": (32, 64, 11, 2),
    "vapsr-s-x4": (32, 64, 11, 2),
}

# Set5, sisr-y, rounded up, in torch and by upframe's kernels; with official weights, for VapSR-S ×2 and ×3 the shipped ones.
_BF16_LOSS_DB = {
    "vapsr-s-x2": (0.026, 0.001),
    "vapsr-s-x3": (0.019, 0.002),
    "vapsr-x2": (0.028, 0.004),
    "vapsr-x3": (0.023, 0.006),
    "vapsr-x4": (0.007, 0.002),
    "vapsr-s-x4": (0.005, 0.005),
}

SPECS: tuple[ModelSpec, ...] = (
    _spec("vapsr-x2", _SIZES["vapsr-x2"], 2, aliases=("VapSR_X2",)),
    _spec("vapsr-x3", _SIZES["vapsr-x3"], 3, aliases=("VapSR_X3",)),
    _spec("vapsr-x4", _SIZES["vapsr-x4"], 4, aliases=("VapSR_X4", "VapSR")),
    _spec("vapsr-s-x2", _SIZES["vapsr-s-x2"], 2),
    _spec("vapsr-s-x3", _SIZES["vapsr-s-x3"], 3),
    _spec("vapsr-s-x4", _SIZES["vapsr-s-x4"], 4, aliases=("VapSR-S", "VapSR_S")),
)
