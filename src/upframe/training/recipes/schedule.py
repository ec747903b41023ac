"""Learning rates as pure functions of the step: nothing to save, nothing to restore, defined at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from upframe.errors import UsageError

ScheduleKind = Literal["constant", "cosine", "multistep", "halve_every", "cosine_restarts", "cosine_warm_restarts"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate of a stage moves with its optimiser steps. The peak is the optimiser's `learning_rate`."""

    kind: ScheduleKind = "constant"
    """"constant": the peak throughout. "cosine": half a cosine from the peak to `final_learning_rate` at the stage's end.
    "multistep": times `gamma` at each of `milestones`. "halve_every": times `gamma` every `every` steps.
    "cosine_restarts": one half cosine per entry of `periods`, scaled by `restart_weights`; BasicSR's
    CosineAnnealingRestartLR. "cosine_warm_restarts": half cosines of `periods[0]` steps, each `period_multiplier` times as
    long as the one before; PyTorch's CosineAnnealingWarmRestarts."""
    final_learning_rate: float = 0.0
    """Where every cosine ends (`eta_min`); the same for all groups of parameters."""
    warmup_steps: int = 0
    """First steps over which the rate rises linearly to the peak. "cosine" falls over what is left of the stage; the other
    kinds count from the stage's first step."""
    milestones: tuple[int, ...] = ()
    """Steps at which "multistep" multiplies the rate by `gamma`; rising."""
    gamma: float = 0.5
    """Factor of "multistep" and "halve_every"."""
    every: int = 0
    """Steps between two falls of "halve_every"."""
    periods: tuple[int, ...] = ()
    """Steps of each period of "cosine_restarts"; the first one is the length of "cosine_warm_restarts"."""
    restart_weights: tuple[float, ...] = ()
    """Height of each period of "cosine_restarts" over `final_learning_rate`, as a share of the first's."""
    period_multiplier: int = 1
    """Growth of each period of "cosine_warm_restarts" (`T_mult`)."""
    reset_periods: bool = True
    """Whether a stage that takes over another run's state counts its schedule from 0; False goes on where that run stood.
    An interrupted run that is taken up again always goes on where it stopped."""

    def __post_init__(self) -> None:
        if self.kind == "multistep" and list(self.milestones) != sorted(set(self.milestones)):
            raise UsageError("schedule", f"milestones {self.milestones} do not rise", "list them in order, each once")
        if self.kind == "halve_every" and self.every < 1:
            raise UsageError("schedule", f"every is {self.every}", "say after how many steps the rate falls")
        if self.kind == "cosine_restarts" and len(self.periods) != len(self.restart_weights):
            happened = f"{len(self.periods)} periods and {len(self.restart_weights)} restart weights"
            raise UsageError("schedule", happened, "give one weight for each period")
        if self.kind.endswith("restarts") and (not self.periods or min(self.periods) < 1):
            raise UsageError("schedule", f"periods are {self.periods}", "give periods of 1 step or more")
        if self.period_multiplier < 1 or self.warmup_steps < 0:
            raise UsageError("schedule", "period_multiplier is below 1 or warmup_steps below 0", "use larger numbers")


def learning_rate_at(schedule: Schedule, step: int, *, peak: float, steps: int, steps_before: int = 0) -> float:
    """The rate of one optimiser step.

    Args:
        step: Optimiser steps done in this stage before this one: 0 for the first. Any number from 0 on, also past the
            stage's end, where every schedule stays defined.
        peak: The rate of the optimiser or of one of its groups.
        steps: Length of the stage.
        steps_before: Steps that the state this stage began with had been trained; they count only if the schedule does
            not `reset_periods`.
    """
    if step < 0:
        raise ValueError(f"step is {step}, expected 0 or more")
    if not schedule.reset_periods:
        step, steps = step + steps_before, steps + steps_before
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    match schedule.kind:
        case "constant":
            return peak
        case "cosine":
            length = max(steps - schedule.warmup_steps, 1)
            return _cosine(min((step - schedule.warmup_steps) / length, 1.0), peak, schedule.final_learning_rate)
        case "multistep":
            return peak * schedule.gamma ** sum(step >= milestone for milestone in schedule.milestones)
        case "halve_every":
            return peak * schedule.gamma ** (step // schedule.every)
        case "cosine_restarts":
            return _restarts(schedule, step, peak)
        case "cosine_warm_restarts":
            return _warm_restarts(schedule, step, peak)


def _cosine(progress: float, peak: float, final: float, weight: float = 1.0) -> float:
    return final + weight * 0.5 * (peak - final) * (1 + math.cos(math.pi * progress))


def _restarts(schedule: Schedule, step: int, peak: float) -> float:
    """A period's last value, at its very end, is `final_learning_rate`; the restart shows one step later, as in BasicSR.

    Past the last period the rate stays at that end; the original returns None there.
    """
    start = 0
    for period, weight in zip(schedule.periods, schedule.restart_weights, strict=True):
        if step <= start + period:
            return _cosine((step - start) / period, peak, schedule.final_learning_rate, weight)
        start += period
    return schedule.final_learning_rate


def _warm_restarts(schedule: Schedule, step: int, peak: float) -> float:
    """The step after a period is the peak again, as in PyTorch; periods follow one another without end."""
    period = schedule.periods[0]
    while step >= period:
        if schedule.period_multiplier == 1:
            step %= period
        else:
            step, period = step - period, period * schedule.period_multiplier
    return _cosine(step / period, peak, schedule.final_learning_rate)
