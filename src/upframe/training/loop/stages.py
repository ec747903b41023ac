"""Check the stages of a recipe, begin them with their first weights, and resume them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from upframe.errors import InputError, ModelError, OptionError, UpframeError, UsageError
from upframe.models.architectures._correlation_flow import CorrelationFlow
from upframe.models.architectures._flow import SPyNet
from upframe.models.architectures._flow_names import mm_names
from upframe.models.checkpoints import recognise
from upframe.models.interfaces import Checkpoints
from upframe.models.spec import ModelSpec
from upframe.models.weights_file import read
from upframe.training.loop.distributed import Ranks
from upframe.training.loop.guard import Guard
from upframe.training.loop.optimiser import adopt_state, grouped, make_optimiser
from upframe.training.loop.run_folder import read_checkpoint
from upframe.training.loop.state import Adversary, Content, TrainState, detached_copy, restore, seed_all
from upframe.training.losses.discriminator import UNetDiscriminator
from upframe.training.losses.objective import Objective
from upframe.training.recipes.recipe import FLOW_NETWORKS, PREVIOUS, Discriminator, Recipe, Stage, model_spec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A recipe that has been checked and can run on this machine."""

    recipe: Recipe
    spec: ModelSpec
    objectives: tuple[Objective, ...]
    """The objective of each stage to run."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages to run."""
        return self.recipe.stages[: len(self.objectives)]

    @property
    def steps(self) -> int:
        """Optimiser steps of the stages to run."""
        return sum(stage.steps for stage in self.stages)


FlowNetwork = SPyNet | CorrelationFlow


def make_plan(recipe: Recipe, *, ranks: Ranks, until: str | None = None) -> Plan:
    """Check every stage before the first one begins: files, sizes, names of parameters.

    Args:
        until: Name of the last stage to run.

    Raises:
        UsageError: if a batch cannot be divided, the network does not accept the patches or clips, a group matches no
            parameters, activations cannot be computed again, or `until` is not a stage.
        ModelError: if a weights file of a stage is missing; the message names the stage.
    """
    spec = model_spec(recipe)
    _check_task(recipe, spec)
    names = [stage.name for stage in recipe.stages]
    if until is not None and until not in names:
        raise OptionError("until", until, f"{recipe.name} has no such stage", f"its stages are {', '.join(names)}")
    stages = recipe.stages if until is None else recipe.stages[: names.index(until) + 1]
    with torch.device("meta"):
        network = spec.build()
    if recipe.flow_weights is not None:
        _need_file(recipe.flow_weights, what="the flow network's weights")
        _flow_network(network, recipe)
    if recipe.trunk_weights is not None:
        _need_file(recipe.trunk_weights, what="the trunk's weights")
        _trunk(network, recipe)
    objectives = []
    for i, stage in enumerate(stages):
        try:
            ranks.share(stage.batch, accumulate=stage.accumulation)
            _check_sample(stage, spec)
            _ask_checkpointing(network, stage, spec)
            grouped(network, stage.optimiser)
            if stage.start_from is not None and stage.start_from != PREVIOUS:
                _need_file(stage.start_from, what="its file of first weights")
            if stage.discriminator is not None and stage.discriminator.start_from is not None:
                _need_file(stage.discriminator.start_from, what="its discriminator's file of first weights")
            objectives.append(Objective(stage, spec))
        except UpframeError as error:
            happened = f"cannot run: {error.subject}: {error.happened}"
            alone = f", or train only the stages before it with `until={names[i - 1]!r}`" if i else ""
            raise type(error)(f"stage {stage.name}", happened, f"{error.advice}{alone}") from error
    return Plan(recipe, spec, tuple(objectives))


def _check_task(recipe: Recipe, spec: ModelSpec) -> None:
    """Refuse networks that training samples do not suit. A sample is a degraded picture or clip and its ground truth, without a
    noise level and without frames in between."""
    if spec.takes_sigma or spec.task == "interpolate":
        lacking = "needs the noise level of its input" if spec.takes_sigma else "makes frames between input frames"
        raise UsageError(
            f"recipe {recipe.name}", f"{spec.name} {lacking}, and training data do not have this", "train another network"
        )


def _check_sample(stage: Stage, spec: ModelSpec) -> None:
    data = stage.data
    kind = "motion" if spec.name in FLOW_NETWORKS else "photos" if spec.window is None else "clips"
    if data.kind != kind:
        raise UsageError(f"data.kind={data.kind}", f"{spec.name} is trained on {kind}", f"use data.kind={kind}")
    fitting = spec.size.padded(data.patch_px)
    if fitting != data.patch_px:
        rule = f"{spec.size.minimum} px or more" + (f", multiples of {spec.size.multiple}" if spec.size.multiple > 1 else "")
        raise UsageError(f"patch_px={data.patch_px}", f"{spec.name} takes {rule}", f"use patch_px={fitting}")
    if spec.window is not None and data.clip_frames < spec.window.minimum:
        least = spec.window.minimum
        raise UsageError(f"clip_frames={data.clip_frames}", f"{spec.name} takes {least} or more", f"use clip_frames={least}")


