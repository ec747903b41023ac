"""Weft: it begins as its trunk, aligns exactly, and takes nothing from neighbours that it cannot trust."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import make_photo
from upframe.engines import TorchOptions, make_clip_engine
from upframe.media.image.source import read_pixels
from upframe.models.architectures.rlfn import RLFN
from upframe.models.architectures.weft import TRUST, Weft
from upframe.models.families import weft as family
from upframe.models.registry import load
from upframe.pixels import to_unit

TOY = {"channels": 6, "blocks": 1, "trunk_channels": 8, "trunk_blocks": 1, "trunk_inner": 8}


def toy(*, scale: int = 2, idle: bool = False) -> Weft:
    torch.manual_seed(0)
    return Weft(scale=scale, idle=idle, **TOY).eval().requires_grad_(False)


def drifting(frames: int, height: int = 24, width: int = 28) -> Tensor:
    """(1, T, 3, H, W): a photo that moves by a pixel a frame to the left."""
    wide = to_unit(make_photo(height, width + frames))[None]
    return torch.stack([wide[..., i : i + width] for i in range(frames)], dim=1)


def unrelated(frames: int) -> Tensor:
    return torch.rand(1, frames, 3, 20, 22, generator=torch.Generator().manual_seed(1))


# Its beginning --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("scale", "dtype", "tolerance"), [(2, torch.float32, 1e-6), (4, torch.float64, 1e-14)])
def test_idle_it_is_its_trunk_frame_by_frame(scale: int, dtype: torch.dtype, tolerance: float) -> None:
    network = toy(scale=scale, idle=True).to(dtype)
    clip = drifting(4).to(dtype)
    frames = torch.stack([network.trunk(frame) for frame in clip.unbind(1)], dim=1)
    torch.testing.assert_close(network(clip), frames, rtol=0, atol=tolerance)
    assert (toy(scale=scale).to(dtype)(clip) - frames).abs().max() > 1e-3, "it adds nothing at all"


@pytest.mark.slow
def test_idle_it_makes_the_frames_of_the_shipped_network_for_photos() -> None:
    photo = load("photo-x4").network
    network = Weft(idle=True).eval().requires_grad_(False)
    network.trunk.load_state_dict(photo.state_dict())
    clip = drifting(3)
    with torch.inference_mode():
        frames = torch.stack([photo(frame) for frame in clip.unbind(1)], dim=1)
        torch.testing.assert_close(network(clip), frames, rtol=0, atol=2e-6)  # float32 sums in another order


def test_training_computes_what_inference_does_and_leaves_the_trunk_alone() -> None:
    network = toy()
    clip = drifting(4)
    with torch.no_grad():
        frame_by_frame = network(clip)
    network.requires_grad_(True)
    network.trunk.requires_grad_(False)
    network.correlation_flow.requires_grad_(False)
    at_once = network(clip)
    torch.testing.assert_close(at_once, frame_by_frame, rtol=0, atol=5e-5)  # float32 sums in another order
    at_once.square().mean().backward()
    for name, parameter in network.named_parameters():
        is_fixed = name.startswith(("trunk.", "correlation_flow."))
        assert (parameter.grad is None) == is_fixed, name
        assert is_fixed or (parameter.grad is not None and parameter.grad.abs().max() > 0), name


# Alignment ------------------------------------------------------------------------------------------------------------
def test_what_moved_by_a_fraction_of_a_pixel_is_aligned_exactly() -> None:
    """By half a pixel right and one down, which are whole pixels once enlarged; trust is whole but at the border."""
    network = toy()
    there = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1).expand(1, 2, 16, 18)
    frame, made = torch.rand(1, 3, 16, 18), torch.rand(1, 3, 32, 36)
    own = network._detail(frame, torch.rand(1, 3, 32, 36))
    network.trust.doubt.fill_(-20.0)  # colours are random, so nothing agrees
    aligned, guides = network._aligned(own, made, (frame, frame, there, -there))
    moved = made.roll((-2, -1), dims=(2, 3))
    seen = (..., slice(0, 14), slice(0, 17))
    most = 1 / (1 + math.exp(-TRUST))
    torch.testing.assert_close(aligned[seen], most * (network._detail(frame, moved) - own)[seen], rtol=0, atol=2e-4)
    torch.testing.assert_close(guides[:, 3], torch.full((1, 16, 18), most), rtol=0, atol=1e-6)


def test_detail_is_what_the_trunk_adds_to_a_pixel() -> None:
    network = toy()
    frame = torch.rand(1, 3, 5, 6)
    nearest = frame.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(network._detail(frame, nearest), torch.zeros(1, 12, 5, 6))
    added = torch.rand(1, 12, 5, 6)
    detail = network._detail(frame, nearest + network._enlarged(added))
    torch.testing.assert_close(detail, added, rtol=0, atol=1e-5)  # float32


def test_trust_falls_with_each_kind_of_disagreement() -> None:
    trust = toy().trust
    nothing, no_gap = torch.zeros(1, 3, 5, 5), torch.zeros(1, 1, 5, 5)
    agreed = float(trust(nothing, no_gap)[..., 2, 2])
    of_colour = float(trust(nothing + 0.3, no_gap)[..., 2, 2])
    of_flow = float(trust(nothing, no_gap + 4.0)[..., 2, 2])
    assert agreed > 0.98
    assert of_colour < 0.01 and of_flow < 0.01


def test_neighbours_without_trust_are_as_good_as_none() -> None:
    """Each frame of such a clip is what it is alone."""
    network = toy()
    network.trust.doubt.fill_(math.log(1e9))
    clip = unrelated(4)
    alone = torch.cat([network(clip[:, i : i + 1]) for i in range(4)], dim=1)
    torch.testing.assert_close(network(clip), alone, rtol=0, atol=5e-5)  # float32 sums in another order
    assert (toy()(drifting(4)) - torch.cat([toy()(drifting(4)[:, i : i + 1]) for i in range(4)], dim=1)).abs().max() > 1e-4


def test_detail_travels_from_both_ends() -> None:
    """A change of the first frame is seen in the last, and the other way round."""
    network = toy()
    clip = drifting(5)
    made = network(clip)
    for changed, seen in ((0, 4), (4, 0)):
        other = clip.clone()
        other[:, changed, :, 10:13, 12:15] += 0.02  # little enough to be trusted
        assert (network(other)[:, seen] - made[:, seen]).abs().max() > 1e-6


# Facts ----------------------------------------------------------------------------------------------------------------
def test_other_sizes_get_a_spec_of_their_own() -> None:
    assert family.spec_for(scale=4, **family.SIZES) is family.SPECS[1]
    assert family.spec_for(scale=3, **family.SIZES).name == "weft-x3"
    small = family.spec_for(scale=2, **{**family.SIZES, "channels": 16, "blocks": 1})
    assert (small.name, small.scale) == ("weft-c16b1-x2", 2)
    assert family.spec_for(scale=2, **TOY).name == "weft-c6b1t8i8n1-x2"
    with pytest.raises(ValueError, match="colours"):
        gray = {f"trunk.{name}": tuple(value.shape) for name, value in RLFN(colours=1).state_dict().items()}
        family.configuration(gray)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", ["video-x4", "video-real-x4"])
def test_kernels_in_bfloat16_cost_the_shipped_networks_no_more_than_the_spec_says(name: str, shared: Path) -> None:
    """On the beginning of two clips of Vid4; the figures in docs/speed.md are from all frames there are."""
    model = load(name)
    engines = [make_clip_engine(model, TorchOptions("cpu", precision)) for precision in ("fp32", "bf16")]
    if engines[1].name != "native":
        pytest.skip("no kernels in bfloat16 here")
    assert model.spec.kernels_bf16_loss_db is not None
    for clip in ("vid4_city", "vid4_walk"):
        lq, gt = (
            torch.stack([to_unit(read_pixels(path)) for path in sorted((shared / "videos" / clip / kind).glob("*.png"))[:3]])
            for kind in ("LRbicX4", "HR")
        )
        exact, reduced = (torch.cat([*engine.stream(lq[None])]).float().clamp(0, 1) for engine in engines)
        levels = [-10 * math.log10(float((made - gt).square().mean())) for made in (exact, reduced)]
        # As for photos, a CPU with AMX adds in another order; measured without it: 0.0014 dB at most.
        assert levels[0] - levels[1] <= model.spec.kernels_bf16_loss_db + 0.002
