"""Layers that networks share, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from upframe.nets._layers import DepthwiseConv2d


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (5, 3)])
@pytest.mark.parametrize("channels", [6, 48])  # sums, and blocks of 16
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_depthwise_convolution_and_its_gradients_are_torchs(
    kernel: int, dilation: int, channels: int, memory_format: torch.memory_format
) -> None:
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
