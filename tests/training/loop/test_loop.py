"""The loop: it learns, goes on to the bit, and leaves a folder that the rest of upframe understands."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_photo
from toys import CLEANER, RECIPE, STAGE, Noise, assert_same, log_of, recipe_of, tensors
from upframe.errors import Cancelled, InputError, ModelError, UsageError
from upframe.media.image.files import write_pixels
from upframe.models.registry import load
from upframe.training.loop.report import Clock
from upframe.training.loop.run_folder import RunFolder
from upframe.training.loop.train import Progress, train
from upframe.training.recipes.recipe import Cadence, DataRecipe, Discriminator, LossTerm, Optimiser, ParameterGroup, model_spec


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(2):
        write_pixels(folder / f"{i}.png", make_photo(96, 100, seed=i))
    return folder


# Learning -------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_loss_falls_and_is_logged(photos: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(RECIPE.override({"steps": "60", "log_every": "20"}), data=photos, out=tmp_path, on_progress=seen.append)
    rows = log_of(tmp_path)
    assert [row["step"] for row in rows] == [20, 40, 60] == [report.step for report in seen]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[0]["terms"] == {"l1": rows[0]["loss"]}
    assert all(row["grad_norm"] > 0 and row["learning_rate"] == 1e-3 for row in rows)
    assert all(0 <= report.waiting <= 1 and report.images_per_s > 0 and report.memory_bytes > 1 << 20 for report in seen)


def test_the_discriminator_runs_in_the_precision_of_its_stage(tmp_path: Path) -> None:
    """Its first loss on the truth depends on nothing else: the same fresh discriminator, the same samples."""
    stage = replace(STAGE, losses=(LossTerm("l1"), LossTerm("gan", weight=0.1)), discriminator=Discriminator(channels=4))
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = replace(recipe_of(replace(stage, steps=1, precision=precision)), cadence=Cadence(log_every=1))
        train(recipe, data=lambda stage: Noise(), out=tmp_path / precision)
        losses[precision] = log_of(tmp_path / precision)[0]["terms"]["d_real"]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)  # eight bits of mantissa through ten layers


def test_a_step_is_adam_on_the_mean_loss_of_the_batch(tmp_path: Path) -> None:
    """Computed again with plain torch from the same weights and samples."""
    source = Noise()
    start = train(RECIPE, data=lambda stage: source, out=tmp_path / "a", stop_after=1)
    torch.manual_seed(RECIPE.seed)
    fresh = model_spec(RECIPE).build()
    adam = torch.optim.Adam(fresh.parameters(), lr=1e-3)
    batch = [source(np.random.default_rng((RECIPE.seed, i))) for i in range(2)]
    loss = (fresh(torch.stack([s.lq for s in batch])) - torch.stack([s.gt for s in batch])).abs().mean()
    loss.backward()
    adam.step()
    for ours, theirs in zip(start.network.parameters(), fresh.parameters(), strict=True):
        # Adam divides by the root of a gradient's square: rounding of tiny gradients shows as a share of the rate.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_accumulation_changes_nothing_but_rounding(tmp_path: Path) -> None:
    """Also where the gradient of the whole batch, not that of a part, is too long."""
    stage = replace(STAGE, steps=4, batch=4, clip_grad_norm=0.05)
    whole = train(recipe_of(stage), data=lambda stage: Noise(), out=tmp_path / "whole")
    parts = train(recipe_of(replace(stage, accumulation=4)), data=lambda stage: Noise(), out=tmp_path / "parts")
    for one, two in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=2e-5)  # four steps of 1e-3
    for name in ("loss", "grad_norm"):
        both = [[row[name] for row in log_of(tmp_path / run)] for run in ("whole", "parts")]
        assert both[0] == pytest.approx(both[1], rel=1e-4), name
        assert name == "loss" or min(both[0]) > 0.05


def test_a_gradient_longer_than_allowed_is_shortened(tmp_path: Path) -> None:
    """With eps far above any gradient and as high a rate, Adam's first step is the gradient itself: eps·g / (|g| + eps)."""
    optimiser = Optimiser(learning_rate=1e4, eps=1e4)
    torch.manual_seed(RECIPE.seed)
    before = list(model_spec(RECIPE).build().parameters())

    def moved(clip: float | None, out: Path) -> float:
        stage = replace(STAGE, steps=1, optimiser=optimiser, clip_grad_norm=clip)
        after = train(recipe_of(stage), data=_noise, out=out).network.parameters()
        return float(torch.stack([(p - q).detach().norm() for p, q in zip(after, before, strict=True)]).norm())

    free = moved(None, tmp_path / "free")
    norm = log_of(tmp_path / "free")[0]["grad_norm"]
    assert free == pytest.approx(norm, rel=1e-3)
    assert moved(norm / 10, tmp_path / "clipped") == pytest.approx(norm / 10, rel=1e-3)
    assert moved(norm * 2, tmp_path / "short") == pytest.approx(norm, rel=1e-3)
    assert log_of(tmp_path / "clipped")[0]["grad_norm"] == norm  # as it was before


