"""PSNR and SSIM against reference values, formulas by hand, and misuse."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_photo
from upframe.errors import UsageError
from upframe.metrics import METRICS, list_metrics, metric, psnr, ssim

# The reference computes Y in float32 (the fixture's own tolerance); everything else agrees to 1e-9.
TOLERANCE = 1e-6


@pytest.fixture
def pair(golden: ModuleType) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    fixture = golden.Golden("common/psnr_ssim")
    rgb = [fixture.tensors[name].numpy()[..., ::-1].copy() for name in ("in.a", "in.b")]  # stored as BGR
    return rgb[0], rgb[1], fixture.meta["values"]


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize(("colour", "luma"), [("rgb", False), ("y", True)])
def test_scores_equal_the_reference(pair, border: int, colour: str, luma: bool) -> None:
    a, b, expected = pair
    assert psnr(a, b, crop_border=border, luma=luma) == pytest.approx(expected[f"psnr_crop{border}_{colour}"], abs=TOLERANCE)
    assert ssim(a, b, crop_border=border, luma=luma) == pytest.approx(expected[f"ssim_crop{border}_{colour}"], abs=TOLERANCE)


def test_gray_scores_equal_the_reference(pair) -> None:
    """The reference's gray case is the blue channel with a border of 2."""
    a, b, expected = pair
    assert psnr(a[..., 2], b[..., 2], crop_border=2) == pytest.approx(expected["gray_psnr"], abs=TOLERANCE)
    assert ssim(a[..., 2], b[..., 2], crop_border=2) == pytest.approx(expected["gray_ssim"], abs=TOLERANCE)


def test_tensors_in_unit_range_score_like_their_8_bit_arrays(pair) -> None:
    a, b, _ = pair
    units = [torch.from_numpy(p).permute(2, 0, 1).to(torch.float64) / 255 for p in (a, b)]
    for luma in (False, True):
        assert psnr(*units, luma=luma) == pytest.approx(psnr(a, b, luma=luma), abs=1e-9)
        assert ssim(*units, luma=luma) == pytest.approx(ssim(a, b, luma=luma), abs=1e-9)


def test_psnr_of_a_constant_error_is_the_formula() -> None:
    a = np.full((20, 30, 3), 100, np.uint8)
    assert psnr(a, a + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5), abs=1e-9)
    deep = np.full((20, 30, 1), 100, np.uint16)
    assert psnr(deep, deep + np.uint16(5)) == pytest.approx(20 * math.log10(65535 / 5), abs=1e-9)
    assert psnr(a.astype(np.float64), a + 5.0, peak=255) == pytest.approx(20 * math.log10(255 / 5), abs=1e-9)


def test_luma_psnr_weighs_the_channels() -> None:
    """An error in green alone moves Y by 128.553/255 of it."""
    a = np.full((16, 16, 3), 90, np.uint8)
    b = a.copy()
    b[..., 1] += 10
    assert psnr(a, b, luma=True) == pytest.approx(20 * math.log10(255 / (10 * 128.553 / 255)), abs=1e-9)


def test_ssim_of_constant_pictures_is_the_luminance_term() -> None:
    a, b = np.full((16, 16), 100, np.uint8), np.full((16, 16), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), abs=1e-9)


