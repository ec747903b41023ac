"""RLFN: residual local feature network for efficient super-resolution.

Paper: F. Kong, M. Li, S. Liu, D. Liu, J. He, Y. Bai, F. Chen, L. Fu, "Residual Local Feature Network for Efficient
Super-Resolution", CVPR Workshops (NTIRE) 2022, https://arxiv.org/abs/2205.07514. Winner of the NTIRE 2022 runtime track.
Official weights: bytedance/RLFN, Apache-2.0; they take and return 0–255, which `families/rlfn.py` turns into [0, 1].

Differences from the official code: one class serves all three published variants; the value range is [0, 1]; and a tile
of a larger picture can be told its place in it, which makes tiling exact although ESA stretches its pooled map over the
whole picture. Nothing else in the published networks; the arguments in `families.rlfn.Ablations` also make those with the
blocks that the article compares its own with. Correctness: every tensor of the reference in float32 and float64, and the
published Set5/Set14/BSD100 scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import conv1x1, conv3x3, convolved, convolved_beside, multiplied
from upframe.models.architectures._rlfn_constants import ESA_CHANNELS, GRID_PX, Block
from upframe.models.interfaces import SpatialAttention
from upframe.models.layers import PixelConv2d
from upframe.models.spec import Place

SLOPE = 0.05  # of every LeakyReLU here


class ESA(nn.Module):
    """Enhanced spatial attention with a single convolution in its group (paper, fig. 4c).

    Args:
        reduced: Channels inside.
        convs: 3×3 convolutions on the pooled map, with ReLUs between them; 3 as RFDB has it.
    """

    def __init__(self, channels: int, *, reduced: int = ESA_CHANNELS, convs: int = 1) -> None:
        super().__init__()
        self.conv1 = conv1x1(channels, reduced)
        self.conv_f = conv1x1(reduced, reduced)
        self.conv2 = nn.Conv2d(reduced, reduced, 3, stride=2, padding=0)
        group = [layer for _ in range(convs) for layer in (nn.ReLU(inplace=True), conv3x3(reduced, reduced))][1:]
        self.conv3 = group[0] if convs == 1 else nn.Sequential(*group)
        self.conv4 = conv1x1(reduced, channels)

    def forward(self, x: Tensor, spread: Spread | None = None) -> Tensor:
        reduced = self.conv1(x)
        coarse = self.pooled(reduced)
        if spread is None:
            wide = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
        else:
            down, across = spread
            if torch.compiler.is_exporting():  # a tracer with symbolic sizes cannot derive the guarantee of _pooled_side
                torch._check(down.shape[1] == coarse.shape[2])  # type: ignore[no-untyped-call] # torch left it unannotated
                torch._check(across.shape[0] == coarse.shape[3])  # type: ignore[no-untyped-call]
            wide = down.to(coarse) @ coarse @ across.to(coarse)  # (h, cells) @ (N, C, cells, cells') @ (cells', w)
        gate: Tensor = self.conv4(self.conv_f(reduced).add_(wide)).sigmoid_()
        return multiplied(gate, x)

    def pooled(self, reduced: Tensor) -> Tensor:
        """The map of cells, each made of pixels in a wide surrounding."""
        return self.conv3(F.max_pool2d(self.conv2(reduced), kernel_size=7, stride=3))  # type: ignore[no-any-return]


Spread = tuple[Tensor, Tensor]
"""Weights (h, cells) and (cells', w) of ESA's pooled cells in each row and column of pixels."""


def spread_in_place(size: Sequence[int], place: Place) -> Spread:
    """Compute `F.interpolate` of the whole picture's pooled map for the part that a tile of `size` covers, in float64.

    The pooled map of a picture has slightly fewer cells than a sixth of its side, and is stretched over the whole picture, so
    the position of a cell depends on the picture's size. With that size, a tile that begins at a multiple of six has the same
    cells, and lacks only those beyond its halo.
    """
    down, across = (
        _spread_weights(side, _pooled_side(side), origin, whole)
        for side, origin, whole in zip(size, place.origin, place.size, strict=True)
    )
    return down, across.T.contiguous()


def _spread_weights(side: int, cells_here: int, origin: int, whole: int) -> Tensor:
    """(side, cells_here): weight of each of the tile's cells in each of its pixels, bilinear, half-pixel centres."""
    if origin % GRID_PX:
        raise ValueError(f"a tile must begin at a multiple of {GRID_PX} px, not at {origin}")
    cells = _pooled_side(whole)
    position = (torch.arange(origin, origin + side, dtype=torch.float64) + 0.5) * cells / whole - 0.5
    position = (position.clamp(0, cells - 1) - origin // GRID_PX).clamp(0, cells_here - 1)
    return (1 - (position[:, None] - torch.arange(cells_here)).abs()).clamp_min(0)


def _pooled_side(side: int) -> int:
    """Cells of ESA's pooled map along a side: a 3-wide convolution with stride 2, then 7-wide pooling with stride 3."""
    return ((side - 3) // 2 + 1 - 7) // 3 + 1


class RLFB(nn.Module):
    """Residual local feature block: three convolutions, the block's input added, a fusion and ESA (paper, fig. 3b)."""

    def __init__(self, channels: int, inner_channels: int, *, esa_channels: int = ESA_CHANNELS, esa_convs: int = 1) -> None:
        super().__init__()
        self.c1_r = conv3x3(channels, inner_channels)
        self.c2_r = conv3x3(inner_channels, inner_channels)
        self.c3_r = conv3x3(inner_channels, channels)
        self.c5 = conv1x1(channels, channels)
        self.esa = ESA(channels, reduced=esa_channels, convs=esa_convs)

    def forward(self, x: Tensor, spread: Spread | None = None) -> Tensor:
        return self.esa(self.c5(self.refined(x)), spread)  # type: ignore[no-any-return]

    def kernel_form(self) -> SpatialAttention | None:
        esa = self.esa
        if not isinstance(esa.conv3, nn.Conv2d):
            return None  # the kernels' grid is made by one convolution
        return SpatialAttention(
            refined=self.refined,
            fusion=self.c5,
            reduce=esa.conv1,
            skip=esa.conv_f,
            expand=esa.conv4,
            pooled=esa.pooled,
            spread_in_place=spread_in_place,
        )

    def refined(self, x: Tensor) -> Tensor:
        """Add the result of the three convolutions to `x`."""
        y = convolved(self.c1_r, x, slope=SLOPE)
        y = convolved(self.c2_r, y, slope=SLOPE)
        return convolved_beside(self.c3_r, y, x, slope=SLOPE)


class RFDB(nn.Module):
    """Residual feature distillation block, which RLFB was made from.

    Three shallow residual blocks (a convolution plus its input) refine the features, and before each a 1×1 convolution distils
    half the channels of the block's input. A 3×3 convolution reduces the last refined features. All distilled features are
    fused; ESA follows.

    J. Liu, J. Tang, G. Wu, "Residual Feature Distillation Network for Lightweight Image Super-Resolution", ECCVW 2020,
    https://arxiv.org/abs/2009.11551.
    """

    def __init__(self, channels: int, *, esa_channels: int, esa_convs: int) -> None:
        super().__init__()
        kept = channels // 2
        self.distil = nn.ModuleList(conv1x1(channels, kept) for _ in range(3))
        self.refine = nn.ModuleList(conv3x3(channels, channels) for _ in range(3))
        self.last = conv3x3(channels, kept)
        self.fuse = conv1x1(4 * kept, channels)
        self.esa = ESA(channels, reduced=esa_channels, convs=esa_convs)

    def forward(self, x: Tensor, spread: Spread | None = None) -> Tensor:
        parts = []
        for distil, refine in zip(self.distil, self.refine, strict=True):
            parts.append(F.leaky_relu_(distil(x), SLOPE))
            x = F.leaky_relu_(refine(x) + x, SLOPE)
        parts.append(F.leaky_relu_(self.last(x), SLOPE))
        return self.esa(self.fuse(torch.cat(parts, dim=1)), spread)  # type: ignore[no-any-return]


class RFDBR(nn.Module):
    """RFDB without distillation: three shallow residual blocks, a fusion and ESA. RLFB adds once instead of three times."""

    def __init__(self, channels: int, *, esa_channels: int, esa_convs: int) -> None:
        super().__init__()
        self.refine = nn.ModuleList(conv3x3(channels, channels) for _ in range(3))
        self.fuse = conv1x1(channels, channels)
        self.esa = ESA(channels, reduced=esa_channels, convs=esa_convs)

    def forward(self, x: Tensor, spread: Spread | None = None) -> Tensor:
        for refine in self.refine:
            x = F.leaky_relu_(refine(x) + x, SLOPE)
        return self.esa(self.fuse(x), spread)  # type: ignore[no-any-return]


class RLFN(nn.Module):
    """(N, C, H, W) → (N, C, scale·H, scale·W); H, W ≥ 15.

    Args:
        inner_channels: Channels between the convolutions of a block; differs from `channels` in the NTIRE variant only.
        block: Kind of blocks: "rlfb" as published, "rfdb" or "rfdbr".
        esa_channels: Channels inside each block's ESA.
        esa_convs: 3×3 convolutions on its pooled map.

    Raises:
        ValueError: an unknown block, inner channels for a block that has none, or numbers that are not positive.
    """

    def __init__(
        self,
        *,
        channels: int = 52,
        blocks: int = 6,
        scale: int = 4,
        inner_channels: int | None = None,
        colours: int = 3,
        block: Block = "rlfb",
        esa_channels: int = ESA_CHANNELS,
        esa_convs: int = 1,
    ) -> None:
        super().__init__()
        if block != "rlfb" and inner_channels not in (None, channels):
            raise ValueError(f"a block {block} has no inner channels")
        if min(esa_channels, esa_convs) < 1:
            raise ValueError(f"ESA needs a channel and a convolution, not {esa_channels} and {esa_convs}")
        kinds: dict[Block, Callable[..., nn.Module]] = {
            "rlfb": partial(RLFB, channels, inner_channels or channels),
            "rfdb": partial(RFDB, channels),
            "rfdbr": partial(RFDBR, channels),
        }
        if block not in kinds:
            raise ValueError(f"there is no block {block}, only {', '.join(kinds)}")
        self.blocks = blocks
        self.conv_1 = PixelConv2d(colours, channels)
        for i in range(1, blocks + 1):
            self.add_module(f"block_{i}", kinds[block](esa_channels=esa_channels, esa_convs=esa_convs))
        self.conv_2 = conv3x3(channels, channels)
        self.upsampler = nn.Sequential(conv3x3(channels, colours * scale**2), nn.PixelShuffle(scale))

    def place_tensors(self, size: Sequence[int], place: Place) -> Spread:
        """Make the `place` argument of `forward` for a tile of `size` (height, width)."""
        return spread_in_place(size, place)

    def forward(self, x: Tensor, place: Place | Spread | None = None) -> Tensor:
        """Run on `x`. For a tile of a larger picture, `place` states its position, as a `Place` or as `place_tensors`."""
        spread = self.place_tensors(x.shape[-2:], place) if isinstance(place, Place) else place
        head = self.conv_1(x)
        y = head
        for i in range(1, self.blocks + 1):
            y = self.get_submodule(f"block_{i}")(y, spread)
        return self.upsampler(convolved_beside(self.conv_2, y, head))  # type: ignore[no-any-return]
