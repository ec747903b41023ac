"""Facts about VRT. The network, with paper and differences, is in `architectures/vrt.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

from upframe.models.architectures._vrt_constants import (
    BIAS_TABLE,
    FIRST_GROUP,
    MULTIPLE,
    SECOND_GROUP,
    table_frames,
    table_side,
)
from upframe.models.family import Family, Shapes, built
from upframe.models.spec import Memory, ModelSpec, SizeRule, Task, Window

if TYPE_CHECKING:
    from torch import Tensor, nn

    from upframe.models.architectures._published_tiling import Run
    from upframe.models.architectures._window_attention import Size3

PAPER = "VRT: A Video Restoration Transformer, IEEE TIP 2024, https://arxiv.org/abs/2201.12288"
LICENCE = "CC BY-NC 4.0 (weights; non-commercial); the SPyNet inside: non-commercial research only, no redistribution"


def network() -> Callable[..., nn.Module]:
    from upframe.models.architectures.vrt import VRT

    return VRT


def reference() -> Callable[..., nn.Module]:
    from upframe.models.reference.vrt import VRT

    return VRT


def complete(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add to `state` the constants that the network keeps among its weights, if a file omits them."""
    from upframe.models.architectures._vrt_weights import complete

    return complete(state)


class Arguments(TypedDict):
    """Arguments of `VRT` that show in its parameters, as numbers, the only values that cards hold."""

    scale: int
    window_frames: int
    window_px: int
    width: int
    depth: int
    mutual_depth: int
    tail_width: int
    tail_depth: int
    tail_layers: int
    single_frame_layers: int
    heads: int
    mlp_ratio: int
    warped_frames: int
    deformable_groups: int
    takes_sigma: int
    qkv_bias: int


