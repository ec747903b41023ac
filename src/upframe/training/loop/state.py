"""Everything that changes during a stage, stored so that a resumed run equals an uninterrupted one.

The number of drawn batches decides the next samples (loader.py), and the number of steps decides the learning rate
(schedule.py), so neither needs a state.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upframe.training.loop.distributed import Ranks
from upframe.training.loop.guard import Guard

Content = dict[str, Any]
"""A state as tensors, numbers, strings and containers of these, which a checkpoint may hold."""


@dataclass
class Adversary:
    """The discriminator of a stage with a "gan" loss."""

    network: nn.Module
    optimiser: torch.optim.Adam


@dataclass
class Sums:
    """Sums over the steps since the last report, so that a report does not depend on when the run was interrupted."""

    values: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.values[name] = self.values.get(name, 0.0) + value
        self.count += 1

    def take(self) -> dict[str, float]:
        """Return the means and reset the sums."""
        means = {name: value / self.count for name, value in self.values.items()}
        self.values, self.count = {}, 0
        return means


@dataclass
class TrainState:
    """The network in training, on its device."""

    network: nn.Module
    optimiser: torch.optim.Adam
    ema: dict[str, Tensor] | None
    """Averaged weights and buffers under the network's names; None in a stage without an average."""
    scaler: torch.amp.GradScaler
    """Disabled unless the stage computes in float16."""
    guard: Guard
    adversary: Adversary | None = None
    stage: int = 0
    """Index of the stage in the recipe."""
    stage_start: int = 0
    """Optimiser steps of the run before this stage."""
    step: int = 0
    """Optimiser steps of the whole run so far."""
    drawn: int = 0
    """Batches drawn in the whole run; more than `step` after roll-backs."""
    trained_before: int = 0
    """Steps that had trained the first weights of this stage."""
    sums: Sums = field(default_factory=Sums)

    @property
    def stage_step(self) -> int:
        """Optimiser steps done in this stage."""
        return self.step - self.stage_start

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that are validated and shipped: the averaged ones if there are any."""
        return self.network.state_dict() if self.ema is None else self.ema


def capture(state: TrainState, ranks: Ranks) -> Content:
    """Return everything in `state` and the random generators of all processes. Every process must call this. Tensors
    share memory with `state`."""
    content: Content = {
        "params": state.network.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "scaler": state.scaler.state_dict(),
        "guard": state.guard.state_dict(),
        "stage": state.stage,
        "stage_start": state.stage_start,
        "step": state.step,
        "drawn": state.drawn,
        "trained_before": state.trained_before,
        "sums": {"values": dict(state.sums.values), "count": state.sums.count},
        "random": ranks.gather(random_state(ranks.device)),
    }
    if state.ema is not None:
        content["params_ema"] = state.ema
    if state.adversary is not None:
        content["discriminator"] = {
            "params": state.adversary.network.state_dict(),
            "optimiser": state.adversary.optimiser.state_dict(),
        }
    return content


def restore(state: TrainState, content: Content, ranks: Ranks) -> None:
    """Restore `state`, made for the same stage, to what `capture` returned; `content` is copied.

    With another number of processes, each process begins its own random sequence; samples do not depend on it.
    """
    state.network.load_state_dict(content["params"])
    # Optimisers keep the tensors that they load, and would later write into `content`.
    state.optimiser.load_state_dict(detached_copy(content["optimiser"]))
    state.scaler.load_state_dict(content["scaler"])
    state.guard.load_state_dict(content["guard"])
    if state.ema is not None:
        for name, value in content["params_ema"].items():
            state.ema[name].copy_(value)
    if state.adversary is not None:
        state.adversary.network.load_state_dict(content["discriminator"]["params"])
        state.adversary.optimiser.load_state_dict(detached_copy(content["discriminator"]["optimiser"]))
    for name in ("stage", "stage_start", "step", "drawn", "trained_before"):
        setattr(state, name, content[name])
    state.sums = Sums(dict(content["sums"]["values"]), content["sums"]["count"])
    if len(content["random"]) == ranks.world:
        set_random_state(content["random"][ranks.rank], ranks.device)
    else:
        seed_all(int(content["step"]), ranks)


def roll_back(state: TrainState, snapshot: Content, ranks: Ranks) -> None:
    """Restore `snapshot`, but keep the guard's count and lower rate, and the number of drawn batches."""
    guard, drawn = state.guard.state_dict(), state.drawn
    if state.scaler.is_enabled():
        # The scaler has seen the bad step's gradients and would apply them to the next step; only `update` resets it.
        state.scaler.update(state.scaler.get_scale())
    restore(state, snapshot, ranks)
    state.guard.load_state_dict({**guard, "recent": snapshot["guard"]["recent"]})
    state.drawn = drawn


def detached_copy(content: Any) -> Any:
    """Return `content` with tensors copied to host memory, so that further training does not change them."""
    if isinstance(content, Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, Mapping):
        return {key: detached_copy(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(detached_copy(value) for value in content)
    return content


# Random generators ----------------------------------------------------------------------------------------------------
def seed_all(seed: int, ranks: Ranks) -> None:
    """Seed every generator, differently in each process, so that random choices such as dropped paths differ."""
    own = seed * ranks.world + ranks.rank
    torch.manual_seed(own)  # all devices
    np.random.seed(own % (1 << 32))  # for libraries that use it; upframe does not
    random.seed(own)


def random_state(device: torch.device) -> Content:
    """Return the states of all generators, in built-in types."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def set_random_state(content: Content, device: torch.device) -> None:
    """Restore the states that `random_state` returned."""
    torch.set_rng_state(content["torch"])
    if device.type == "cuda" and content["device"] is not None:
        torch.cuda.set_rng_state(content["device"], device)
    name, keys, *rest = content["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = content["python"]
    random.setstate((version, tuple(internal), gauss))
