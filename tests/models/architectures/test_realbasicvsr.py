"""BasicVSR and RealBasicVSR against the reference tensors, and the promises of cleaning, streaming and memory."""

from __future__ import annotations

import copy
import json
import math
import weakref
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import make_photo
from upframe.errors import OptionError
from upframe.models.architectures import realbasicvsr
from upframe.models.architectures._flow import flow_warp
from upframe.models.architectures.realbasicvsr import BasicVSR, RealBasicVSR
from upframe.models.families import realbasicvsr as realbasicvsr_family
from upframe.models.interfaces import Keep
from upframe.models.networks import MODELS
from upframe.models.registry import count_parameters
from upframe.models.spec import Cleaning
from upframe.pixels import to_unit

DTYPES = [torch.float32, torch.float64]
REAL = [
    *("rbv_base", "rbv_batch2_thres", "rbv_full_config", "rbv_mirror6", "rbv_odd_37x43", "rbv_tiny_20x24"),
    *("rbv_refine_max", "rbv_refine_off", "rbv_refine_two", "rbv_sequential_two"),
]


def test_every_reference_fixture_is_listed_here(shared: Path) -> None:
    present = {path.stem for path in (shared / "golden" / "realbasicvsr").glob("*.json")}
    assert present == {*REAL, "rbv_grad", "basicvsr_small"}


def loaded(fixture: Any, dtype: torch.dtype) -> Any:
    """The network of a fixture, as found from the shapes of its weights."""
    weights = fixture.weights()
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    network: nn.Module
    if "image_cleaning.1.weight" in weights:
        network = RealBasicVSR(**realbasicvsr_family.realbasicvsr_configuration(shapes))
        network.load_state_dict(realbasicvsr_family.realbasicvsr_complete(weights))
    else:
        network = BasicVSR(**realbasicvsr_family.basicvsr_configuration(shapes))
        network.load_state_dict(realbasicvsr_family.basicvsr_complete(weights))
    return network.to(dtype).eval()


def options_of(fixture: Any) -> Cleaning:
    given = fixture.meta["ctor_args"]
    return Cleaning(threshold=given["dynamic_refine_thres"], sequential=given["is_sequential_cleaning"])


def record_outputs(network: nn.Module) -> dict[str, list[Tensor]]:
    """Filled while `network` runs: the outputs of each submodule's calls, before any in-place activation."""
    seen: dict[str, list[Tensor]] = defaultdict(list)
    for name, module in network.named_modules():
        module.register_forward_hook(lambda module, given, result, name=name: seen[name].append(result.clone()))
    return seen


def check_recorded(fixture: Any, seen: dict[str, list[Tensor]]) -> None:
    for key in fixture.names("mid."):
        name, _, call = key.removeprefix("mid.").partition("#")
        if call:
            fixture.check(key, seen[name][int(call)])


# The reference --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", REAL)
def test_realbasicvsr_equals_the_reference(golden: ModuleType, name: str, dtype: torch.dtype) -> None:
    fixture = golden.Golden(f"realbasicvsr/{name}")
    network, clip = loaded(fixture, dtype), fixture.input("lr", dtype)
    before = clip.clone()
    seen = record_outputs(network)
    with torch.inference_mode():
        cleaned = network.prepare(clip, options_of(fixture))
        enlarged = network(cleaned.clip, prepared=True)
    fixture.check("out.cleaned", cleaned.clip)
    fixture.check("out.sr", enlarged)
    check_recorded(fixture, seen)
    assert torch.equal(clip, before)
    expected = fixture.meta["cleaning"]
    assert cleaned.passes == len(cleaned.residues) == expected["iterations_done"]
    residues = [255 * residue for residue in expected["mean_abs_residue_if_iterated"][: cleaned.passes]]
    assert cleaned.residues == pytest.approx(residues, rel=1e-5)  # float32


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_basicvsr_equals_the_reference(golden: ModuleType, dtype: torch.dtype) -> None:
    fixture = golden.Golden("realbasicvsr/basicvsr_small")
    network = loaded(fixture, dtype)
    seen = record_outputs(network)
    with torch.inference_mode():
        fixture.check("out.sr", network(fixture.input("lr", dtype)))
    check_recorded(fixture, seen)