def begin_stage(plan: Plan, index: int, *, ranks: Ranks, before: TrainState | None) -> TrainState:
    """Make the state in which stage `index` begins.

    Args:
        before: The final state of the previous stage.

    Raises:
        ModelError: if the first weights do not fit.
    """
    recipe, stage = plan.recipe, plan.recipe.stages[index]
    seed = recipe.seed + index
    torch.manual_seed(seed)  # the same in all processes, so that they begin with the same weights
    network = plan.spec.build()
    given = _given(stage, before, network.state_dict().keys())
    if given is not None:
        _take_weights(network, given, spec=plan.spec)
    if index == 0 and recipe.flow_weights is not None:
        _take_flow_weights(_flow_network(network, recipe), Path(recipe.flow_weights))
    if index == 0 and recipe.trunk_weights is not None:
        _take_trunk_weights(_trunk(network, recipe), Path(recipe.trunk_weights))
    state = _assembled(plan, index, network, ranks)
    if before is not None:
        state.step = state.stage_start = before.step
        state.drawn = before.drawn
    if given is not None:
        state.trained_before = given.trained
        if stage.keep_optimiser:
            _take_optimiser(state, given)
        if state.adversary is not None and stage.start_from == PREVIOUS and before is not None and before.adversary is not None:
            assert stage.discriminator is not None
            if stage.discriminator.start_from is None:
                state.adversary.network.load_state_dict(before.adversary.network.state_dict())
                if stage.keep_optimiser:
                    moments = detached_copy(before.adversary.optimiser.state_dict())
                    adopt_state(state.adversary.optimiser, moments, subject=given.name)
    seed_all(seed, ranks)
    return state


def resume_stage(plan: Plan, content: Content, *, ranks: Ranks) -> TrainState:
    """Make the state that a checkpoint of this recipe holds."""
    state = _assembled(plan, content["stage"], plan.spec.build(), ranks)
    restore(state, content, ranks)
    return state


# Assembling -----------------------------------------------------------------------------------------------------------
def _assembled(plan: Plan, index: int, network: nn.Module, ranks: Ranks) -> TrainState:
    stage = plan.recipe.stages[index]
    _ask_checkpointing(network, stage, plan.spec)
    network.train().to(ranks.device)
    if stage.channels_last and plan.spec.window is None:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # absent from torch's stubs
    ema = None
    if stage.ema_decay is not None:
        ema = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return TrainState(
        network=network,
        optimiser=make_optimiser(network, stage.optimiser),
        ema=ema,
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=stage.precision == "fp16"),
        guard=Guard(stage.guard),
        adversary=None if stage.discriminator is None else _adversary(stage.discriminator, ranks),
        stage=index,
    )


def _adversary(rules: Discriminator, ranks: Ranks) -> Adversary:
    network = UNetDiscriminator(channels=rules.channels)
    if rules.start_from is not None:
        path = Path(rules.start_from)
        try:
            network.load_state_dict(read(path).state)
        except RuntimeError as error:
            raise ModelError(path, "holds no discriminator of this size", "check the file and channels") from error
    network.train().to(ranks.device)
    return Adversary(network, make_optimiser(network, rules.optimiser))


def _ask_checkpointing(network: nn.Module, stage: Stage, spec: ModelSpec) -> None:
    """Set which activations the network computes again in the backward pass, if the stage asks for it."""
    asked = stage.activation_checkpointing
    if asked is None:
        return
    if not hasattr(network, "checkpoint_activations"):
        raise UsageError("activation_checkpointing", f"{spec.name} does not support it", "set it to none")
    try:
        cast("Checkpoints", network).checkpoint_activations(
            attention=asked.attention, feed_forward=asked.feed_forward, except_stages=asked.except_stages
        )
    except ValueError as error:
        raise UsageError("activation_checkpointing", str(error), "change it") from error


# First weights of a stage ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Given:
    """First weights of a stage, and the state that came with them."""

    name: str
    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    """Averaged weights; only if the optimiser is kept, so that the average also continues."""
    optimiser: Mapping[str, Any] | None
    trained: int
    """Number of steps that trained the weights; 0 if not known."""


