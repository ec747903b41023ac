"""Learning rates as pure functions of the step, defined at every step, so that there is no state to save or restore."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from upframe.errors import UsageError

ScheduleKind = Literal["constant", "cosine", "multistep", "halve_every", "cosine_restarts", "cosine_warm_restarts"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate of a stage as a function of its optimiser steps. Its peak is the optimiser's `learning_rate`."""

    kind: ScheduleKind = "constant"
    """"constant": always the peak. "cosine": half a cosine from the peak to `final_learning_rate` at the end of the stage.
    "multistep": multiplied by `gamma` at each of `milestones`. "halve_every": multiplied by `gamma` every `every` steps.
    "cosine_restarts": a half cosine for each entry of `periods`, scaled by `restart_weights` (BasicSR's
    CosineAnnealingRestartLR). "cosine_warm_restarts": half cosines, the first of `periods[0]` steps and each
    `period_multiplier` times as long as the previous one (PyTorch's CosineAnnealingWarmRestarts)."""
    final_learning_rate: float = 0.0
    """Rate at the end of every cosine (`eta_min`), the same for all groups of parameters."""
    warmup_steps: int = 0
    """Number of first steps in which the rate rises linearly to the peak. "cosine" falls over the rest of the stage; the
    other kinds count from the first step of the stage."""
    milestones: tuple[int, ...] = ()
    """Steps at which "multistep" multiplies the rate by `gamma`, in rising order."""
    gamma: float = 0.5
    """Factor of "multistep" and "halve_every"."""
    every: int = 0
    """Steps between two multiplications of "halve_every"."""
    periods: tuple[int, ...] = ()
    """Steps of each period of "cosine_restarts"; the first entry is the first period of "cosine_warm_restarts"."""
    restart_weights: tuple[float, ...] = ()
    """Height of each period of "cosine_restarts" above `final_learning_rate`, as a fraction of the peak's."""
    period_multiplier: int = 1
    """Factor between the lengths of successive periods of "cosine_warm_restarts" (`T_mult`)."""
    reset_periods: bool = True
    """Whether a stage with `start_from` counts its schedule from 0. False: it continues the count of the run that trained
    those weights. A resumed run always continues its own count."""

    def __post_init__(self) -> None:
        if self.kind == "multistep" and list(self.milestones) != sorted(set(self.milestones)):
            raise UsageError("schedule", f"milestones {self.milestones} do not rise", "list them in order, each once")
        if self.kind == "halve_every" and self.every < 1:
            raise UsageError("schedule", f"every is {self.every}", "set the number of steps between two multiplications")
        if self.kind == "cosine_restarts" and len(self.periods) != len(self.restart_weights):
            happened = f"{len(self.periods)} periods and {len(self.restart_weights)} restart weights"
            raise UsageError("schedule", happened, "give one weight for each period")
        if self.kind.endswith("restarts") and (not self.periods or min(self.periods) < 1):
            raise UsageError("schedule", f"periods are {self.periods}", "give periods of 1 step or more")
        if self.period_multiplier < 1 or self.warmup_steps < 0:
            raise UsageError("schedule", "period_multiplier is below 1 or warmup_steps below 0", "use larger numbers")


def learning_rate_at(schedule: Schedule, step: int, *, peak: float, steps: int, steps_before: int = 0) -> float:
    """Return the learning rate of one optimiser step.

    Args:
        step: Index of the step in its stage, from 0. Every schedule is also defined beyond the end of the stage.
        peak: Rate of the optimiser or of one of its groups.
        steps: Length of the stage.
        steps_before: Earlier training steps of the state with which this stage began. They count only if the schedule
            has `reset_periods=False`.
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
    """Each period ends with `final_learning_rate`, and the restart shows one step later, as in BasicSR.

    After the last period the rate stays at that value; the original returns None.
    """
    start = 0
    for period, weight in zip(schedule.periods, schedule.restart_weights, strict=True):
        if step <= start + period:
            return _cosine((step - start) / period, peak, schedule.final_learning_rate, weight)
        start += period
    return schedule.final_learning_rate


def _warm_restarts(schedule: Schedule, step: int, peak: float) -> float:
    """The step after a period has the peak again, as in PyTorch; periods follow each other without end."""
    period = schedule.periods[0]
    while step >= period:
        if schedule.period_multiplier == 1:
            step %= period
        else:
            step, period = step - period, period * schedule.period_multiplier
    return _cosine(step / period, peak, schedule.final_learning_rate)
