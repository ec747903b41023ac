"""Weights that make a network an exact nearest-neighbour enlargement, so that outputs of whole runs can be asserted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from upframe.models import checkpoints
from upframe.models.cards import Card
from upframe.models.families import rlfn


def nearest_weights(path: Path, *, scale: int, name: str = "nearest") -> Path:
    """Write an RLFN of one block, whose convolutions pass RGB through and copy each pixel `scale`² times.

    Zero padding at the borders does not show, since only the centre taps are not zero; so tiles are exact too.
    """
    spec = rlfn.spec_for(channels=3, blocks=1, scale=scale, inner_channels=3)
    state = {key: torch.zeros_like(value) for key, value in spec.build().state_dict().items()}
    for colour in range(3):
        state["conv_1.weight"][colour, colour, 1, 1] = 1
        state["upsampler.0.weight"][colour * scale**2 : (colour + 1) * scale**2, colour, 1, 1] = 1
    checkpoints.save(path, state, Card(name=name, arch=spec.name, scale=scale))
    return path


def repeated(pixels: NDArray[Any], scale: int) -> NDArray[Any]:
    """Return the network's result for (H, W, C) pixels."""
    return pixels.repeat(scale, 0).repeat(scale, 1)
