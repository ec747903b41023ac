"""Fit the last layers of Weft by ridge regression: first weights for its training, within a minute of one core.

Usage: python scripts/fit_weft.py CLIPS OUT.pth --trunk photo-x4 --flow video-x4 [--scale 4] [--clips 32] [--seed 1]
       [--degradation video-mild]

What each direction adds to a frame is a linear function of the differences of aligned details and of the features of its
hidden layers, so the weights of its last layers that leave the smallest squared error follow from one system of equations. A
pixel counts by the inverse of its error and of its clip's: squares alone would learn from the worst clips and spoil the clean
ones. The hidden layers keep their fresh weights. Since a direction sees what it made of the neighbour, its fit is repeated with
what the fit before makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upframe.models.architectures._correlation_flow import CorrelationFlow
from upframe.models.architectures.weft import Direction, Weft
from upframe.models.registry import load
from upframe.training.data.samples import Sample
from upframe.training.data.sources import DataPaths, source_for
from upframe.training.recipes.presets.shipped import SHARE_ALIKE
from upframe.training.recipes.recipe import DataRecipe

FRAMES, PATCH_PX = 5, 56
LEAST_ERROR = 0.03  # of details, half a code value: pixels with less count no more
RIDGE = 3e-4  # of the mean of the diagonal
ROUNDS = 2


class Equations:
    """Sums of products for the last layers of a direction."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        inputs = 9 * (direction.learnt.in_channels + direction.mixed.in_channels) + 1
        self.gram = torch.zeros(inputs, inputs)
        self.moment = torch.zeros(inputs, direction.learnt.out_channels)

    def add(self, own: Tensor, others: list[Tensor], guides: Tensor, wanted: Tensor, weights: Tensor) -> None:
        """Add a frame; `weights` (N, 1, H, W) say how much its pixels count."""
        columns = self.columns(own, others, guides)
        weighted = columns.T * weights.flatten()
        self.gram.addmm_(weighted, columns)
        self.moment.addmm_(weighted, wanted.flatten(2).transpose(1, 2).flatten(0, 1))

    def columns(self, own: Tensor, others: list[Tensor], guides: Tensor) -> Tensor:
        """Inputs of the last layers, and 1 for their bias: (pixels, 9 · inputs + 1)."""
        differences = torch.cat(others, dim=1)
        seen = self.direction.seen(torch.cat([own, differences, guides], dim=1))
        columns = F.unfold(torch.cat([seen, differences], dim=1), 3, padding=1).transpose(1, 2).flatten(0, 1)
        return torch.cat([columns, columns.new_ones(len(columns), 1)], dim=1)

    def solve(self) -> None:
        """Give the direction the weights that fit best."""
        gram = self.gram.double()
        gram.diagonal().add_(RIDGE * float(gram.diagonal().mean()))
        self.put(torch.linalg.solve(gram, self.moment.double()).float())

    def put(self, matrix: Tensor) -> None:
        """Give the direction the weights in `matrix`, (9 · inputs + 1) × details."""
        learnt, mixed = self.direction.learnt, self.direction.mixed
        first, weights = 9 * learnt.in_channels, matrix.T
        learnt.weight.copy_(weights[:, :first].view_as(learnt.weight))
        mixed.weight.copy_(weights[:, first:-1].view_as(mixed.weight))
        assert learnt.bias is not None and mixed.bias is not None
        learnt.bias.copy_(weights[:, -1])
        mixed.bias.zero_()


class Clip:
    """A sample with all that does not change while the directions are fitted."""

    def __init__(self, network: Weft, sample: Sample) -> None:
        self.pair = network._pairing(sample.lq[None])
        self.alone = [network.trunk(frame) for frame in self.pair.frames]
        self.own = [network._detail(*both) for both in zip(self.pair.frames, self.alone, strict=True)]
        truth = sample.gt[None].unbind(1)
        self.wanted = [network._detail(*both) for both in zip(self.pair.frames, truth, strict=True)]
        errors = [(wanted - own).abs().mean(1, keepdim=True) for wanted, own in zip(self.wanted, self.own, strict=True)]
        whole = float(torch.cat(errors).square().mean().sqrt()) + LEAST_ERROR
        self.weights = [1 / (whole * (error + LEAST_ERROR)) for error in errors]