def test_ssim_equals_a_direct_evaluation_of_the_definition() -> None:
    """Window by window, with a two-dimensional Gaussian, on a picture with room for 3 × 2 windows."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, (2, 13, 12))
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(3):
        for left in range(2):
            x, y = a[top : top + 11, left : left + 11], b[top : top + 11, left : left + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            values.append(((2 * mx * my + 1e-4) * (2 * cov + 9e-4)) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-9)


def test_identical_pictures_have_infinite_psnr_and_ssim_one() -> None:
    a = make_photo(24, 30)
    assert psnr(a, a.copy()) == math.inf
    assert ssim(a, a.copy()) == 1.0


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), border=st.integers(0, 4), noise=st.integers(1, 60))
def test_scores_are_symmetric_and_bounded(seed: int, border: int, noise: int) -> None:
    a = make_photo(22, 25, seed=seed)
    b = np.clip(a.astype(int) + np.random.default_rng(seed).integers(-noise, noise + 1, a.shape), 0, 255).astype(np.uint8)
    assert psnr(a, b, crop_border=border) == pytest.approx(psnr(b, a, crop_border=border), abs=1e-9)
    assert ssim(a, b, crop_border=border) == pytest.approx(ssim(b, a, crop_border=border), abs=1e-12)
    assert -1 <= ssim(a, b, crop_border=border) <= 1
    assert psnr(a, b, crop_border=border) >= 20 * math.log10(255 / noise) - 1e-9


def test_border_is_not_looked_at() -> None:
    a = make_photo(30, 32)
    b = a.copy()
    b[:4], b[-4:], b[:, :4], b[:, -4:] = 0, 255, 7, 9
    assert psnr(a, b, crop_border=4) == math.inf
    assert psnr(a, b, crop_border=3) < 40


def test_batch_scores_the_mean_of_its_pictures() -> None:
    a = torch.stack([torch.from_numpy(make_photo(20, 20, seed=s)).permute(2, 0, 1) for s in range(2)])
    b = a.clone()
    b[0] ^= 1
    b[1] ^= 8
    for score in (psnr, ssim):
        assert score(a, b) == pytest.approx((score(a[0], b[0]) + score(a[1], b[1])) / 2, abs=1e-9)


def test_inputs_are_left_as_they_were() -> None:
    a = torch.rand(3, 16, 16, dtype=torch.float64)
    b = torch.rand(3, 16, 16, dtype=torch.float64)
    before = a.clone(), b.clone()
    psnr(a, b)
    ssim(a, b)
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])


@pytest.mark.parametrize(
    ("a", "b", "named"),
    [
        (np.zeros((8, 9, 3), np.uint8), np.zeros((9, 8, 3), np.uint8), r"\(8, 9, 3\).*\(9, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint16), r"uint8.*uint16"),
        (np.zeros((8, 8, 3), np.uint8), torch.zeros(8, 8, 3, dtype=torch.uint8), r"ndarray.*Tensor"),
        (np.zeros((8, 8, 3), np.int32), np.zeros((8, 8, 3), np.int32), "int32; pass peak"),
        (np.zeros(8, np.uint8), np.zeros(8, np.uint8), r"\(8,\)"),
        (torch.zeros(8, 8), torch.zeros(8, 8), r"\(8, 8\)"),
    ],
)
def test_pictures_that_cannot_be_compared_are_refused(a, b, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        psnr(a, b)


def test_borders_windows_and_channels_that_do_not_fit_are_refused() -> None:
    a = np.zeros((12, 12, 3), np.uint8)
    with pytest.raises(ValueError, match="border of 6 leaves nothing of 12x12"):
        psnr(a, a, crop_border=6)
    with pytest.raises(ValueError, match="border of -1"):
        psnr(a, a, crop_border=-1)
    with pytest.raises(ValueError, match="11 pixels a side, found 10x10"):
        ssim(a, a, crop_border=1)
    with pytest.raises(ValueError, match="luma needs 3 channels, found 1"):
        psnr(a[..., :1], a[..., :1], luma=True)
    with pytest.raises(ValueError, match="peak must be positive"):
        psnr(a, a, peak=0)


def test_metrics_are_found_by_name_and_describe_themselves() -> None:
    a, b = make_photo(20, 20), make_photo(20, 20, seed=1)
    assert metric("PSNR_Y")(a, b, crop_border=2) == psnr(a, b, crop_border=2, luma=True)
    assert metric("ssim-rgb")(a, b) == ssim(a, b)
    assert list_metrics() == list(METRICS)
    assert all(m.citation and m.higher_is_better and name == m.name for name, m in METRICS.items())
    assert METRICS["psnr-y"].format(32.2449) == "32.24"
    assert METRICS["ssim-y"].format(0.89526) == "0.8953"


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="psnr-y"):
        metric("psnry")