def test_the_forward_pass_cleans_as_released(golden: ModuleType) -> None:
    """Once, because no mean residue reaches the released threshold of 255 / 255."""
    fixture = golden.Golden("realbasicvsr/rbv_base")
    with torch.inference_mode():
        fixture.check("out.sr", loaded(fixture, torch.float64)(fixture.input("lr", torch.float64)))


def test_a_mirrored_clip_needs_flow_in_one_direction_only(golden: ModuleType) -> None:
    fixture = golden.Golden("realbasicvsr/rbv_mirror6")
    network, clip = loaded(fixture, torch.float32), fixture.input("lr")
    seen = record_outputs(network.basicvsr.spynet)
    with torch.inference_mode():
        network(clip)
        assert len(seen["basic_module.0"]) == 1
        network(clip + torch.linspace(0, 1e-3, 6).view(1, 6, 1, 1, 1))  # no longer the same in reverse
        assert len(seen["basic_module.0"]) == 3


@pytest.mark.parametrize("sequential", [False, True], ids=["at once", "frame by frame"])
def test_gradients_equal_the_reference_and_the_flow_network_gets_none(golden: ModuleType, sequential: bool) -> None:
    fixture, base = golden.Golden("realbasicvsr/rbv_grad"), golden.Golden("realbasicvsr/rbv_refine_two")
    network, clip = loaded(fixture, torch.float64), base.input("lr", torch.float64)
    cleaned = network.prepare(clip, Cleaning(options_of(fixture).threshold, sequential=sequential)).clip
    enlarged = network(cleaned, prepared=True)
    loss = (enlarged - 0.5).square().add(1e-6).sqrt().mean() + (cleaned - 0.5).square().add(1e-6).sqrt().mean()
    loss.backward()
    fixture.check("out.loss", loss.view(1))
    parameters = dict(network.named_parameters())
    for key in fixture.names("out.grad."):
        fixture.check(key, parameters[key.removeprefix("out.grad.")].grad)
    assert fixture.meta["parameters_without_gradient"] == ["basicvsr.spynet.*"]
    without = {name for name, parameter in parameters.items() if parameter.grad is None}
    assert without == {name for name in parameters if name.startswith("basicvsr.spynet.")}
    largest = {name: float(parameter.grad.abs().max()) for name, parameter in parameters.items() if name not in without}
    assert largest == pytest.approx(fixture.meta["max_abs_gradient"], rel=1e-5)  # stored as float32


@pytest.mark.parametrize("name", ["basicvsr-x4", "realbasicvsr-x4"])
def test_parameters_have_the_published_names_and_shapes(shared: Path, name: str) -> None:
    file = shared / "golden" / "state_dicts" / f"{name.replace('-', '_')}.json"
    published = json.loads(file.read_text())
    expected = published["parameters"] | {key: entry["shape"] for key, entry in published["buffers"].items()}
    network = MODELS[name].build()
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == expected
    trainable = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert trainable == published["parameters_trainable_at_init"]
    assert count_parameters(MODELS[name]) == published["param_count"]


# Any clip -------------------------------------------------------------------------------------------------------------
def small(seed: int = 0, *, cleaning: float = 1.0) -> RealBasicVSR:
    """A small network with fresh weights; `cleaning` multiplies what cleaning does."""
    torch.manual_seed(seed)
    network = RealBasicVSR(channels=8, propagation_blocks=1, cleaning_blocks=1).eval().requires_grad_(False)
    network.image_cleaning[1].weight.mul_(cleaning)
    network.image_cleaning[1].bias.mul_(cleaning)
    return network


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 2), (33, 17)])
def test_any_size_and_number_of_frames_is_accepted(size: tuple[int, int], frames: int) -> None:
    result = small()(torch.rand(2, frames, 3, *size))
    assert result.shape == (2, frames, 3, 4 * size[0], 4 * size[1])
    assert torch.isfinite(result).all()


