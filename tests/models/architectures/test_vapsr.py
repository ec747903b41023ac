"""VapSR against the reference tensors, through our own loader where official weights are involved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models import checkpoints
from upframe.models.architectures.vapsr import VAB, VapSR
from upframe.models.families import vapsr as vapsr_family
from upframe.models.networks import MODELS
from upframe.models.official import OFFICIAL
from upframe.models.registry import count_parameters
from upframe.models.spec import ModelSpec
from upframe.models.weights_file import read

DTYPES = [torch.float32, torch.float64]
RANDOM = ["vapsr_x2_full", "vapsr_x3_full", "vapsr_x4_full", "vapsr_s_x4_full", "vapsr_small_x3_groups", "vapsr_small_1px"]
OFFICIAL_FIXTURES = {"vapsr_x2": "VapSR_X2", "vapsr_x3": "VapSR_X3", "vapsr_x4": "VapSR_X4", "vapsr_s": "VapSR-S"}


def test_every_reference_fixture_is_listed_here(shared: Path) -> None:
    present = {path.stem for path in (shared / "golden" / "vapsr").glob("*.json")}
    assert present == {*RANDOM, *(f"official_{name}" for name in OFFICIAL_FIXTURES)}


def record_outputs(network: nn.Module) -> dict[str, Tensor]:
    """Filled while `network` runs: the output of each submodule's first call, as it was before any in-place activation."""
    seen: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            if name not in seen:
                seen[name] = result.clone()

        return record

    for name, module in network.named_modules():
        module.register_forward_hook(recorder(name))
    return seen


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", RANDOM)
def test_equals_the_reference_with_seeded_weights(golden: ModuleType, name: str, dtype: torch.dtype) -> None:
    fixture = golden.Golden(f"vapsr/{name}")
    state = fixture.weights(dtype)
    spec = vapsr_family.spec_for(**vapsr_family.configuration({key: tuple(value.shape) for key, value in state.items()}))
    network = spec.build().to(dtype).eval()
    network.load_state_dict(state)
    seen = record_outputs(network)
    with torch.inference_mode():
        fixture.check("out.sr", network(fixture.input("lr", dtype)))
    for key in fixture.names("mid."):
        fixture.check(key, seen[key.removeprefix("mid.").partition("#")[0]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OFFICIAL_FIXTURES)
def test_official_weights_equal_the_reference(golden: ModuleType, shared: Path, name: str, dtype: torch.dtype) -> None:
    fixture = golden.Golden(f"vapsr/official_{name}")
    weights = read(shared / "weights" / "VapSR" / f"{OFFICIAL_FIXTURES[name]}.pth")
    assert weights.sha256 == fixture.meta["weights"]["sha256"]
    found = checkpoints.recognise(weights.state)
    assert found.spec is MODELS[OFFICIAL[weights.sha256].arch]
    assert found.found_range == "0-1"
    network = checkpoints.instantiate(found.spec, found.state).to(dtype)
    with torch.inference_mode():
        fixture.check("out.sr", network(fixture.input("lr", dtype)))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vapsr-x2", 329_236), ("vapsr-x3", 336_811), ("vapsr-x4", 342_220), ("vapsr-s-x4", 154_956)],
)
def test_parameter_counts_are_the_published_ones(name: str, parameters: int) -> None:
    assert count_parameters(MODELS[name]) == parameters


@pytest.mark.parametrize("spec", vapsr_family.SPECS, ids=lambda spec: spec.name)
def test_any_size_is_accepted(spec: ModelSpec) -> None:
    network = spec.build().eval()
    assert (spec.size.minimum, spec.size.multiple) == (1, 1)
    with torch.inference_mode():
        for h, w in ((1, 1), (1, 5), (7, 2)):
            assert network(torch.rand(1, 3, h, w)).shape == (1, 3, h * spec.scale, w * spec.scale)


# One of each way to be otherwise than published, in three networks.
ABLATIONS: list[dict[str, Any]] = [
    {"projection_px": 3, "dense_px": 9, "attention_last": True, "pixel_norm": False, "one_shuffle": True},
    {"projection_px": 3, "dense_px": 1},
    {"attention_last": True, "dilated_px": 7, "scale": 3},
]
SIZE = {"channels": 6, "attention_channels": 6, "blocks": 2, "scale": 4}
ABLATED = [vapsr_family.spec_for(**{**SIZE, **ablations}) for ablations in ABLATIONS]