def _given(stage: Stage, before: TrainState | None, names: Collection[str]) -> _Given | None:
    """Return the first weights of `stage` under the `names` of the network; None for fresh weights."""
    if stage.start_from is None:
        return None
    if stage.start_from != PREVIOUS:
        return _from_file(Path(stage.start_from), stage, names)
    assert before is not None  # Recipe checks it
    trained = before.trained_before + before.stage_step
    if not stage.keep_optimiser:
        return _Given("the stage before", before.weights(), None, None, trained)
    moments = detached_copy(before.optimiser.state_dict())
    return _Given("the stage before", before.network.state_dict(), before.ema, moments, trained)


def _from_file(path: Path, stage: Stage, names: Collection[str]) -> _Given:
    """Read the weights of a file; with `keep_optimiser`, the trained weights of a checkpoint and its optimiser state."""
    if stage.keep_optimiser:
        content = read_checkpoint(path)
        return _Given(str(path), content["params"], content.get("params_ema"), content["optimiser"], _trained(content))
    trained = 0
    if not stage.schedule.reset_periods:
        with suppress(InputError):  # other weights files do not state how long they were trained
            trained = _trained(read_checkpoint(path))
    file = read(path)
    if file.value_range == "0-1" and not file.state.keys().isdisjoint(names):
        # A file of upframe's, also of a network that `recognise` does not know.
        return _Given(str(path), file.state, None, None, trained)
    found = recognise(file.state, value_range=file.value_range, subject=path)  # converts names and range to upframe's
    return _Given(str(path), found.state, None, None, trained)


def _trained(content: Mapping[str, Any]) -> int:
    return int(content["trained_before"] + content["step"] - content["stage_start"])


def _take_weights(network: nn.Module, given: _Given, *, spec: ModelSpec) -> None:
    """Load every parameter with matching name and shape; a network of another scale keeps its own upsampler."""
    own = network.state_dict()
    fitting = {name: value for name, value in given.weights.items() if name in own and value.shape == own[name].shape}
    if len(fitting) < len(own) // 2:
        happened = f"only {len(fitting)} of {len(own)} parameters fit {spec.name}"
        raise ModelError(given.name, happened, "start from weights of the same family")
    log.info("started from %s: %d of %d parameters", given.name, len(fitting), len(own))
    network.load_state_dict({**own, **fitting})


def _take_optimiser(state: TrainState, given: _Given) -> None:
    if given.optimiser is None or any(name not in given.weights for name in state.network.state_dict()):
        raise ModelError(given.name, "holds no optimiser for this network", "set keep_optimiser=false")
    adopt_state(state.optimiser, given.optimiser, subject=given.name)
    if state.ema is not None and given.ema is not None:
        for name, value in given.ema.items():
            state.ema[name].copy_(value)


def _flow_network(network: nn.Module, recipe: Recipe) -> FlowNetwork:
    found = next((module for module in network.modules() if isinstance(module, SPyNet | CorrelationFlow)), None)
    if found is None:
        raise UsageError(f"recipe {recipe.name}", f"{recipe.model} has no flow network", "set flow_weights to none")
    return found


def _take_flow_weights(network: FlowNetwork, path: Path) -> None:
    """Load a flow network from a file that holds one of its kind, alone or inside a larger network.

    A SPyNet may have either published layout.
    """
    mark = "basic_module." if isinstance(network, SPyNet) else "sharpness"
    state = read(path).state
    prefixes = {name[: name.index(mark)] for name in state if mark in name}
    given = {
        mm_names(name.removeprefix(prefix)): value
        for prefix in prefixes
        for name, value in state.items()
        if name.startswith(prefix)
    }
    own = network.state_dict()
    # Some files lack the constants of SPyNet.
    wanted = {name: mm_names(name) for name in own if name not in ("mean", "std")}
    missing = [name for name, theirs in wanted.items() if theirs not in given or given[theirs].shape != own[name].shape]
    if missing:
        kind = type(network).__name__
        raise ModelError(path, f"holds no {kind}: {missing[0]} is missing or of another shape", "pass a flow network's weights")
    network.load_state_dict({**own, **{name: given[theirs] for name, theirs in wanted.items()}})


def _trunk(network: nn.Module, recipe: Recipe) -> nn.Module:
    found = getattr(network, "trunk", None)
    if not isinstance(found, nn.Module):
        raise UsageError(f"recipe {recipe.name}", f"{recipe.model} has no trunk", "set trunk_weights to none")
    return found


def _take_trunk_weights(trunk: nn.Module, path: Path) -> None:
    file = read(path)
    found = recognise(file.state, value_range=file.value_range, subject=path)
    try:
        trunk.load_state_dict(found.state)
    except RuntimeError as error:
        raise ModelError(path, f"holds {found.spec.name}, which is not this trunk", "pass weights of its size") from error


def _need_file(text: str, *, what: str) -> None:
    if not Path(text).is_file():
        raise ModelError(text, f"{what} does not exist", "check the path")
