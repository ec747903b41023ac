"""Several processes train as one would: real processes over gloo, started by torchrun and by hand."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import toys
from toys import CLEANER, STAGE, Noise, assert_same, checkpoint_tensors, log_of, recipe_of, start
from upframe.errors import UsageError
from upframe.training.loop.distributed import FirstProcessError, Ranks, joined
from upframe.training.loop.run_folder import read_checkpoint
from upframe.training.loop.train import train
from upframe.training.recipes.recipe import Cadence, DataRecipe, Discriminator, LossTerm, Optimiser, ParameterGroup, Recipe

SCRIPT = Path(toys.__file__).with_name("toy_run.py")
PATH = {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])}
WAIT_S = 300


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _by_hand(*arguments: object) -> list[subprocess.Popen[str]]:
    """Two processes with the variables that torchrun would set."""
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return [start(command, **PATH, **common, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]


def _finished(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Their error output; fails if one of them failed."""
    told = [process.communicate(timeout=WAIT_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    return told


def _everything() -> Recipe:
    """Clips, a discriminator, accumulation, a group that thaws on the way, clipping and an average.

    With its usual eps Adam makes full steps of the noise in gradients that are nearly nothing; a larger one keeps what is
    compared here from being that noise.
    """
    optimiser = Optimiser(learning_rate=1e-3, eps=1e-2)
    group = ParameterGroup(("basicvsr.backward_resblocks",), learning_rate_multiplier=0.5, frozen_until=3)
    stage = replace(
        STAGE,
        steps=6,
        batch=4,
        accumulation=2,
        data=DataRecipe(kind="clips", clip_frames=2, patch_px=16),
        losses=(
            LossTerm("l1"),
            LossTerm("charbonnier", weight=1e-4, options={"reduction": "sum"}),
            LossTerm("gan", weight=0.05),
        ),
        discriminator=Discriminator(channels=4, optimiser=optimiser),
        optimiser=replace(optimiser, groups=(group,)),
        clip_grad_norm=1.0,
    )
    return recipe_of(stage, model="realbasicvsr-x4", model_options=CLEANER, cadence=Cadence(checkpoint_every=100, log_every=2))


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch_and_resume_to_the_bit(tmp_path: Path) -> None:
    recipe = _everything()
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    torchrun = start([*launcher, str(tmp_path / "recipe.json"), str(tmp_path / "two")], **PATH)
    one = train(recipe, data=lambda stage: Noise(scale=4, frames=2), out=tmp_path / "one")
    error = torchrun.communicate(timeout=WAIT_S)[1]
    assert torchrun.returncode == 0, error
    two = read_checkpoint(tmp_path / "two" / "last.pth")
    assert len(two["random"]) == 2
    (facts,) = (json.loads(line) for line in (tmp_path / "two" / "environment.jsonl").read_text().splitlines())
    assert facts["processes"] == 2
    assert one.adversary is not None
    # Six steps of up to 1e-3 from gradients that differ by rounding. Those of the discriminator are what is left of two large
    # ones, of true and made pictures, that nearly cancel; 2e-5 is a fiftieth of one of its steps.
    judge = dict(one.adversary.network.named_parameters())
    for ours, theirs, tolerance in (
        (one.network.state_dict(), two["params"], 2e-6),
        (judge, two["discriminator"]["params"], 2e-5),
    ):
        for name, value in ours.items():
            difference = float((theirs[name] - value.detach()).abs().max())
            assert difference <= tolerance, (name, difference)
    for ours, theirs in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert ours["terms"] == pytest.approx(theirs["terms"], rel=1e-4)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
    # Stopped between the thaw and the end, by hand-started processes.
    for stop_after in (4, 6):
        _finished(_by_hand(tmp_path / "recipe.json", tmp_path / "parts", stop_after))
    assert_same(checkpoint_tensors(two), checkpoint_tensors(read_checkpoint(tmp_path / "parts" / "last.pth")))
    assert log_of(tmp_path / "two") == log_of(tmp_path / "parts")


@pytest.mark.slow
def test_muon_in_two_processes_equals_one(tmp_path: Path) -> None:
    """Every process makes the whole step from the averaged gradient, so their weights stay the same."""
    optimiser = Optimiser(method="muon", learning_rate=1e-3, eps=1e-2)
    recipe = recipe_of(replace(STAGE, steps=3, batch=4, optimiser=optimiser))
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    one = train(recipe, data=lambda stage: Noise(), out=tmp_path / "one")
    _finished(_by_hand(tmp_path / "recipe.json", tmp_path / "two"))
    params = read_checkpoint(tmp_path / "two" / "last.pth")["params"]
    for name, value in one.network.state_dict().items():
        # A hundredth of three steps: directions in which a gradient is hardly more than rounding are made as long as any.
        torch.testing.assert_close(params[name], value, rtol=0, atol=3e-5, msg=name)


@pytest.mark.slow
def test_what_stops_the_first_process_stops_the_others(tmp_path: Path) -> None:
    """A folder that holds another run: only the first process looks, and only it speaks."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pth").write_bytes(b"no checkpoint")
    (tmp_path / "recipe.json").write_text(recipe_of(STAGE).to_json())
    first, second = _by_hand(tmp_path / "recipe.json", tmp_path / "run")
    errors = [process.communicate(timeout=WAIT_S)[1] for process in (first, second)]
    assert first.returncode != 0 and "InputError" in errors[0] and "last.pth" in errors[0]
    assert second.returncode != 0 and "FirstProcessError" in errors[1]


@pytest.mark.slow
def test_what_is_wrong_in_every_process_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(recipe_of(replace(STAGE, batch=3)).to_json())
    first, second = _by_hand(tmp_path / "recipe.json", tmp_path / "run")
    errors = [process.communicate(timeout=WAIT_S)[1] for process in (first, second)]
    assert first.returncode != 0 and "OptionError" in errors[0] and "batch=3" in errors[0]
    assert second.returncode != 0 and "FirstProcessError" in errors[1]


# Without processes ------------------------------------------------------------------------------------------------------
def test_a_batch_that_does_not_divide_is_refused_with_the_numbers() -> None:
    with pytest.raises(UsageError, match=r"batch=16: cannot be divided over 3 process.* Use a multiple of 6"):
        Ranks(0, 3, torch.device("cpu")).share(16, accumulate=2)
    assert Ranks(0, 4, torch.device("cpu")).share(16, accumulate=2) == 2


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_the_same_samples(tmp_path: Path) -> None:
    recipe = recipe_of(STAGE)
    train(recipe, data=lambda stage: Noise(), out=tmp_path, stop_after=5)
    content = read_checkpoint(tmp_path / "last.pth")
    content["random"] = content["random"] * 2  # as two processes would have left it
    torch.save(content, tmp_path / "last.pth")
    state = train(recipe, data=lambda stage: Noise(), out=tmp_path)
    whole = train(recipe, data=lambda stage: Noise(), out=tmp_path / "whole")
    for name, value in whole.network.state_dict().items():  # RLFN draws nothing itself
        assert torch.equal(state.network.state_dict()[name], value), name


def test_incomplete_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="RANK is not set"), joined("cpu"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE=two: is not a number"), joined("cpu"):
        pass


def test_the_others_exit_with_the_code_of_the_first() -> None:
    assert FirstProcessError(1, UsageError("x", "y")).exit_code == 2