@pytest.mark.parametrize("axis", [2, 3], ids=["rows", "columns"])
@pytest.mark.parametrize("spec", [*vapsr_family.SPECS, *ABLATED], ids=lambda spec: spec.name)
def test_the_exact_halo_is_the_receptive_field_and_no_pixel_more(spec: ModelSpec, axis: int) -> None:
    """Gradients of one pixel's output reach exactly `exact_halo_px` input pixels to both sides.

    Float64 shows even the outermost ones, whose gradients are as small as 1e-70 with initial weights.
    """
    torch.manual_seed(0)
    network = spec.build().double()
    halo = spec.exact_halo_px
    assert halo is not None
    centre = halo + 3
    size = [1, 3, 1, 1]
    size[axis] = 2 * centre + 1
    picture = torch.rand(size, dtype=torch.float64, requires_grad=True)
    network(picture).narrow(axis, centre * spec.scale, spec.scale).square().sum().backward()
    assert picture.grad is not None
    reached = picture.grad.abs().sum((0, 1, 5 - axis)).nonzero().flatten()
    assert (centre - int(reached.min()), int(reached.max()) - centre) == (halo, halo)


# Ablations (VA-14) ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ablations", ABLATIONS, ids=lambda ablations: "-".join(ablations))
def test_ablations_are_found_in_the_shapes(ablations: dict[str, Any]) -> None:
    arguments = {**SIZE, **ablations}
    with torch.device("meta"):
        state = VapSR(**arguments).state_dict()
    found = vapsr_family.configuration({name: tuple(value.shape) for name, value in state.items()})
    assert found == {"groups": 1, "colours": 3, **arguments}
    recognised = checkpoints.recognise({name: torch.zeros(value.shape) for name, value in state.items()})
    assert recognised.spec.name == vapsr_family.spec_for(**arguments).name
    assert recognised.state.keys() == state.keys()


def test_ablations_show_in_the_name() -> None:
    assert [spec.name for spec in ABLATED] == [
        "vapsr-c6a6b2-p3-k9-last-nonorm-light-x4",
        "vapsr-c6a6b2-p3-k1-x4",
        "vapsr-c6a6b2-d7-last-x3",
    ]


def test_attention_at_the_end_multiplies_what_the_second_projection_made() -> None:
    torch.manual_seed(0)
    block = VAB(4, 6, attention_last=True, pixel_norm=False).double().requires_grad_(False)
    x = torch.randn(1, 4, 9, 11, dtype=torch.float64)
    y = block.proj_2(F.gelu(block.proj_1(x)))
    w = block.state_dict()
    attention = F.conv2d(y, w["last_atten_branch.pointwise.weight"], w["last_atten_branch.pointwise.bias"])
    for name, padding, dilation in (("depthwise", 2, 1), ("depthwise_dilated", 6, 3)):
        weight, bias = w[f"last_atten_branch.{name}.weight"], w[f"last_atten_branch.{name}.bias"]
        attention = F.conv2d(attention, weight, bias, padding=padding, dilation=dilation, groups=4)
    torch.testing.assert_close(block(x), y * attention + x, atol=1e-14, rtol=0)


def test_a_dense_attention_of_one_pixel_is_pixel_attention() -> None:
    """Each pixel by itself: a matrix times its channels, times its channels."""
    torch.manual_seed(0)
    block = VAB(4, 4, dense_px=1, pixel_norm=False).double().requires_grad_(False)
    u = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    matrix = block.state_dict()["atten_branch.dense.weight"][..., 0, 0]
    expected = u * torch.einsum("oi,nihw->nohw", matrix, u)
    torch.testing.assert_close(block.atten_branch(u), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("wrong", [{"dense_px": 8}, {"projection_px": 2}, {"dilated_px": 0}, {"dense_px": 9, "dilated_px": 7}])
def test_kernels_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="kernel"):
        VapSR(channels=4, blocks=1, **wrong)
