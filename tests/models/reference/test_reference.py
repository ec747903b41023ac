"""The plain forms: the transformers against the reference tensors, the others against our networks, names against all."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import make_photo
from upframe.models.networks import FAMILIES
from upframe.models.reference.vrt import VRT
from upframe.models.reference.vsr_transformer import VSRTransformer
from upframe.pixels import to_unit

CONSTANTS = ("relative_position_index", "position_bias", "mean", "std", "inv_freq")  # made by the constructor, not by fixtures

# Every way through the network: one and three aligned frames on each side, padding and shifts on all axes, noise level,
# interpolation. The larger ones in float32, for time; those left out pass too and add nothing to these.
VRT_FIXTURES = [
    ("vrt_sr_x2_noqkvbias", torch.float64),
    ("vrt_vfi", torch.float64),
    ("vrt_sr_win4_pad", torch.float64),
    ("vrt_denoise", torch.float32),
    ("vrt_sr_pa6_d8", torch.float32),
]
VSRT_FIXTURES = ["vsrt_small_5f", "vsrt_small_7f", "vsrt_small_heads2_patch16_b2", "vsrt_small_patch4"]


def vrt_arguments(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "scale": given["upscale"],
        "window_frames": given["window_size"][0],
        "window_px": given["window_size"][1],
        "width": given["embed_dims"][0],
        "depth": given["depths"][0],
        "mutual_depth": int(given["depths"][0] * given["mul_attn_ratio"]),
        "tail_width": given["embed_dims"][-1],
        "tail_depth": given["depths"][-1],
        "tail_layers": len(given["depths"]) - 7,
        "single_frame_layers": len(given["indep_reconsts"]),
        "heads": given["num_heads"][0],
        "mlp_ratio": int(given["mlp_ratio"]),
        "warped_frames": given["pa_frames"],
        "deformable_groups": given["deformable_groups"],
        "takes_sigma": given["nonblind_denoising"],
        "qkv_bias": given.get("qkv_bias", True),
    }


def vsrt_arguments(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "channels": given["num_feat"],
        "frames": given["num_frame"],
        "depth": given["depth"],
        "heads": given["heads"],
        "patch_px": given["patch_size"],
        "window_px": given["feat_size"],
        "extract_blocks": given["num_extract_block"],
        "reconstruct_blocks": given["num_reconstruct_block"],
    }


def with_weights(network: nn.Module, fixture: Any) -> nn.Module:
    """`network` with the weights of `fixture`; it has every name of the reference and no other."""
    assert set(network.state_dict()) == {entry["name"] for entry in fixture.entries}
    lacking, unknown = network.load_state_dict(fixture.weights(), strict=False)
    assert not unknown
    assert all(name.endswith(CONSTANTS) for name in lacking)
    return network.eval()


@pytest.mark.parametrize(("name", "dtype"), VRT_FIXTURES, ids=str)
def test_plain_vrt_equals_the_reference(golden: ModuleType, name: str, dtype: torch.dtype) -> None:
    fixture = golden.Golden(f"vrt/{name}")
    network = with_weights(VRT(**vrt_arguments(fixture.meta["ctor_args"])), fixture).to(dtype)
    facts = {"sigma": fixture.input("sigma", dtype)} if "in.sigma" in fixture.tensors else {}
    with torch.inference_mode():
        fixture.check("out.sr", network(fixture.input("lq", dtype), **facts))


@pytest.mark.parametrize("name", VSRT_FIXTURES)
def test_plain_vsr_transformer_equals_the_reference(golden: ModuleType, name: str) -> None:
    fixture = golden.Golden(f"vsrt/{name}")
    network = with_weights(VSRTransformer(**vsrt_arguments(fixture.meta["ctor_args"])), fixture).double()
    with torch.inference_mode():
        fixture.check("out.sr", network(fixture.input("lr", torch.float64)))


def photo(height: int, width: int) -> Tensor:
    return to_unit(make_photo(height, width))[None].double()


def clip(frames: int, height: int, width: int) -> Tensor:
    """A picture that drifts, so that flows are not zero."""
    wide = photo(height, width + 2 * frames)
    return torch.stack([wide[..., 2 * i : 2 * i + width] for i in range(frames)], dim=1)


@pytest.mark.parametrize(
    ("family", "arguments", "given"),
    [
        ("RLFN", {"channels": 12, "blocks": 2, "scale": 2, "inner_channels": 14}, photo(37, 52)),
        ("VapSR", {"channels": 8, "attention_channels": 12, "blocks": 2, "scale": 3}, photo(19, 23)),
        ("VapSR", {"channels": 8, "attention_channels": 12, "blocks": 2, "scale": 4, "groups": 2}, photo(19, 23)),
        ("BasicVSR", {"channels": 8, "blocks": 2}, clip(4, 27, 32)),
        ("BasicVSR", {"channels": 8, "blocks": 2}, clip(1, 27, 32)),
        ("RealBasicVSR", {"channels": 8, "propagation_blocks": 2, "cleaning_blocks": 2}, clip(3, 25, 30)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_reference_form_equals_the_network(family: str, arguments: dict[str, Any], given: Tensor) -> None:
    """In float64, where the order of sums cannot hide a difference."""
    registered = next(one for one in FAMILIES if one.name == family)
    assert registered.reference is not None
    ours = registered.network()(**arguments).double().eval()
    plain = registered.reference()(**arguments).double().eval()
    plain.load_state_dict(ours.state_dict())
    before = given.clone()
    with torch.inference_mode():
        torch.testing.assert_close(plain(given), ours(given), rtol=0, atol=1e-9)
    assert torch.equal(given, before)


def test_the_reference_form_of_vsr_transformer_says_which_size_it_takes() -> None:
    network = VSRTransformer(channels=4, depth=1, window_px=16, extract_blocks=1, reconstruct_blocks=1, feed_forward_blocks=1)
    with pytest.raises(ValueError, match="only frames of 16x16, not 24x16"):
        network(torch.zeros(1, 5, 3, 16, 24))
