"""Networks that the articles compare theirs with: recipes differ in what they say, and such networks can be trained."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from toys import STAGE, Noise, recipe_of
from upframe.models import checkpoints
from upframe.models.registry import count_parameters
from upframe.models.weights_file import read
from upframe.training.loop.train import train
from upframe.training.recipes.recipe import DataRecipe, model_spec
from upframe.training.recipes.registry import find_recipe

STEPS = ["pixel-attention", "large-kernel", "separable", "pixel-norm", "attention-inside"]


# Parameters -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("step", "thousands"), list(zip(STEPS, [846, 4123, 240, 241, 241], strict=True)))
def test_the_steps_of_vapsr_have_the_printed_numbers_of_parameters(step: str, thousands: int) -> None:
    """VA-14; the printed numbers are whole thousands. The last step moves the attention, which needs none."""
    assert round(count_parameters(model_spec(find_recipe(f"vapsr-x4-{step}"))) / 1000) == thousands


def test_what_the_printed_numbers_alone_say_of_the_sizes() -> None:
    """From 846 K to 4123 K: ten kernels of 64 × 64 channels from 1×1 to 9×9; from 240 K to 241 K: ten norms of 64 channels."""
    counts = [count_parameters(model_spec(find_recipe(f"vapsr-x4-{step}"))) for step in STEPS]
    assert counts[1] - counts[0] == 10 * 64**2 * (9**2 - 1)
    assert counts[3] - counts[2] == 10 * 2 * 64
    assert counts[4] == counts[3]


@pytest.mark.parametrize(
    ("name", "parameters"),
    # By hand. A block: convolutions, fusion, ESA with 1×1, 1×1, 3×3, three 3×3 and 1×1; around them three convolutions.
    [
        ("rlfn-x4-rfdb", 6 * (3528 + 62_352 + 10_392 + 4656 + 6600) + 1344 + 20_784 + 20_784),
        ("rlfn-x4-rfdbr48", 6 * (62_352 + 2352 + 6600) + 1344 + 20_784 + 20_784),
        ("rlfn-x4-rfdbr52", 6 * (73_164 + 2756 + 11_284) + 1456 + 24_388 + 22_512),
    ],
)
def test_blocks_that_rlfn_is_compared_with_are_of_their_size(name: str, parameters: int) -> None:
    """RL-17."""
    assert count_parameters(model_spec(find_recipe(name))) == parameters


# What stays equal -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "whole", "options"),
    [
        ("rlfn-x4-rfdb", "rlfn-x4-ws-0", {"block", "channels", "inner_channels", "esa_channels", "esa_convs"}),
        ("rlfn-x4-rfdbr48", "rlfn-x4-rfdb", {"block"}),
        ("rlfn-x4-rfdbr52", "rlfn-x4-rfdbr48", {"channels", "inner_channels", "esa_channels"}),
        ("vapsr-x4-large-kernel", "vapsr-x4-pixel-attention", {"dense_px"}),
        ("vapsr-x4-separable", "vapsr-x4-large-kernel", {"dense_px", "projection_px", "dilated_px"}),
        ("vapsr-x4-pixel-norm", "vapsr-x4-separable", {"pixel_norm"}),
        ("vapsr-x4-attention-inside", "vapsr-x4-pixel-norm", {"attention_last"}),
        ("realbasicvsr-x4-recurrent-cleaning", "realbasicvsr-x4", {"recurrent_cleaning"}),
        ("vsrt-reds-no-attention", "vsrt-reds", {"attention"}),
        ("vsrt-reds-no-flow", "vsrt-reds", {"flow"}),
        ("vsrt-reds-no-boff", "vsrt-reds", {"directions"}),
    ],
)
def test_an_ablation_differs_in_what_it_is_about(name: str, whole: str, options: set[str]) -> None:
    differing = set(find_recipe(name).same_training(find_recipe(whole)))
    # What has no flow network cannot keep it still while warming up.
    still = {path for path in differing if path.startswith("stages.warmup.optimiser.groups")}
    assert differing - still == {"name", *(f"model_options.{option}" for option in options)}
    assert bool(still) == (name in ("vsrt-reds-no-flow", "vsrt-reds-no-boff"))


# Training -------------------------------------------------------------------------------------------------------------
SMALL_VSRT = {
    "channels": 4,
    "depth": 1,
    "window_px": 24,
    "extract_blocks": 1,
    "reconstruct_blocks": 1,
    "feed_forward_blocks": 1,
}
SMALL_RBV = {"channels": 4, "propagation_blocks": 1, "cleaning_blocks": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("rlfn-x4-rfdb", {"channels": 8, "inner_channels": 8, "blocks": 1}),
        ("rlfn-x4-rfdbr52", {"channels": 8, "inner_channels": 8, "blocks": 1}),
        ("vapsr-x4-large-kernel", {"channels": 8, "attention_channels": 8, "blocks": 1}),
        ("vapsr-x4-pixel-norm", {"channels": 8, "attention_channels": 8, "blocks": 1}),
        ("realbasicvsr-x4-recurrent-cleaning", SMALL_RBV),
        ("vsrt-reds-no-attention", SMALL_VSRT),
        ("vsrt-reds-no-flow", SMALL_VSRT),
        ("vsrt-reds-no-boff", SMALL_VSRT),
    ],
)
def test_what_was_trained_is_recognised_with_its_card(tmp_path: Path, name: str, sizes: dict[str, Any]) -> None:
    """A step of a small one; the options are found again in the file that other commands take, and in its converted form."""
    whole = find_recipe(name)
    is_clip = model_spec(whole).window is not None
    data = DataRecipe(kind="clips", clip_frames=2, patch_px=24) if is_clip else DataRecipe(patch_px=16)
    options = {**whole.model_options, **sizes}
    recipe = recipe_of(replace(STAGE, steps=1, data=data), model=whole.model, model_options=options)
    noise = Noise(scale=4, side=data.patch_px, frames=2 if is_clip else None)
    state = train(recipe, data=lambda stage: noise, out=tmp_path / "run")
    file = read(tmp_path / "run" / "last.pth")
    found = checkpoints.recognise(file.state, value_range=file.value_range)
    rebuilt = found.spec.build()
    arguments = inspect.signature(type(rebuilt)).parameters
    assert {key: found.parameters.get(key, arguments[key].default) for key in options} == options
    rebuilt.load_state_dict(found.state)
    clip = torch.rand(1, 2, 3, 24, 24) if is_clip else torch.rand(1, 3, 24, 24)
    state.network.load_state_dict(found.state)
    with torch.inference_mode():
        assert torch.equal(rebuilt.eval()(clip), state.network.eval()(clip))
    card = checkpoints.convert(tmp_path / "run" / "last.pth", tmp_path / "small.safetensors")
    assert card.parameters == found.parameters
    assert checkpoints.recognise(read(tmp_path / "small.safetensors").state).spec.name == found.spec.name
