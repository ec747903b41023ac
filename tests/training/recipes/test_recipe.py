"""Recipes as values: typed overrides by path, JSON, and combinations that are refused."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from upframe.errors import UsageError
from upframe.models.architectures._vrt_stages import Block
from upframe.models.networks import MODELS
from upframe.training.recipes.fields import Scalar, value_at
from upframe.training.recipes.recipe import (
    DataRecipe,
    Discriminator,
    LossTerm,
    Optimiser,
    ParameterGroup,
    Recipe,
    Sharpening,
    SpikeGuard,
    Stage,
    model_spec,
)
from upframe.training.recipes.schedule import Schedule

FIRST = Stage("pixel", 100, losses=(LossTerm("l1"), LossTerm("charbonnier", 0.5, options={"eps": 1e-9})))
SECOND = Stage(
    "gan",
    50,
    losses=(LossTerm("l1"), LossTerm("gan", 0.05)),
    discriminator=Discriminator(),
    optimiser=Optimiser(
        groups=(ParameterGroup(("spynet", "deform"), 0.125, 20_000), ParameterGroup(("x",), frozen_until=None))
    ),
    start_from="previous",
    ema_decay=None,
)
RECIPE = Recipe("r", "rlfn-ntire-x4", (FIRST, SECOND), model_options={"channels": 32})
ONE = Recipe("one", "rlfn-ntire-x4", (FIRST,))


# Overrides ------------------------------------------------------------------------------------------------------------
def test_a_full_path_changes_one_field_and_leaves_the_original_alone() -> None:
    changed = RECIPE.override({"stages.gan.steps": "70", "stages.0.optimiser.betas": "0.5, 0.6"})
    assert changed.stages[1].steps == 70
    assert changed.stages[0].optimiser.betas == (0.5, 0.6)
    assert changed.same_training(RECIPE) == ["stages.pixel.optimiser.betas", "stages.gan.steps"]
    assert RECIPE.stages[1].steps == 50


def test_the_end_of_a_path_is_enough_and_means_every_stage() -> None:
    assert [s.steps for s in RECIPE.override({"steps": "7"}).stages] == [7, 7]
    assert [s.data.patch_px for s in RECIPE.override({"data.patch_px": "32"}).stages] == [32, 32]
    assert ONE.override({"learning_rate": "3e-4"}).stages[0].optimiser.learning_rate == 3e-4


def test_changes_that_only_fit_together_are_checked_together() -> None:
    changes = {"schedule.kind": "cosine_restarts", "periods": "60,40", "restart_weights": "1,0.5"}
    (stage,) = ONE.override(changes).stages
    assert stage.schedule == Schedule("cosine_restarts", periods=(60, 40), restart_weights=(1.0, 0.5))
    with pytest.raises(UsageError, match=r"changes=.*'periods': '60'.*restart weights"):
        ONE.override({"schedule.kind": "cosine_restarts", "periods": "60"})


def test_later_changes_see_earlier_ones() -> None:
    """The second loss is there once the first change has put it there."""
    changes = {"losses": '[{"kind": "l1"}, {"kind": "perceptual"}]', "losses.perceptual.options.weights": "vgg.pth"}
    (stage,) = ONE.override(changes).stages
    assert stage.losses == (LossTerm("l1"), LossTerm("perceptual", options={"weights": "vgg.pth"}))


def test_an_end_that_fits_different_fields_is_refused_with_the_ways_to_say_it() -> None:
    """The generator's and the discriminator's rates are different things."""
    with pytest.raises(UsageError, match=r"several fields.*stages\.gan\.discriminator\.optimiser\.learning_rate"):
        RECIPE.override({"learning_rate": "1e-4"})
    changed = RECIPE.override({"discriminator.optimiser.learning_rate": "3e-4"})
    assert changed.same_training(RECIPE) == ["stages.gan.discriminator.optimiser.learning_rate"]


def test_where_a_stage_starts_is_not_set_for_all_stages_at_once() -> None:
    """Else `--set start_from=x` would quietly turn a warm start off."""
    two = replace(RECIPE, stages=(FIRST, replace(FIRST, name="again", start_from="previous")))
    with pytest.raises(UsageError, match=r"stages\.pixel\.start_from or stages\.again\.start_from"):
        two.override({"start_from": "a.pth"})
    assert ONE.override({"start_from": "a.pth"}).stages[0].start_from == "a.pth"


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("stages.pixel.steps", "3e5", 300_000),
        ("stages.pixel.steps", "300_000", 300_000),
        ("stages.pixel.precision", "bf16", "bf16"),
        ("stages.pixel.ema_decay", "none", None),
        ("stages.pixel.ema_decay", "0", 0.0),
        ("stages.pixel.clip_grad_norm", "1", 1.0),
        ("stages.pixel.compile", "true", True),
        ("stages.pixel.data.exclude", "a*,b c*", ("a*", "b c*")),
        ("stages.pixel.data.exclude", "", ()),
        ("stages.pixel.data.intervals", "1,2", (1, 2)),
        ("stages.pixel.schedule.periods", "[3, 4]", (3, 4)),
        ("stages.pixel.losses.l1.weight", "2", 2.0),
        ("stages.pixel.losses.charbonnier.options.eps", "1e-12", 1e-12),
        ("stages.pixel.losses.1.options.reduction", "sum", "sum"),
        ("stages.pixel.losses", '[{"kind": "l1", "weight": 3}]', (LossTerm("l1", 3.0),)),
        ("stages.gan.optimiser.groups.1.frozen_until", "5", 5),
        ("stages.pixel.sharpening", "{}", Sharpening()),
        ("model_options.channels", "16", 16),
        ("model_options.groups", "2", 2),
        ("flow_weights", "flow.pth", "flow.pth"),
        ("name", "other", "other"),
    ],
)
def test_text_becomes_a_value_of_the_fields_type(path: str, text: str, value: object) -> None:
    found = value_at(RECIPE.override({path: text}), path)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("steps", "many"),
        ("steps", "1.5"),
        ("steps", "0"),
        ("stages.pixel.precision", "fp8"),
        ("stages.pixel.optimiser.betas", "0.9"),
        ("stages.pixel.compile", "perhaps"),
        ("stages.pixel.ema_decay", "nan"),
        ("stages.pixel.losses", "l1"),
        ("stages.pixel.losses", '[{"kind": "l1", "wieght": 3}]'),
        ("stages.pixel.losses.charbonnier.options.epsilon", "1"),
        ("stages.pixel.losses.charbonnier.options.eps", "tiny"),
        ("stages.gan.discriminator", "none"),
        ("stages.pixel.accumulation", "3"),
        ("stages", "[]"),
        ("seed", ""),
    ],
)
def test_a_value_of_another_type_or_out_of_range_names_what_was_set(path: str, text: str) -> None:
    with pytest.raises(UsageError) as error:
        RECIPE.override({path: text})
    assert path.split(".")[-1] in str(error.value)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("stepz", "steps"),
        ("stages.gan.stepz", "stages.gan.steps"),
        ("stage.gan.steps", "stages.gan.steps"),
        ("stages.gam.ema_decay", "stages.gan.ema_decay"),
        ("stages.gan.optimizer.learning_rate", "stages.gan.optimiser.learning_rate"),
        ("stages.pixel.losses.charbonier.weight", "stages.pixel.losses.charbonnier.weight"),
        ("stages.gan.learning_rate", "stages.gan.optimiser.learning_rate"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_field(typo: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"no such field\. Did you mean (.* or )?{meant}( or|\?)"):
        RECIPE.override({typo: "1"})


# JSON -----------------------------------------------------------------------------------------------------------------
def test_json_and_pickle_give_the_same_recipe_back() -> None:
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE
    assert pickle.loads(pickle.dumps(RECIPE)) == RECIPE


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"steps": 100', '"stepz": 100', r"recipe\.stages\.0\.stepz: no such field\. Did you mean steps"),
        ('"name": "pixel",\n   "steps": 100', '"name": "pixel"', r"recipe\.stages\.0: lacks steps"),
        ('"steps": 100', '"steps": "100"', r"recipe\.stages\.0\.steps: is \"100\"\. Use a whole number"),
        ('"steps": 100', '"steps": true', r"recipe\.stages\.0\.steps: is true"),
        ('"precision": "fp32"', '"precision": "fp8"', "Use one of fp32, bf16, fp16"),
        ('"ema_decay": 0.999', '"ema_decay": NaN', "ema_decay.*a finite number"),
        ("{", "", "is not JSON"),
    ],
)
def test_json_that_is_no_recipe_says_where(before: str, after: str, message: str) -> None:
    text = RECIPE.to_json()
    assert before in text
    with pytest.raises(UsageError, match=message):
        Recipe.from_json(text.replace(before, after, 1))


def test_the_callers_mappings_may_change_afterwards() -> None:
    options = {"eps": 1e-3}
    term = LossTerm("charbonnier", options=options)
    options["eps"] = 1.0
    assert term.options == {"eps": 1e-3}


def test_how_often_something_is_written_is_not_what_is_trained() -> None:
    assert RECIPE.override({"log_every": "3", "validate_every": "9"}).same_training(RECIPE) == []
    changed = RECIPE.override({"seed": "2", "stages.pixel.losses.charbonnier.options.eps": "1e-6"})
    assert changed.same_training(RECIPE) == ["stages.pixel.losses.1.options.eps", "seed"]


# Combinations ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        {"losses": ()},
        {"losses": (LossTerm("gan"),)},
        {"discriminator": Discriminator()},
        {"losses": (LossTerm("l1", target="sharpened"),)},
        {"keep_optimiser": True},
        {"batch": 10, "accumulation": 4},
        {"ema_decay": 1.0},
        {"name": "a.b"},
        {"name": "1"},
    ],
)
def test_a_stage_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(FIRST, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "clips", "clip_frames": 5, "mirrored": True},
        {"kind": "photos", "clip_frames": 3},
        {"low_quality": "degraded"},
        {"degradation": "realbasicvsr"},
        {"kind": "clips", "clip_frames": 3, "intervals": ()},
        {"patch_px": 0},
    ],
)
def test_data_that_contradict_themselves_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        DataRecipe(**wrong)  # type: ignore[arg-type]


def test_a_mirrored_clip_reads_half_its_frames() -> None:
    """RB-15: 15 frames are read for clips of 30."""
    assert DataRecipe(kind="clips", clip_frames=30, mirrored=True).frames_read == 15
    assert DataRecipe(kind="clips", clip_frames=6).frames_read == 6


def test_a_recipe_needs_stages_that_are_told_apart_and_have_a_beginning() -> None:
    with pytest.raises(UsageError, match="no stages"):
        replace(RECIPE, stages=())
    with pytest.raises(UsageError, match="not all different"):
        replace(RECIPE, stages=(FIRST, FIRST))
    with pytest.raises(UsageError, match="first stage"):
        replace(RECIPE, stages=(SECOND,))


def test_a_guard_needs_a_factor_above_one() -> None:
    with pytest.raises(UsageError, match="factor"):
        SpikeGuard(factor=1.0)


def test_a_groups_rate_ends_where_all_rates_end() -> None:
    """VR-9: 4e-4 × 0.125 = 5e-5 at the peak; eta_min is not multiplied."""
    schedule = Schedule("cosine", final_learning_rate=1e-7)
    stage = replace(FIRST, steps=100, optimiser=Optimiser(learning_rate=4e-4), schedule=schedule)
    assert stage.learning_rate_at(0, multiplier=0.125) == pytest.approx(5e-5)
    assert stage.learning_rate_at(100, multiplier=0.125) == 1e-7


# The network ----------------------------------------------------------------------------------------------------------
def test_model_options_change_the_network_and_its_scale() -> None:
    spec = model_spec(replace(ONE, model="vapsr-s-x4", model_options={"scale": 2, "blocks": 1}))
    assert spec.scale == 2
    network = spec.build()
    assert {name.split(".")[1] for name, _ in network.named_parameters() if name.startswith("body.")} == {"0"}
    assert network(torch.rand(1, 3, 8, 10)).shape == (1, 3, 16, 20)


@pytest.mark.slow
def test_model_options_change_what_the_network_takes() -> None:
    """Windows of 8 px at an eighth of the size need 64 px, windows of 4 half as much; one block reaches less far than four."""
    small = model_spec(replace(ONE, model="vrt-reds6-x4", model_options={"window_px": 4, "stochastic_depth": 0.0}))
    assert (MODELS["vrt-reds6-x4"].size.minimum, small.size.minimum) == (64, 32)
    with torch.device("meta"):
        network = small.build()
    assert all(block.drop == 0 for block in network.modules() if isinstance(block, Block))  # leaves no trace in parameters
    one = model_spec(replace(ONE, model_options={"blocks": 1})).exact_halo_px
    assert one is not None and one < (MODELS[ONE.model].exact_halo_px or 0)


@pytest.mark.parametrize(("model", "options"), [("vrt-reds6-x4", {"scale": 5}), ("vapsr-s-x4", {"blocks": "two"})])
def test_options_that_make_no_network_are_refused(model: str, options: dict[str, Scalar]) -> None:
    with pytest.raises(UsageError, match=rf"recipe one: {model} cannot be built with its model_options \(.+\)"):
        model_spec(replace(ONE, model=model, model_options=options))


def test_unknown_models_and_options_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="rlfn-ntire-x4"):
        model_spec(replace(ONE, model="rlfn-ntir-x4"))
    with pytest.raises(UsageError, match="Did you mean channels"):
        model_spec(replace(ONE, model_options={"chanels": 8}))


def test_flow_networks_can_be_trained_alone() -> None:
    spec = model_spec(replace(ONE, model="spynet"))
    assert spec.scale == 1
    assert sum(p.numel() for p in spec.build().parameters()) == 6 * 240_050  # six levels, five convolutions 7×7 each
    ours = model_spec(replace(ONE, model="correlation-flow", model_options={"channels": 8}))
    assert (ours.scale, ours.licence) == (1, "Apache-2.0")
    assert ours.build().get_submodule("features").get_submodule("0").weight.shape == (8, 3, 3, 3)
    with pytest.raises(UsageError, match="Did you mean channels"):
        model_spec(replace(ONE, model="correlation-flow", model_options={"chanels": 8}))
