"""Deformable convolution, alignment along the flow and the flows themselves: reference tensors and definitions by hand."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from upframe.models.architectures import _clip_flows, _deformable
from upframe.models.architectures._clip_flows import ClipFlows, clip_flows, composed, corners_of_neighbours, sampled_corners
from upframe.models.architectures._deformable import FlowGuidedAlignment, deformable_conv2d
from upframe.models.architectures._flow import SPyNet

DTYPES = [torch.float32, torch.float64]


# Deformable convolution -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", ["basic", "groups", "stride_dil", "nomask"])
def test_deformable_convolution_equals_the_reference(
    golden: ModuleType, case: str, dtype: torch.dtype, gradients: bool
) -> None:
    fixture = golden.Golden("vrt/mod_deform_conv2d")
    facts = fixture.meta["cases"][case]
    x, offset, mask, weight, bias = (
        fixture.input(f"{case}.{name}", dtype) for name in ("x", "offset", "mask", "weight", "bias")
    )
    steps = {name: facts[name] for name in ("stride", "padding", "dilation")}
    with torch.set_grad_enabled(gradients):
        made = deformable_conv2d(x, offset, weight, bias, mask=mask if facts["mask"] else None, **steps)
    fixture.check(f"out.{case}", made)


def test_without_offsets_it_is_a_convolution() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, 9, 7), torch.randn(6, 2, 3, 3), torch.randn(6)
    made = deformable_conv2d(x, torch.zeros(2, 2 * 9 * 2, 9, 7), weight, bias, padding=1)
    torch.testing.assert_close(made, F.conv2d(x, weight, bias, padding=1, groups=2), atol=1e-5, rtol=0)


def test_one_pixel_is_a_picture_too() -> None:
    x, weight = torch.tensor([[[[2.0]]]]), torch.ones(1, 1, 3, 3)
    offset = torch.zeros(1, 18, 1, 1)
    offset[:, 8] = 0.5  # the tap in the middle looks half a pixel further down, where there is half of the pixel
    made = deformable_conv2d(x, offset, weight, padding=1)
    torch.testing.assert_close(made, torch.tensor([[[[1.0]]]]))


@pytest.mark.parametrize("values", [1, 9 * 4 * 7 * 4, 1 << 22])
def test_bands_of_rows_give_the_same(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    torch.manual_seed(0)
    x, offset, mask = torch.randn(2, 4, 10, 7), torch.randn(2, 36, 5, 4), torch.rand(2, 18, 5, 4)
    weight, bias = torch.randn(6, 4, 3, 3), torch.randn(6)
    whole = deformable_conv2d(x, offset, weight, bias, mask=mask, stride=2, padding=1)
    monkeypatch.setattr(_deformable, "BAND_VALUES", values)
    with torch.inference_mode():
        banded = deformable_conv2d(x, offset, weight, bias, mask=mask, stride=2, padding=1)
    torch.testing.assert_close(banded, whole, atol=1e-5, rtol=0)


def test_gradients_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    x, offset, mask = (torch.randn(1, c, 4, 3, dtype=torch.float64, requires_grad=True) for c in (2, 18, 9))
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    # A finite difference across the edge of a pixel would see the bend there.
    assert float((offset - offset.round()).detach().abs().min()) > 1e-4
    assert torch.autograd.gradcheck(
        lambda *given: deformable_conv2d(given[0], given[1], given[3], mask=given[2], padding=1), (x, offset, mask, weight)
    )


@pytest.fixture
def torchvision_kernel(golden: ModuleType) -> Iterator[None]:
    """torchvision's operator, or where that is not installed one of the same name and signature, tap by tap."""
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        yield
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # of torch, here and below
    library.define(  # type: ignore[no-untyped-call]
        "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, int stride_h, int stride_w, "
        "int pad_h, int pad_w, int dilation_h, int dilation_w, int groups, int offset_groups, bool use_mask) -> Tensor"
    )
    library.impl("deform_conv2d", tap_by_tap, "CPU")  # type: ignore[no-untyped-call]
    yield
    library._destroy()  # type: ignore[no-untyped-call]


