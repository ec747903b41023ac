"""RLFN against the reference tensors, through our own loader where official weights are involved."""

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
from upframe.models.architectures import rlfn
from upframe.models.architectures.rlfn import RFDB, RFDBR, RLFB, RLFN
from upframe.models.families import rlfn as rlfn_family
from upframe.models.networks import MODELS
from upframe.models.official import OFFICIAL
from upframe.models.registry import count_parameters
from upframe.models.spec import ModelSpec, Place
from upframe.models.weights_file import read
from upframe.upscaling.tiling import read_range

DTYPES = [torch.float32, torch.float64]
RANDOM = [
    *("rlfn_x4_full", "rlfn_s_x4_full", "rlfn_x2_small", "rlfn_x3_min_size", "rlfn_gray_small"),
    *("rlfn_ntire_x4_full", "rlfn_ntire_team04_names"),
]
OFFICIAL_FIXTURES = ["rlfn_x2", "rlfn_x4", "rlfn_s_x2", "rlfn_s_x4", "rlfn_ntire_x4"]


def test_every_reference_fixture_is_listed_here(shared: Path) -> None:
    present = {path.stem for path in (shared / "golden" / "rlfn").glob("*.json")}
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
    fixture = golden.Golden(f"rlfn/{name}")
    state = fixture.weights(dtype, rename=rlfn_family.ntire_names)
    spec = rlfn_family.spec_for(**rlfn_family.configuration({key: tuple(value.shape) for key, value in state.items()}))
    network = spec.build().to(dtype).eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        fixture.check("out.sr", network(fixture.input("lr", dtype)))
    seen = record_outputs(network)
    network(fixture.input("lr", dtype))  # with gradients no layer is fused with the next
    for key in fixture.names("mid."):
        fixture.check(key, seen[rlfn_family.ntire_names(key.removeprefix("mid.").partition("#")[0])])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OFFICIAL_FIXTURES)
def test_official_weights_folded_to_unit_range_equal_the_reference(
    golden: ModuleType, shared: Path, name: str, dtype: torch.dtype
) -> None:
    fixture = golden.Golden(f"rlfn/official_{name}")
    weights = read(shared / "weights" / "RLFN" / f"{name}.pth")
    assert weights.sha256 == fixture.meta["weights"]["sha256"]
    found = checkpoints.recognise(weights.state)
    assert found.spec is MODELS[OFFICIAL[weights.sha256].arch]
    assert found.found_range == "0-255"
    network = checkpoints.instantiate(found.spec, found.state).to(dtype)
    with torch.inference_mode():
        fixture.check("out.sr", network(fixture.input("lr", dtype) / 255) * 255)  # the fixture is in 0–255


def test_folding_the_value_range_leaves_the_function_of_the_picture_alone() -> None:
    torch.manual_seed(1)
    network = RLFN(channels=12, blocks=2, scale=3).double()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    folded = RLFN(channels=12, blocks=2, scale=3).double()
    folded.load_state_dict(rlfn_family.fold_value_range(state))
    picture = torch.rand(1, 3, 19, 22, dtype=torch.float64)
    with torch.inference_mode():
        # 1e-12: products are rounded at other places in float64, whose step at 1 is 2e-16
        assert torch.allclose(folded(picture), network(picture * 255) / 255, rtol=0, atol=1e-12)
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items()), "the input was changed"


@pytest.mark.parametrize(
    ("name", "parameters"),
    # requirements.md and the published table; ×3 by arithmetic: (27·channels + 3)·scale² in the upsampler, less ×4's
    [
        ("rlfn-x2", 526_856),
        ("rlfn-x3", 543_740 - 7 * (27 * 52 + 3)),
        ("rlfn-x4", 543_740),
        ("rlfn-s-x2", 454_620),
        ("rlfn-s-x3", 470_208 - 7 * (27 * 48 + 3)),
        ("rlfn-s-x4", 470_208),
        ("rlfn-ntire-x2", 317_218 - 12 * (27 * 46 + 3)),
        ("rlfn-ntire-x3", 317_218 - 7 * (27 * 46 + 3)),
        ("rlfn-ntire-x4", 317_218),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, parameters: int) -> None:
    assert count_parameters(MODELS[name]) == parameters


@pytest.mark.parametrize("spec", rlfn_family.SPECS, ids=lambda spec: spec.name)
def test_minimum_size_is_claimed_exactly(spec: ModelSpec) -> None:
    network = spec.build().eval()
    assert spec.size.minimum == 15
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 15, 15)).shape == (1, 3, 15 * spec.scale, 15 * spec.scale)
        for size in ((14, 15), (15, 14)):
            with pytest.raises(RuntimeError):
                network(torch.rand(1, 3, *size))


