"""The kernels that take a network's layers' place: on any size the same as the layers, computed in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe import kernels
from upframe.engines import NativeEngine, TorchEngine, TorchOptions, make_clip_engine, native_modules
from upframe.machine import cpu_flags
from upframe.models.architectures import rlfn, vrt
from upframe.models.families import realbasicvsr as realbasicvsr_family
from upframe.models.families import rlfn as rlfn_family
from upframe.models.families import vrt as vrt_family
from upframe.models.families import vsr_transformer as vsr_transformer_family
from upframe.models.registry import Model
from upframe.models.spec import ModelSpec, Place

pytestmark = pytest.mark.skipif(native_modules.library() is None, reason="upframe's kernels are not built here")
TYPES = [torch.float32, torch.bfloat16]
LEVELS: list[kernels.Level] = ["avx512", "avx2"]

# Winograd's transforms multiply by up to 25 and cancel: measured on numbers around 1, 1e-5 of the largest sum in float32. A
# bfloat16 holds 8 bits, so what is stored is off by up to 2^-9 of it.
TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 5e-3}


@pytest.fixture(autouse=True, params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[kernels.Level]:
    """Each test on each level of kernels that runs here, with those networks and types that it has."""
    found = kernels.library(request.param)
    if found is None:
        pytest.skip(f"no kernels for {request.param} here")
    dtype = request.node.callspec.params.get("dtype")
    if dtype == torch.bfloat16 and (request.param == "avx2" or "avx512_bf16" not in cpu_flags()):
        pytest.skip("no bfloat16")
    native_modules.on_torchs_threads(found)
    monkeypatch.setattr(native_modules, "library", lambda: found)
    torch.manual_seed(3)
    with torch.inference_mode():
        yield request.param


def convolution(channels_in: int, channels_out: int, dtype: torch.dtype, *, bias: bool = True) -> tuple[nn.Conv2d, nn.Conv2d]:
    """One whose weights `dtype` holds exactly, in float32 and in `dtype`."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias).to(dtype)
    return copy.deepcopy(conv).float(), conv


def exactly(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x.double(), conv.weight.double(), None if conv.bias is None else conv.bias.double(), padding=1)