def _noise(stage: object) -> Noise:
    return Noise()


def test_patches_that_the_network_does_not_take_are_refused_before_anything_starts(tmp_path: Path) -> None:
    """RLFN's attention pools with a window that needs 15 px."""
    stage = replace(STAGE, data=DataRecipe(patch_px=14))
    with pytest.raises(UsageError, match=r"stage only: cannot run: patch_px=14: .* takes 15 px or more\. Use patch_px=15"):
        train(recipe_of(stage), data=_noise, out=tmp_path)
    assert not tmp_path.joinpath("recipe.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_learns_and_ends_in_float32(tmp_path: Path, precision: str) -> None:
    stage = replace(STAGE, steps=30, precision=precision, fp32_tail_steps=5)  # type: ignore[arg-type] # from the marks
    state = train(recipe_of(stage, cadence=Cadence(log_every=10)), data=_noise, out=tmp_path)
    rows = log_of(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(p.dtype == torch.float32 for p in state.network.parameters())
    assert state.scaler.is_enabled() == (precision == "fp16")


def test_without_an_average_the_weights_themselves_are_validated(tmp_path: Path) -> None:
    state = train(recipe_of(replace(STAGE, steps=2, ema_decay=None)), data=_noise, out=tmp_path)
    assert state.ema is None
    model = load(tmp_path / "last.pth")
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, state.network.get_parameter(name))


def test_the_average_is_the_recurrence_of_the_weights(tmp_path: Path) -> None:
    """ema ← ema + (1 - decay)·(w - ema), followed through checkpoints of every step."""
    stage = replace(STAGE, steps=3, ema_decay=0.6, ema_warmup=False)
    recipe = recipe_of(stage, cadence=Cadence(checkpoint_every=1))
    state = train(replace(recipe, seed=3), data=_noise, out=tmp_path, stop_after=1)
    name = "conv_1.weight"
    assert state.ema is not None
    expected = state.ema[name].clone()
    for step in (2, 3):
        state = train(replace(recipe, seed=3), data=_noise, out=tmp_path, stop_after=step)
        expected = 0.6 * expected + 0.4 * state.network.state_dict()[name]
    assert state.ema is not None
    torch.testing.assert_close(state.ema[name], expected.detach())


def test_what_is_frozen_is_its_own_average_to_the_bit(tmp_path: Path) -> None:
    group = ParameterGroup(("block_1",), frozen_until=None)
    recipe = recipe_of(replace(STAGE, optimiser=Optimiser(learning_rate=1e-3, groups=(group,))))
    state = train(recipe, data=_noise, out=tmp_path)
    assert state.ema is not None
    for name, value in state.network.state_dict().items():
        assert torch.equal(state.ema[name], value) == ("block_1" in name), name


def test_speed_and_waiting_are_told_since_the_last_report_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("upframe.training.loop.report.time.perf_counter", lambda: now)
    clock = Clock()
    clock.count(24)
    clock.wait(2.0)
    clock.pause(4.0)  # a validation
    now = 112.0
    assert clock.take() == (3.0, 0.25)
    now = 114.0
    clock.count(8)
    assert clock.take() == (4.0, 0.0)


# The folder -----------------------------------------------------------------------------------------------------------
def test_a_checkpoint_is_a_weights_file_and_holds_the_averaged_weights(tmp_path: Path) -> None:
    state = train(RECIPE, data=_noise, out=tmp_path)
    model = load(tmp_path / "last.pth")
    assert model.spec.scale == 2 and state.ema is not None
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, state.ema[name])
    assert not torch.equal(state.ema["conv_1.weight"], state.network.state_dict()["conv_1.weight"])


