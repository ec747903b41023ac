"""Facts about RLFN. The network, with paper and differences, is in `architectures/rlfn.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from upframe.models.architectures._rlfn_constants import ESA_CHANNELS, GRID_PX, Block
from upframe.models.family import Family, Shapes, built
from upframe.models.spec import Memory, ModelSpec, SizeRule

if TYPE_CHECKING:
    from torch import Tensor, nn

PAPER = "Residual Local Feature Network for Efficient Super-Resolution, CVPRW 2022, https://arxiv.org/abs/2205.07514"


def network() -> Callable[..., nn.Module]:
    from upframe.models.architectures.rlfn import RLFN

    return RLFN


def reference() -> Callable[..., nn.Module]:
    from upframe.models.reference.rlfn import RLFN

    return RLFN


class Ablations(TypedDict, total=False):
    """Options in which a network may differ from the published ones; explained at the network."""

    block: Block
    esa_channels: int
    esa_convs: int


def fold_value_range(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rewrite official weights, made for 0–255, for [0, 1] in and out; exact up to rounding of the products.

    Only the first convolution sees the input and only the last makes the output. Features between them do not change, so the
    network computes the same function of the same picture. Expects the key names of this module.
    """
    folded = dict(state)
    folded["conv_1.weight"] = state["conv_1.weight"] * 255.0
    folded["upsampler.0.weight"] = state["upsampler.0.weight"] / 255.0
    folded["upsampler.0.bias"] = state["upsampler.0.bias"] / 255.0
    return folded


def ntire_names(name: str) -> str:
    """Rename a parameter of the NTIRE 2022 repository's copy of the network; keep other names."""
    head, dot, tail = name.partition(".")
    renamed = {"fea_conv": "conv_1", "LR_conv": "conv_2"}.get(head, head)
    if head.startswith("B") and head[1:].isdigit():
        renamed = f"block_{head[1:]}"
    return f"{renamed}{dot}{tail}"


_FIRST: dict[Block, str] = {"rlfb": "c1_r.weight", "rfdb": "distil.0.weight", "rfdbr": "refine.0.weight"}


def configuration(shapes: Shapes) -> dict[str, Any]:
    """Infer the arguments of `RLFN` from the shapes of its parameters; of `Ablations` only those that differ from the defaults.

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


def _ablations(shapes: Shapes) -> Ablations:
    """Options in which parameters of these shapes differ from published ones."""
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
    """Find the published spec of this size, or make one, named for instance `rlfn-c32b3-x2`.

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
    """The part of a name that `ablations` add, for instance "-rfdb-esa12x3"."""
    channels, convs = ablations.get("esa_channels", ESA_CHANNELS), ablations.get("esa_convs", 1)
    block = f"-{ablations['block']}" if "block" in ablations else ""
    return block if (channels, convs) == (ESA_CHANNELS, 1) else f"{block}-esa{channels}x{convs}"


def _memory(channels: int) -> tuple[Memory, ...]:
    """Laws of the memory, measured at 300x200 to 800x600 pixels with 46, 48 and 52 channels. ×2 and ×3 take as much as ×4."""
    in_bf16 = -(-channels // 16) * 16  # the kernels hold channels in blocks of 16
    return (
        Memory("fp32", per_px=200 + 25 * channels),
        Memory("fp32", kernels=True, fixed=3e6, per_px=200 + 20 * channels),
        Memory("bf16", kernels=True, fixed=9e6, per_px=200 + 7.5 * in_bf16),
    )


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
            built,
            network,
            channels=channels,
            blocks=blocks,
            scale=scale,
            inner_channels=inner_channels,
            colours=colours,
            **ablations,
        ),
        scale=scale,
        halo_px=16,
        # Measured, 288 to 512 px a side, all three scales. RFDB holds what it has distilled.
        activation_bytes_per_px=2600 if ablations.get("block") == "rfdb" else 2100,
        memory=() if ablations else _memory(channels),
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
        parameters=_PARAMETERS.get(name),
        aliases=aliases,
    )


_SIZES: dict[str, tuple[int, int, int]] = {  # channels, blocks, channels inside a block
    "rlfn": (52, 6, 52),
    "rlfn-s": (48, 6, 48),
    "rlfn-ntire": (46, 4, 48),  # the challenge entry: pruned from 48 channels
}

# Set5, sisr-y, rounded up, in torch and by upframe's kernels; of the official weights, where there are none
# of photo-x2 and photo-x3.
_BF16_LOSS_DB = {
    "rlfn-x2": (0.019, 0.007),
    "rlfn-x4": (0.006, 0.002),
    "rlfn-s-x2": (0.019, 0.009),
    "rlfn-s-x4": (0.008, 0.004),
    "rlfn-ntire-x2": (0.022, 0.002),
    "rlfn-ntire-x3": (0.010, 0.002),
    "rlfn-ntire-x4": (0.014, 0.006),
}

_PARAMETERS = {
    "rlfn-x2": 526_856,
    "rlfn-x3": 533_891,
    "rlfn-x4": 543_740,
    "rlfn-s-x2": 454_620,
    "rlfn-s-x3": 461_115,
    "rlfn-s-x4": 470_208,
    "rlfn-ntire-x2": 302_278,
    "rlfn-ntire-x3": 308_503,
    "rlfn-ntire-x4": 317_218,
}

SPECS: tuple[ModelSpec, ...] = tuple(
    _spec(f"{variant}-x{scale}", size, scale, aliases=(f"{variant.replace('-', '_')}_x{scale}",))
    for variant, size in _SIZES.items()
    for scale in (2, 3, 4)
)

RLFN_FAMILY = Family(
    name="RLFN",
    specs=SPECS,
    network=network,
    signature=("conv_1.weight", "upsampler.0.weight"),
    configuration=configuration,
    spec_for=spec_for,
    reference=reference,
    own_name=ntire_names,
    fold_value_range=fold_value_range,
    recipes="upframe.training.recipes.presets.rlfn",
)