def tap_by_tap(x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *steps_and_groups: Any) -> Tensor:
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups, use_mask = steps_and_groups
    n, c, h, w = x.shape
    out_h, out_w = offset.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1))  # zeros that a position outside meets
    out = bias.view(-1, 1, 1).expand(n, -1, out_h, out_w).clone()
    for b in range(n):
        for i in range(out_h):
            for j in range(out_w):
                for channel in range(c):
                    for tap in range(weight.shape[2] * weight.shape[3]):
                        k = channel // (c // offset_groups) * weight.shape[2] * weight.shape[3] + tap
                        y = i * stride_h - pad_h + tap // weight.shape[3] * dilation_h + float(offset[b, 2 * k, i, j])
                        z = j * stride_w - pad_w + tap % weight.shape[3] * dilation_w + float(offset[b, 2 * k + 1, i, j])
                        if not (-1 < y < h and -1 < z < w):
                            continue
                        top, left = int(y // 1), int(z // 1)
                        square = padded[b, channel, top + 1 : top + 3, left + 1 : left + 3]
                        down = torch.tensor([1 - (y - top), y - top], dtype=x.dtype)
                        right = torch.tensor([1 - (z - left), z - left], dtype=x.dtype)
                        value = down @ square @ right * (mask[b, k, i, j] if use_mask else 1)
                        per_group = weight.shape[0] // groups
                        group = channel // weight.shape[1]
                        rows = slice(group * per_group, (group + 1) * per_group)
                        out[b, rows, i, j] += value * weight[rows, channel % weight.shape[1]].flatten(1)[:, tap]
    return out


@pytest.mark.parametrize("case", ["groups", "stride_dil", "nomask"])
@pytest.mark.usefixtures("torchvision_kernel")
def test_torchvision_is_given_what_it_expects(golden: ModuleType, case: str) -> None:
    fixture = golden.Golden("vrt/mod_deform_conv2d")
    facts = fixture.meta["cases"][case]
    x, offset, mask, weight, bias = (
        fixture.input(f"{case}.{name}", torch.float64) for name in ("x", "offset", "mask", "weight", "bias")
    )
    steps = {name: facts[name] for name in ("stride", "padding", "dilation")}
    made = _deformable._by_torchvision(x, offset, weight, bias, mask if facts["mask"] else None, **steps)
    fixture.check(f"out.{case}", made)


def test_half_precision_samples_where_float32_does() -> None:
    """At column 300 bfloat16 knows even columns only."""
    x = torch.arange(304.0).expand(1, 1, 4, 304).bfloat16()
    offset = torch.full((1, 18, 4, 304), 0.25)
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16)
    weight[..., 1, 1] = 1
    made = deformable_conv2d(x, offset, weight, padding=1)
    expected = torch.lerp(x.float()[..., 1, 297], x.float()[..., 1, 298], 0.25)
    assert made[0, 0, 1, 297] == expected.bfloat16()


# Alignment ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_alignment_equals_the_reference(golden: ModuleType, sources: int, dtype: torch.dtype, gradients: bool) -> None:
    fixture = golden.Golden(f"vrt/mod_flow_deform_pa{2 * sources}")
    given = fixture.meta["ctor_args"]
    align = FlowGuidedAlignment(
        given["in_channels"], sources=sources, groups=given["deformable_groups"], reach=given["max_residue_magnitude"]
    )
    align.load_state_dict(fixture.weights())
    align.to(dtype)
    frames = fixture.input("x", dtype).chunk(sources, dim=1)
    warped = [fixture.input(f"warped{i}", dtype) for i in range(sources)]
    flows = [fixture.input(f"flow{i}", dtype) for i in range(sources)]
    seen: list[Tensor] = []
    align.conv_offset.register_forward_hook(lambda module, args, made: seen.append(made.clone()))
    with torch.set_grad_enabled(gradients):
        made = align(frames, warped, fixture.input("cur", dtype), flows)
    fixture.check("mid.conv_offset#0", seen[0])
    fixture.check("out.y", made)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_frame_beyond_the_end_counts_as_zeros(missing: int) -> None:
    torch.manual_seed(0)
    align = FlowGuidedAlignment(8, sources=2, groups=4, reach=5)
    for parameter in align.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    frames, current = list(torch.randn(2, 1, 8, 6, 5)), torch.randn(1, 8, 6, 5)
    flows = list(torch.randn(2, 1, 2, 6, 5))
    frames[missing], flows[missing] = torch.zeros(1, 8, 6, 5), torch.zeros(1, 2, 6, 5)
    known = [None if i == missing else frame for i, frame in enumerate(frames)]
    expected = align(frames, frames, current, flows)
    torch.testing.assert_close(align(known, frames, current, flows), expected, atol=1e-6, rtol=0)


