"""Claims that hold for every registered network: facts, shapes, weights files, reference form, precisions, tiles.

Facts, names and shapes are those of the published size. Values are compared on a toy of each network (`every_network`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import make_photo
from every_network import SMALLER, arguments_of, distinct, reference_of, toy_of, untrained
from upframe.benchmark.worker import reference_form
from upframe.engines import TorchEngine, TorchOptions
from upframe.models.cards import Card
from upframe.models.checkpoints import instantiate, is_same_network, recognise, save
from upframe.models.families.realbasicvsr import SHIPPED_SIZE
from upframe.models.networks import MODELS
from upframe.models.registry import count_parameters
from upframe.models.spec import ModelSpec, Precision, Task
from upframe.models.weights_file import read
from upframe.pixels import to_unit
from upframe.upscaling.images import Upscaler
from upframe.upscaling.options import UpscaleOptions

pytestmark = pytest.mark.slow  # as a whole: `make test-fast` has a minute and a half for everything

TOYS = {spec.name + ("" if spec.window is None else f"-{name}"): name for name in distinct(MODELS) for spec in [toy_of(name)]}
"""Name for the test → registered network. Networks whose toys are built alike appear once."""

PUBLISHED = pytest.mark.parametrize("name", MODELS)
# A toy whose smallest frame has 32 pixels a side, which is VRT's, takes seconds.
TOY = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, id=toy, marks=[pytest.mark.slow] * (toy_of(name).size.minimum >= 32 and toy_of(name).window is not None)
        )
        for toy, name in TOYS.items()
    ],
)

NOT_AS_PUBLISHED = {SHIPPED_SIZE.name}
"""Networks of this project's own design. The reference forms have published ones alone."""


