"""RLFN: residual local feature network for efficient super-resolution.

Paper: F. Kong, M. Li, S. Liu, D. Liu, J. He, Y. Bai, F. Chen, L. Fu, "Residual Local Feature Network for Efficient
Super-Resolution", CVPR Workshops (NTIRE) 2022, https://arxiv.org/abs/2205.07514. Winner of the NTIRE 2022 runtime track.
Official weights: bytedance/RLFN, Apache-2.0; they take and return 0–255, which `fold_value_range` turns into [0, 1].

Differences from the official code: one class serves all three published variants; the value range is [0, 1]; and a tile of a
larger picture can receive its place, which makes tiling exact although ESA stretches its pooled map over the whole picture. The
published networks differ in nothing else; the arguments in `Ablations` also make the blocks that the article compares with its
own. Correctness: every tensor of the reference in float32 and float64, and the published Set5/Set14/BSD100 scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures._layers import (
    PixelConv2d,
    conv1x1,
    conv3x3,
    convolved,
    convolved_beside,
    multiplied,
    multiply_input_by,
)
from upframe.models.spec import ModelSpec, Place, SizeRule

PAPER = "Residual Local Feature Network for Efficient Super-Resolution, CVPRW 2022, https://arxiv.org/abs/2205.07514"
GRID_PX = 6  # ESA pools with stride 2 · 3
ESA_CHANNELS = 16  # §3.2 of the paper: one conv group instead of three, 16 channels throughout
SLOPE = 0.05  # of every LeakyReLU here

Block = Literal["rlfb", "rfdb", "rfdbr"]


class Ablations(TypedDict, total=False):
    """Differences from the published networks; `RLFN` explains them."""

    block: Block
    esa_channels: int
    esa_convs: int


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
            if torch.compiler.is_exporting():  # what _pooled_side promises is beyond a tracer that knows sizes as symbols
                torch._check(down.shape[1] == coarse.shape[2])  # type: ignore[no-untyped-call] # torch left it unannotated
                torch._check(across.shape[1] == coarse.shape[3])  # type: ignore[no-untyped-call]
            wide = down.to(coarse) @ coarse @ across.to(coarse).T  # (h, cells) @ (N, C, cells, cells') @ (cells', w)
        gate: Tensor = self.conv4(self.conv_f(reduced).add_(wide)).sigmoid_()
        return multiplied(gate, x)

    def pooled(self, reduced: Tensor) -> Tensor:
        """The map of cells, each made of pixels in a wide surrounding."""
        return self.conv3(F.max_pool2d(self.conv2(reduced), kernel_size=7, stride=3))  # type: ignore[no-any-return]


Spread = tuple[Tensor, Tensor]
"""Weights (h, cells) and (w, cells') of ESA's pooled cells in each row and column of pixels."""


def spread_in_place(size: Sequence[int], place: Place) -> Spread:
    """Compute `F.interpolate` of the whole picture's pooled map for the part that a tile of `size` covers, in float64.

    The pooled map of a picture has slightly fewer cells than a sixth of its side, and is stretched over all of it; so
    where a cell lands depends on the whole picture. Knowing that, a tile that begins at a multiple of six has the very
    same cells, and only lacks those beyond its halo.
    """
    down, across = (
        _spread_weights(side, _pooled_side(side), origin, whole)
        for side, origin, whole in zip(size, place.origin, place.size, strict=True)
    )
    return down, across


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

    def refined(self, x: Tensor) -> Tensor:
        """Return the residual of the three convolutions for `x`, and `x`."""
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
        block: What blocks are made of: "rlfb" as published, "rfdb" or "rfdbr".
        esa_channels: Channels inside each block's ESA.
        esa_convs: 3×3 convolutions on its pooled map.

    Raises:
        ValueError: an unknown block, one without inner channels is to have some, or numbers that are not positive.
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


def fold_value_range(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official weights, which work on 0–255, rewritten for [0, 1] in and out; exact up to rounding of the products.

    Only the first convolution reads the input and only the last writes the output. The features between them do not change, so
    the network computes the same function of the same picture. Expects the key names of this module.
    """
    folded = dict(state)
    folded["conv_1.weight"] = multiply_input_by(255.0, state["conv_1.weight"])
    folded["upsampler.0.weight"] = state["upsampler.0.weight"] / 255.0
    folded["upsampler.0.bias"] = state["upsampler.0.bias"] / 255.0
    return folded


def ntire_names(name: str) -> str:
    """The name in this module of a parameter of the NTIRE 2022 repository's copy of the network; others stay."""
    head, dot, tail = name.partition(".")
    renamed = {"fea_conv": "conv_1", "LR_conv": "conv_2"}.get(head, head)
    if head.startswith("B") and head[1:].isdigit():
        renamed = f"block_{head[1:]}"
    return f"{renamed}{dot}{tail}"


_FIRST: dict[Block, str] = {"rlfb": "c1_r.weight", "rfdb": "distil.0.weight", "rfdbr": "refine.0.weight"}


def configuration(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the arguments of `RLFN` for parameters of these shapes; of `Ablations` only those that differ.

    Raises:
        KeyError: a parameter that it has to look at is absent.
        ValueError: shapes that no RLFN has.
    """
    channels, colours = shapes["conv_1.weight"][:2]
    outputs = shapes["upsampler.0.weight"][0]
    scale = math.isqrt(outputs // colours)
    if scale < 1 or colours * scale**2 != outputs:
        raise ValueError(f"{outputs} output channels are no square number of {colours}")
    ablations = _ablations(shapes)
    first = _FIRST[ablations.get("block", "rlfb")]
    return {
        "channels": channels,
        "blocks": sum(name.startswith("block_") and name.endswith(f".{first}") for name in shapes),
        "scale": scale,
        "inner_channels": channels if "block" in ablations else shapes["block_1.c1_r.weight"][0],
        "colours": colours,
        **ablations,
    }


def _ablations(shapes: Mapping[str, tuple[int, ...]]) -> Ablations:
    """Return the differences of these shapes from published ones."""
    found: Ablations = {}
    rlfb: Block = "rlfb"
    block = next((block for block, first in _FIRST.items() if f"block_1.{first}" in shapes), rlfb)
    if block != "rlfb":
        found["block"] = block
    esa_channels = shapes.get("block_1.esa.conv1.weight", (ESA_CHANNELS,))[0]
    if esa_channels != ESA_CHANNELS:
        found["esa_channels"] = esa_channels
    esa_convs = sum(name.startswith("block_1.esa.conv3.") and name.endswith(".weight") for name in shapes)
    if esa_convs > 1:
        found["esa_convs"] = esa_convs
    return found


def receptive_radius(blocks: int, **ablations: Unpack[Ablations]) -> int:
    """Input pixels beyond a tile that can change its result, when the network knows the tile's place.

    Each block looks 3 px through its convolutions, and through ESA at the pooled cells around a pixel. Cell i pools
    pixels 6i to 6i + 14 and the 3×3 convolution adds its neighbours. The map of n cells is stretched over H pixels,
    H - 9 - 5 <= 6n <= H - 9, so pixel y takes from cells that begin no further back than y - 28 and end no further on
    than y + 26. The three convolutions around the blocks add 1 px each. RFDB has one convolution more than other blocks, and
    each further one on the pooled map adds a cell.
    """
    convs = 4 if ablations.get("block") == "rfdb" else 3
    pooled = 28 + GRID_PX * (ablations.get("esa_convs", 1) - 1)
    return (convs + pooled) * blocks + 3


def spec_for(
    *,
    channels: int,
    blocks: int,
    scale: int,
    inner_channels: int,
    colours: int = 3,
    **ablations: Unpack[Ablations],
) -> ModelSpec:
    """The published spec of this size, or one made for it, named for instance `rlfn-c32b3-x2`.

    Args:
        ablations: As `configuration` finds them: none that are as published.
    """
    for variant, size in _SIZES.items():
        published = next((spec for spec in SPECS if spec.name == f"{variant}-x{scale}"), None)
        if published is not None and size == (channels, blocks, inner_channels) and colours == 3 and not ablations:
            return published
    inner = "" if inner_channels == channels else f"i{inner_channels}"
    gray = {1: "-gray", 3: ""}.get(colours, f"-{colours}ch")
    name = f"rlfn-c{channels}{inner}b{blocks}{gray}{_marks(ablations)}-x{scale}"
    return _spec(name, (channels, blocks, inner_channels), scale, colours=colours, ablations=ablations)


def _marks(ablations: Ablations) -> str:
    """Return the suffix of a name for `ablations`, for instance "-rfdb-esa12x3"."""
    channels, convs = ablations.get("esa_channels", ESA_CHANNELS), ablations.get("esa_convs", 1)
    block = f"-{ablations['block']}" if "block" in ablations else ""
    return block if (channels, convs) == (ESA_CHANNELS, 1) else f"{block}-esa{channels}x{convs}"


def _spec(
    name: str,
    size: tuple[int, int, int],
    scale: int,
    *,
    colours: int = 3,
    aliases: tuple[str, ...] = (),
    ablations: Ablations | None = None,
) -> ModelSpec:
    channels, blocks, inner_channels = size
    ablations = ablations or {}
    return ModelSpec(
        name=name,
        family="RLFN",
        build=partial(
            RLFN,
            channels=channels,
            blocks=blocks,
            scale=scale,
            inner_channels=inner_channels,
            colours=colours,
            **ablations,
        ),
        scale=scale,
        halo_px=16,
        # Measured, 288 to 512 px a side, all three scales. RFDB keeps its distilled features.
        activation_bytes_per_px=2600 if ablations.get("block") == "rfdb" else 2100,
        exact_halo_px=receptive_radius(blocks, **ablations),
        tiling="exact",
        phase_px=GRID_PX,
        takes_place=True,
        precisions=("fp32", "bf16"),
        bf16_loss_db=_BF16_LOSS_DB.get(name, (None, None))[0],
        kernels_bf16_loss_db=_BF16_LOSS_DB.get(name, (None, None))[1],
        exports=True,
        paper=PAPER,
        licence="Apache-2.0",
        size=SizeRule(minimum=15),  # (15 - 3) // 2 + 1 = 7, the side of the pooling window
        channels=colours,
        aliases=aliases,
    )


_SIZES: dict[str, tuple[int, int, int]] = {  # channels, blocks, channels inside a block
    "rlfn": (52, 6, 52),
    "rlfn-s": (48, 6, 48),
    "rlfn-ntire": (46, 4, 48),  # the challenge entry: pruned from 48 channels
}

# Set5, sisr-y, rounded up, in torch and by upframe's kernels; with official weights, or the shipped photo-x2 and photo-x3
# where there are none.
_BF16_LOSS_DB = {
    "rlfn-x2": (0.019, 0.007),
    "rlfn-x4": (0.006, 0.002),
    "rlfn-s-x2": (0.019, 0.009),
    "rlfn-s-x4": (0.008, 0.004),
    "rlfn-ntire-x2": (0.022, 0.002),
    "rlfn-ntire-x3": (0.010, 0.002),
    "rlfn-ntire-x4": (0.014, 0.006),
}

SPECS: tuple[ModelSpec, ...] = tuple(
    _spec(f"{variant}-x{scale}", size, scale, aliases=(f"{variant.replace('-', '_')}_x{scale}",))
    for variant, size in _SIZES.items()
    for scale in (2, 3, 4)
)
