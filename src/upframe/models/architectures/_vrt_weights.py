"""Weights of VRT: the arguments of their network, and constants that a file may lack."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypedDict

from torch import Tensor

from upframe.models.architectures._flow import with_normalisation
from upframe.models.architectures._window_attention import relative_position_index, sine_position_code

BIAS_TABLE = "relative_position_bias_table"
FIRST_GROUP = "stage1.residual_group1.blocks."
SECOND_GROUP = "stage1.residual_group2.blocks."


class Arguments(TypedDict):
    """The arguments of `vrt.VRT` that leave a trace in its parameters, as numbers, which is all that cards hold."""

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


def complete(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the constants that the network keeps among its weights, if they are missing."""
    completed = with_normalisation(state, "spynet.")
    first = f"{FIRST_GROUP}0.attn.{BIAS_TABLE}"
    if first not in state:
        return completed
    side = _side(len(state[first]))
    for name, table in state.items():
        attention, dot, parameter = name.rpartition(".")
        if parameter == BIAS_TABLE:
            window = (_frames(len(table), side), side, side)
            completed.setdefault(f"{attention}{dot}relative_position_index", relative_position_index(window).clone())
            if f"{attention}.qkv_mut.weight" in state:
                channels = state[f"{attention}.qkv_mut.weight"].shape[1]
                completed.setdefault(f"{attention}{dot}position_bias", sine_position_code(side, side, channels).clone())
    return completed


def configuration(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The arguments of `VRT` that parameters of these shapes were made with; windows are taken to be square.

    Raises:
        KeyError: a parameter that it has to look at is absent.
        ValueError: they do not go together.
    """
    mutual, others = (_count(shapes, group, ".norm1.weight") for group in (FIRST_GROUP, SECOND_GROUP))
    rows, heads = shapes[f"{FIRST_GROUP}0.attn.{BIAS_TABLE}"]
    side = _side(rows)
    width, given = shapes["conv_first.weight"][:2]
    layers = _count(shapes, "stage8.", ".linear.weight")
    tables = [shapes[f"stage8.{i + 1}.residual_group.blocks.0.attn.{BIAS_TABLE}"][0] for i in range(layers)]
    found: Arguments = {
        "scale": _scale(shapes),
        "window_frames": _frames(shapes[f"{SECOND_GROUP}0.attn.{BIAS_TABLE}"][0], side),
        "window_px": side,
        "width": width,
        "depth": mutual + others,
        "mutual_depth": mutual,
        "tail_width": shapes["norm.weight"][0],
        "tail_depth": _count(shapes, "stage8.1.residual_group.blocks.", ".norm1.weight"),
        "tail_layers": layers,
        "single_frame_layers": sum(_frames(rows, side) == 1 for rows in tables),
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


def _scale(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Derive the scale from the convolutions before pixel shuffles, which have s² times their channels."""
    made = [shape for name, shape in shapes.items() if name.startswith("upsample.") and name.endswith(".weight")]
    return math.prod(math.isqrt(shape[0] // shape[1]) for shape in made)


def _side(rows: int) -> int:
    """Side in pixels of the square windows of two frames whose table has this many relative positions."""
    side = (math.isqrt(rows // 3) + 1) // 2
    if 3 * (2 * side - 1) ** 2 != rows:
        raise ValueError(f"no square window of two frames has {rows} relative positions")
    return side


def _frames(rows: int, side: int) -> int:
    """Frames in windows of this side whose table has this many relative positions."""
    frames = (rows // (2 * side - 1) ** 2 + 1) // 2
    if (2 * frames - 1) * (2 * side - 1) ** 2 != rows:
        raise ValueError(f"no window of {side}×{side} px has {rows} relative positions")
    return frames
