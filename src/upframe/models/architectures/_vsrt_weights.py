"""Weights of VSR-Transformer: constants that a file may omit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from upframe.models.architectures._flow import with_normalisation
from upframe.models.architectures._position_code import frequencies
from upframe.models.architectures._vsrt_constants import published_frames, sines_per_axis


def complete(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the constants that the network keeps among its weights, if they are missing."""
    completed = with_normalisation(state, "spynet.spynet.")
    depth = sum(name.startswith("transformer.layers.") and name.endswith(".0.fn.norm.weight") for name in state)
    if depth:
        constant = frequencies(sines_per_axis(published_frames(depth))).float()
        completed.setdefault("pos_embedding.penc.inv_freq", constant)
    return completed