@pytest.mark.parametrize("side", [15, 18, 20, 48, 61, 97])
def test_a_placed_map_of_the_whole_picture_is_the_interpolated_one(side: int) -> None:
    """Independent of our weights: torch's own bilinear interpolation, in float64."""
    coarse = torch.rand(1, 16, rlfn._pooled_side(side), rlfn._pooled_side(33), dtype=torch.float64)
    expected = F.interpolate(coarse, size=(side, 33), mode="bilinear", align_corners=False)
    down, across = rlfn.spread_in_place((side, 33), Place((0, 0), (side, 33)))
    placed = down @ coarse @ across
    torch.testing.assert_close(placed, expected, atol=1e-13, rtol=0)


RFDB_ESA = {"esa_channels": 12, "esa_convs": 3}


@pytest.mark.parametrize(("blocks", "ablations"), [(1, {}), (2, {}), (1, {"block": "rfdb", **RFDB_ESA})], ids=str)
def test_no_pixel_beyond_the_claimed_halo_has_influence(blocks: int, ablations: dict[str, Any]) -> None:
    """Gradients of single output rows, over the whole height, where the stretching of the map differs most."""
    torch.manual_seed(0)
    network = RLFN(channels=4, blocks=blocks, scale=1, **ablations).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".esa.conv3." in name:
                parameter.abs_().add_(0.1)  # so that no ReLU in the group closes the way
    back, on = 0, 0
    height = 170  # 6n = H - 9 - 5: the largest stretch there is
    for row in range(0, height, 5):
        picture = torch.rand(1, 3, height, 15, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(picture)[..., row, :].sum(), picture)
        seen = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        back, on = max(back, row - int(seen.min())), max(on, int(seen.max()) - row)
    claimed = rlfn_family.spec_for(channels=4, blocks=blocks, scale=1, inner_channels=4, **ablations).exact_halo_px
    assert claimed is not None
    assert max(back, on) <= claimed
    assert max(back, on) > 0.75 * claimed  # not a wasteful claim either


