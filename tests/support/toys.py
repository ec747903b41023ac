"""Small recipes, small data and a way to train them in processes of their own, for the tests of the engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from upframe.training.data.samples import Sample
from upframe.training.loop.report import MEASURED
from upframe.training.loop.state import TrainState
from upframe.training.recipes.recipe import Cadence, DataRecipe, LossTerm, Optimiser, Recipe, SpikeGuard, Stage

STAGE = Stage(
    "only",
    steps=12,
    batch=2,
    losses=(LossTerm("l1"),),
    data=DataRecipe(patch_px=16),
    optimiser=Optimiser(learning_rate=1e-3),
    guard=SpikeGuard(window=4, factor=10.0),
)
RECIPE = Recipe(
    "toy",
    "rlfn-ntire-x2",
    (STAGE,),
    model_options={"channels": 8, "blocks": 1},
    protocol="sisr-y",
    cadence=Cadence(log_every=4, checkpoint_every=5),
)
CLEANER = {"channels": 4, "propagation_blocks": 1, "cleaning_blocks": 1}
"""Arguments of the smallest RealBasicVSR."""


def recipe_of(*stages: Stage, **changes: Any) -> Recipe:
    return replace(RECIPE, stages=stages, **changes)


@dataclass(frozen=True)
class Noise:
    """Random pictures as samples; a picture of the sample number named in `poison` is not a number, or far too bright.

    Which number a sample has can only be told from its generator, which is how the loader promises to seed it.
    """

    scale: int = 2
    side: int = 16
    frames: int | None = None
    seed: int = 1
    poison: Mapping[int, float] | None = None
    """Sample number → what is added to its ground truth."""

    def __call__(self, rng: np.random.Generator, /) -> Sample:
        states = {repr(np.random.default_rng((self.seed, number)).bit_generator.state): number for number in self.poison or {}}
        number = states.get(repr(rng.bit_generator.state))
        lead = (3,) if self.frames is None else (self.frames, 3)
        lq = torch.from_numpy(rng.random((*lead, self.side, self.side), dtype=np.float32))
        gt = lq.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
        if number is not None and self.poison is not None:
            gt = gt + self.poison[number]
        return Sample(lq, gt)


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Every tensor that training changes, by a name."""
    found = {f"net.{name}": value for name, value in state.network.state_dict().items()}
    found |= {f"ema.{name}": value for name, value in (state.ema or {}).items()}
    optimisers = {"adam": state.optimiser}
    if state.adversary is not None:
        found |= {f"judge.{name}": value for name, value in state.adversary.network.state_dict().items()}
        optimisers["judge adam"] = state.adversary.optimiser
    for title, optimiser in optimisers.items():
        for number, slots in optimiser.state_dict()["state"].items():
            found |= {f"{title}.{number}.{name}": value for name, value in slots.items()}
    return found


def checkpoint_tensors(content: Any, name: str = "") -> dict[str, Any]:
    """Everything in a checkpoint by its path, but for the length of the log, whose measured fields vary."""
    if isinstance(content, Mapping):
        found: dict[str, Any] = {}
        for key, value in content.items():
            found |= {} if key == "log_bytes" else checkpoint_tensors(value, f"{name}.{key}")
        return found
    if isinstance(content, list | tuple):
        return {k: v for i, item in enumerate(content) for k, v in checkpoint_tensors(item, f"{name}[{i}]").items()}
    return {name: content}


def assert_same(one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    """The same names, and every tensor equal in every bit."""
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, two[name]), name
        else:
            assert value == two[name], name


def log_of(run: Path) -> list[dict[str, Any]]:
    """The log without what depends on the machine and the moment."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "upframe", *map(str, arguments)]


def start(arguments: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """A process with one CPU thread, whose output can be read."""
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
