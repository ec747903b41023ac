"""A run that was stopped, killed or damaged ends in the same bits, and with the same log, as one that was not."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import toys
from toys import CLEANER, RECIPE, STAGE, Noise, assert_same, checkpoint_tensors, log_of, recipe_of, start, tensors
from upframe.errors import InputError, OutputError
from upframe.training.loop.run_folder import read_checkpoint
from upframe.training.loop.train import train
from upframe.training.recipes.recipe import (
    PREVIOUS,
    Cadence,
    DataRecipe,
    Discriminator,
    LossTerm,
    Optimiser,
    ParameterGroup,
    Recipe,
    Stage,
)
from upframe.training.recipes.schedule import Schedule

SCRIPT = Path(toys.__file__).with_name("toy_run.py")


def _noise(stage: Stage) -> Noise:
    return Noise()


def _adversarial() -> Recipe:
    """RealBasicVSR in small: two stages, the second against a discriminator (RB-8, RB-9)."""
    first = replace(
        STAGE,
        name="first",
        steps=2,
        data=DataRecipe(kind="clips", clip_frames=2, patch_px=16),
        losses=(LossTerm("l1"), LossTerm("l1", on="cleaned")),
    )
    second = replace(
        first,
        name="gan",
        steps=3,
        losses=(*first.losses, LossTerm("gan", weight=0.05)),
        discriminator=Discriminator(channels=4),
        start_from=PREVIOUS,
    )
    return recipe_of(first, second, model="realbasicvsr-x4", model_options=CLEANER)


# Killed ---------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_200_steps_are_100_a_kill_and_100_more(tmp_path: Path) -> None:
    """kill -9 after step 100, somewhere between two checkpoints; then the same command again."""
    group = ParameterGroup(("block_1",), learning_rate_multiplier=0.5, frozen_until=120)
    stage = replace(
        STAGE,
        steps=200,
        optimiser=Optimiser(learning_rate=1e-3, groups=(group,)),
        schedule=Schedule("cosine", final_learning_rate=1e-6, warmup_steps=10),
    )
    recipe = recipe_of(stage, cadence=Cadence(checkpoint_every=50, log_every=7))
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    command = [sys.executable, str(SCRIPT), str(tmp_path / "recipe.json")]
    path = {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])}
    process = start([*command, str(cut)], **path)
    log = cut / "log.jsonl"
    while process.poll() is None and not (log.exists() and len(log.read_bytes().splitlines()) >= 15):
        time.sleep(0.002)  # 15 lines: step 105
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it had ended before it was killed"
    assert 100 <= read_checkpoint(cut / "last.pth")["step"] < 200
    again = start([*command, str(cut)], **path)
    assert again.wait() == 0, again.communicate()[1]
    train(recipe, data=_noise, out=whole)
    one, two = (read_checkpoint(out / "last.pth") for out in (cut, whole))
    assert one["step"] == 200
    assert_same(checkpoint_tensors(one), checkpoint_tensors(two))
    assert log_of(cut) == log_of(whole)


# Stopped --------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_that_was_stopped_ends_bit_for_bit_like_one_that_was_not(tmp_path: Path, precision: str) -> None:
    recipe = recipe_of(replace(STAGE, precision=precision, fp32_tail_steps=3))  # type: ignore[arg-type] # from the marks
    whole = train(recipe, data=_noise, out=tmp_path / "whole")
    train(recipe, data=_noise, out=tmp_path / "parts", stop_after=6)
    resumed = train(recipe, data=_noise, out=tmp_path / "parts", workers=0)
    assert_same(tensors(resumed), tensors(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


@pytest.mark.slow
def test_muon_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """With weights in channels-last too, whose momenta lie as they do; and with a group that joins after the stop."""
    group = ParameterGroup(("block_1",), frozen_until=8)
    muon = Optimiser(method="muon", learning_rate=1e-3, groups=(group,))
    recipe = recipe_of(replace(STAGE, optimiser=muon, channels_last=True))
    whole = train(recipe, data=_noise, out=tmp_path / "whole")
    assert any("momentum" in kept for kept in whole.optimiser.state.values())
    train(recipe, data=_noise, out=tmp_path / "parts", stop_after=6)
    resumed = train(recipe, data=_noise, out=tmp_path / "parts")
    assert_same(tensors(resumed), tensors(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


@pytest.mark.slow
def test_every_step_of_two_stages_with_a_discriminator_is_a_place_to_stop(tmp_path: Path) -> None:
    recipe = _adversarial()

    def clips(stage: Stage) -> Noise:
        return Noise(scale=4, frames=2)

    whole = train(recipe, data=clips, out=tmp_path / "whole")
    for step in range(1, recipe.steps + 1):
        state = train(recipe, data=clips, out=tmp_path / "parts", stop_after=step)
        assert state.step == step
    assert_same(tensors(state), tensors(whole))
    assert whole.adversary is not None
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    final = log_of(tmp_path / "whole")[-1]
    assert {"l1", "l1_cleaned", "gan", "d_real", "d_fake"} == final["terms"].keys()
    assert all(not p.requires_grad for p in whole.network.get_submodule("basicvsr.spynet").parameters())


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    """A network that draws in its forward pass (as one with stochastic depth does) sees the same draws."""
    from upframe.training.loop.distributed import Ranks
    from upframe.training.loop.state import random_state, seed_all, set_random_state

    ranks = Ranks(0, 1, torch.device("cpu"))
    import random

    import numpy as np

    def draws() -> tuple[float, float, float]:
        return torch.rand(()).item(), np.random.rand(), random.gauss(0, 1)

    seed_all(5, ranks)
    draws()
    kept = random_state(ranks.device)
    torch.save(kept, tmp_path / "random.pth")
    expected = [draws() for _ in range(3)]
    set_random_state(torch.load(tmp_path / "random.pth", weights_only=True), ranks.device)
    assert [draws() for _ in range(3)] == expected
    seed_all(5, Ranks(1, 2, torch.device("cpu")))
    other = draws()
    seed_all(5, Ranks(0, 2, torch.device("cpu")))
    assert draws() != other  # processes must not drop the same paths


# Damaged --------------------------------------------------------------------------------------------------------------
def _entry(archive: bytes, number: int) -> int:
    """Where the entry of a tensor stands in the list of contents at the end of a checkpoint."""
    return archive.rindex(b"PK\x01\x02", 0, archive.rindex(b"/data/%d" % number))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "bit", "folder", "compressed", "empty", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(RECIPE, data=_noise, out=tmp_path / "a", stop_after=7)
    last = tmp_path / "a" / "last.pth"
    content = bytearray(last.read_bytes())
    if damage == "cut":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "bit":
        at = content.index(read_checkpoint(last)["params"]["conv_1.weight"].numpy().tobytes()[:64])
        content[at + 3] ^= 1  # the sign or the highest bits of one weight: it still loads
        last.write_bytes(content)
    elif damage == "folder":
        content[_entry(bytes(content), 0) + 38] ^= 0x10  # an attribute that no checksum covers: torch would read nothing
        last.write_bytes(content)
    elif damage == "compressed":
        content[_entry(bytes(content), 0) + 10] ^= 8
        last.write_bytes(content)
    elif damage == "empty":
        last.write_bytes(b"")
    else:
        last.unlink()  # killed between the two renames
    resumed = train(RECIPE, data=_noise, out=tmp_path / "a")
    if damage != "gone":
        assert "last.pth" in caplog.text and "resumes from previous.pth, which is at step 5" in caplog.text
        assert (tmp_path / "a" / "last.pth.damaged").exists()
    assert_same(tensors(resumed), tensors(train(RECIPE, data=_noise, out=tmp_path / "b")))
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


def test_with_both_checkpoints_damaged_the_run_is_refused(tmp_path: Path) -> None:
    train(RECIPE, data=_noise, out=tmp_path, stop_after=7)
    for name in ("last.pth", "previous.pth"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(InputError, match=r"previous\.pth"):
        train(RECIPE, data=_noise, out=tmp_path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    torch.save({"recipe": "", "step": 1, "evil": Evil()}, tmp_path / "last.pth")
    with pytest.raises(InputError, match=r"last\.pth"):
        train(RECIPE, data=_noise, out=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("room", [0.0, 0.5, 0.99])
def test_a_checkpoint_that_finds_no_room_leaves_the_last_one_and_says_so(tmp_path: Path, room: float) -> None:
    """Files may not grow beyond so much of a checkpoint: a full disk is met in the same places, and told in other words."""
    resource = pytest.importorskip("resource")
    train(RECIPE, data=_noise, out=tmp_path, stop_after=5)
    before = (tmp_path / "last.pth").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(int(room * len(before)), 8192), hard))  # the log needs some, too
    try:
        with pytest.raises(OutputError, match=r"last\.pth: cannot be written \(file too large\)"):
            train(RECIPE, data=_noise, out=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "last.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.glob(".*")) == []  # nothing half-written is left


@pytest.mark.slow
def test_a_log_that_broke_off_is_taken_back_to_the_checkpoint(tmp_path: Path) -> None:
    train(RECIPE, data=_noise, out=tmp_path / "a", stop_after=10)
    with (tmp_path / "a" / "log.jsonl").open("a") as file:
        file.write('{"step": 11, "stage": "only", "lo')
    train(RECIPE, data=_noise, out=tmp_path / "a")
    train(RECIPE, data=_noise, out=tmp_path / "b")
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")