def test_the_folder_says_what_was_run(tmp_path: Path) -> None:
    train(RECIPE, data=_noise, out=tmp_path, stop_after=5)
    train(RECIPE, data=_noise, out=tmp_path)
    assert type(RECIPE).from_json((tmp_path / "recipe.json").read_text()) == RECIPE
    starts = [json.loads(line) for line in (tmp_path / "environment.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, 5]
    assert starts[0]["seed"] == 1 and starts[0]["processes"] == 1
    assert starts[0]["environment"]["torch"] == torch.__version__
    assert {"git", "started"} <= starts[0].keys()


@pytest.mark.slow
def test_validation_scores_the_checkpoint_at_its_step(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def validate(weights: Path, step: int) -> dict[str, float]:
        seen.append((step, torch.load(weights, weights_only=True)["step"]))
        torch.rand(7)  # draws of its own must not show in the run
        return {"psnr": float("inf")}

    recipe = RECIPE.override({"validate_every": "5"})
    validated = train(recipe, data=_noise, out=tmp_path / "a", validate=validate)
    assert seen == [(5, 5), (10, 10), (12, 12)]
    scores = [row for row in log_of(tmp_path / "a") if "validation" in row]
    assert scores[0] == {"step": 5, "stage": "only", "validation": {"psnr": "inf"}}
    plain = train(RECIPE, data=_noise, out=tmp_path / "b")
    assert_same(tensors(validated), tensors(plain))


@pytest.mark.slow
def test_a_run_stopped_before_its_validation_makes_up_for_it(tmp_path: Path) -> None:
    recipe = RECIPE.override({"validate_every": "5"})

    def fail(weights: Path, step: int) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, data=_noise, out=tmp_path / "a", validate=fail)
    seen: list[int] = []

    def see(weights: Path, step: int) -> dict[str, int]:
        seen.append(step)
        return {"step": step}

    train(recipe, data=_noise, out=tmp_path / "a", validate=see)
    assert seen == [5, 10, 12]
    train(recipe, data=_noise, out=tmp_path / "b", validate=see)
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


@pytest.mark.slow
def test_whoever_stops_a_run_does_not_wait_for_a_validation_which_is_made_up_for(tmp_path: Path) -> None:
    recipe = RECIPE.override({"validate_every": "4", "log_every": "7"})
    cancel = threading.Event()
    seen: list[int] = []

    def see(weights: Path, step: int) -> dict[str, int]:
        seen.append(step)
        return {"step": step}

    def report(progress: Progress) -> None:
        cancel.set()  # at step 7, so that step 8 is the last

    with pytest.raises(Cancelled, match="step 8"):
        train(recipe, data=_noise, out=tmp_path / "a", validate=see, cancel=cancel, on_progress=report)
    assert seen == [4]
    train(recipe, data=_noise, out=tmp_path / "a", validate=see)
    assert seen == [4, 8, 12]
    train(recipe, data=_noise, out=tmp_path / "b", validate=see)
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


def test_another_recipe_in_the_same_folder_is_refused_by_field(tmp_path: Path) -> None:
    train(RECIPE, data=_noise, out=tmp_path, stop_after=2)
    with pytest.raises(UsageError, match="learning_rate"):
        train(RECIPE.override({"stages.only.optimiser.learning_rate": "0.5"}), data=_noise, out=tmp_path)
    train(RECIPE.override({"log_every": "3"}), data=_noise, out=tmp_path, stop_after=3)  # says nothing about training


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path), pytest.raises(UsageError, match="another process is training"):
        train(RECIPE, data=_noise, out=tmp_path)
    train(RECIPE, data=_noise, out=tmp_path, stop_after=1)


@pytest.mark.slow
def test_asked_to_stop_it_finishes_the_step_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    cancel = threading.Event()

    def report(progress: Progress) -> None:
        if progress.step == 8:
            cancel.set()

    with pytest.raises(Cancelled, match="step 9"):
        train(RECIPE, data=_noise, out=tmp_path / "a", cancel=cancel, on_progress=report)
    resumed = train(RECIPE, data=_noise, out=tmp_path / "a")
    assert_same(tensors(resumed), tensors(train(RECIPE, data=_noise, out=tmp_path / "b")))
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


def test_a_test_picture_among_the_photographs_stops_the_run_before_it_starts(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1\.png.* shows the same as Set5/planted"):
        train(RECIPE, data=photos, out=tmp_path, held_out={"Set5/planted": make_photo(96, 100, seed=1)[:, ::-1].copy()})
    assert not (tmp_path / "last.pth").exists()


@pytest.mark.slow
def test_the_data_of_all_stages_are_looked_at_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    """Photographs of 100 px hold patches of 16 input pixels at ×2, and none of 64."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no usable photographs"):
        train(RECIPE, data=tmp_path / "empty", out=tmp_path / "a")
    large = replace(STAGE, name="large", data=DataRecipe(patch_px=64))
    with pytest.raises(InputError, match=r"no usable photographs \(8-bit RGB, 140 px or more\)"):
        train(recipe_of(STAGE, large), data=photos, out=tmp_path / "b")
    for out in ("a", "b"):
        assert not (tmp_path / out).exists()
    train(recipe_of(STAGE, large), data=photos, out=tmp_path / "b", until="only")
    train(RECIPE, data=photos, out=tmp_path / "c")
    train(RECIPE, data=tmp_path / "empty", out=tmp_path / "c")  # there is nothing left to do, and no data are needed


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("notes")
    with pytest.raises(UsageError, match="is a file, and a run needs a folder"):
        train(RECIPE, data=_noise, out=tmp_path / "run")


# Beginning with weights -------------------------------------------------------------------------------------------------
def test_warm_start_takes_the_weights_and_nothing_else(tmp_path: Path) -> None:
    """Another scale keeps its own upsampler; optimiser and step start afresh (RL-11)."""
    first = train(recipe_of(replace(STAGE, steps=3)), data=_noise, out=tmp_path / "x2")
    stage = replace(STAGE, start_from=str(tmp_path / "x2" / "last.pth"), optimiser=Optimiser(learning_rate=0.0))
    second = train(
        recipe_of(stage, model="rlfn-ntire-x4"), data=lambda stage: Noise(scale=4), out=tmp_path / "x4", stop_after=1
    )
    assert second.step == 1 and first.ema is not None
    own = second.network.state_dict()
    assert torch.equal(own["block_1.c1_r.weight"], first.ema["block_1.c1_r.weight"])
    assert own["upsampler.0.weight"].shape != first.ema["upsampler.0.weight"].shape
    assert all(int(slots["step"]) == 1 for slots in second.optimiser.state_dict()["state"].values())


def test_a_warm_start_from_another_network_is_refused(tmp_path: Path) -> None:
    train(RECIPE, data=_noise, out=tmp_path / "rlfn", stop_after=1)
    stage = replace(STAGE, start_from=str(tmp_path / "rlfn" / "last.pth"))
    with pytest.raises(ModelError, match="parameters fit"):
        train(recipe_of(stage, model="vapsr-s-x4", model_options={}), data=_noise, out=tmp_path / "vapsr")


# Groups ---------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_group_is_frozen_until_its_step_and_then_trained_at_its_own_rate(tmp_path: Path) -> None:
    """VR-9 in small: the block frozen for 6 steps, then trained at an eighth of the rate; also over an interruption."""
    group = ParameterGroup(("block_1",), learning_rate_multiplier=0.125, frozen_until=6)
    recipe = recipe_of(replace(STAGE, optimiser=Optimiser(learning_rate=1e-3, groups=(group,))))
    fresh = train(recipe_of(replace(STAGE, optimiser=Optimiser(learning_rate=0.0))), data=_noise, out=tmp_path / "0")
    name = "block_1.c1_r.weight"
    frozen = train(recipe, data=_noise, out=tmp_path / "a", stop_after=6)
    assert torch.equal(frozen.network.state_dict()[name], fresh.network.state_dict()[name])
    assert not torch.equal(frozen.network.state_dict()["conv_1.weight"], fresh.network.state_dict()["conv_1.weight"])
    after = train(recipe, data=_noise, out=tmp_path / "a", stop_after=7)
    moved = (after.network.state_dict()[name] - fresh.network.state_dict()[name]).abs().max()
    # Adam's first step is the rate itself wherever the gradient is not tiny.
    assert float(moved) == pytest.approx(1e-3 / 8, rel=1e-3)
    assert [group["lr"] for group in after.optimiser.param_groups] == [1e-3, 1e-3 / 8]
    resumed = train(recipe, data=_noise, out=tmp_path / "a")
    assert_same(tensors(resumed), tensors(train(recipe, data=_noise, out=tmp_path / "b")))


def test_a_group_that_names_no_parameter_is_refused_before_anything_starts(tmp_path: Path) -> None:
    stage = replace(STAGE, optimiser=Optimiser(groups=(ParameterGroup(("spynet",)),)))
    with pytest.raises(UsageError, match="spynet"):
        train(recipe_of(stage), data=_noise, out=tmp_path)
    assert not tmp_path.joinpath("recipe.json").exists()


# Clips ----------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_network_that_cleans_is_trained_on_its_cleaned_clip_too(tmp_path: Path) -> None:
    """With the loss on the cleaned clip alone, only the cleaning network is trained, and its flow network never is."""
    stage = replace(
        STAGE,
        steps=2,
        losses=(LossTerm("l1", on="cleaned"),),
        data=DataRecipe(kind="clips", clip_frames=2, patch_px=16),
    )
    recipe = recipe_of(stage, model="realbasicvsr-x4", model_options=CLEANER)
    start = train(
        recipe_of(replace(stage, optimiser=Optimiser(learning_rate=0.0)), model="realbasicvsr-x4", model_options=CLEANER),
        data=lambda stage: Noise(scale=4, frames=2),
        out=tmp_path / "0",
    )
    state = train(recipe, data=lambda stage: Noise(scale=4, frames=2), out=tmp_path / "1")
    assert "l1_cleaned" in log_of(tmp_path / "1")[0]["terms"]
    before = start.network.state_dict()
    changed = {name.split(".")[0] for name, value in state.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"image_cleaning"}


def test_a_loss_on_the_cleaned_clip_of_a_network_that_does_not_clean_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not clean"):
        train(recipe_of(replace(STAGE, losses=(LossTerm("l1", on="cleaned"),))), data=_noise, out=tmp_path)


def test_a_damaged_checkpoint_without_another_is_named(tmp_path: Path) -> None:
    train(RECIPE, data=_noise, out=tmp_path, stop_after=1)
    path = tmp_path / "last.pth"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.pth"):
        train(RECIPE, data=_noise, out=tmp_path)
