"""The kernels of the degradations and the sharpened targets, against the references and against what they must be."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch

from conftest import needs_shared
from upframe.training.degradations.blur_kernels import KERNEL_KINDS, GaussianKind, gaussian_kernels, sinc_kernels
from upframe.training.degradations.sharpening import unsharp_mask


def one(kind: GaussianKind, size: int, *, x: float, y: float = 1.0, rotation: float = 0.0, beta: float = 1.0) -> torch.Tensor:
    values = (torch.tensor([float(v)], dtype=torch.float64) for v in (x, y, rotation, beta))
    sigma_x, sigma_y, angle, exponent = values
    return gaussian_kernels(kind, size, sigma_x=sigma_x, sigma_y=sigma_y, rotation=angle, beta=exponent)[0]


@needs_shared
def test_every_kernel_of_the_reference_is_met(golden: ModuleType) -> None:
    reference = golden.Golden("common/blur_kernels")
    kinds = set()
    for name, drawn in reference.meta["cases"].items():
        kinds.add(drawn["kind"])
        if drawn["kind"] == "sinc":
            cutoff = torch.tensor([drawn["cutoff"]], dtype=torch.float64)
            kernel = sinc_kernels(drawn["kernel_size"], cutoff=cutoff, pad_to=drawn["pad_to"])[0]
        else:
            shape = {"x": drawn["sigma_x"], "y": drawn["sigma_y"], "rotation": drawn["theta"], "beta": drawn["beta"]}
            kernel = one(drawn["kind"], drawn["kernel_size"], **shape)
        reference.check(name, kernel)  # at the reference's own float32 tolerance
    assert kinds == set(KERNEL_KINDS)
    assert len(reference.meta["cases"]) == 21


def test_a_gaussian_has_the_spread_along_the_angle_that_was_asked_for() -> None:
    """Second moments of a kernel wide enough to hold all of it: σ² along its axes, turned by the angle."""
    kernel = one("aniso", 41, x=4.0, y=1.5, rotation=0.6).double()
    at = torch.arange(41, dtype=torch.float64) - 20
    y, x = torch.meshgrid(at, at, indexing="ij")
    along = x * math.cos(0.6) + y * math.sin(0.6)
    across = y * math.cos(0.6) - x * math.sin(0.6)
    assert (kernel * along**2).sum().item() == pytest.approx(16.0, rel=1e-4)  # 5σ lie within the kernel
    assert (kernel * across**2).sum().item() == pytest.approx(2.25, rel=1e-4)
    assert (kernel * along * across).sum().item() == pytest.approx(0.0, abs=1e-3)


def test_sinc_passes_what_is_below_the_cutoff_and_stops_what_is_above() -> None:
    cutoff = math.pi / 3
    kernel = sinc_kernels(21, cutoff=torch.tensor([cutoff]))[0].double()
    at = torch.arange(21, dtype=torch.float64) - 10

    def response(frequency: float) -> float:
        return (kernel.sum(0) * torch.cos(frequency * at)).sum().item()

    assert response(0.0) == pytest.approx(1.0, abs=1e-6)
    assert response(0.5 * cutoff) == pytest.approx(1.0, abs=0.15)  # the cut to 21 pixels makes ripples
    assert abs(response(2 * cutoff)) < 0.05


def test_kernels_of_a_walk_are_those_made_one_at_a_time() -> None:
    sigma = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)
    angle, beta = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([0.5, 1.0, 2.0]).double()
    together = gaussian_kernels("plateau_aniso", 9, sigma_x=sigma, sigma_y=sigma.flip(0), rotation=angle, beta=beta)
    for i in range(3):
        x, y = sigma[i].item(), sigma[2 - i].item()
        alone = one("plateau_aniso", 9, x=x, y=y, rotation=angle[i].item(), beta=beta[i].item())
        assert torch.equal(together[i], alone)
    assert torch.allclose(together.sum((1, 2)), torch.ones(3), atol=1e-6)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="odd size"):
        one("iso", 8, x=1.0)
    with pytest.raises(ValueError, match="padded to 9"):
        sinc_kernels(11, cutoff=torch.tensor([1.0]), pad_to=9)


@needs_shared
def test_unsharp_masking_meets_both_references(golden: ModuleType) -> None:
    reference = golden.Golden("common/unsharp")
    unit = reference.tensors["in.img"].permute(2, 0, 1)[None].double() / 255
    sharp = unsharp_mask(unit)
    # One pixel whose detail is within rounding of the threshold may fall on either side; there is none in this picture.
    assert reference.check("out.usmsharp", sharp.float()) < 2e-6
    reference.check("out.mm", (sharp[0].permute(1, 2, 0) * 255).float())


def test_unsharp_masking_leaves_flat_areas_and_faint_texture_alone() -> None:
    rng = np.random.default_rng(0)
    faint = torch.from_numpy(rng.uniform(0.49, 0.51, (2, 5, 3, 40, 30))).float()
    assert torch.allclose(unsharp_mask(faint), faint, atol=1e-7)  # one rounding: 0·sharp + 1·image
    edge = torch.zeros(1, 1, 40, 40)
    edge[..., 20:] = 0.5
    sharp = unsharp_mask(edge)
    assert sharp[..., 20].mean() > 0.55
    assert sharp.min() >= 0 and sharp.max() <= 1
