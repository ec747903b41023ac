"""Change the last convolution of a photo network so that flat colours come out as they went in, and photographs as before.

Usage: python scripts/fit_tones.py CHECKPOINT_OR_NAME OUT.pth PHOTOS [--patches 60] [--seed 1]

A network learns from photographs, which have next to no saturated areas: a pure green may come out 4 code values off. What the
last convolution makes of its inputs is linear, so one system of equations finds the weights that bring a grid of 9×9×9 colours
within `ALLOWED`, and black and white closer, while they change photographs as little as squares can say. Colours that are still
off count more from round to round. It takes a minute of one core; PHOTOS holds PNG files of the size that the network enlarges.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from upframe.models.registry import Model, load

LEVELS = (0, 32, 64, 96, 128, 160, 192, 224, 255)
ALLOWED, UNTOUCHED = 1.5 / 255, 1.0 / 255  # beyond the first, a colour counts more next; within the second, it stays as it is
ENDS = 0.2  # share of both for black and white, which must come out exactly
FLAT_PX, PATCH_PX, BORDER_PX = 40, 64, 8
SHARE = 0.02  # weight of all colours together against that of all photographs in the first round
ROUNDS, RISE = 16, 1.6


class LastLayer:
    """The last convolution of a network as a matrix, (9 · inputs + 1) × outputs, and what goes into it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.layer = [part for part in network.modules() if isinstance(part, nn.Conv2d)][-1]
        if self.layer.kernel_size != (3, 3) or self.layer.groups != 1 or self.layer.bias is None:
            raise SystemExit("the last convolution must be a plain one of 3x3 with a bias")
        self._inputs: list[Tensor] = []
        self.layer.register_forward_hook(lambda _, inputs, __: self._inputs.append(inputs[0]))

    def columns(self, small: Tensor, *, border: int) -> Tensor:
        """The inputs (pixels, 9 · inputs + 1) of every pixel that lies at least `border` small pixels from the edge."""
        self.network(small)
        seen = self._inputs.pop()
        crop = border * seen.shape[-1] // small.shape[-1]
        inner = seen[..., crop - 1 : 1 - crop, crop - 1 : 1 - crop]
        columns = F.unfold(inner, 3).transpose(1, 2).flatten(0, 1)
        return torch.cat([columns, columns.new_ones(len(columns), 1)], dim=1)

    @property
    def matrix(self) -> Tensor:
        assert self.layer.bias is not None
        return torch.cat([self.layer.weight.flatten(1), self.layer.bias[:, None]], dim=1).T.detach().clone()

    @matrix.setter
    def matrix(self, value: Tensor) -> None:
        assert self.layer.bias is not None
        self.layer.weight.data.copy_(value[:-1].T.reshape(self.layer.weight.shape))
        self.layer.bias.data.copy_(value[-1])


def photo_gram(last: LastLayer, photos: Path, *, patches: int, seed: int) -> Tensor:
    """Mean of the products of inputs over patches of photographs: the square of a change of the matrix, in pixels."""
    rng = np.random.default_rng(seed)
    files = sorted(photos.glob("*.png"))
    gram, count = torch.zeros_like(last.matrix @ last.matrix.T), 0
    for file in rng.choice(np.array(files, dtype=object), min(patches, len(files)), replace=False):
        with Image.open(file) as opened:
            photo = np.asarray(opened.convert("RGB"))
        top, left = (int(rng.integers(max(length - PATCH_PX, 0) + 1)) for length in photo.shape[:2])
        patch = torch.from_numpy(photo[top : top + PATCH_PX, left : left + PATCH_PX].copy()).permute(2, 0, 1)[None]
        columns = last.columns(patch.double() / 255, border=BORDER_PX)
        gram += columns.T @ columns
        count += len(columns)
    return gram / count


def flat_equations(last: LastLayer) -> tuple[Tensor, Tensor]:
    """Inputs of the grid of colours, and the outputs that they should have."""
    rows, wanted = [], []
    for levels in itertools.product(LEVELS, repeat=3):
        colour = torch.tensor(levels, dtype=torch.float64) / 255
        columns = last.columns(colour.view(1, 3, 1, 1).expand(1, 3, FLAT_PX, FLAT_PX), border=FLAT_PX // 2 - 1)
        rows.append(columns)
        wanted.append(colour.repeat_interleave(last.layer.out_channels // 3).expand(len(columns), -1))
    return torch.cat(rows), torch.cat(wanted)


def fit(model: Model, photos: Path, *, patches: int, seed: int) -> None:
    last = LastLayer(model.network)
    gram = photo_gram(last, photos, patches=patches, seed=seed)
    inputs, wanted = flat_equations(last)
    is_end = (wanted == wanted[:, :1]).all(1, keepdim=True) & ((wanted[:, :1] == 0) | (wanted[:, :1] == 1))
    share = torch.where(is_end, ENDS, 1.0)
    first = last.matrix
    ridge = 1e-9 * gram.diagonal().mean()
    damped = gram + ridge * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.full((len(inputs), 1), SHARE / len(inputs), dtype=gram.dtype)
    for number in range(ROUNDS):
        made = inputs @ last.matrix
        gaps = (made.clamp(0, 1) - wanted).abs()  # pixels beyond black and white are cut to them
        change = last.matrix - first
        moved = float((change * (gram @ change)).sum(0).mean().sqrt())
        print(f"round {number}: flat {255 * float(gaps.max()):.2f} off, photographs moved by {255 * moved:.3f}")  # noqa: T201
        targets = torch.where(gaps < UNTOUCHED * share, made, wanted)
        weights = torch.where(gaps.amax(1, keepdim=True) > ALLOWED * share, RISE * weights, weights)
        weighted = (weights * inputs).T
        last.matrix = torch.linalg.solve(damped + weighted @ inputs, damped @ first + weighted @ targets)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="weights file, or name of a shipped model")
    parser.add_argument("out", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--patches", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    given = Path(chosen.model)
    model = load(given if given.is_file() else chosen.model)
    model.network.eval().double()
    with torch.no_grad():
        fit(model, chosen.photos, patches=chosen.patches, seed=chosen.seed)
    torch.save({"params": model.network.float().state_dict(), "value_range": "0-1"}, chosen.out)


if __name__ == "__main__":
    main()
