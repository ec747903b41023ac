"""Warping and SPyNet against the reference tensors of both published ports, and against what can be said by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from upframe.models.architectures._flow import Layout, SPyNet, flow_warp, with_normalisation
from upframe.models.architectures._flow_names import mm_names

DTYPES = [torch.float32, torch.float64]
MM = ["mm_div32", "mm_odd_50x70", "mm_odd_97x33", "mm_tiny_20x31", "mm_tiny_8x8"]
PLAIN = ["plain_div32", "plain_odd_50x70", "plain_odd_97x33"]
WARPS: dict[str, dict[str, Any]] = {
    f"{interpolation}_{padding}": {"interpolation": interpolation, "padding": padding}
    for interpolation in ("bilinear", "nearest")
    for padding in ("zeros", "border", "reflection")
}
WARPS["bilinear_zeros_nocorner"] = {"align_corners": False}


def test_every_reference_fixture_is_listed_here(shared: Path) -> None:
    present = {path.stem for path in (shared / "golden" / "spynet").glob("*.json")}
    assert present == {*MM, *PLAIN, "flow_warp"}


# Warping --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_warping_equals_the_reference_in_every_mode(golden: ModuleType, dtype: torch.dtype) -> None:
    fixture = golden.Golden("spynet/flow_warp")
    x, flow = fixture.input("x", dtype), fixture.input("flow", dtype).permute(0, 3, 1, 2)
    assert {f"out.{name}" for name in (*WARPS, "one_row")} == set(fixture.names("out."))
    for name, modes in WARPS.items():
        fixture.check(f"out.{name}", flow_warp(x, flow, **modes))
    one_row = flow_warp(fixture.input("x1", dtype), fixture.input("flow1", dtype).permute(0, 3, 1, 2))
    fixture.check("out.one_row", one_row)


def constant_flow(dx: float, dy: float, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([dx, dy], dtype=dtype).view(1, 2, 1, 1).expand(1, 2, *size)


def test_a_whole_pixel_flow_fetches_the_pixel_it_points_to() -> None:
    x = torch.rand(1, 3, 9, 12)
    warped = flow_warp(x, constant_flow(2, -1, (9, 12)))
    torch.testing.assert_close(warped[..., 1:, :-2], x[..., :-1, 2:], atol=1e-5, rtol=0)  # float32 positions
    assert not warped[..., 0, :].any()  # from beyond the border
    assert not warped[..., -2:].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_still_finds_far_pixels(dtype: torch.dtype) -> None:
    """Whole steps at columns around 600 are 4 apart in bfloat16: positions must not be kept in it."""
    x = torch.rand(1, 1, 2, 640).to(dtype)
    warped = flow_warp(x, constant_flow(1, 0, (2, 640), dtype))
    assert warped.dtype == dtype
    torch.testing.assert_close(warped[..., :-1], x[..., 1:], atol=4e-3, rtol=0)  # half a step of bfloat16 below 1


# Positions of `grid_sample` go from -1 to 1 and back, which in float32 costs some 1e-5 of a pixel at these sizes.
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4), (torch.float64, 1e-12), (torch.bfloat16, 2**-8)], ids=str)
@pytest.mark.parametrize("far", [0.6, 5.0, 400.0])
def test_many_channels_are_warped_as_few_are(dtype: torch.dtype, atol: float, far: float) -> None:
    """Which is another computation: here features lie channels-last, and there each channel is a picture."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 20, 11, 13, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    flow = far * (2 * torch.rand(2, 2, 11, 13, generator=generator) - 1)
    flow[:, :, 5] = flow[:, :, 5].round()  # whole pixels, where a neighbour weighs nothing
    before = x.clone()
    with torch.inference_mode():
        warped = flow_warp(x, flow)
        expected = torch.cat([flow_warp(part, flow) for part in x.split(5, dim=1)], dim=1)
    assert warped.dtype == dtype and warped.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(warped, expected, atol=atol, rtol=0)
    assert torch.equal(x, before)


def test_many_channels_by_whole_pixels_are_the_very_pixels() -> None:
    x = torch.rand(1, 16, 9, 12).contiguous(memory_format=torch.channels_last)
    warped = flow_warp(x, constant_flow(2, -1, (9, 12)))
    expected = torch.zeros_like(x)
    expected[..., 1:, :-2] = x[..., :-1, 2:]
    assert torch.equal(warped, expected)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_flow_out_of_this_world_reads_nothing_that_is_not_there(wrong: float) -> None:
    x, flow = torch.rand(1, 16, 5, 6).contiguous(memory_format=torch.channels_last), torch.zeros(1, 2, 5, 6)
    flow[0, 0, 2, 3] = wrong
    warped = flow_warp(x, flow)
    assert not (warped[0, :, 2, 3] > 0).any()  # nothing, or no number
    warped[0, :, 2, 3] = x[0, :, 2, 3]
    assert torch.equal(warped, x)