def configuration(shapes: Shapes) -> dict[str, int]:
    """Infer the arguments of `VRT` from the shapes of its parameters; windows are assumed to be square.

    Raises:
        KeyError: a required parameter is absent. ValueError: shapes contradict each other.
    """
    mutual, others = (_count(shapes, group, ".norm1.weight") for group in (FIRST_GROUP, SECOND_GROUP))
    rows, heads = shapes[f"{FIRST_GROUP}0.attn.{BIAS_TABLE}"]
    side = table_side(rows)
    width, given = shapes["conv_first.weight"][:2]
    layers = _count(shapes, "stage8.", ".linear.weight")
    tables = [shapes[f"stage8.{i + 1}.residual_group.blocks.0.attn.{BIAS_TABLE}"][0] for i in range(layers)]
    found: Arguments = {
        "scale": _scale(shapes),
        "window_frames": table_frames(shapes[f"{SECOND_GROUP}0.attn.{BIAS_TABLE}"][0], side),
        "window_px": side,
        "width": width,
        "depth": mutual + others,
        "mutual_depth": mutual,
        "tail_width": shapes["norm.weight"][0],
        "tail_depth": _count(shapes, "stage8.1.residual_group.blocks.", ".norm1.weight"),
        "tail_layers": layers,
        "single_frame_layers": sum(table_frames(rows, side) == 1 for rows in tables),
        "heads": heads,
        "mlp_ratio": shapes[f"{FIRST_GROUP}0.mlp.fc11.weight"][0] // width,
        "warped_frames": 0,
        "deformable_groups": 12,
        "takes_sigma": 0,
        "qkv_bias": int(f"{FIRST_GROUP}0.attn.qkv_self.bias" in shapes),
    }
    if "spynet.basic_module.0.basic_module.0.weight" in shapes:
        # The network for offsets is given C + 2 channels for each source and C for the frame itself.
        found["warped_frames"] = 2 * ((shapes["stage1.pa_deform.conv_offset.0.weight"][1] - width) // (width + 2))
        found["deformable_groups"] = shapes["stage1.pa_deform.conv_offset.6.weight"][0] // 27
        found["takes_sigma"] = given - 27
    return {name: number for name, number in found.items() if isinstance(number, int)}


def _count(names: Iterable[str], start: str, end: str) -> int:
    return sum(name.startswith(start) and name.endswith(end) for name in names)


def _scale(shapes: Shapes) -> int:
    """From the convolutions in front of pixel shuffles, which make s² times their channels."""
    made = [shape for name, shape in shapes.items() if name.startswith("upsample.") and name.endswith(".weight")]
    return math.prod(math.isqrt(shape[0] // shape[1]) for shape in made)


# Specs ----------------------------------------------------------------------------------------------------------------
def spec_for(**arguments: Unpack[Arguments]) -> ModelSpec:
    """The published spec of the network that `VRT` makes of these arguments, or one made for it, named for instance
    `vrt-c24d4-x4`.

    Weights for the two degradations of Vimeo-90K (003, 004) have the same shapes, and so do those for deblurring (005, 006,
    007): they run alike, and facts about one hold for the others. The first of `SPECS` represents them all.
    """
    for spec in SPECS:
        if cast("partial[nn.Module]", spec.build).keywords == arguments:
            return spec
    scale = arguments["scale"]
    task: Task = "upscale" if scale > 1 else "deblur"
    if not arguments["warped_frames"]:
        task = "interpolate"
    elif arguments["takes_sigma"]:
        task = "denoise"
    name = f"vrt-c{arguments['width']}d{arguments['depth']}-" + (f"x{scale}" if scale > 1 else task)
    return _spec(name, task, arguments)


def as_published(clip: Tensor, run: Run, *, tile: Size3, scale: int, window: Size3) -> Iterator[Tensor]:
    """Make the frames of a clip as for the published scores: in pieces of `tile` that share 2 frames and 20 px."""
    from upframe.models.architectures._published_tiling import vrt_tiles

    yield from vrt_tiles(clip, run, tile=tile, overlap=(2, 20, 20), scale=scale, window=window).unbind(1)


# Memory as measured with the published widths. The number of blocks makes no difference, nor do further frames to align. In
# half precision features stay float32, so little is saved.
_ENLARGES = (
    Memory(fixed=86e6, per_px=12_500, per_px_frame=1900),
    Memory("bf16", fixed=86e6, per_px=11_300, per_px_frame=1900),
)
_RESTORES = (Memory(fixed=72e6, per_px=11_000, per_px_frame=1850),)
_INTERPOLATES = (Memory(fixed=43e6, per_px_frame=2240), Memory("bf16", fixed=72e6, per_px_frame=2240))


def _spec(name: str, task: Task, arguments: Arguments, *, alias: str | None = None) -> ModelSpec:
    """Make the spec of the network that `VRT` builds from these arguments."""
    scale, depth, side = arguments["scale"], arguments["window_frames"], arguments["window_px"]
    window = Window(24, overlap=2, minimum=1 + max(arguments["warped_frames"] // 2, 1), multiple=depth)
    if task == "interpolate":
        window = Window(depth, overlap=depth - 1, minimum=depth, multiple=depth)
    scheme = partial(as_published, tile=(40, 128, 128), scale=scale, window=(depth, side, side))
    return ModelSpec(
        name=name,
        family="VRT",
        build=partial(built, network, **arguments),  # truth values are numbers here
        scale=scale,
        halo_px=20,  # as much as the published pieces of a frame share
        exact_halo_px=None,  # features travel with every frame, and windows at an eighth of the size see 64 px
        tiling="approximate",
        phase_px=MULTIPLE,  # so that pixels fall together as in the whole picture where it is halved
        task=task,
        takes_sigma=bool(arguments["takes_sigma"]),
        size=SizeRule(minimum=MULTIPLE * side, multiple=MULTIPLE),
        window=window,
        score_scheme=None if task == "interpolate" else scheme,
        memory=_INTERPOLATES if task == "interpolate" else _ENLARGES if task == "upscale" else _RESTORES,
        paper=PAPER,
        licence=LICENCE,
        precisions=("fp32", "bf16"),
        parameters=_PARAMETERS.get(name),
        aliases=() if alias is None else (alias,),
    )


REDS6: Arguments = {
    "scale": 4,
    "window_frames": 6,
    "window_px": 8,
    "width": 120,
    "depth": 8,
    "mutual_depth": 6,
    "tail_width": 180,
    "tail_depth": 4,
    "tail_layers": 6,
    "single_frame_layers": 2,
    "heads": 6,
    "mlp_ratio": 2,
    "warped_frames": 2,
    "deformable_groups": 12,
    "takes_sigma": 0,
    "qkv_bias": 1,
}
REDS16: Arguments = {**REDS6, "window_frames": 8, "warped_frames": 6, "deformable_groups": 24}
VIMEO: Arguments = {**REDS6, "window_frames": 8, "warped_frames": 4, "deformable_groups": 16}
DEBLUR: Arguments = {**REDS6, "scale": 1, "width": 96, "tail_width": 120, "tail_layers": 4, "deformable_groups": 16}
DENOISE: Arguments = {**DEBLUR, "takes_sigma": 1}
INTERPOLATE: Arguments = {**DEBLUR, "window_frames": 4, "single_frame_layers": 0, "warped_frames": 0, "deformable_groups": 12}

_PARAMETERS = {
    "vrt-reds6-x4": 30_676_435,
    "vrt-reds16-x4": 35_134_783,
    "vrt-vimeo-bi-x4": 32_577_991,
    "vrt-vimeo-bd-x4": 32_577_991,
    "vrt-deblur-dvd": 18_320_007,
    "vrt-deblur-gopro": 18_320_007,
    "vrt-deblur-reds": 18_320_007,
    "vrt-denoise-davis": 18_320_871,
    "vrt-interpolate-vimeo": 9_943_387,
}

SPECS: tuple[ModelSpec, ...] = (
    _spec("vrt-reds6-x4", "upscale", REDS6, alias="001_VRT_videosr_bi_REDS_6frames"),
    _spec("vrt-reds16-x4", "upscale", REDS16, alias="002_VRT_videosr_bi_REDS_16frames"),
    _spec("vrt-vimeo-bi-x4", "upscale", VIMEO, alias="003_VRT_videosr_bi_Vimeo_7frames"),
    _spec("vrt-vimeo-bd-x4", "upscale", VIMEO, alias="004_VRT_videosr_bd_Vimeo_7frames"),
    _spec("vrt-deblur-dvd", "deblur", DEBLUR, alias="005_VRT_videodeblurring_DVD"),
    _spec("vrt-deblur-gopro", "deblur", DEBLUR, alias="006_VRT_videodeblurring_GoPro"),
    _spec("vrt-deblur-reds", "deblur", DEBLUR, alias="007_VRT_videodeblurring_REDS"),
    _spec("vrt-denoise-davis", "denoise", DENOISE, alias="008_VRT_videodenoising_DAVIS"),
    _spec("vrt-interpolate-vimeo", "interpolate", INTERPOLATE, alias="009_VRT_videofi_Vimeo_4frames"),
)

VRT_FAMILY = Family(
    name="VRT",
    specs=SPECS,
    network=network,
    signature=("conv_first.weight", "norm.weight", f"{FIRST_GROUP}0.attn.{BIAS_TABLE}", f"{SECOND_GROUP}0.attn.{BIAS_TABLE}"),
    configuration=configuration,
    spec_for=spec_for,
    reference=reference,
    complete=complete,
    recipes="upframe.training.recipes.presets.vrt",
)