def assert_near(made: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert made.shape == expected.shape
    assert (made.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max().clamp_min(1)


@pytest.mark.parametrize("dtype", TYPES)
# One group of 16 outputs to several products of four; with and without channels left over.
@pytest.mark.parametrize("channels", [(16, 8), (17, 33), (46, 48), (67, 64), (64, 52), (20, 70), (64, 256)])
# One pixel, less than a tile, whole tiles, one pixel more; several parts of a row of tiles.
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 5), (1, 8, 12), (3, 9, 13), (1, 70, 1), (1, 33, 410)])
def test_a_convolution(channels: tuple[int, int], size: tuple[int, int, int], dtype: torch.dtype) -> None:
    conv, place = convolution(*channels, dtype)
    n, h, w = size
    x = torch.randn(n, channels[0], h, w).to(dtype)
    before = x.clone()
    made = native_modules.WinogradConv2d(conv, place)(x)
    assert made.dtype == dtype and torch.equal(x, before)
    assert_near(made, exactly(conv, x), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("slope", [0, 0.05, 1])
def test_what_follows_a_convolution(slope: float, dtype: torch.dtype) -> None:
    conv, place = convolution(18, 24, dtype, bias=False)
    x, other = torch.randn(2, 18, 11, 14).to(dtype), torch.randn(2, 24, 11, 14).to(dtype)
    expected = F.leaky_relu(exactly(conv, x), slope) + other.double()
    ours, before = native_modules.WinogradConv2d(conv, place), other.clone()
    assert_near(ours.in_one_step(x, slope=slope, other=other), expected, dtype)  # planar: copied
    assert torch.equal(other, before)
    other = other.contiguous(memory_format=torch.channels_last)
    assert_near(ours.in_one_step(x, slope=slope, other=other), expected, dtype)
    assert torch.equal(other, before)
    made = ours.in_one_step(x, slope=slope, other=other, into_other=True)
    assert made.data_ptr() == other.data_ptr()
    assert_near(made, expected, dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_map_that_is_part_of_another(dtype: torch.dtype) -> None:
    conv, place = convolution(16, 16, dtype)
    whole = torch.randn(2, 20, 12, 15).to(dtype).contiguous(memory_format=torch.channels_last)
    part = whole[:, 3:19, 2:9, 1:14]
    assert_near(native_modules.WinogradConv2d(conv, place)(part), exactly(conv, part), dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("scale", "channels"), [(2, 16), (2, 64), (3, 16)])
def test_a_pixel_shuffle_at_its_end(scale: int, channels: int, dtype: torch.dtype) -> None:
    conv, place = convolution(24, channels * scale**2, dtype)
    x = torch.randn(2, 24, 9, 14).to(dtype)
    expected = F.leaky_relu(F.pixel_shuffle(exactly(conv, x), scale), 0.1)
    assert_near(native_modules.WinogradConv2d(conv, place, enlarged=scale, slope=0.1)(x), expected, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("colours", [1, 3])
def test_the_last_convolution(scale: int, colours: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and in bands, the last of which is one row: float32 whatever the maps are."""
    conv, place = convolution(18, colours * scale**2, dtype)
    for h in (7, 15):
        x = torch.randn(2, 18, h, 70).to(dtype)
        expected = F.pixel_shuffle(exactly(conv, x), scale)
        for band_px in (1 << 14, 1):
            monkeypatch.setattr(native_modules, "BAND_PX", band_px)
            made = native_modules.LastConvolution(conv, place, scale)(x)
            assert made.is_contiguous() and made.dtype == torch.float32
            assert_near(made, expected, torch.float32)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [12, 20, 46, 64])
@pytest.mark.parametrize("place", [None, Place((36, 72), (300, 400))])
def test_the_end_of_a_block(channels: int, place: Place | None, dtype: torch.dtype, level: kernels.Level) -> None:
    if level == "avx2":
        assert not native_modules.FusedSpatialAttention.suits(rlfn.RLFB(16, 16).kernel_form())
        return
    block = rlfn.RLFB(channels, channels + 2).to(dtype)
    original = copy.deepcopy(block).float()
    x = torch.randn(2, channels, 31, 53).to(dtype)
    spread = None if place is None else rlfn.spread_in_place((31, 53), place)
    expected = copy.deepcopy(original).double()(x.double(), spread)
    forms = original.kernel_form(), block.kernel_form()
    assert native_modules.FusedSpatialAttention.suits(forms[0])
    made = native_modules.FusedSpatialAttention(*forms, block)(x, spread)
    # The convolutions before and inside are torch's, in `dtype`; in bfloat16 each rounds.
    assert_near(made, expected, dtype) if dtype == torch.float32 else assert_near(made / 6, expected / 6, dtype)


def test_threads_do_not_change_a_bit(level: kernels.Level) -> None:
    spec = rlfn_family.spec_for(channels=20, blocks=2, scale=4, inner_channels=18)
    engine = NativeEngine(Model(spec, spec.build().eval(), None, "", ""), TorchOptions("cpu", "fp32"))
    ours = native_modules.WinogradConv2d(*convolution(20, 20, torch.float32))
    clip, x, before = torch.rand(1, 2, 3, 61, 130), torch.randn(2, 20, 61, 130), torch.get_num_threads()
    made = []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            made.append((ours(x), engine(clip)))
    finally:
        torch.set_num_threads(before)
    for one, whole in made[1:]:
        assert torch.equal(one, made[0][0])
        assert level == "avx2" or torch.equal(whole, made[0][1])  # there torch does the rest, which adds up as threads come


def test_kernels_run_on_threads_of_their_own_where_torch_has_none_to_lend() -> None:
    conv, place = convolution(32, 32, torch.float32)
    ours, x = native_modules.WinogradConv2d(conv, place), torch.randn(1, 32, 90, 90)
    expected, library = ours(x), native_modules.library()
    assert library is not None
    try:
        library.upframe_use_threads_of(None)
        assert torch.equal(ours(x), expected)
    finally:
        library.upframe_use_threads_of(native_modules._parallel())


def small_vrt() -> ModelSpec:
    sizes = {"window_frames": 4, "window_px": 4, "width": 32, "depth": 2, "mutual_depth": 1, "heads": 2, "deformable_groups": 2}
    tail = {"tail_width": 32, "tail_depth": 2, "tail_layers": 2, "single_frame_layers": 1}
    shapes = {name: tuple(value.shape) for name, value in vrt.VRT(**sizes, **tail).state_dict().items()}  # type: ignore[arg-type]
    return vrt_family.spec_for(**vrt_family.configuration(shapes))


CLIPS: dict[str, tuple[ModelSpec, int, int]] = {  # network, frames, side
    "BasicVSR": (realbasicvsr_family.basicvsr_spec_for(channels=16, blocks=1, reconstruction_channels=16), 3, 40),
    "RealBasicVSR": (realbasicvsr_family.realbasicvsr_spec_for(channels=18, propagation_blocks=1, cleaning_blocks=1), 3, 40),
    "ours": (realbasicvsr_family.SHIPPED_SIZE, 3, 40),
    "VSR-Transformer": (
        vsr_transformer_family.spec_for(
            channels=16, frames=3, depth=1, window_px=64, extract_blocks=1, reconstruct_blocks=1, feed_forward_blocks=1
        ),
        3,
        64,
    ),
    "VRT": (small_vrt(), 2, 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_networks_for_clips(name: str) -> None:
    spec, frames, side = CLIPS[name]
    model = Model(spec, spec.build().eval().requires_grad_(False), None, "", "")
    clip = torch.rand(1, frames, 3, side, side)
    engine = make_clip_engine(model, TorchOptions("cpu", "fp32"))
    assert type(engine) is NativeEngine
    expected = TorchEngine(model, TorchOptions("cpu", "fp32"))(clip)
    torch.testing.assert_close(engine(clip), expected, atol=1e-4, rtol=0)
