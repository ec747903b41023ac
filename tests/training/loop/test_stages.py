"""Recipes of several stages: what each begins with, what it leaves, and what is found out before the first one begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from toys import CLEANER, RECIPE, STAGE, Noise, assert_same, log_of, recipe_of, tensors
from upframe.errors import ModelError, UsageError
from upframe.models.architectures._flow import SPyNet
from upframe.models.registry import load
from upframe.training.loop.distributed import Ranks
from upframe.training.loop.run_folder import read_checkpoint
from upframe.training.loop.stages import begin_stage, make_plan
from upframe.training.loop.train import TrainState, train
from upframe.training.recipes.recipe import (
    PREVIOUS,
    ActivationCheckpointing,
    Cadence,
    DataRecipe,
    LossTerm,
    Optimiser,
    ParameterGroup,
    Recipe,
    SpikeGuard,
    Stage,
)
from upframe.training.recipes.registry import find_recipe
from upframe.training.recipes.schedule import Schedule

FIRST = replace(STAGE, name="first", steps=6)
SECOND = replace(STAGE, name="second", steps=4, start_from=PREVIOUS)


def _noise(stage: Stage) -> Noise:
    return Noise()


def _trained(recipe: Recipe, out: Path, *, stop_after: int | None = None) -> TrainState:
    return train(recipe, data=_noise, out=out, stop_after=stop_after)


def test_a_warm_start_takes_the_averaged_weights_and_nothing_else(tmp_path: Path) -> None:
    """RL-11: optimiser and schedule begin again with the same settings."""
    still = replace(SECOND, optimiser=Optimiser(learning_rate=0.0))
    state = _trained(recipe_of(FIRST, still), tmp_path)
    before = read_checkpoint(tmp_path / "stages" / "first.pth")
    for name, value in state.network.state_dict().items():
        assert torch.equal(value, before["params_ema"][name]), name
    assert all(int(slots["step"]) == 4 for slots in state.optimiser.state_dict()["state"].values())
    assert (state.step, state.stage_start, state.drawn) == (10, 6, 10)


@pytest.mark.slow
def test_keeping_the_optimiser_keeps_its_moments_its_count_and_the_weights_themselves(tmp_path: Path) -> None:
    """`clr` (RL-12): the schedule restarts, the optimiser does not. With a constant rate nothing shows of the border."""
    split = _trained(recipe_of(FIRST, replace(SECOND, keep_optimiser=True, ema_warmup=True)), tmp_path / "split")
    whole = _trained(recipe_of(replace(FIRST, steps=10)), tmp_path / "whole")
    for name, value in split.network.state_dict().items():
        assert torch.equal(value, whole.network.state_dict()[name]), name
    assert_same(
        {k: v for k, v in tensors(split).items() if k.startswith("adam")},
        {k: v for k, v in tensors(whole).items() if k.startswith("adam")},
    )


def test_a_kept_optimiser_brings_no_settings(tmp_path: Path) -> None:
    other = replace(SECOND, keep_optimiser=True, optimiser=Optimiser(learning_rate=1e-4, betas=(0.5, 0.6)))
    state = _trained(recipe_of(FIRST, other), tmp_path)
    assert [group["betas"] for group in state.optimiser.param_groups] == [(0.5, 0.6)]
    assert log_of(tmp_path)[-1]["learning_rate"] == 1e-4


def test_an_optimiser_over_other_groups_cannot_be_kept(tmp_path: Path) -> None:
    grouped = Optimiser(groups=(ParameterGroup(("block_1",)),))
    with pytest.raises(ModelError, match="optimiser had other parameters"):
        _trained(recipe_of(FIRST, replace(SECOND, keep_optimiser=True, optimiser=grouped)), tmp_path)


@pytest.mark.parametrize(("first", "second"), [("adam", "muon"), ("muon", "adam")])
def test_an_optimiser_of_another_method_cannot_be_kept(tmp_path: Path, first: Any, second: Any) -> None:
    stages = replace(FIRST, optimiser=Optimiser(first)), replace(SECOND, keep_optimiser=True, optimiser=Optimiser(second))
    with pytest.raises(ModelError, match="its optimiser used another method"):
        _trained(recipe_of(*stages), tmp_path)


def test_moments_of_muon_can_be_kept(tmp_path: Path) -> None:
    muon = Optimiser("muon")
    stages = replace(FIRST, optimiser=muon), replace(SECOND, keep_optimiser=True, optimiser=muon)
    state = _trained(recipe_of(*stages), tmp_path)
    assert {int(kept["step"]) for kept in state.optimiser.state_dict()["state"].values()} == {10}


def test_a_stage_without_a_start_has_fresh_weights(tmp_path: Path) -> None:
    fresh = replace(SECOND, start_from=None, optimiser=Optimiser(learning_rate=0.0))
    state = _trained(recipe_of(FIRST, fresh), tmp_path)
    first = read_checkpoint(tmp_path / "stages" / "first.pth")
    assert not torch.equal(state.network.state_dict()["conv_1.weight"], first["params"]["conv_1.weight"])


@pytest.mark.parametrize(("reset", "expected"), [(True, 1e-3), (False, 1e-3 * 0.5**2)])
def test_a_schedule_may_go_on_where_the_stage_before_stood(tmp_path: Path, reset: bool, expected: float) -> None:
    """`reset_periods`: halved every 3 steps, the stage before had 6."""
    schedule = Schedule("halve_every", every=3, reset_periods=reset)
    _trained(recipe_of(FIRST, replace(SECOND, steps=1, schedule=schedule)), tmp_path)
    assert log_of(tmp_path)[-1]["learning_rate"] == pytest.approx(expected)


@pytest.mark.slow
def test_a_checkpoint_of_another_run_says_how_long_it_was_trained(tmp_path: Path) -> None:
    _trained(recipe_of(FIRST), tmp_path / "a")
    schedule = Schedule("halve_every", every=3, reset_periods=False)
    stage = replace(FIRST, steps=1, start_from=str(tmp_path / "a" / "last.pth"), schedule=schedule)
    _trained(recipe_of(stage), tmp_path / "b")
    assert log_of(tmp_path / "b")[-1]["learning_rate"] == pytest.approx(1e-3 * 0.5**2)
    kept = replace(stage, keep_optimiser=True)
    state = _trained(recipe_of(kept), tmp_path / "c")
    assert all(int(slots["step"]) == 7 for slots in state.optimiser.state_dict()["state"].values())


@pytest.mark.slow
def test_each_stage_leaves_a_checkpoint_and_its_name_in_the_log(tmp_path: Path) -> None:
    _trained(recipe_of(FIRST, SECOND), tmp_path)
    assert [(row["stage"], row["step"]) for row in log_of(tmp_path)] == [
        ("first", 4),
        ("first", 6),
        ("second", 8),
        ("second", 10),
    ]
    for name, step in (("first", 6), ("second", 10)):
        assert read_checkpoint(tmp_path / "stages" / f"{name}.pth")["step"] == step
        assert load(tmp_path / "stages" / f"{name}.pth").spec.scale == 2


def test_the_guard_starts_again_with_each_stage(tmp_path: Path) -> None:
    guard = SpikeGuard(window=2, max_rollbacks=1)
    recipe = recipe_of(replace(FIRST, guard=guard), replace(SECOND, guard=guard))
    poison = {3 * STAGE.batch: float("nan"), 9 * STAGE.batch: float("nan")}
    state = train(recipe, data=lambda stage: Noise(poison=poison), out=tmp_path)
    assert state.guard.rollbacks == 1
    assert [row["stage"] for row in log_of(tmp_path) if "notice" in row] == ["first", "second"]


@pytest.mark.slow
def test_only_the_first_stages_can_be_run_and_the_others_later(tmp_path: Path) -> None:
    recipe = recipe_of(FIRST, SECOND)
    state = train(recipe, data=_noise, out=tmp_path / "a", until="first")
    assert state.step == 6
    resumed = train(recipe, data=_noise, out=tmp_path / "a")
    assert_same(tensors(resumed), tensors(_trained(recipe, tmp_path / "b")))
    with pytest.raises(UsageError, match="past stage first"):
        train(recipe, data=_noise, out=tmp_path / "a", until="first")
    with pytest.raises(UsageError, match=r"no such stage\. Its stages are first, second"):
        train(recipe, data=_noise, out=tmp_path / "c", until="third")


# Before anything starts -------------------------------------------------------------------------------------------------
def test_a_file_that_a_later_stage_needs_is_missed_before_the_first_begins(tmp_path: Path) -> None:
    second = replace(SECOND, losses=(LossTerm("l1"), LossTerm("perceptual", options={"weights": str(tmp_path / "vgg.pth")})))
    with pytest.raises(ModelError, match=r"stage second: cannot run.*vgg\.pth.*`until='first'`"):
        _trained(recipe_of(FIRST, second), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    without = replace(SECOND, losses=(LossTerm("perceptual"),))
    with pytest.raises(ModelError, match=r"stage second: cannot run.*VGG-19.*in losses\.perceptual\.options\.weights"):
        _trained(recipe_of(FIRST, without), tmp_path / "run")
    elsewhere = replace(SECOND, start_from=str(tmp_path / "none.pth"))
    with pytest.raises(ModelError, match=r"stage second: cannot run.*none\.pth"):
        _trained(recipe_of(FIRST, elsewhere), tmp_path / "run")


# Flow networks ----------------------------------------------------------------------------------------------------------
def _motion(steps: int, model: str = "spynet") -> Recipe:
    data = DataRecipe(kind="motion", patch_px=32)
    stage = replace(STAGE, steps=steps, data=data, losses=(LossTerm("endpoint_error"),))
    return Recipe("toy-flow", model, (stage,), cadence=Cadence(log_every=2))


class _Pairs:
    """Two views and the flow between them: none."""

    def __call__(self, rng: object, /) -> object:
        from upframe.training.data.samples import Sample

        assert hasattr(rng, "random")
        views = torch.from_numpy(rng.random((2, 3, 32, 32))).float()
        return Sample(views, torch.zeros(2, 32, 32))


@pytest.mark.slow
def test_a_flow_network_is_trained_and_goes_into_a_video_network(tmp_path: Path) -> None:
    state = train(_motion(4), data=lambda stage: _Pairs(), out=tmp_path / "flow")  # type: ignore[arg-type,return-value]
    assert isinstance(state.network, SPyNet) and state.ema is not None
    stage = replace(STAGE, steps=1, data=DataRecipe(kind="clips", clip_frames=2, patch_px=16))
    recipe = recipe_of(stage, model="realbasicvsr-x4", model_options=CLEANER, flow_weights=str(tmp_path / "flow" / "last.pth"))
    video = train(recipe, data=lambda stage: Noise(scale=4, frames=2), out=tmp_path / "video")
    for name, value in video.network.get_submodule("basicvsr.spynet").state_dict().items():
        assert torch.equal(value, state.ema[name]), name
    again = replace(recipe, flow_weights=str(tmp_path / "video" / "last.pth"))  # out of the larger network
    second = train(again, data=lambda stage: Noise(scale=4, frames=2), out=tmp_path / "again")
    inner = "basicvsr.spynet.basic_module.0.basic_module.0.conv.weight"
    assert torch.equal(second.network.state_dict()[inner], video.network.state_dict()[inner])


@pytest.mark.slow
def test_our_own_flow_network_goes_into_a_video_network_that_was_built_with_one(tmp_path: Path) -> None:
    flow = train(_motion(2, "correlation-flow"), data=lambda stage: _Pairs(), out=tmp_path / "flow")  # type: ignore[arg-type,return-value]
    stage = replace(STAGE, steps=1, data=DataRecipe(kind="clips", clip_frames=2, patch_px=16))
    weights = str(tmp_path / "flow" / "last.pth")
    options = {**CLEANER, "flow": "correlation", "reconstruction_channels": 8}
    recipe = recipe_of(stage, model="realbasicvsr-x4", model_options=options, flow_weights=weights)
    video = train(recipe, data=lambda stage: Noise(scale=4, frames=2), out=tmp_path / "video")
    assert flow.ema is not None
    for name, value in video.network.get_submodule("basicvsr.correlation_flow").state_dict().items():
        assert torch.equal(value, flow.ema[name]), name
    with pytest.raises(ModelError, match="holds no SPyNet"):  # of the other kind
        train(replace(recipe, model_options=CLEANER), data=lambda stage: Noise(scale=4, frames=2), out=tmp_path / "spynet")


def test_a_file_without_a_flow_network_is_refused(tmp_path: Path) -> None:
    _trained(RECIPE, tmp_path / "a", stop_after=1)
    stage = replace(STAGE, data=DataRecipe(kind="clips", clip_frames=2, patch_px=16))
    recipe = recipe_of(stage, model="realbasicvsr-x4", model_options=CLEANER, flow_weights=str(tmp_path / "a" / "last.pth"))
    with pytest.raises(ModelError, match="holds no SPyNet"):
        train(recipe, data=lambda stage: Noise(scale=4, frames=2), out=tmp_path / "b")
    with pytest.raises(UsageError, match="has no flow network"):
        _trained(replace(RECIPE, flow_weights=str(tmp_path / "a" / "last.pth")), tmp_path / "c")


TOY_WEFT = {"channels": 6, "blocks": 1, "trunk_channels": 8, "trunk_blocks": 1, "trunk_inner": 8, "idle": True}


@pytest.mark.slow
def test_a_network_for_photos_becomes_the_trunk_and_is_left_as_it_is(tmp_path: Path) -> None:
    """Before the first step the video network makes its frames; afterwards the trunk is the same and the frames are not."""
    frozen = ParameterGroup(names=("trunk", "correlation_flow"), frozen_until=None)
    photos = recipe_of(
        replace(STAGE, steps=1), model="rlfn-ntire-x2", model_options={"channels": 8, "blocks": 1, "inner_channels": 8}
    )
    photo = _trained(photos, tmp_path / "photo")
    assert photo.ema is not None
    data = DataRecipe(kind="clips", clip_frames=3, patch_px=16)
    stage = replace(STAGE, steps=2, data=data, optimiser=Optimiser(learning_rate=1e-3, groups=(frozen,)))
    weights = str(tmp_path / "photo" / "last.pth")
    recipe = recipe_of(stage, model="weft-x2", model_options=TOY_WEFT, trunk_weights=weights)
    begun = begin_stage(make_plan(recipe, ranks=ALONE), 0, ranks=ALONE, before=None)
    clip = torch.rand(1, 3, 3, 16, 16)
    with torch.no_grad():
        frames = torch.stack([begun.network.get_submodule("trunk")(frame) for frame in clip.unbind(1)], dim=1)
        torch.testing.assert_close(begun.network(clip), frames, rtol=0, atol=1e-6)
    video = train(recipe, data=lambda stage: Noise(scale=2, frames=3), out=tmp_path / "video")
    for name, value in video.network.get_submodule("trunk").state_dict().items():
        assert torch.equal(value, photo.ema[name]), name
    with torch.no_grad():
        assert (video.network(clip) - frames).abs().max() > 1e-5


def test_a_trunk_of_another_size_or_no_trunk_is_refused(tmp_path: Path) -> None:
    _trained(RECIPE, tmp_path / "a", stop_after=1)
    weights = str(tmp_path / "a" / "last.pth")
    stage = replace(STAGE, data=DataRecipe(kind="clips", clip_frames=2, patch_px=16))
    recipe = recipe_of(stage, model="weft-x4", model_options={**TOY_WEFT, "trunk_blocks": 3}, trunk_weights=weights)
    with pytest.raises(ModelError, match="not this trunk"):
        train(recipe, data=lambda stage: Noise(scale=4, frames=2), out=tmp_path / "b")
    with pytest.raises(UsageError, match="has no trunk"):
        _trained(replace(RECIPE, trunk_weights=weights), tmp_path / "c")
    with pytest.raises(ModelError, match="the trunk's weights does not exist"):
        train(replace(recipe, trunk_weights="nowhere.pth"), data=lambda stage: Noise(scale=4, frames=2), out=tmp_path / "d")


# What a network does not take ---------------------------------------------------------------------------------------------
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.mark.slow
def test_activation_checkpointing_is_asked_of_networks_that_offer_it() -> None:
    asked = ActivationCheckpointing(attention=True)
    with pytest.raises(
        UsageError, match=r"stage only: cannot run: activation_checkpointing: rlfn.* does not support it\. Set it to none"
    ):
        make_plan(recipe_of(replace(STAGE, activation_checkpointing=asked)), ranks=ALONE)
    toy = find_recipe("toy-vrt")
    (stage,) = toy.stages
    assert stage.activation_checkpointing == asked
    state = begin_stage(make_plan(toy, ranks=ALONE), 0, ranks=ALONE, before=None)
    assert state.network.checkpointing == "attention"
    alone = replace(stage, activation_checkpointing=ActivationCheckpointing(feed_forward=True))
    with pytest.raises(UsageError, match=r"stage main: cannot run: activation_checkpointing: VRT keeps .* unless"):
        make_plan(replace(toy, stages=(alone,)), ranks=ALONE)


@pytest.mark.parametrize(
    ("recipe", "changes", "refusal"),
    [
        ("toy-vapsr", {"data.kind": "clips"}, r"data\.kind=clips: vapsr.* is trained on photos\. Use data\.kind=photos"),
        ("toy-vsrt", {"data.kind": "photos", "clip_frames": "1"}, r"data\.kind=photos: vsrt.* is trained on clips"),
        ("flow", {"data.kind": "photos"}, r"data\.kind=photos: .* is trained on motion"),
        ("toy-vrt", {"clip_frames": "1"}, r"clip_frames=1: vrt.* takes 2 or more\. Use clip_frames=2"),
        ("toy-vrt", {"patch_px": "36"}, r"patch_px=36: vrt.* takes 32 px or more, multiples of 8\. Use patch_px=40"),
        (
            "toy-vrt",
            {"model": "vrt-denoise-davis", "model_options": "{}"},
            "vrt-denoise-davis needs the noise level of its input",
        ),
        ("toy-vrt", {"model": "vrt-interpolate-vimeo", "model_options": "{}"}, "makes frames between input frames"),
    ],
)
def test_data_that_a_network_is_not_trained_on_are_refused(recipe: str, changes: dict[str, str], refusal: str) -> None:
    with pytest.raises(UsageError, match=refusal):
        make_plan(find_recipe(recipe).override(changes), ranks=ALONE)


def test_a_discriminator_starts_from_a_file_and_not_by_word() -> None:
    """The discriminator of the previous stage needs no word: it continues by default."""
    toy = find_recipe("toy-realbasicvsr").override({"stages.gan.discriminator.start_from": PREVIOUS})
    with pytest.raises(
        ModelError, match="stage gan: cannot run: previous: its discriminator's file of first weights does not exist"
    ):
        make_plan(toy, ranks=ALONE)
