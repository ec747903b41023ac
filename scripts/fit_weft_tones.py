"""Change the last layers of a trained Weft so that still flat colours and patterns stay as its trunk makes them.

Usage: python scripts/fit_weft_tones.py CHECKPOINT OUT.pth CLIPS [--degradation video-mild] [--clips 20] [--seed 77]

Training sees next to no flat colours, so both directions add some code values to them. What a direction adds is a linear
function of the inputs of its last layers (`fit_weft.Equations`). The weights that change what it adds to clips as little as
squares can say, and add nothing to stills, follow from one system of equations. A flat colour counts with every pixel, black
and white, which must come out exactly, many times, and a pattern with its mean: its detail may change. The
forward direction is fitted to what the backward one then makes.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import make_pattern_pairs
from fit_weft import FRAMES, PATCH_PX, Clip, Equations, backward, forward
from upframe.evaluation.tones import patterns
from upframe.models.architectures.weft import GAIN, Direction, Weft
from upframe.models.registry import load
from upframe.training.data.samples import Sample
from upframe.training.data.sources import DataPaths, source_for
from upframe.training.recipes.presets.shipped import SHARE_ALIKE
from upframe.training.recipes.recipe import DataRecipe

LEVELS = (0, 64, 128, 192, 255)
STILL_FRAMES, FLAT_PX = 4, 40
EDGE_PX = 12  # does not count: there layers see zeros, where `upscale` shows them mirrored pixels
CELLS = 60  # patterns of training's kind, beside those that tones are measured with
FLATS, ENDS, PATTERNS = 0.01, 100.0, 0.1  # weights against clips: of all colours, of black and white beside them, of patterns
RIDGE = 1e-9  # of the mean of the diagonal
ROUNDS = 3  # a direction sees what it added to the neighbour, so its inputs change with its fit

Run = Callable[[Clip, Equations], object]


class Means(Equations):
    """Products of the mean of a frame's inputs: those of the mean of what is added to it."""

    def add(self, own: Tensor, others: list[Tensor], guides: Tensor, wanted: Tensor, weights: Tensor) -> None:
        shares = weights.flatten() / weights.sum()
        mean = shares @ self.columns(own, others, guides)
        self.gram += torch.outer(mean, mean)


def still(picture: NDArray[np.uint8], scale: int) -> Sample:
    """A picture (H, W, 3) shown for some frames; the truth does not matter, since nothing is to be added."""
    frames = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float().expand(STILL_FRAMES, -1, -1, -1) / 255
    return Sample(frames, torch.zeros(STILL_FRAMES, 3, *(scale * side for side in picture.shape[:2])))


def flat_pictures() -> Iterator[NDArray[np.uint8]]:
    """A grid of colours, black first and white last."""
    for colour in itertools.product(LEVELS, repeat=3):
        yield np.tile(np.array(colour, np.uint8), (FLAT_PX, FLAT_PX, 1))


def patterned_pictures(scale: int) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(9)
    for _ in range(CELLS):
        yield make_pattern_pairs.cell(scale, rng)[0]
    for _, pattern in patterns():
        yield np.repeat(pattern[..., None].astype(np.uint8) * np.uint8(255), 3, axis=2)


def count_inside(clip: Clip, edge_px: int) -> Clip:
    """Let the pixels of a clip count alike, but for those at the edge."""
    inside = torch.zeros_like(clip.weights[0])
    inside[..., edge_px : inside.shape[-2] - edge_px, edge_px : inside.shape[-1] - edge_px] = 1
    clip.weights = [inside for _ in clip.weights]
    return clip


def mean_products(direction: Direction, clips: Sequence[Clip], run: Run) -> Tensor:
    """Mean over the pixels that count of the products of inputs."""
    equations = Equations(direction)
    for clip in clips:
        run(clip, equations)
    return equations.gram.double() / sum(float(weights.sum()) for clip in clips for weights in clip.weights)


def products_of_means(direction: Direction, clips: Sequence[Clip], run: Run) -> Tensor:
    """Mean over the frames of the products of mean inputs."""
    equations = Means(direction)
    for clip in clips:
        run(clip, equations)
    return equations.gram.double() / sum(len(clip.own) for clip in clips)


def matrix(direction: Direction) -> Tensor:
    """The last layers as one, (9 · inputs + 1) × details."""
    assert direction.learnt.bias is not None and direction.mixed.bias is not None
    weights = [layer.weight.flatten(1) for layer in (direction.learnt, direction.mixed)]
    return torch.cat([*weights, (direction.learnt.bias + direction.mixed.bias)[:, None]], dim=1).T.double()


def quieten(network: Weft, clips: Sequence[Clip], flats: Sequence[Clip], others: Sequence[Clip]) -> None:
    """Fit both directions; `flats` begin with black and end with white."""
    later: dict[int, list[Tensor]] = {}
    passes: tuple[tuple[Direction, Run], ...] = (
        (network.backward_direction, lambda clip, into: backward(network, clip, into)),
        (network.forward_direction, lambda clip, into: forward(network, clip, later[id(clip)], into)),
    )
    for direction, run in passes:
        first = matrix(direction)
        for _ in range(ROUNDS):
            moving = mean_products(direction, clips, run)
            quiet = FLATS * mean_products(direction, flats, run) + ENDS * mean_products(direction, [flats[0], flats[-1]], run)
            quiet += PATTERNS * products_of_means(direction, others, run)
            kept = moving + RIDGE * moving.diagonal().mean() * torch.eye(len(moving), dtype=moving.dtype)
            fitted = torch.linalg.solve(kept + quiet, kept @ first)
            moved = float(((fitted - first) * (moving @ (fitted - first))).sum(0).mean().sqrt())
            print(f"clips moved by {255 / GAIN * moved:.2f} code values")  # noqa: T201
            Equations(direction).put(fitted.float())
        later.update({id(clip): backward(network, clip, None) for clip in (*clips, *flats, *others)})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, help="clips, as for training")
    parser.add_argument("--degradation", help="chain that damages the small frames, as in recipes; without it they stay clean")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--seed", type=int, default=77)
    chosen = parser.parse_args(arguments)
    network = load(chosen.checkpoint).network
    if not isinstance(network, Weft):
        parser.error(f"{chosen.checkpoint} holds no Weft")
    network.eval().requires_grad_(False)
    recipe = DataRecipe(kind="clips", patch_px=PATCH_PX, clip_frames=FRAMES, exclude=SHARE_ALIKE)
    if chosen.degradation:
        recipe = replace(recipe, low_quality="degraded", degradation=chosen.degradation)
    source = source_for(recipe, DataPaths(chosen.data), scale=network.scale)
    with torch.no_grad():
        clips = [count_inside(Clip(network, source(np.random.default_rng((chosen.seed, i)))), 0) for i in range(chosen.clips)]
        flats, others = (
            [count_inside(Clip(network, still(picture, network.scale)), EDGE_PX) for picture in pictures]
            for pictures in (flat_pictures(), patterned_pictures(network.scale))
        )
        quieten(network, clips, flats, others)
    torch.save({"params": network.state_dict(), "value_range": "0-1"}, chosen.out)


if __name__ == "__main__":
    main()