def given(spec: ModelSpec, height: int, width: int, *, frames: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """A picture (1, C, H, W), or a clip (1, T, C, H, W) of it that drifts by a pixel a frame, so that flows are not zero."""
    if spec.window is None:
        return to_unit(make_photo(height, width))[None].to(dtype)
    count = max(spec.window.minimum, frames)
    wide = to_unit(make_photo(height, width + count))[None].to(dtype)
    return torch.stack([wide[..., i : i + width] for i in range(count)], dim=1)


def facts(spec: ModelSpec) -> dict[str, float]:
    """Arguments of the network besides the clip."""
    return {"sigma": 0.1} if spec.takes_sigma else {}


def made_shape(spec: ModelSpec, shape: torch.Size | tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the result for an input of `shape`."""
    *lead, height, width = shape
    if spec.task == "interpolate":
        lead[1] = 1
    return (*lead, height * spec.scale, width * spec.scale)


# Facts ----------------------------------------------------------------------------------------------------------------
@PUBLISHED
def test_facts_are_stated_and_agree(name: str) -> None:
    spec = MODELS[name]
    assert spec.name == name and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)
    assert re.search(r"https://\S+", spec.paper), "a paper without a link"
    assert spec.licence.strip() and spec.family.strip()
    assert spec.task in get_args(Task) and spec.channels in (1, 3)
    if spec.task == "upscale":
        assert spec.scale > 1 and name.endswith(f"-x{spec.scale}")
    else:
        assert spec.scale == 1 and spec.task in name
    assert spec.takes_sigma == (spec.task == "denoise")
    assert spec.size.minimum >= 1 and spec.size.padded(spec.size.minimum) == spec.size.minimum


@PUBLISHED
def test_claims_about_precision_tiles_and_memory_agree(name: str) -> None:
    spec = MODELS[name]
    assert spec.precisions[0] == "fp32" and set(spec.precisions) <= set(get_args(Precision))
    for loss_db in (spec.bf16_loss_db, spec.kernels_bf16_loss_db):
        assert loss_db is None or "bf16" in spec.precisions
    assert (spec.tiling == "exact") == (spec.exact_halo_px is not None)
    assert spec.halo_px >= 0 and (spec.exact_halo_px is None or spec.halo_px <= spec.exact_halo_px)
    if spec.window is None:
        assert spec.activation_bytes_per_px > 0 and not spec.streams and spec.preparation is None
    else:
        assert spec.memory and {law.precision for law in spec.memory} <= set(spec.precisions)
        assert not spec.exports, "engines other than torch run networks for single pictures"


@PUBLISHED
def test_what_a_network_offers_is_what_its_spec_says(name: str) -> None:
    spec = MODELS[name]
    with torch.device("meta"):
        network = spec.build()
    assert hasattr(network, "prepare") == (spec.preparation is not None)
    assert hasattr(network, "stream") == spec.streams
    assert hasattr(network, "place_tensors") == (spec.takes_place and spec.exports)


@pytest.mark.slow
def test_every_family_has_a_small_form() -> None:
    assert {spec.family for spec in MODELS.values()} == SMALLER.keys()
    for name in MODELS:
        assert count_parameters(toy_of(name)) < count_parameters(MODELS[name])


# Weights --------------------------------------------------------------------------------------------------------------
@PUBLISHED
def test_names_and_shapes_lead_back_to_the_network(name: str) -> None:
    """By names and shapes alone, and to no network of another family."""
    spec = MODELS[name]
    with torch.device("meta"):
        state = dict(spec.build().state_dict())
    found = recognise(state, value_range="0-1")
    assert is_same_network(found.spec, spec)
    assert found.spec is next(one for one in MODELS.values() if is_same_network(one, spec)), "the first stands for the others"
    with torch.device("meta"):
        again = found.spec.build(**found.parameters).state_dict()
    assert {key: value.shape for key, value in again.items()} == {key: value.shape for key, value in state.items()}


@TOY
def test_a_saved_network_comes_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    spec = toy_of(name)
    model = untrained(spec)
    state = dict(model.network.state_dict())
    card = Card(name="toy", arch=spec.name, parameters=arguments_of(spec), scale=spec.scale)
    saved = save(tmp_path / "toy.safetensors", state, card)
    file = read(tmp_path / "toy.safetensors")
    assert (file.card, file.sha256) == (saved, saved.sha256)
    found = recognise(file.state, value_range=file.value_range)
    assert (found.spec.name, found.parameters) == (spec.name, arguments_of(spec))
    back = dict(instantiate(found.spec, found.state).state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())


# Reference form -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@PUBLISHED
def test_the_reference_form_takes_the_published_weights(name: str) -> None:
    """Names and shapes, one for one."""
    if name in NOT_AS_PUBLISHED:
        pytest.skip("not as published, so it has no reference form")
    with torch.device("meta"):
        state = MODELS[name].build().state_dict()
    reference = reference_form(MODELS[name], state)
    assert {key: value.shape for key, value in reference.state_dict().items()} == {key: v.shape for key, v in state.items()}


@TOY
def test_the_reference_form_makes_the_same(name: str) -> None:
    """In float64, where the order of sums cannot hide a difference, on the sizes that the published code takes. Untrained
    flow enlarges rounding: measured, 4e-9 after seven layers of attention."""
    spec = toy_of(name)
    network = untrained(spec).network.double()
    reference = reference_of(spec, dict(network.state_dict()))
    assert (reference is None) == (name in NOT_AS_PUBLISHED)
    if reference is None:
        pytest.skip("not as published, so it has no reference form")
    sides = {"VSR-Transformer": (32, 32), "VRT": (32, 32)}  # frames of the trained size only; multiples of 8 of at least 32
    clip = given(spec, *sides.get(spec.family, (19, 22)), dtype=torch.float64)
    before = clip.clone()
    with torch.inference_mode():
        torch.testing.assert_close(network(clip, **facts(spec)), reference.double()(clip, **facts(spec)), rtol=0, atol=1e-8)
    assert torch.equal(clip, before), "the input was changed"


# Running --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (MODELS[n].window is not None)) for n in distinct(MODELS)]
)
def test_the_published_size_makes_the_size_that_its_spec_says(name: str) -> None:
    """The smallest input that it takes."""
    spec = MODELS[name]
    side = spec.size.minimum
    lead = (1,) if spec.window is None else (1, max(spec.window.minimum, 2))
    clip = torch.rand(*lead, spec.channels, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        made = untrained(spec).network(clip, **facts(spec))
    assert made.shape == made_shape(spec, clip.shape)
    assert made.isfinite().all()


@TOY
def test_any_size_goes_through_the_engine(name: str) -> None:
    """Other sizes than the network takes are padded, and the result is cropped."""
    spec = toy_of(name)
    engine = TorchEngine(untrained(spec), TorchOptions("cpu", "fp32"))
    for height, width in ((1, 1), (5, 37)):
        clip = given(spec, height, width)
        clip = clip[None] if spec.window is None else clip
        before = clip.clone()
        made = engine(clip, **facts(spec))
        assert made.shape == made_shape(spec, clip.shape)
        assert made.dtype == torch.float32 and made.isfinite().all()
        assert torch.equal(clip, before), "the input was changed"


@TOY
def test_members_of_a_batch_do_not_mix(name: str) -> None:
    spec = toy_of(name)
    side = spec.size.padded(24)
    network = untrained(spec).network
    one = given(spec, side, side)
    two = one.flip(-1)
    with torch.inference_mode():
        both = network(torch.cat([one, two]), **facts(spec))
        alone = torch.cat([network(one, **facts(spec)), network(two, **facts(spec))])
    torch.testing.assert_close(both, alone, rtol=0, atol=1e-5)  # float32 sums in another order


@TOY
def test_noise_is_told_to_those_that_take_it_and_to_no_other(name: str) -> None:
    spec = toy_of(name)
    network = untrained(spec).network
    clip = given(spec, spec.size.padded(24), spec.size.padded(24))
    with torch.inference_mode():
        if spec.takes_sigma:
            assert not torch.equal(network(clip, sigma=0.01), network(clip, sigma=0.2))
        else:
            with pytest.raises((TypeError, ValueError), match="sigma"):
                network(clip, sigma=0.1)


@TOY
def test_streamed_frames_are_those_of_the_whole(name: str) -> None:
    spec = toy_of(name)
    if not spec.streams:
        pytest.skip("makes no stream")
    network: Any = untrained(spec).network
    clip = given(spec, spec.size.padded(20), spec.size.padded(26), frames=4)
    prepared = {} if spec.preparation is None else {"prepared": True}
    with torch.inference_mode():
        clip = network.prepare(clip).clip if prepared else clip
        whole = network(clip, **prepared)
        for keep in ("full", "recompute"):
            assert torch.equal(torch.stack(list(network.stream(clip, keep=keep)), dim=1), whole), keep


# Claims ---------------------------------------------------------------------------------------------------------------
@TOY
def test_bfloat16_stays_close_where_it_is_claimed(name: str) -> None:
    """Layers round to 8 bits, 2^-9 of a value each. On toys that leaves 40 dB; a wrong range or layer leaves less than 25.
    How much a trained network loses is measured on test sets and stated in its spec."""
    spec = toy_of(name)
    assert spec.precisions == MODELS[name].precisions
    if "bf16" not in spec.precisions:
        pytest.skip("not claimed")
    model = untrained(spec)
    clip = given(spec, spec.size.padded(24), spec.size.padded(32))
    clip = clip[None] if spec.window is None else clip
    full = TorchEngine(model, TorchOptions("cpu", "fp32"))(clip, **facts(spec))
    reduced = TorchEngine(untrained(spec), TorchOptions("cpu", "bf16"))(clip, **facts(spec))
    assert reduced.dtype == torch.float32 and not torch.equal(reduced, full), "bfloat16 was not used"
    peak = float(full.amax() - full.amin())
    assert 20 * np.log10(peak / float((reduced - full).square().mean().sqrt())) > 35


@TOY
def test_tiles_with_the_exact_halo_make_the_whole(name: str) -> None:
    """To the rounding of float32 sums in another order."""
    spec = toy_of(name)
    assert spec.tiling == MODELS[name].tiling
    if spec.exact_halo_px is None:
        pytest.skip("no halo is exact")
    photo = make_photo(70, 110, dtype="float32")[..., : spec.channels]
    engine = TorchOptions("cpu", "fp32")
    whole = Upscaler(untrained(spec), UpscaleOptions(tile="off", engine=engine))(photo)
    tiled = Upscaler(untrained(spec), UpscaleOptions(tile=32, blend=4, halo=spec.exact_halo_px, engine=engine))(photo)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
    close = Upscaler(untrained(spec), UpscaleOptions(tile=32, blend=0, halo=0, engine=engine))(photo)
    assert np.abs(close - whole).max() > 1e-4, "without a halo it is exact too, so this proves nothing"
