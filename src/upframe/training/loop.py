"""The training loop: one process, L1, Adam, EMA, exact resume.

A run folder holds `recipe.json` (resolved), `log.jsonl` (one line per report), `last.pth` (everything needed to go on)
and what validation wrote. `last.pth` is also a weights file: `upframe upscale -m RUN/last.pth` takes its averaged weights.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upframe import __version__
from upframe.checkpoints import recognise
from upframe.errors import InputError, ModelError, UsageError
from upframe.models import MODELS
from upframe.training.data import Batch, PatchSampler, load_photos
from upframe.training.leaks import find_leaks
from upframe.training.losses import l1
from upframe.training.recipe import Recipe
from upframe.weights_file import read

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """What changes from step to step. Data order is a function of the step, so no sampler state is needed."""

    network: nn.Module
    ema: dict[str, Tensor]
    """Averaged weights by parameter name."""
    optimiser: torch.optim.Adam
    step: int = 0
    """Optimiser steps done."""


@dataclass(frozen=True)
class Progress:
    """One report of a run."""

    step: int
    steps: int
    batch: int
    loss: float
    """Mean since the last report."""
    learning_rate: float
    images_per_s: float
    waiting: float
    """Share of the time the loop waited for data."""


def train(
    recipe: Recipe,
    *,
    data: Path,
    out: Path,
    validate: Callable[[Path, int], dict[str, Any]] | None = None,
    held_out: Mapping[str, NDArray[Any]] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    threads: int | None = None,
    stop_after: int | None = None,
) -> TrainState:
    """Train `recipe` on the photographs in `data`, going on where `out` stopped if it holds a run.

    Args:
        validate: Called with a weights file and the step every `validate_every` steps and at the end; what it returns is
            logged.
        held_out: Pictures by name that must not be among the training photographs, usually those validated on.
        stop_after: Return after this step of the schedule, leaving a checkpoint; for tests and for sharing a machine.

    Raises:
        UsageError: when `out` holds a run of another recipe, or a held-out picture is among the photographs.
        InputError: when `data` holds no usable photographs.
    """
    spec = MODELS[recipe.model]
    if threads:
        torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    state = _restore(out, recipe) or _start(recipe)
    (out / "recipe.json").write_text(recipe.to_json())
    photos = load_photos(data, exclude=recipe.exclude, minimum_px=(recipe.patch_px + 6) * spec.scale)
    if held_out:
        _refuse_leaks(photos, held_out)
    sampler = PatchSampler(
        list(photos.values()), scale=spec.scale, patch_px=recipe.patch_px, batch=recipe.batch, seed=recipe.seed
    )
    log.info("training %s on %d photographs", recipe.name, len(photos))
    last = min(recipe.steps, stop_after or recipe.steps)
    state.network.train()
    with ThreadPoolExecutor(1) as maker:  # the next batch is made while this one trains
        pending = maker.submit(sampler, state.step)
        meter = _Meter(recipe, state.step)
        while state.step < last:
            batch, waited = _take(pending)
            pending = maker.submit(sampler, state.step + 1)
            loss = train_step(state, batch, recipe)
            meter.add(loss, waited)
            if state.step % recipe.log_every == 0 or state.step == last:
                report = meter.report(state.step)
                _append(out / "log.jsonl", vars(report))
                if on_progress:
                    on_progress(report)
            if state.step % recipe.checkpoint_every == 0 or state.step == last:
                save(state, recipe, out / "last.pth")
            due = recipe.validate_every and state.step % recipe.validate_every == 0
            if validate and (due or state.step == recipe.steps):
                save(state, recipe, out / "last.pth")
                _append(out / "log.jsonl", {"step": state.step, "validation": validate(out / "last.pth", state.step)})
    return state


def _refuse_leaks(photos: Mapping[str, NDArray[Any]], held_out: Mapping[str, NDArray[Any]]) -> None:
    leaks = find_leaks(photos, held_out)
    if leaks:
        pairs = ", ".join(f"{leak.train} shows what {leak.test} shows" for leak in leaks[:3])
        raise UsageError("training set", f"{len(leaks)} test pictures are in it: {pairs}", "exclude them")


def train_step(state: TrainState, batch: Batch, recipe: Recipe) -> float:
    """One optimiser step; returns the loss and advances `state` in place."""
    rate = recipe.learning_rate_at(state.step)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    reduced = recipe.precision == "bf16" and state.step < recipe.steps - recipe.fp32_tail_steps
    lq = batch.lq.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        prediction = state.network(lq)
    loss = l1(prediction.float(), batch.gt)
    value = loss.item()
    if not torch.isfinite(loss):
        raise ModelError(recipe.name, f"the loss is {value} at step {state.step}", "lower learning_rate and resume")
    state.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimiser.step()
    state.step += 1
    # The average follows quickly at first: a fixed 0.999 would remember the random start for thousands of steps.
    decay = min(recipe.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, parameter in state.network.named_parameters():
            state.ema[name].lerp_(parameter, 1 - decay)
    return value


def save(state: TrainState, recipe: Recipe, path: Path) -> None:
    """Write everything needed to go on exactly, atomically."""
    content = {
        "params": state.network.state_dict(),
        "params_ema": state.ema,
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "recipe": recipe.to_json(),
        "spec": recipe.model,
        "value_range": "0-1",
        "upframe": __version__,
    }
    part = path.with_name(f".{path.name}.part")
    torch.save(content, part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _start(recipe: Recipe) -> TrainState:
    torch.manual_seed(recipe.seed)
    network = _build(recipe)
    if recipe.start_from:
        _warm_start(network, Path(recipe.start_from))
    ema = {name: p.detach().clone() for name, p in network.named_parameters()}
    return TrainState(network, ema, _optimiser(network, recipe))


def _build(recipe: Recipe) -> nn.Module:
    network = MODELS[recipe.model].build()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return] # absent from torch's stubs


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, betas=recipe.betas, fused=True)


def _warm_start(network: nn.Module, path: Path) -> None:
    """Take over every parameter of `path` whose name and shape fit; a network of another scale keeps its own upsampler."""
    file = read(path)
    given = recognise(file.state, value_range=file.value_range, subject=path).state  # in our names and in [0, 1]
    own = network.state_dict()
    fitting = {k: v for k, v in given.items() if k in own and v.shape == own[k].shape}
    if len(fitting) < len(own) // 2:
        raise ModelError(path, f"only {len(fitting)} of {len(own)} parameters fit", "start from weights of the same family")
    log.info("started from %s: %d of %d parameters", path, len(fitting), len(own))
    network.load_state_dict({**own, **fitting})


def _restore(out: Path, recipe: Recipe) -> TrainState | None:
    path = out / "last.pth"
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(path, f"not a readable checkpoint ({error})", "remove it to start afresh") from error
    saved = Recipe.from_json(content["recipe"])
    differing = [f for f, value in vars(recipe).items() if getattr(saved, f) != value]
    # Reporting more or less often does not change what is trained.
    differing = [f for f in differing if f not in ("validate_every", "checkpoint_every", "log_every")]
    if differing:
        raise UsageError(out, f"holds a run that differs in {', '.join(differing)}", "choose another --out")
    network = _build(recipe)
    network.load_state_dict(content["params"])
    optimiser = _optimiser(network, recipe)
    optimiser.load_state_dict(content["optimiser"])
    return TrainState(network, content["params_ema"], optimiser, content["step"])


def _take(pending: Future[Batch]) -> tuple[Batch, float]:
    start = time.perf_counter()
    return pending.result(), time.perf_counter() - start


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


class _Meter:
    """Sums what happened since the last report."""

    def __init__(self, recipe: Recipe, step: int) -> None:
        self._recipe = recipe
        self._reset(step)

    def _reset(self, step: int) -> None:
        self._from, self._since, self._loss, self._waited = step, time.perf_counter(), 0.0, 0.0

    def add(self, loss: float, waited: float) -> None:
        self._loss += loss
        self._waited += waited

    def report(self, step: int) -> Progress:
        count, elapsed = step - self._from, time.perf_counter() - self._since
        progress = Progress(
            step=step,
            steps=self._recipe.steps,
            batch=self._recipe.batch,
            loss=self._loss / count,
            learning_rate=self._recipe.learning_rate_at(step - 1),
            images_per_s=count * self._recipe.batch / elapsed,
            waiting=self._waited / elapsed,
        )
        self._reset(step)
        return progress