def test_clips_of_a_batch_do_not_mix() -> None:
    network, clips = small(), torch.rand(2, 3, 3, 12, 10)
    alone = torch.cat([network(clip[None]) for clip in clips])
    torch.testing.assert_close(network(clips), alone, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_flow_of_few_pairs_at_a_time_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, clip = small(), torch.rand(2, 5, 3, 12, 10)
    expected = network(clip)
    for limit in (1, 2 * 2 * 120):  # one and two pairs of a batch of two
        monkeypatch.setattr(realbasicvsr, "FLOW_BATCH_PX", limit)
        torch.testing.assert_close(network(clip), expected, atol=1e-5, rtol=0)


# Cleaning -------------------------------------------------------------------------------------------------------------
def test_cleaning_frame_by_frame_equals_cleaning_at_once() -> None:
    network, clip = small(), torch.rand(2, 3, 3, 13, 11)
    one = network.prepare(clip, Cleaning(threshold=0, sequential=True))
    other = network.prepare(clip, Cleaning(threshold=0, sequential=False))
    assert one.passes == other.passes == 3
    torch.testing.assert_close(one.clip, other.clip, atol=1e-6, rtol=0)
    assert one.residues == pytest.approx(other.residues, rel=1e-5)


def test_large_frames_are_cleaned_in_bands_with_the_same_result() -> None:
    network, clip = small(), torch.rand(1, 2, 3, 37, 11)
    whole = network.prepare(clip, Cleaning(0))
    rows: list[int] = []
    network.image_cleaning.register_forward_hook(lambda module, given, result: rows.append(result.shape[2]))
    bands = network.prepare(clip, Cleaning(0), max_px=7 * 11)
    assert max(rows) == 7 + 2 * network.cleaning_radius_px == 15
    torch.testing.assert_close(bands.clip, whole.clip, atol=1e-6, rtol=0)


def test_the_reach_of_the_cleaning_network_is_what_bands_allow_for() -> None:
    network = RealBasicVSR(channels=4, propagation_blocks=1, cleaning_blocks=3).double()
    with torch.no_grad():
        for parameter in network.image_cleaning.parameters():
            parameter.abs_()  # so that no ReLU is closed, and nothing cancels
    centre = network.cleaning_radius_px + 2
    frame = torch.rand(1, 3, 2 * centre + 1, 1, dtype=torch.float64, requires_grad=True)
    network.image_cleaning(frame)[:, :, centre].square().sum().backward()
    assert frame.grad is not None
    reached = frame.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (centre - int(reached.min()), int(reached.max()) - centre) == (network.cleaning_radius_px,) * 2


def test_the_threshold_is_on_the_0_255_scale_and_the_pass_below_it_counts() -> None:
    network, clip = small(), torch.rand(1, 3, 3, 13, 11)
    residues = network.prepare(clip, Cleaning(0)).residues
    by_hand = 255 * float((network.image_cleaning(clip[0]).abs()).mean())
    assert residues[0] == pytest.approx(by_hand, rel=1e-5)
    assert network.prepare(clip, Cleaning(residues[0] * 1.001)).passes == 1
    assert network.prepare(clip, Cleaning(min(residues) * 0.999)).passes == 3


@pytest.mark.parametrize("passes", [0, 1, 2, 5])
def test_the_number_of_passes_is_bounded(passes: int) -> None:
    network, clip = small(), torch.rand(1, 2, 3, 9, 9)
    cleaned = network.prepare(clip, Cleaning(0, max_passes=passes))
    assert cleaned.passes == passes
    by_hand = clip[0]
    for _ in range(passes):
        by_hand = by_hand + network.image_cleaning(by_hand)
    torch.testing.assert_close(cleaned.clip[0], by_hand, atol=1e-6, rtol=0)


def test_one_noisy_part_makes_the_whole_clip_go_round_again() -> None:
    """The mean is over everything: what one clip of a batch needs, all get."""
    network = small()
    dirty, tidy = torch.rand(1, 2, 3, 9, 9), torch.full((1, 2, 3, 9, 9), 0.5)
    alone = [network.prepare(clip, Cleaning(0, max_passes=1)).residues[0] for clip in (dirty, tidy)]
    low, high = sorted(alone)
    mean = network.prepare(torch.cat([dirty, tidy]), Cleaning(0, max_passes=1)).residues[0]
    assert mean == pytest.approx((low + high) / 2, rel=1e-5)


def test_no_strength_means_plain_basicvsr_and_half_means_halfway() -> None:
    network, clip = small(cleaning=5), torch.rand(1, 3, 3, 13, 11)
    untouched = network.prepare(clip, Cleaning(0, strength=0))
    assert untouched.clip is clip
    assert (untouched.passes, untouched.residues) == (0, ())
    assert torch.equal(network(untouched.clip, prepared=True), network.basicvsr(clip))
    whole, half = network.prepare(clip, Cleaning(0)), network.prepare(clip, Cleaning(0, strength=0.5))
    assert whole.residues == half.residues  # how often is decided as at full strength
    torch.testing.assert_close(half.clip, (clip + whole.clip) / 2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sequential", [False, True])
def test_the_callers_clip_is_never_written_to(sequential: bool, strength: float) -> None:
    network, clip = small(cleaning=5), torch.rand(1, 3, 3, 13, 11)
    before = clip.clone()
    network.prepare(clip, Cleaning(0, strength=strength, sequential=sequential))
    network(clip)
    assert torch.equal(clip, before)


@pytest.mark.parametrize("wrong", [{"threshold": -1.0}, {"max_passes": -1}, {"strength": 1.5}, {"threshold": math.nan}])
def test_options_without_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^cleaning.{next(iter(wrong))}=.*must be 0"):
        Cleaning(**wrong)


# Long clips -----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("frames", range(1, 12))
def test_recomputed_features_give_the_very_same_result(frames: int) -> None:
    network, clip = small(), torch.rand(1, frames, 3, 9, 8)
    with torch.inference_mode():
        assert torch.equal(network(clip, keep="recompute"), network(clip))


def test_half_precision_features_are_rounded_once_and_do_not_accumulate(golden: ModuleType) -> None:
    """The error after forty frames is that after four: the recurrence runs on unrounded features."""
    network = loaded(golden.Golden("realbasicvsr/rbv_base"), torch.float32)
    errors = {}
    for frames in (4, 40):
        clip = torch.rand(1, frames, 3, 12, 12, generator=torch.Generator().manual_seed(frames))
        with torch.inference_mode():
            errors[frames] = float((network(clip, keep="half") - network(clip)).abs().max())
    assert 0 < errors[40] < 2 * errors[4]
    assert errors[40] < 1 / 2 / 255


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "most"), [("full", 50), ("recompute", 17), ("half", 2)])
def test_features_in_waiting_are_bounded(keep: Keep, most: int) -> None:
    """50 frames are 8 blocks of 7 or 8: 7 checkpoints, 8 of the block at hand, and one or two in the making."""
    network, clip = small(), torch.rand(1, 50, 3, 4, 4)
    alive: list[weakref.ref[Tensor]] = []
    counts: list[int] = []

    def count(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        alive.append(weakref.ref(result))
        counts.append(sum(reference() is not None for reference in alive))

    network.basicvsr.backward_resblocks.register_forward_hook(count)
    with torch.inference_mode():
        for _ in network.stream(clip, keep=keep):
            pass
    assert max(counts) <= most
    assert len(counts) <= (2 * 50 if keep == "recompute" else 50)


def test_frames_are_made_as_they_are_asked_for() -> None:
    network, clip = small(), torch.rand(1, 6, 3, 9, 8)
    seen = record_outputs(network.basicvsr)
    with torch.inference_mode():
        expected = network(clip, prepared=True).unbind(1)
        seen.clear()
        frames = network.stream(clip)
        first = next(frames)
        assert (len(seen["backward_resblocks"]), len(seen["forward_resblocks"])) == (6, 1)
        for frame, same in zip((first, *frames), expected, strict=True):
            assert torch.equal(frame, same)


@pytest.mark.parametrize("rows", [2, 5, 7, 11, 22])  # also bands whose next one has a single row
def test_large_frames_are_reconstructed_in_bands_with_the_same_result(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    network, clip = small(), torch.rand(1, 2, 3, 23, 8)
    monkeypatch.setattr(realbasicvsr, "LEAST_ROWS", rows)
    with torch.inference_mode():
        whole = network(clip)
        monkeypatch.setattr(realbasicvsr, "RECONSTRUCTION_PX", 1)
        seen = record_outputs(network.basicvsr)
        bands = network(clip)
    heights = [result.shape[-2] for result in seen["conv_last"]]
    assert len(heights) == 2 * math.ceil(23 / rows)
    assert max(heights) <= 4 * rows + 4  # two rows around each, of the enlarged ones
    torch.testing.assert_close(bands, whole, atol=1e-6, rtol=0)


def test_bands_are_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    network, clip = small(), torch.rand(1, 1, 3, 60, 8)
    monkeypatch.setattr(realbasicvsr, "RECONSTRUCTION_PX", 50 * 8)
    seen = record_outputs(network.basicvsr)
    with torch.inference_mode():
        network(clip)
    assert [result.shape[-2] for result in seen["conv_last"]] == [4 * 30 + 2] * 2


# Half precision -------------------------------------------------------------------------------------------------------
def reduced(network: nn.Module) -> Any:
    return copy.deepcopy(network).to(torch.bfloat16)


@pytest.mark.slow
def test_in_half_precision_pixels_and_flow_are_not_rounded() -> None:
    """A network that adds nothing makes the bilinear enlargement of the clip, to the last bit."""
    for network in (small(cleaning=0), small_with_own_flow(idle_cleaning=True).requires_grad_(False)):
        for parameter in network.basicvsr.conv_last.parameters():
            parameter.zero_()
        clip, half = torch.rand(1, 3, 3, 20, 24), reduced(network)
        with torch.inference_mode():
            assert torch.equal(half(clip), network(clip))
            (flow,) = half.basicvsr._flows([clip[:, 0]], [clip[:, 1]])
        assert flow.dtype == torch.float32
        assert not torch.equal(flow, flow.to(torch.bfloat16).float())


@pytest.mark.parametrize("name", ["rbv_base", "rbv_full_config", "rbv_odd_37x43"])
def test_half_precision_stays_close(golden: ModuleType, name: str) -> None:
    """Of what is added to the enlarged pixels, not of the pixels, which are exact.

    Each of some hundred layers, and each frame the features pass, rounds to 2^-9. Were those errors of one sign, this would
    be a third; they are not, and 0.01 to 0.02 are measured.
    """
    fixture = golden.Golden(f"realbasicvsr/{name}")
    network, clip = loaded(fixture, torch.float32), fixture.input("lr")
    half = reduced(network)
    with torch.inference_mode():
        exact, cleaned = network(clip), half.prepare(clip)
        made = half(clip)
        base = F.interpolate(network.prepare(clip).clip.flatten(0, 1), scale_factor=4, mode="bilinear").view_as(exact)
    assert made.dtype == cleaned.clip.dtype == torch.float32
    error = (made - exact).square().mean().sqrt()
    assert 0 < float(error / (exact - base).square().mean().sqrt()) < 0.04


@pytest.mark.parametrize("keep", ["full", "half", "recompute"])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_half_precision_is_the_same_in_one_go_and_as_a_stream(frames: int, keep: Keep) -> None:
    """Features that wait "half" are of two bytes as they are, so nothing is rounded once more."""
    clip = torch.rand(1, frames, 3, 19, 16)
    for network in map(reduced, (small(), small_with_own_flow().requires_grad_(False))):
        with torch.inference_mode():
            whole = network(clip)
            streamed = torch.stack(list(network.stream(network.prepare(clip).clip, keep=keep)), dim=1)
        assert torch.equal(streamed, whole)


# Recurrent cleaning (RB-23) -------------------------------------------------------------------------------------------
def recurrent() -> RealBasicVSR:
    """A small network whose cleaning runs through time and changes something."""
    torch.manual_seed(0)
    network = RealBasicVSR(channels=8, propagation_blocks=1, cleaning_blocks=1, recurrent_cleaning=True).eval()
    nn.init.normal_(network.image_cleaning[1].weight, std=0.02)
    return network.requires_grad_(False)


def test_recurrent_cleaning_gives_features_on_along_the_flow() -> None:
    network, clip = recurrent().double(), torch.rand(1, 3, 3, 12, 10, dtype=torch.float64)
    blocks, last = network.image_cleaning
    feature, residues = torch.zeros(1, 8, 12, 10, dtype=torch.float64), []
    for i in range(3):
        if i:
            feature = flow_warp(feature, network.basicvsr.flow_network(clip[:, i], clip[:, i - 1]))
        feature = blocks(torch.cat([clip[:, i], feature], dim=1))
        residues.append(last(feature))
    cleaned = network.prepare(clip, Cleaning(0, max_passes=1))
    torch.testing.assert_close(cleaned.clip, clip + torch.stack(residues, dim=1), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("changed", "seen"), [(0, [True, True, True]), (1, [False, True, True]), (2, [False, False, True])])
def test_recurrent_cleaning_takes_noise_on_to_later_frames(changed: int, seen: list[bool]) -> None:
    """Which is why the published network cleans every frame by itself."""
    network, clip = recurrent(), torch.rand(1, 3, 3, 12, 10)
    noisy = clip.clone()
    noisy[:, changed] += 0.1
    one, other = (network.prepare(given, Cleaning(0, max_passes=1)).clip - given for given in (clip, noisy))
    assert (one != other).flatten(2).any(-1)[0].tolist() == seen


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_recurrent_cleaning_takes_as_many_passes_as_it_is_told(passes: int) -> None:
    network, clip = recurrent(), torch.rand(1, 2, 3, 9, 9)
    before = clip.clone()
    expected = clip
    for _ in range(passes):
        expected = network.prepare(expected, Cleaning(0, max_passes=1)).clip
    cleaned = network.prepare(clip, Cleaning(0, max_passes=passes))
    assert cleaned.passes == passes
    assert torch.equal(cleaned.clip, expected)
    assert torch.equal(clip, before)


def test_recurrent_cleaning_can_be_trained_and_is_found_in_the_shapes() -> None:
    network = recurrent().requires_grad_(True)
    network.basicvsr.flow_network.requires_grad_(False)
    network(torch.rand(1, 3, 3, 9, 9)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == ("spynet." in name), name
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = realbasicvsr_family.realbasicvsr_configuration(shapes)
    assert found == {"channels": 8, "propagation_blocks": 1, "cleaning_blocks": 1, "recurrent_cleaning": True}
    spec = realbasicvsr_family.realbasicvsr_spec_for(**found)
    assert spec.name == "realbasicvsr-c8b1r1-recurrent-x4"
    assert spec.build().state_dict().keys() == shapes.keys()


# Small ones with our own flow network ---------------------------------------------------------------------------------
def small_with_own_flow(**how: Any) -> RealBasicVSR:
    torch.manual_seed(0)
    sizes = {"channels": 8, "propagation_blocks": 1, "cleaning_blocks": 1, "reconstruction_channels": 4}
    return RealBasicVSR(**sizes, flow="correlation", **how).eval()  # type: ignore[arg-type]


def test_our_flow_network_and_a_narrow_reconstruction_are_found_in_the_shapes() -> None:
    shapes = {name: tuple(value.shape) for name, value in small_with_own_flow().state_dict().items()}
    assert not any("spynet" in name for name in shapes)
    found = realbasicvsr_family.realbasicvsr_configuration(shapes)
    assert (found["reconstruction_channels"], found["flow"]) == (4, "correlation")
    spec = realbasicvsr_family.realbasicvsr_spec_for(**found)
    assert (spec.name, spec.licence) == ("realbasicvsr-c8b1r1h4-cf-x4", "Apache-2.0")
    assert {name: tuple(value.shape) for name, value in spec.build().state_dict().items()} == shapes
    inner = {name.removeprefix("basicvsr."): shape for name, shape in shapes.items() if name.startswith("basicvsr.")}
    plain = realbasicvsr_family.basicvsr_spec_for(**realbasicvsr_family.basicvsr_configuration(inner))
    assert (plain.name, plain.family) == ("basicvsr-c8b1h4-cf-x4", "BasicVSR")
    assert {name: tuple(value.shape) for name, value in plain.build().state_dict().items()} == inner


def test_our_flow_network_stays_as_it_is_while_the_rest_is_trained() -> None:
    network = small_with_own_flow()
    network(torch.rand(1, 2, 3, 9, 12)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == ("correlation_flow." in name), name


def test_cleaning_can_begin_idle() -> None:
    clip = torch.rand(1, 2, 3, 9, 12)
    with torch.no_grad():
        idle, busy = (small_with_own_flow(idle_cleaning=which).prepare(clip) for which in (True, False))
    assert torch.equal(idle.clip, clip) and idle.residues == (0.0,)
    assert busy.residues[0] > 0


# Claims of the specs ---------------------------------------------------------------------------------------------------
def narrow() -> RealBasicVSR:
    """As deep as the published network, so that it looks as far, with fresh weights and fewer channels."""
    torch.manual_seed(0)
    return RealBasicVSR(channels=8).eval().requires_grad_(False)


def moving(frames: int, height: int, width: int) -> Tensor:
    """(1, T, 3, H, W): a picture that drifts by two pixels a frame."""
    picture = to_unit(make_photo(height, width + 2 * frames))
    return torch.stack([picture[..., 2 * i : 2 * i + width] for i in range(frames)])[None]


@pytest.mark.slow
def test_a_tile_with_the_default_halo_is_within_a_code_value_of_the_whole() -> None:
    network, clip, core = narrow(), moving(3, 32, 224), 96
    with torch.inference_mode():
        cleaned = network.prepare(clip).clip
        tile = network(cleaned[..., : core + MODELS["realbasicvsr-x4"].halo_px], prepared=True)
        difference = tile[..., : 4 * core] - network(cleaned, prepared=True)[..., : 4 * core]
    assert 0 < float(difference.abs().max()) < 1 / 255  # not 0: tiling is approximate


@pytest.mark.slow
def test_a_segment_with_the_default_overlap_is_within_a_code_value_of_the_whole() -> None:
    window = MODELS["realbasicvsr-x4"].window
    assert window is not None and window.frames is None
    network, clip, cut = narrow(), moving(12, 32, 32), 6
    with torch.inference_mode():
        cleaned = network.prepare(clip).clip
        later = network(cleaned[:, cut - window.overlap :], prepared=True)[:, window.overlap :]
        whole = network(cleaned, prepared=True)[:, cut:]
    assert float((later - whole).abs().max()) < 1 / 255