def test_training_starts_from_the_flow_itself() -> None:
    """Fresh offsets are zero and factors a half, so what is sampled lies where the flow leads."""
    align = FlowGuidedAlignment(2, sources=1, groups=1, reach=10)
    with torch.no_grad():
        align.weight.zero_()
        align.weight[:, :, 1, 1] = 2 * torch.eye(2)
    frame, flow = torch.randn(1, 2, 6, 6), torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 6, 6)
    made = align([frame], [frame], frame, [flow])
    torch.testing.assert_close(made[..., :4, :5], frame[..., 2:, 1:])


# Flows ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_flows_and_corners_equal_the_reference(golden: ModuleType, dtype: torch.dtype) -> None:
    fixture = golden.Golden("vrt/mod_flow_composition")
    backward, forward = (
        tuple(fixture.input(f"flow_{direction}.{scale}", dtype) for scale in range(4)) for direction in ("backward", "forward")
    )
    flows = composed(backward, forward, distances=3)
    # These flows are noise: where they differ by ten from pixel to pixel, a position that is rounded to 4e-6 px shows.
    atol = 1e-4 if dtype == torch.float32 else None
    for distance, name in ((2, "4"), (3, "6")):
        for scale in range(4):
            fixture.check(f"out.backward{name}.{scale}", flows.backward[distance - 1][scale], atol)
            fixture.check(f"out.forward{name}.{scale}", flows.forward[distance - 1][scale], atol)
    after, before = corners_of_neighbours(fixture.input("frames", dtype), flows)
    fixture.check("out.aligned_backward", after)
    fixture.check("out.aligned_forward", before)


def test_flows_lead_from_frame_to_frame_and_end_with_the_clip() -> None:
    def numbered(count: int, start: int) -> Tensor:
        return torch.arange(start, start + count).view(1, count, 1, 1, 1).expand(1, count, 2, 1, 1)

    flows = ClipFlows(
        backward=((numbered(3, 10),), (numbered(2, 20),)),
        forward=((numbered(3, 30),), (numbered(2, 40),)),
    )

    def first(frame: int, **where: Any) -> int | None:
        flow = flows.flow(frame, scale=0, **where)
        return None if flow is None else int(flow[0, 0])

    assert [first(i, direction="backward", distance=1) for i in range(4)] == [10, 11, 12, None]
    assert [first(i, direction="backward", distance=2) for i in range(4)] == [20, 21, None, None]
    assert [first(i, direction="forward", distance=1) for i in range(4)] == [None, 30, 31, 32]
    assert [first(i, direction="forward", distance=2) for i in range(4)] == [None, None, 40, 41]


def test_corners_are_the_pixels_around_the_place_and_zero_outside() -> None:
    frame = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[0, :, 1, 1] = torch.tensor([1.25, -0.5])  # to x = 2.25, y = 0.5
    flow[0, :, 2, 3] = torch.tensor([0.5, 0.5])  # to x = 3.5, y = 2.5: only the corner at the top left is inside
    made = sampled_corners(frame, flow)
    assert made[0, :, 1, 1].tolist() == [2, 6, 3, 7]
    assert made[0, :, 2, 3].tolist() == [11, 0, 0, 0]
    assert made[0, :, 0, 0].tolist() == [0] * 4
    assert made[0, :, 0, 1].tolist() == [1] * 4


@pytest.mark.slow
def test_flow_of_few_pairs_at_a_time_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    spynet, clip = SPyNet(layout="plain"), torch.rand(2, 4, 3, 32, 40)
    with torch.inference_mode():
        whole = clip_flows(spynet, clip, distances=2)
        monkeypatch.setattr(_clip_flows, "PAIRS_PX", 2 * 32 * 40)
        parts = clip_flows(spynet, clip, distances=2)
    for some, others in ((whole.backward, parts.backward), (whole.forward, parts.forward)):
        for at_distance, others_at_distance in zip(some, others, strict=True):
            assert [tuple(flow.shape[-2:]) for flow in at_distance] == [(32, 40), (16, 20), (8, 10), (4, 5)]
            for flow, other in zip(at_distance, others_at_distance, strict=True):
                torch.testing.assert_close(flow, other, atol=1e-5, rtol=0)
