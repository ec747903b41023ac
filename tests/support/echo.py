"""A small video network whose every output frame depends on all frames of its segment, so that what mixes is seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.registry import Model
from upframe.models.spec import ModelSpec, Window


class Echo(nn.Module):
    """×2, and each frame holds a share of the blurred frames before and after it, however far: like a real one, every
    frame of a segment depends on all of its frames, but only 1 px away in each step."""

    def forward(self, clip: Tensor) -> Tensor:
        return torch.stack(list(self.stream(clip)), 1)

    def stream(self, clip: Tensor, *, keep: str = "full") -> Iterator[Tensor]:
        frames = clip.unbind(1)
        later = [frames[-1]]
        for frame in reversed(frames[:-1]):
            later.insert(0, 0.7 * frame + 0.3 * F.avg_pool2d(later[0], 3, 1, 1, count_include_pad=False))
        before = frames[0]
        for number, frame in enumerate(frames):
            before = 0.6 * frame + 0.4 * F.avg_pool2d(before, 3, 1, 1, count_include_pad=False) if number else frame
            yield ((before + later[number]) / 2).repeat_interleave(2, -2).repeat_interleave(2, -1)


ECHO = ModelSpec(
    name="echo-x2",
    family="Echo",
    build=Echo,
    scale=2,
    halo_px=16,
    exact_halo_px=None,
    tiling="approximate",
    window=Window(frames=None, overlap=2),
    streams=True,
    paper="",
    licence="",
)


def echo(**facts: Any) -> Model:
    return Model(replace(ECHO, **facts), Echo().eval(), None, None, "echo")
