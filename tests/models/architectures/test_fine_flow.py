"""The fine flow against motion that is known exactly."""

from __future__ import annotations

import math
from statistics import median

import pytest
import torch
from torch import Tensor

from conftest import make_photo
from upframe.models.architectures._correlation_flow import CorrelationFlow
from upframe.models.architectures._fine_flow import MOST_PX, fine_flow, lucas_kanade
from upframe.models.registry import load
from upframe.pixels import imresize, to_unit


def waves(height: int, width: int, dx: float = 0.0, dy: float = 0.0) -> Tensor:
    """(1, 1, H, W) of smooth waves in all directions, sampled at (x + dx, y + dy): any shift is exact."""
    y, x = torch.meshgrid(torch.arange(height).double() + dy, torch.arange(width).double() + dx, indexing="ij")
    rng = torch.Generator().manual_seed(0)
    picture = torch.zeros_like(x)
    for _ in range(12):
        angle, length, phase = (float(torch.rand((), generator=rng)) for _ in range(3))
        period = 6 + 14 * length
        along = x * math.cos(math.pi * angle) + y * math.sin(math.pi * angle)
        picture += torch.sin(2 * math.pi * (along / period + phase))
    return (picture / 24 + 0.5)[None, None]


def inner(x: Tensor) -> Tensor:
    return x[..., 8:-8, 8:-8]


@pytest.mark.parametrize(("dx", "dy"), [(0.3, 0.0), (0.0, -0.4), (-0.25, 0.15)])
def test_steps_lead_to_the_exact_shift(dx: float, dy: float) -> None:
    """support(x + f) = reference(x) where support(x) = waves(x) and reference(x) = waves(x + d): f = d."""
    reference, support = waves(40, 44, dx, dy), waves(40, 44)
    flow = torch.zeros(1, 2, 40, 44, dtype=torch.float64)
    errors = []
    for radius in (2, 2, 1, 1):
        flow = flow + lucas_kanade(reference, support, flow, radius_px=radius)
        errors.append(float((inner(flow) - torch.tensor([dx, dy]).view(1, 2, 1, 1)).abs().mean()))
    # Bilinear samples of the shortest waves, 6 px long, lie up to an eighth of their height beside the curve.
    # Cubic samples of the shortest waves, 6 px long, err by some hundredths of their height.
    assert max(errors[1:]) < 0.05


def test_equal_pictures_have_no_motion() -> None:
    picture = waves(20, 24)
    step = lucas_kanade(picture, picture, torch.zeros(1, 2, 20, 24, dtype=torch.float64), radius_px=2)
    assert step.abs().max() < 1e-12  # rounding of positions


def test_a_flat_picture_keeps_the_flow_and_a_step_is_no_longer_than_a_pixel() -> None:
    flat = torch.full((1, 1, 12, 12), 0.4)
    start = torch.full((1, 2, 12, 12), 0.7)
    assert lucas_kanade(flat, flat, start, radius_px=2).abs().max() < 1e-3
    other = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    step = lucas_kanade(other, other.flip(-1), start, radius_px=1)
    assert step.isfinite().all()
    assert step.norm(dim=1).max() <= MOST_PX + 1e-5


@pytest.mark.slow
def test_finer_than_the_network_alone_on_reduced_photos() -> None:
    """Photos moved by whole pixels and then reduced to a quarter, with the flow network of the shipped weights."""
    network = next(part for part in load("video-x4").network.modules() if isinstance(part, CorrelationFlow))
    alone, fine = [], []
    for seed, (dx, dy) in enumerate([(1, 2), (-3, 5), (6, -7), (-13, -2), (9, 10), (14, -13)]):
        photo = to_unit(make_photo(320, 400, seed=seed))
        reference, support = (
            imresize(photo[:, 16 - y : 304 - y, 16 - x : 384 - x], 1 / 4)[None].float() for x, y in ((0, 0), (dx, dy))
        )
        true = torch.tensor([dx / 4, dy / 4]).view(1, 2, 1, 1)
        with torch.inference_mode():
            alone.append(float((inner(network(reference, support)) - true).norm(dim=1).mean()))
            fine.append(float((inner(fine_flow(network, reference, support)) - true).norm(dim=1).mean()))
    assert median(fine) < 0.7 * median(alone)  # one photo repeats itself, and misleads both


def test_any_size() -> None:
    torch.manual_seed(0)
    network = CorrelationFlow()
    for height, width in ((1, 1), (5, 3), (17, 30)):
        pair = torch.rand(2, 1, 3, height, width)
        assert fine_flow(network, *pair).shape == (1, 2, height, width)