@pytest.mark.parametrize("ablations", [{}, {"block": "rfdb", **RFDB_ESA}, {"block": "rfdbr"}], ids=str)
def test_tiles_with_the_exact_halo_equal_the_whole_picture(ablations: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = RLFN(channels=8, blocks=1, scale=2, **ablations).eval().double()
    picture = torch.rand(1, 3, 30, 230, dtype=torch.float64)
    halo = rlfn_family.receptive_radius(1, **ablations)
    with torch.inference_mode():
        whole = network(picture)
        for start, end in ((0, 60), (60, 130), (130, 230)):
            read_start, read_end = read_range(start, end, 230, halo, rlfn_family.GRID_PX)
            tile = network(picture[..., read_start:read_end], place=Place((0, read_start), (30, 230)))
            made = tile[..., (start - read_start) * 2 : (end - read_start) * 2]
            torch.testing.assert_close(made, whole[..., start * 2 : end * 2], atol=1e-12, rtol=0)


def test_a_tile_off_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 6"):
        RLFN(channels=4, blocks=1)(torch.rand(1, 3, 20, 20), place=Place((0, 4), (20, 60)))


def test_names_of_the_ntire_repository_map_to_ours_and_others_stay() -> None:
    assert rlfn_family.ntire_names("fea_conv.weight") == "conv_1.weight"
    assert rlfn_family.ntire_names("LR_conv.bias") == "conv_2.bias"
    assert rlfn_family.ntire_names("B3.esa.conv_f.weight") == "block_3.esa.conv_f.weight"
    for name in ("upsampler.0.weight", "block_1.c5.bias", "B.weight", "Bx.weight", "plain"):
        assert rlfn_family.ntire_names(name) == name


# Blocks of the article's ablation (RL-17) -------------------------------------------------------------------------------
BLOCKS = [
    {"channels": 48, "block": "rfdb", **RFDB_ESA},
    {"channels": 48, "block": "rfdbr", **RFDB_ESA},
    {"channels": 52, "block": "rfdbr", "esa_channels": 16, "esa_convs": 3},
]


@pytest.mark.parametrize("arguments", BLOCKS, ids=lambda a: f"{a['block']}{a['channels']}")
def test_other_blocks_are_recognised_from_their_weights(arguments: dict[str, Any]) -> None:
    with torch.device("meta"):
        state = RLFN(blocks=2, scale=2, **arguments).state_dict()
    found = rlfn_family.configuration({name: tuple(value.shape) for name, value in state.items()})
    as_published = {"esa_channels": 16}
    chosen = {name: value for name, value in arguments.items() if as_published.get(name) != value}
    assert found == {"blocks": 2, "scale": 2, "inner_channels": arguments["channels"], "colours": 3, **chosen}
    spec = rlfn_family.spec_for(**found)
    assert spec.name.startswith(f"rlfn-c{arguments['channels']}b2-{arguments['block']}-esa")
    assert checkpoints.recognise({name: torch.zeros(value.shape) for name, value in state.items()}).spec.name == spec.name


def test_rfdb_is_that_of_the_network_it_comes_from() -> None:
    """E-RFDN, the baseline of the NTIRE 2022 challenge, has 0.433 M parameters: four blocks with 50 channels between a 3×3
    convolution from RGB, a 1×1 one that fuses the four, a 3×3 one, and one to 48 channels for the pixel shuffle."""
    block = sum(parameter.numel() for parameter in RFDB(50, **RFDB_ESA).parameters())
    around = (27 * 50 + 50) + (4 * 50 * 50 + 50) + (9 * 50 * 50 + 50) + (9 * 50 * 48 + 48)
    assert round((4 * block + around) / 1e6, 3) == 0.433


def test_rfdb_keeps_half_of_every_step_and_refines_the_rest() -> None:
    torch.manual_seed(0)
    block = RFDB(6, esa_channels=4, esa_convs=3).double().requires_grad_(False)
    w = block.state_dict()
    x = torch.randn(1, 6, 17, 19, dtype=torch.float64)
    kept, y = [], x
    for i in range(3):
        kept.append(F.leaky_relu(F.conv2d(y, w[f"distil.{i}.weight"], w[f"distil.{i}.bias"]), 0.05))
        y = F.leaky_relu(F.conv2d(y, w[f"refine.{i}.weight"], w[f"refine.{i}.bias"], padding=1) + y, 0.05)
    kept.append(F.leaky_relu(F.conv2d(y, w["last.weight"], w["last.bias"], padding=1), 0.05))
    assert [part.shape[1] for part in kept] == [3, 3, 3, 3]
    expected = block.esa(F.conv2d(torch.cat(kept, 1), w["fuse.weight"], w["fuse.bias"]))
    torch.testing.assert_close(block(x), expected, atol=1e-14, rtol=0)


def test_rfdbr_differs_from_rlfb_in_where_it_adds() -> None:
    """The same parameters; three additions instead of one."""
    torch.manual_seed(0)
    ours = RLFB(6, 6).double().requires_grad_(False)
    other = RFDBR(6, esa_channels=16, esa_convs=1).double().requires_grad_(False)
    names = {"refine.0": "c1_r", "refine.1": "c2_r", "refine.2": "c3_r", "fuse": "c5"}
    state = ours.state_dict()
    renamed = {name: name for name in other.state_dict()}
    for new, old in names.items():
        renamed |= {f"{new}.{part}": f"{old}.{part}" for part in ("weight", "bias")}
    other.load_state_dict({name: state[old] for name, old in renamed.items()}, strict=True)
    x = torch.randn(1, 6, 17, 19, dtype=torch.float64)
    y = x
    for conv in (ours.c1_r, ours.c2_r, ours.c3_r):
        y = F.leaky_relu(conv(y) + y, 0.05)
    torch.testing.assert_close(other(x), ours.esa(ours.c5(y)), atol=1e-14, rtol=0)
    assert not torch.allclose(other(x), ours(x))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"block": "rfdb", "inner_channels": 8}, "no inner channels"),
        ({"block": "rfd"}, "no block rfd"),
        ({"esa_convs": 0}, "a convolution"),
    ],
)
def test_arguments_that_make_no_block_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RLFN(channels=4, blocks=1, **wrong)
