"""Make and drive a recipe's optimiser, Adam or Muon: groups of parameters with their own learning rates, some frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from upframe.errors import ModelError, UsageError
from upframe.training.loop.muon import Muon, matrices
from upframe.training.recipes.recipe import Optimiser, ParameterGroup
from upframe.training.recipes.schedule import Schedule, learning_rate_at


def grouped(network: nn.Module, rules: Optimiser) -> list[list[nn.Parameter]]:
    """Return the parameters of `network` that are in no group, then those of each group in order.

    Parameters that the network froze are skipped unless a group names them.

    Raises:
        UsageError: if a group matches no parameter.
    """
    members: list[list[nn.Parameter]] = [[] for _ in (None, *rules.groups)]
    for name, parameter in network.named_parameters():
        number = next((i for i, group in enumerate(rules.groups, 1) if any(part in name for part in group.names)), 0)
        if number or parameter.requires_grad:
            members[number].append(parameter)
    for group, found in zip(rules.groups, members[1:], strict=True):
        if not found:
            known = sorted({name.split(".")[0] for name, _ in network.named_parameters()})
            happened = f"no parameter has {' or '.join(group.names)} in its name"
            raise UsageError("parameter group", happened, f"names begin with {', '.join(known)}")
    return members


def make_optimiser(network: nn.Module, rules: Optimiser) -> torch.optim.Adam:
    """Make the optimiser of `rules` for `network`, with its parameters `grouped`.

    The optimiser contains all groups from the beginning. Groups that train later have no state until then.
    """
    make = partial(torch.optim.Adam, fused=True) if rules.method == "adam" else partial(Muon, matrices=matrices(network))
    return make(
        [{"params": parameters} for parameters in grouped(network, rules)],
        lr=rules.learning_rate,
        betas=rules.betas,
        eps=rules.eps,
        weight_decay=rules.weight_decay,
    )


def set_rates(
    optimiser: torch.optim.Adam,
    rules: Optimiser,
    schedule: Schedule,
    *,
    step: int,
    steps: int,
    steps_before: int,
    factor: float,
) -> float:
    """Set the learning rate of every group for a step, and return that of the parameters in no group.

    Args:
        step, steps, steps_before: As for `schedule.learning_rate_at`.
        factor: Product of the rate multipliers of the guard's roll-backs.
    """
    for group, own in _matched(optimiser, rules):
        peak = rules.learning_rate * (1.0 if own is None else own.learning_rate_multiplier)
        group["lr"] = factor * learning_rate_at(schedule, step, peak=peak, steps=steps, steps_before=steps_before)
    return float(optimiser.param_groups[0]["lr"])


def set_frozen(optimiser: torch.optim.Adam, rules: Optimiser, *, step: int) -> bool:
    """Enable gradients for exactly the parameters that this step of the stage trains; return whether any changed.

    A frozen parameter has no gradient, so the optimiser skips it, and creates its state when it is first trained.
    """
    changed = False
    for group, own in _matched(optimiser, rules):
        trained = own is None or (own.frozen_until is not None and step >= own.frozen_until)
        for parameter in group["params"]:
            changed |= parameter.requires_grad != trained
            parameter.requires_grad_(trained)
    return changed


def adopt_state(optimiser: torch.optim.Adam, state: Mapping[str, Any], *, subject: str) -> None:
    """Copy the moments of another optimiser for the same parameters, without its settings.

    Raises:
        ModelError: if that optimiser had other parameters or another method.
    """
    if {group.get("method") for group in state["param_groups"]} != {group.get("method") for group in optimiser.param_groups}:
        advice = "train both stages with the same optimiser.method, or set keep_optimiser=false"
        raise ModelError(subject, "its optimiser used another method", advice)
    kept = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
    try:
        optimiser.load_state_dict(dict(state))
    except (ValueError, KeyError) as error:
        advice = "train the same network in the same groups, or set keep_optimiser=false"
        raise ModelError(subject, "its optimiser had other parameters", advice) from error
    for group, settings in zip(optimiser.param_groups, kept, strict=True):
        group.update(settings)


def _matched(optimiser: torch.optim.Adam, rules: Optimiser) -> Iterator[tuple[dict[str, Any], ParameterGroup | None]]:
    yield from zip(optimiser.param_groups, (None, *rules.groups), strict=True)
