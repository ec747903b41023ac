"""Facts about VapSR. The network, with paper and differences, is in `architectures/vapsr.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from upframe.models.family import Family, Shapes, built
from upframe.models.spec import Memory, ModelSpec

if TYPE_CHECKING:
    from torch import nn

PAPER = "Efficient Image Super-Resolution using Vast-Receptive-Field Attention, ECCVW 2022, https://arxiv.org/abs/2210.05960"


def network() -> Callable[..., nn.Module]:
    from upframe.models.architectures.vapsr import VapSR

    return VapSR


def reference() -> Callable[..., nn.Module]:
    from upframe.models.reference.vapsr import VapSR

    return VapSR


class Ablations(TypedDict, total=False):
    """Options in which a network may differ from the published ones; explained at the network."""

    projection_px: int
    dense_px: int
    dilated_px: int
    attention_last: bool
    pixel_norm: bool
    one_shuffle: bool


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


def configuration(shapes: Shapes) -> dict[str, Any]:
    """Infer the arguments of `VapSR` from the shapes of its parameters; of `Ablations` only those that differ from the
    defaults.

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


def _ablations(shapes: Shapes) -> Ablations:
    """Options in which parameters of these shapes differ from published ones."""
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
    """Find the published spec of this size, or make one, named for instance `vapsr-c24a32b4-x3`.

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
    """The part of a name that `ablations` add, for instance "-k9-nonorm"."""
    given: Mapping[str, Any] = ablations
    sides = (f"-{mark}{given[key]}" for key, mark in _SIDES.items() if key in given)
    return "".join((*sides, *(f"-{mark}" for key, mark in _CHOICES.items() if key in given)))


_SIDES = {"projection_px": "p", "dense_px": "k", "dilated_px": "d"}
_CHOICES = {"attention_last": "last", "pixel_norm": "nonorm", "one_shuffle": "light"}


def _memory(channels: int) -> tuple[Memory, ...]:
    """Laws of the memory, measured at 300x200 and 600x400 pixels with 32 and 48 channels. ×2 takes as much as ×4."""
    return (
        Memory("fp32", per_px=2000),
        Memory("fp32", kernels=True, fixed=7e6, per_px=500 + 12 * channels),
        Memory("bf16", kernels=True, fixed=9e6, per_px=370 + 6.2 * channels),
    )


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
            built,
            network,
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
        memory=() if ablations else _memory(channels),
        exact_halo_px=exact_halo_px,
        tiling="exact",
        precisions=("fp32", "bf16"),
        bf16_loss_db=_BF16_LOSS_DB.get(name, (None, None))[0],
        kernels_bf16_loss_db=_BF16_LOSS_DB.get(name, (None, None))[1],
        exports=True,
        paper=PAPER,
        licence="none stated",
        channels=colours,
        parameters=_PARAMETERS.get(name),
        aliases=aliases,
    )


_SIZES: dict[str, tuple[int, int, int, int]] = {  # channels, channels of the attention, blocks, groups of `conv_body`
    "vapsr-x2": (48, 64, 20, 1),  # the published ×2 and ×3 networks have one block fewer than the paper's 21
    "vapsr-x3": (48, 64, 20, 1),
    "vapsr-x4": (48, 64, 21, 1),
    "vapsr-s-x2": (32, 64, 11, 2),  # ×2 and ×3 of VapSR-S are upframe's
    "vapsr-s-x3": (32, 64, 11, 2),
    "vapsr-s-x4": (32, 64, 11, 2),
}

# Set5, sisr-y, rounded up, in torch and by upframe's kernels; official weights, of VapSR-S ×2 and ×3 upframe's.
_BF16_LOSS_DB = {
    "vapsr-s-x2": (0.026, 0.001),
    "vapsr-s-x3": (0.019, 0.002),
    "vapsr-x2": (0.028, 0.004),
    "vapsr-x3": (0.023, 0.006),
    "vapsr-x4": (0.007, 0.002),
    "vapsr-s-x4": (0.005, 0.005),
}

_PARAMETERS = {
    "vapsr-x2": 329_236,
    "vapsr-x3": 336_811,
    "vapsr-x4": 342_220,
    "vapsr-s-x2": 156_964,
    "vapsr-s-x3": 164_539,
    "vapsr-s-x4": 154_956,
}

SPECS: tuple[ModelSpec, ...] = (
    _spec("vapsr-x2", _SIZES["vapsr-x2"], 2, aliases=("VapSR_X2",)),
    _spec("vapsr-x3", _SIZES["vapsr-x3"], 3, aliases=("VapSR_X3",)),
    _spec("vapsr-x4", _SIZES["vapsr-x4"], 4, aliases=("VapSR_X4", "VapSR")),
    _spec("vapsr-s-x2", _SIZES["vapsr-s-x2"], 2),
    _spec("vapsr-s-x3", _SIZES["vapsr-s-x3"], 3),
    _spec("vapsr-s-x4", _SIZES["vapsr-s-x4"], 4, aliases=("VapSR-S", "VapSR_S")),
)

VAPSR_FAMILY = Family(
    name="VapSR",
    specs=SPECS,
    network=network,
    signature=("conv_first.weight", "conv_body.weight", "body.0.proj_1.weight"),
    configuration=configuration,
    spec_for=spec_for,
    reference=reference,
    recipes="upframe.training.recipes.presets.vapsr",
)
