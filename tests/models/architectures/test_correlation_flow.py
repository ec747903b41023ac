"""Our own flow network: what it compares, what it says before any training, sizes, precisions, gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from upframe.models.architectures._correlation_flow import COARSEST_PX, MAX_SCALES, CorrelationFlow, _Matches
from upframe.models.architectures._flow import flow_warp


@pytest.fixture
def network() -> CorrelationFlow:
    torch.manual_seed(0)
    return CorrelationFlow().eval()


@pytest.fixture
def untrained(network: CorrelationFlow) -> CorrelationFlow:
    """A network in which correlation alone counts: the decoder adds nothing."""
    last = network.decoder[-1]
    torch.nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return network


def texture(side: int, *, seed: int = 0) -> Tensor:
    """(1, 3, side, side) in [0, 1]: noise of several scales, so that every scale of the pyramid sees something."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        F.interpolate(torch.rand(1, 3, cells, cells, generator=generator), (side, side), mode="bicubic", align_corners=True)
        for cells in (side // 16, side // 8, side // 4, side // 2)
    ]
    return torch.stack(layers).mean(0).clamp(0, 1)


def matches(a: Tensor, b: Tensor, radius_px: int) -> Tensor:
    found: Tensor = _Matches.apply(a, b, radius_px)  # type: ignore[no-untyped-call]
    return found


# What it compares -------------------------------------------------------------------------------------------------------
def test_matches_are_scalar_products_with_the_features_around_a_place() -> None:
    a, b = torch.randn(2, 5, 4, 6), torch.randn(2, 5, 4, 6)
    found = matches(a, b, 2)
    assert found.shape == (2, 25, 4, 6)
    expected = (a[1, :, 2, 1] * b[1, :, 3, 3]).sum()  # one down, two to the right
    torch.testing.assert_close(found[1, 3 * 5 + 4, 2, 1], expected)
    assert found[0, 0, 0, 0] == 0  # beyond the border


@pytest.mark.slow
def test_gradients_of_matches_are_those_of_their_definition() -> None:
    a, b = (torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: matches(a, b, 2), (a, b))


# Before any training ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shift", [(3, 0), (0, -4), (6, 5)])
def test_correlation_alone_finds_where_a_picture_went(untrained: CorrelationFlow, shift: tuple[int, int]) -> None:
    """More than half of a shift that the finest scale cannot see, with random features: the coarser scales found it."""
    dx, dy = shift
    whole = texture(96)
    reference, support = whole[..., 16:80, 16:80], whole[..., 16 - dy : 80 - dy, 16 - dx : 80 - dx]
    with torch.no_grad():
        flow = untrained(reference, support)
    error = torch.linalg.vector_norm(flow - torch.tensor(shift).view(1, 2, 1, 1), dim=1)
    inner = error[..., 12:-12, 12:-12]
    assert inner.mean() < 0.5 * (dx**2 + dy**2) ** 0.5
    # The flow leads from the reference to the support: warping the support by it brings the reference nearer.
    before = (support - reference)[..., 12:-12, 12:-12].abs().mean()
    after = (flow_warp(support, flow, padding="border") - reference)[..., 12:-12, 12:-12].abs().mean()
    assert after < before


# Sizes and precisions ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 9), (15, 16), (33, 65)])
def test_any_size(network: CorrelationFlow, size: tuple[int, int]) -> None:
    with torch.no_grad():
        flow = network(torch.rand(2, 3, *size), torch.rand(2, 3, *size))
    assert flow.shape == (2, 2, *size)
    assert flow.isfinite().all()


def test_scales_halve_until_the_shorter_side_is_short(network: CorrelationFlow) -> None:
    frames = torch.rand(1, 3, 70, 101)
    with torch.no_grad():
        flows = network.pyramid(frames, frames)
        assert [tuple(flow.shape[-2:]) for flow in flows] == [(70, 101), (35, 51), (18, 26), (9, 13)]
        assert len(network.pyramid(frames, frames, scales=2)) == 2
        huge = torch.rand(1, 3, COARSEST_PX << MAX_SCALES, 8 << MAX_SCALES)[..., ::8, ::8]
        assert len(network.pyramid(huge, huge)) < MAX_SCALES


def test_half_precision_keeps_flow_in_float32(network: CorrelationFlow) -> None:
    """Frames rounded to eight bits of mantissa move a flow by less than a tenth of a pixel in the mean."""
    reference, support = texture(64), texture(64, seed=1)
    support = 0.9 * reference + 0.1 * support
    with torch.no_grad():
        exact = network(reference, support)
        half = network.to(torch.bfloat16)(reference.to(torch.bfloat16), support.to(torch.bfloat16))
    assert half.dtype == torch.float32
    assert (half - exact).abs().mean() < 0.1


def test_pairs_of_a_batch_do_not_see_each_other(network: CorrelationFlow) -> None:
    reference, support = torch.rand(3, 3, 24, 20), torch.rand(3, 3, 24, 20)
    with torch.no_grad():
        together = network(reference, support)
        alone = torch.cat([network(reference[i : i + 1], support[i : i + 1]) for i in range(3)])
    # Convolutions of other batches round otherwise, and finer scales rest on coarser ones: up to 2e-5 in sixty draws.
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = CorrelationFlow(channels=6, radius_px=1)
    flows = network.pyramid(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    torch.stack([flow.square().mean() for flow in flows]).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
