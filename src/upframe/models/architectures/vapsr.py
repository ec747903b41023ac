"""VapSR: efficient super-resolution with vast-receptive-field pixel attention.

Paper: L. Zhou, H. Cai, J. Gu, Z. Li, Y. Liu, X. Chen, Y. Qiao, C. Dong, "Efficient Image Super-Resolution using
Vast-Receptive-Field Attention", ECCV Workshops 2022, https://arxiv.org/abs/2210.05960.
Official weights: zhoumumu/VapSR; the repository states no licence, so they are loaded from the user's file and never
shipped. This module is written from the paper and numeric fixtures.

Differences from the official code: none in what is computed; the arguments in `families.vapsr.Ablations` also make the
networks of the paper's ablations (`training/recipes/presets/vapsr.py` has its steps as recipes). Correctness: every tensor
of the reference in float32 and float64, and the published Set5/Set14/BSD100 scores.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import DepthwiseConv2d, conv1x1, conv3x3, convolved_beside, multiplied
from upframe.models.interfaces import PixelAttentionBlock, PixelAttentionBlocks
from upframe.models.layers import PixelConv2d


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
    """Pixel attention with a map from one `kernel_px`×`kernel_px` convolution: the starting point of the paper.

    Without a bias: only then is the number of parameters that of the paper.
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
        # another name, so that weights show the position of the attention
        self.last_atten_branch = attention if attention_last else nn.Identity()
        self.pixel_norm = PixelNorm(channels) if pixel_norm else nn.Identity()

    def kernel_form(self) -> PixelAttentionBlock | None:
        """The block's layers, if it is the published block."""
        attention, norm = self.atten_branch, self.pixel_norm
        if not (
            isinstance(attention, VastAttention)
            and isinstance(norm, PixelNorm)
            and isinstance(self.last_atten_branch, nn.Identity)
            and self.proj_1.kernel_size == (1, 1)
            and attention.depthwise_dilated.kernel_size == (5, 5)
        ):
            return None
        return PixelAttentionBlock(
            project=self.proj_1,
            pointwise=attention.pointwise,
            depthwise=attention.depthwise,
            depthwise_dilated=attention.depthwise_dilated,
            project_back=self.proj_2,
            norm=norm,
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.last_atten_branch(self.proj_2(self.atten_branch(F.gelu(self.proj_1(x)))))
        return self.pixel_norm(y.add_(x))  # type: ignore[no-any-return]


def _projection(channels_in: int, channels_out: int, kernel_px: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_px, padding=kernel_px // 2)


class Body(nn.Sequential):
    """The blocks, one after the other."""

    def kernel_form(self) -> PixelAttentionBlocks | None:
        forms = [block.kernel_form() for block in self if isinstance(block, VAB)]
        known = tuple(form for form in forms if form is not None)
        return PixelAttentionBlocks(known) if known and len(known) == len(self) else None


class VapSR(nn.Module):
    """(N, C, H, W) → (N, C, scale·H, scale·W), any size ≥ 1.

    Args:
        attention_channels: Between the two projections of a block, where the attention is.
        groups: Groups of the one trailing convolution `conv_body` (2 in VapSR-S).
        projection_px: Side of the projections' kernels: 1 as published, 3 in the paper's starting point.
        dense_px: Side of the dense convolution that makes the attention's map; 0 is the decomposed form, 1 pixel attention.
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
        self.body = Body(*(block() for _ in range(blocks)))
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
