"""Learning rates: reference values, PyTorch's own schedulers, and what happens beyond the end."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from upframe.errors import UsageError
from upframe.training.recipes.presets.vsr_transformer import REDS_SCHEDULE, VIMEO_SCHEDULE
from upframe.training.recipes.schedule import Schedule, learning_rate_at

TINY = Schedule("cosine_restarts", periods=(5, 7, 4), restart_weights=(1, 0.5, 0.25), final_learning_rate=1e-5)
EVERY_KIND = (
    Schedule("constant"),
    Schedule("cosine", final_learning_rate=1e-5),
    Schedule("multistep", milestones=(3, 9), gamma=0.5),
    Schedule("halve_every", every=4),
    TINY,
    Schedule("cosine_warm_restarts", periods=(5,), period_multiplier=2, final_learning_rate=1e-5),
)


@pytest.mark.parametrize("name", ["reds", "vimeo", "tiny"])
def test_cosine_restarts_give_the_reference_values(name: str, shared: Path) -> None:
    """VT-11. All values of the reference implementation, with the schedules of the presets where it is theirs."""
    case = json.loads((shared / "golden/common/lr_schedule.json").read_text())["schedules"][name]
    schedule = {"reds": REDS_SCHEDULE, "vimeo": VIMEO_SCHEDULE, "tiny": TINY}[name]
    assert schedule.periods == tuple(case["periods"])
    assert schedule.restart_weights == tuple(case["restart_weights"])
    assert schedule.final_learning_rate == case["eta_min"]
    for step, expected in case["lr_at_scheduler_step"].items():
        rate = learning_rate_at(schedule, int(step), peak=case["base_lr"], steps=sum(case["periods"]))
        # The reference computes in float64 too; the last digits depend on the order of the products.
        assert rate == pytest.approx(expected, rel=1e-12), step


def test_cosine_restarts_stay_at_their_end_past_the_last_period() -> None:
    """The original returns None there, and training dies."""
    for step in (16, 17, 1000):
        assert learning_rate_at(TINY, step, peak=1e-3, steps=16) == 1e-5


def test_warm_restarts_are_pytorchs() -> None:
    """VR-8's scheduler, step by step over two restarts, also with growing periods."""
    for multiplier in (1, 2):
        parameter = torch.nn.Parameter(torch.zeros(()))
        optimiser = torch.optim.SGD([parameter], lr=4e-4)
        theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=6, T_mult=multiplier, eta_min=1e-7)
        ours = Schedule("cosine_warm_restarts", periods=(6,), period_multiplier=multiplier, final_learning_rate=1e-7)
        for step in range(20):
            expected = optimiser.param_groups[0]["lr"]
            assert learning_rate_at(ours, step, peak=4e-4, steps=20) == pytest.approx(expected, rel=1e-12), step
            optimiser.step()
            theirs.step()


def test_multistep_is_pytorchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.SGD([parameter], lr=1e-3)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones=[3, 7], gamma=0.7)
    for step in range(12):
        rate = learning_rate_at(Schedule("multistep", milestones=(3, 7), gamma=0.7), step, peak=1e-3, steps=12)
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
        optimiser.step()
        theirs.step()


def test_halve_every_halves_at_the_step_itself() -> None:
    """RL-9: 5e-4, halved every 200 000 steps."""
    schedule = Schedule("halve_every", every=200_000)
    steps = (0, 199_999, 200_000, 399_999, 400_000, 999_999)
    rates = [learning_rate_at(schedule, step, peak=5e-4, steps=1_000_000) for step in steps]
    assert rates == [5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4, 5e-4 / 16]


def test_cosine_rises_to_its_peak_and_ends_at_its_end() -> None:
    schedule = Schedule("cosine", warmup_steps=100, final_learning_rate=1e-6)
    rates = {step: learning_rate_at(schedule, step, peak=1e-3, steps=1000) for step in (0, 49, 99, 100, 550, 999, 1000, 5000)}
    assert rates[0] == pytest.approx(1e-5)
    assert rates[49] == pytest.approx(5e-4)
    assert rates[99] == rates[100] == 1e-3
    assert rates[550] == pytest.approx(1e-6 + (1e-3 - 1e-6) / 2)
    assert rates[999] == pytest.approx(1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * 899 / 900)))
    assert rates[1000] == rates[5000] == 1e-6


@pytest.mark.parametrize("schedule", EVERY_KIND, ids=lambda s: s.kind)
def test_every_schedule_starts_at_its_peak_and_stays_a_rate_for_ever(schedule: Schedule) -> None:
    rates = [learning_rate_at(schedule, step, peak=1e-3, steps=16) for step in range(100)]
    assert rates[0] == 1e-3
    assert all(0 < rate <= 1e-3 for rate in rates)
    with pytest.raises(ValueError, match="step"):
        learning_rate_at(schedule, -1, peak=1e-3, steps=16)


@pytest.mark.parametrize("schedule", EVERY_KIND, ids=lambda s: s.kind)
def test_periods_restart_or_go_on_when_a_stage_takes_over_a_run(schedule: Schedule) -> None:
    """VT-14: `reset_periods` decides whether the steps of the run that is taken over count."""

    def rates(one: Schedule, *, before: int, steps: int) -> list[float]:
        return [learning_rate_at(one, step, peak=1e-3, steps=steps, steps_before=before) for step in range(8)]

    undisturbed = [learning_rate_at(schedule, step, peak=1e-3, steps=16) for step in range(16)]
    assert rates(schedule, before=8, steps=16) == undisturbed[:8]
    going_on = replace(schedule, reset_periods=False)
    assert rates(going_on, before=8, steps=8) == undisturbed[8:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "multistep", "milestones": (9, 3)},
        {"kind": "multistep", "milestones": (3, 3)},
        {"kind": "halve_every"},
        {"kind": "cosine_restarts", "periods": (3, 3), "restart_weights": (1.0,)},
        {"kind": "cosine_restarts"},
        {"kind": "cosine_warm_restarts", "periods": (0,)},
        {"kind": "constant", "warmup_steps": -1},
        {"kind": "cosine_warm_restarts", "periods": (3,), "period_multiplier": 0},
    ],
)
def test_a_schedule_that_says_nothing_clear_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Schedule(**wrong)  # type: ignore[arg-type]