def backward(network: Weft, clip: Clip, into: Equations | None) -> list[Tensor]:
    """Run the backward direction over a clip, and add to its equations."""
    made: list[Tensor] = []
    for i in reversed(range(len(clip.own))):
        aligned, guides = network._aligned(clip.own[i], made[0] if made else None, clip.pair.with_next(i))
        if into is not None:
            into.add(clip.own[i], [aligned], guides, clip.wanted[i] - clip.own[i], clip.weights[i])
        added = network.backward_direction(clip.own[i], [aligned], guides)
        made.insert(0, clip.alone[i] + network._enlarged(added))
    return made


def forward(network: Weft, clip: Clip, from_later: Sequence[Tensor], into: Equations | None) -> list[Tensor]:
    """Run the forward direction likewise."""
    made: list[Tensor] = []
    for i, own in enumerate(clip.own):
        aligned, guides = network._aligned(own, made[-1] if made else None, clip.pair.with_previous(i))
        later = network._detail(clip.pair.frames[i], from_later[i])
        if into is not None:
            into.add(own, [later - own, aligned], guides, clip.wanted[i] - later, clip.weights[i])
        added = network.forward_direction(own, [later - own, aligned], guides)
        made.append(from_later[i] + network._enlarged(added))
    return made


def level(clips: Sequence[Clip], made: Sequence[list[Tensor]], network: Weft) -> float:
    """The mean over the clips of their PSNR, but for a constant."""
    levels = []
    for clip, frames in zip(clips, made, strict=True):
        pairs = zip(clip.pair.frames, frames, clip.wanted, strict=True)
        gaps = [float((network._detail(frame, enlarged) - wanted).square().mean()) for frame, enlarged, wanted in pairs]
        levels.append(-10 * np.log10(np.mean(gaps)))
    return float(np.mean(levels))


def fit(network: Weft, clips: Sequence[Clip]) -> None:
    began = level(clips, [clip.alone for clip in clips], network)
    later = [clip.alone for clip in clips]
    for _ in range(ROUNDS):
        equations = Equations(network.backward_direction)
        for clip in clips:
            backward(network, clip, equations)
        equations.solve()
        later = [backward(network, clip, None) for clip in clips]
        print(f"backward: {level(clips, later, network) - began:+.3f} dB", flush=True)  # noqa: T201
    for _ in range(ROUNDS):
        equations = Equations(network.forward_direction)
        for clip, from_later in zip(clips, later, strict=True):
            forward(network, clip, from_later, equations)
        equations.solve()
        made = [forward(network, clip, from_later, None) for clip, from_later in zip(clips, later, strict=True)]
        print(f"forward: {level(clips, made, network) - began:+.3f} dB", flush=True)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--trunk", required=True, help="network for photos")
    parser.add_argument("--flow", required=True, help="network with upframe's flow network inside")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--degradation", help="chain that damages the small frames, as in recipes; without it they stay clean")
    chosen = parser.parse_args(arguments)
    torch.manual_seed(chosen.seed)
    network = Weft(scale=chosen.scale, idle=True).eval().requires_grad_(False)
    network.trunk.load_state_dict(load(chosen.trunk).network.state_dict())
    flow = next(part for part in load(chosen.flow).network.modules() if isinstance(part, CorrelationFlow))
    network.correlation_flow.load_state_dict(flow.state_dict())
    recipe = DataRecipe(kind="clips", patch_px=PATCH_PX, clip_frames=FRAMES, time_reversal=True, exclude=SHARE_ALIKE)
    if chosen.degradation:
        recipe = replace(recipe, low_quality="degraded", degradation=chosen.degradation, time_reversal=False)
    source = source_for(recipe, DataPaths(chosen.data), scale=chosen.scale)
    with torch.no_grad():
        clips = [Clip(network, source(np.random.default_rng((chosen.seed, i)))) for i in range(chosen.clips)]
        print(f"{len(clips)} clips", flush=True)  # noqa: T201
        fit(network, clips)
    torch.save({"params": network.state_dict(), "value_range": "0-1"}, chosen.out)


if __name__ == "__main__":
    main()
