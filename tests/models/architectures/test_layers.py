"""Layers that networks share, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upframe.models.architectures import _layers
from upframe.models.architectures._layers import (
    DepthwiseConv2d,
    NarrowConv2d,
    ResidualBlocks,
    conv3x3,
    convolved,
    convolved_onto,
)

# float32: sums in another order. bfloat16: results around 1, rounded once and not twice, 2^-8 at most apart.
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2**-7}


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (5, 3)])
@pytest.mark.parametrize("channels", [6, 48])  # sums, and blocks of 16
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("has_dilated", [True, False])  # what CPUs with AVX-512 do, and others
def test_depthwise_convolution_and_its_gradients_are_torchs(
    kernel: int,
    dilation: int,
    channels: int,
    memory_format: torch.memory_format,
    has_dilated: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_layers, "_HAS_DILATED", has_dilated)
    torch.manual_seed(0)
    c = channels
    ours = DepthwiseConv2d(c, kernel, dilation=dilation)
    theirs = nn.Conv2d(c, c, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=c)
    theirs.load_state_dict(ours.state_dict())
    weights = torch.randn(2, c, 11, 9)
    found = []
    for layer in (ours, theirs):
        x = torch.randn(2, c, 11, 9, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=memory_format)
        x.requires_grad_()
        made = layer(x)
        (made * weights).sum().backward()
        found.append([made.detach(), x.grad, layer.weight.grad, layer.bias.grad])
        with torch.inference_mode():
            found[-1].append(layer(x))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)  # sums of up to 200 float32 products in another order


@pytest.mark.parametrize("dilation", [1, 2])
def test_depthwise_gradients_by_finite_differences(dilation: int) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv2d(2, 3, dilation=dilation).double()
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    of_weight = torch.autograd.functional.jacobian(
        lambda w: torch.func.functional_call(layer, {"weight": w}, (x.detach(),)).square().sum(), layer.weight.detach()
    )
    step, numeric = 1e-6, torch.empty_like(of_weight)
    for i in range(layer.weight.numel()):
        values = []
        for sign in (1, -1):
            moved = layer.weight.detach().clone()
            moved.view(-1)[i] += sign * step
            values.append(torch.func.functional_call(layer, {"weight": moved}, (x.detach(),)).square().sum())
        numeric.view(-1)[i] = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(of_weight, numeric, rtol=1e-6, atol=1e-6)  # central differences of a quadratic


@pytest.mark.parametrize(("kernel", "dilation"), [(5, 1), (5, 3)])
@pytest.mark.parametrize("channels", [8, 32])
def test_depthwise_gradients_in_bfloat16_are_close(kernel: int, dilation: int, channels: int) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv2d(channels, kernel, dilation=dilation)
    x = torch.randn(2, channels, 24, 20)
    layer(x).square().sum().backward()
    exact = layer.weight.grad.clone()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(x)
    assert made.dtype == torch.bfloat16
    made.float().square().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    # bfloat16 keeps 8 bits: each product is off by up to 1/128, and errors of many mostly cancel
    assert (layer.weight.grad - exact).abs().max() < 0.02 * exact.abs().max()


def test_depthwise_convolution_takes_gradients_of_what_is_wanted_only() -> None:
    layer = DepthwiseConv2d(3, 3).requires_grad_(False)
    x = torch.randn(1, 3, 6, 6, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None


# Convolutions with what follows them ----------------------------------------------------------------------------------
def of_numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [*CLOSE, torch.float64], ids=str)
@pytest.mark.parametrize("slope", [0, 0.1])
@pytest.mark.parametrize("inference", [False, True])
def test_a_convolution_and_its_activation_are_torchs(dtype: torch.dtype, slope: float, inference: bool) -> None:
    torch.manual_seed(0)
    conv, x = conv3x3(5, 7).to(dtype), of_numbers(2, 5, 9, 11).to(dtype)
    before = x.clone()
    with torch.inference_mode(inference):
        made = convolved(conv, x, slope=slope)
        added = convolved_onto(conv, x, made.clone())
        expected = F.leaky_relu(conv(x), slope)
        torch.testing.assert_close(added, conv(x) + made, atol=CLOSE.get(dtype, 1e-12), rtol=0)
    torch.testing.assert_close(made, expected, atol=CLOSE.get(dtype, 1e-12), rtol=0)
    assert torch.equal(x, before)


def test_a_convolution_with_its_activation_can_be_trained_and_runs_under_autocast() -> None:
    torch.manual_seed(0)
    conv, x = conv3x3(5, 7), of_numbers(2, 5, 9, 11)
    found = []
    for run in (lambda: convolved(conv, x, slope=0.1), lambda: F.leaky_relu(conv(x), 0.1)):
        conv.zero_grad()
        run().square().sum().backward()
        found.append(conv.weight.grad.clone())  # type: ignore[union-attr]
    torch.testing.assert_close(*found)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        made = convolved(conv, x, slope=0.1)
        assert convolved_onto(conv, x, made.clone()).dtype == made.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("inference", [False, True])
def test_residual_blocks_are_what_they_say_and_leave_their_input_alone(dtype: torch.dtype, inference: bool) -> None:
    torch.manual_seed(0)
    branch, x = ResidualBlocks(5, 8, 3, slope=0.1).to(dtype), of_numbers(2, 5, 9, 11).to(dtype)
    before = x.clone()
    with torch.inference_mode(inference):
        made = branch(x)
        expected = F.leaky_relu(branch.main[0](x), 0.1)
        for block in branch.main[2]:
            expected = expected + block.conv2(F.relu(block.conv1(expected)))
    torch.testing.assert_close(made, expected, atol=3 * CLOSE[dtype], rtol=0)  # three blocks
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [*CLOSE, torch.float64], ids=str)
@pytest.mark.parametrize("size", [(8, 10), (9, 10), (8, 11), (2, 2), (1, 1)])
def test_a_narrow_convolution_is_torchs(size: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ours, theirs = NarrowConv2d(6, 3).to(dtype), conv3x3(6, 3).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    x = of_numbers(2, 6, *size).to(dtype)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), atol=CLOSE.get(dtype, 1e-12), rtol=0)
    ours(x).sum().backward()
    theirs(x).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
