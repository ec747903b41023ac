"""Measures without a reference: they follow the noise and the blocks that are put in."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import make_photo
from upframe.metrics.blind import blockiness, noise_sigma


def smooth(height: int = 192, width: int = 256) -> NDArray[np.float64]:
    y, x = np.mgrid[0:height, 0:width] / width
    return 128 + 60 * np.sin(9 * x + 4 * y) + 30 * ((x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.05)


def as_jpeg(luma: NDArray[np.float64], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(luma.clip(0, 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("sigma", [2, 5, 10, 20])
def test_noise_is_measured_a_little_too_low(sigma: int) -> None:
    noisy = smooth() + np.random.default_rng(sigma).normal(0, sigma, (192, 256))
    assert 0.75 * sigma < noise_sigma(noisy) < 1.05 * sigma


def test_a_smooth_picture_has_no_noise_and_no_blocks() -> None:
    assert noise_sigma(smooth()) < 0.3
    assert blockiness(smooth()) < 1.25  # an edge within counts a little; see BLOCKY in service/child/trials.py


@pytest.mark.parametrize("shift", [(0, 0), (3, 5)])
def test_blocks_show_the_more_the_stronger_the_compression_also_after_a_crop(shift: tuple[int, int]) -> None:
    noisy = smooth() + np.random.default_rng(0).normal(0, 3, (192, 256))
    measured = [blockiness(as_jpeg(noisy, quality)[shift[0] :, shift[1] :]) for quality in (95, 75, 50, 20)]
    assert measured == sorted(measured) and measured[0] < 1.1 and measured[-1] > 1.5


def test_photos_without_compression_have_no_blocks() -> None:
    for seed in range(4):
        assert blockiness(make_photo(160, 200, seed=seed)[..., 1]) < 1.2


def test_tiny_pictures_and_flat_ones_are_measured_too() -> None:
    for shape in ((1, 1), (10, 300), (17, 17), (31, 64)):
        flat = np.full(shape, 7, np.uint8)
        assert noise_sigma(flat) == 0 and blockiness(flat) == 1