def test_gradients_reach_frame_and_flow() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    flow = torch.rand(1, 2, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(flow_warp, (x, flow))


def test_warping_in_inference_mode_does_not_spoil_later_training() -> None:
    """The grid of positions is cached, and tensors made in inference mode may not take part in backward passes."""
    x, flow = torch.rand(1, 1, 11, 13), torch.rand(1, 2, 11, 13)
    with torch.inference_mode():
        expected = flow_warp(x, flow).clone()
    flow.requires_grad_()
    warped = flow_warp(x, flow)
    warped.sum().backward()
    assert flow.grad is not None
    assert flow.grad.any()
    assert torch.equal(warped.detach(), expected)


# SPyNet ---------------------------------------------------------------------------------------------------------------
def loaded(golden: ModuleType, name: str, dtype: torch.dtype) -> tuple[Any, SPyNet]:
    fixture = golden.Golden(f"spynet/{name}")
    network = SPyNet(layout="mm" if name.startswith("mm") else "plain")
    network.load_state_dict(with_normalisation(fixture.weights(), ""))
    return fixture, network.to(dtype).eval()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MM)
def test_flow_equals_the_reference(golden: ModuleType, name: str, dtype: torch.dtype) -> None:
    fixture, network = loaded(golden, name, dtype)
    seen: dict[str, Tensor] = {}
    for level, module in enumerate(network.basic_module):
        key = f"mid.basic_module.{level}#0"
        module.register_forward_hook(lambda module, given, result, key=key: seen.update({key: result.clone()}))
    with torch.inference_mode():
        fixture.check("out.flow", network(fixture.input("ref", dtype), fixture.input("supp", dtype)))
    for key in fixture.names("mid."):
        fixture.check(key, seen[key])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PLAIN)
def test_flow_at_four_scales_equals_the_reference(golden: ModuleType, name: str, dtype: torch.dtype) -> None:
    fixture, network = loaded(golden, name, dtype)
    with torch.inference_mode():
        flows = network.pyramid(fixture.input("ref", dtype), fixture.input("supp", dtype))
    assert len(flows) == 4
    for k, flow in enumerate(flows):
        fixture.check(f"out.flow_{k}", flow)


@pytest.mark.parametrize("layout", get_args(Layout))
def test_parameters_have_the_published_names_and_shapes(shared: Path, layout: Layout) -> None:
    published = json.loads((shared / "golden" / "state_dicts" / f"spynet_{layout}.json").read_text())
    expected = published["parameters"] | {name: entry["shape"] for name, entry in published["buffers"].items()}
    assert {name: list(value.shape) for name, value in SPyNet(layout=layout).state_dict().items()} == expected


@pytest.mark.parametrize("size", [(40, 45), (8, 8), (1, 3)])
def test_the_layout_changes_nothing_but_names(size: tuple[int, int]) -> None:
    """At 8×8 as well, where the published code of the plain layout fails."""
    torch.manual_seed(0)
    plain, mm = SPyNet(layout="plain").eval(), SPyNet(layout="mm").eval()
    mm.load_state_dict({mm_names(name): value for name, value in plain.state_dict().items()})
    first, second = torch.rand(2, 3, *size), torch.rand(2, 3, *size)
    with torch.inference_mode():
        assert torch.equal(plain(first, second), mm(first, second))
        assert plain(first, second).shape == (2, 2, *size)


def test_only_parameters_of_the_plain_layout_are_renamed() -> None:
    assert mm_names("spynet.basic_module.5.basic_module.8.bias") == "spynet.basic_module.5.basic_module.4.conv.bias"
    for name in ("spynet.basic_module.5.basic_module.4.conv.bias", "spynet.mean", "conv_first.weight", "basic_module.0.weight"):
        assert mm_names(name) == name


def test_missing_normalisation_is_filled_in_and_given_one_kept() -> None:
    network = SPyNet()
    state = dict(network.state_dict())
    bare = {name: value for name, value in state.items() if name not in ("mean", "std")}
    filled = with_normalisation(bare, "")
    assert filled.keys() == state.keys()
    assert torch.equal(filled["mean"], network.mean)
    assert "mean" not in bare
    other = with_normalisation({**bare, "mean": torch.zeros(1, 3, 1, 1)}, "")
    assert not other["mean"].any()
    assert with_normalisation({"conv.weight": torch.ones(1)}, "").keys() == {"conv.weight"}
