"""Every registered network, and a toy of each: its own structure, scale and task with few channels and layers.

A new family that is slow at its published size adds a line to SMALLER; nothing else here names a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from upframe.benchmark.worker import reference_form
from upframe.models.networks import MODELS, family_of
from upframe.models.registry import Model
from upframe.models.spec import ModelSpec

SMALLER: Mapping[str, Mapping[str, int]] = {
    "RLFN": {"channels": 8, "blocks": 1},
    "VapSR": {"channels": 8, "attention_channels": 12, "blocks": 1},
    "BasicVSR": {"channels": 6, "blocks": 1},
    "RealBasicVSR": {"channels": 6, "propagation_blocks": 1, "cleaning_blocks": 1},
    "VRT": {
        "window_px": 4,
        "width": 12,
        "depth": 2,
        "mutual_depth": 1,
        "tail_width": 12,
        "tail_depth": 1,
        "tail_layers": 2,
        "heads": 2,
        "deformable_groups": 6,
    },
    "VSR-Transformer": {
        "channels": 8,
        "window_px": 32,
        "extract_blocks": 1,
        "reconstruct_blocks": 1,
        "feed_forward_blocks": 1,
    },
    "Weft": {"channels": 6, "blocks": 1, "trunk_channels": 8, "trunk_blocks": 1, "trunk_inner": 8},
}
"""Family → arguments that make it small. VRT's width and groups are multiples of the frames aligned on each side,
1 to 3. VSR-Transformer keeps its depth, from which its number of frames is told."""


def arguments_of(spec: ModelSpec) -> dict[str, Any]:
    """Arguments that a network of this family is built with, found in its shapes as in those of a weights file."""
    with torch.device("meta"):
        state = spec.build().state_dict()
    return dict(family_of(spec).configuration({name: tuple(value.shape) for name, value in state.items()}))


@cache
def toy_of(name: str) -> ModelSpec:
    """Spec of the toy of a registered network."""
    spec = MODELS[name]
    return family_of(spec).spec_for(**{**arguments_of(spec), **SMALLER.get(spec.family, {})})


def distinct(specs: Mapping[str, ModelSpec]) -> list[str]:
    """The first name of each network that is built alike: some are published for several purposes."""
    seen: list[tuple[str, str, dict[str, Any]]] = []
    names = []
    for name, spec in specs.items():
        identity = (spec.family, spec.task, arguments_of(spec))
        if identity not in seen:
            seen.append(identity)
            names.append(name)
    return names


def untrained(spec: ModelSpec, *, seed: int = 0) -> Model:
    """The network with seeded weights, ready to run."""
    torch.manual_seed(seed)
    return Model(spec, spec.build().eval().requires_grad_(False), None, spec.name, "")


def reference_of(spec: ModelSpec, state: dict[str, Tensor]) -> nn.Module | None:
    """The reference form with these weights; None where the network is not as published, and has none."""
    try:
        return reference_form(spec, state)
    except ValueError:
        return None
