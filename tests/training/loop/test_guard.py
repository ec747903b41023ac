"""Losses that leap or are not finite: back to the last good state, at a lower rate, with the batches that follow."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from toys import RECIPE, STAGE, Noise, assert_same, log_of, recipe_of, tensors
from upframe.errors import ModelError
from upframe.training.loop.guard import DivergedError, Guard
from upframe.training.loop.run_folder import read_checkpoint
from upframe.training.loop.train import train
from upframe.training.recipes.recipe import SpikeGuard
from upframe.training.recipes.schedule import Schedule

BATCH = STAGE.batch


def _poisoned(*batches: int, value: float) -> Any:
    """Training data in which the second sample of these batches is spoilt."""
    poison = {batch * BATCH + 1: value for batch in batches}
    return lambda stage: Noise(poison=poison)


# The rule -------------------------------------------------------------------------------------------------------------
def test_a_leap_is_measured_against_the_median_of_the_window() -> None:
    guard = Guard(SpikeGuard(factor=5, window=4))
    for loss in (1.0, 2.0, 100.0):
        assert guard.complaint({"loss": loss}) is None  # too few to judge by
        guard.accept(loss)
    guard.accept(3.0)
    assert guard.complaint({"loss": 12.4}) is None  # the median of 1, 2, 3, 100 is 2.5
    assert "5.0 times the median" in (guard.complaint({"loss": 12.6}) or "")
    guard.accept(4.0)  # 1 leaves the window: 2, 100, 3, 4
    assert guard.complaint({"loss": 17.4}) is None
    assert guard.complaint({"loss": 17.6}) is not None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "grad_norm", "d_fake"])
def test_what_is_not_finite_is_never_used(bad: float, where: str) -> None:
    guard = Guard(SpikeGuard(max_rollbacks=0))
    assert str(bad) in (guard.complaint({"loss": 1.0, where: bad}) or "")


def test_with_rolling_back_off_a_leap_is_let_through() -> None:
    guard = Guard(SpikeGuard(window=1, max_rollbacks=0))
    guard.accept(1.0)
    assert guard.complaint({"loss": 1e9}) is None
    assert not guard.may_roll_back


# In a run -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("value", "complaint"), [(math.nan, "the loss is nan"), (1e4, "the loss jumped to")])
def test_a_bad_batch_is_undone_skipped_and_reported(
    tmp_path: Path, value: float, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a window of 4 the states after steps 0, 4, 8 are kept. Batch 6 (0-based) is bad, so step 7 sends the run back to
    step 4; it goes on with batches 7, 8, … at half the rate."""
    events: list[Any] = []
    state = train(RECIPE, data=_poisoned(6, value=value), out=tmp_path, on_event=events.append)
    assert (state.step, state.drawn) == (12, 15)
    (notice,) = [row for row in log_of(tmp_path) if "notice" in row]
    assert notice == events[0]
    assert (notice["notice"], notice["step"], notice["to"]) == ("rolled-back", 7, 4)
    assert complaint in notice["message"] and complaint in caplog.text
    reports = [row for row in log_of(tmp_path) if "loss" in row]
    assert [row["step"] for row in reports] == [4, 8, 12]
    assert [row["learning_rate"] for row in reports] == [1e-3, 5e-4, 5e-4]
    assert all(row["loss"] < 1 for row in reports)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors(state).values())


@pytest.mark.slow
def test_after_a_roll_back_the_run_is_the_one_that_never_saw_the_bad_batches(tmp_path: Path) -> None:
    """The same from step 4 on as a run at half the rate from there whose data lack batches 4 to 6."""
    state = train(RECIPE, data=_poisoned(6, value=math.nan), out=tmp_path / "a")
    train(RECIPE, data=_poisoned(6, value=math.nan), out=tmp_path / "b", stop_after=4)
    content = read_checkpoint(tmp_path / "b" / "last.pth")
    content["drawn"] = 7
    content["guard"].update(rate_factor=0.5, rollbacks=1)
    content["snapshot"] = {**content, "drawn": 4}
    torch.save(content, tmp_path / "b" / "last.pth")
    other = train(RECIPE, data=_poisoned(6, value=math.nan), out=tmp_path / "b")
    assert_same(tensors(state), tensors(other))


@pytest.mark.slow
def test_in_float16_too_a_bad_batch_is_undone(tmp_path: Path) -> None:
    """The loss scaler has looked at the bad gradients when the run goes back; the next ones are not theirs."""
    half = recipe_of(replace(STAGE, precision="fp16"))
    state = train(half, data=_poisoned(6, value=math.nan), out=tmp_path)
    assert (state.step, state.drawn, state.guard.rollbacks) == (12, 15, 1)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors(state).values())


@pytest.mark.slow
@pytest.mark.parametrize("stop", [5, 6, 7, 9])
def test_an_interruption_changes_nothing_about_a_roll_back(tmp_path: Path, stop: int) -> None:
    """Also right before it, when the state to go back to is older than the checkpoint."""
    data = _poisoned(6, 9, value=math.nan)
    whole = train(RECIPE, data=data, out=tmp_path / "whole")
    train(RECIPE, data=data, out=tmp_path / "parts", stop_after=stop)
    resumed = train(RECIPE, data=data, out=tmp_path / "parts")
    assert whole.guard.rollbacks == 2 and whole.guard.rate_factor == 0.25
    assert_same(tensors(resumed), tensors(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_it_gives_up_after_the_recipe_s_maximum_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    guard = SpikeGuard(window=4, max_rollbacks=2)
    recipe = recipe_of(replace(STAGE, guard=guard))
    with pytest.raises(DivergedError, match=r"the loss is nan at step \d+ after 2 roll-backs") as caught:
        train(recipe, data=_poisoned(*range(6, 20), value=math.nan), out=tmp_path)
    assert isinstance(caught.value, ModelError) and caught.value.exit_code == 4
    content = read_checkpoint(tmp_path / "last.pth")
    assert content["step"] == 5
    assert all(bool(torch.isfinite(value).all()) for value in content["params"].values())


def test_without_rolling_back_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    recipe = recipe_of(replace(STAGE, guard=SpikeGuard(max_rollbacks=0)))
    with pytest.raises(DivergedError, match="the loss is nan at step 7"):
        train(recipe, data=_poisoned(6, value=math.nan), out=tmp_path)


@pytest.mark.slow
def test_a_rate_far_too_high_is_brought_down_until_the_run_holds(tmp_path: Path) -> None:
    """No injected fault: after a quiet warm-up the rate is a thousand times what the network bears."""
    stage = replace(STAGE, steps=40, guard=SpikeGuard(factor=3, window=4, rate_multiplier=1e-3))
    hot = replace(stage, schedule=Schedule("multistep", milestones=(8,), gamma=1e3))
    state = train(recipe_of(hot), data=lambda stage: Noise(), out=tmp_path)
    assert state.guard.rollbacks >= 1
    assert log_of(tmp_path)[-1]["learning_rate"] <= 1e-3
    assert log_of(tmp_path)[-1]["loss"] < log_of(tmp_path)[0]["loss"]
