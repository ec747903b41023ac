"""Weights of VRT: constants that a file may omit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from upframe.models.architectures._flow import with_normalisation
from upframe.models.architectures._vrt_constants import BIAS_TABLE, FIRST_GROUP, table_frames, table_side
from upframe.models.architectures._window_attention import relative_position_index, sine_position_code


def complete(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the constants that the network keeps among its weights, if they are missing."""
    completed = with_normalisation(state, "spynet.")
    first = f"{FIRST_GROUP}0.attn.{BIAS_TABLE}"
    if first not in state:
        return completed
    side = table_side(len(state[first]))
    for name, table in state.items():
        attention, dot, parameter = name.rpartition(".")
        if parameter == BIAS_TABLE:
            window = (table_frames(len(table), side), side, side)
            completed.setdefault(f"{attention}{dot}relative_position_index", relative_position_index(window).clone())
            if f"{attention}.qkv_mut.weight" in state:
                channels = state[f"{attention}.qkv_mut.weight"].shape[1]
                completed.setdefault(f"{attention}{dot}position_bias", sine_position_code(side, side, channels).clone())
    return completed
