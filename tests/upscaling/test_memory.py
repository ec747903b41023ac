"""Memory is bounded by a row of tiles, not by the picture: the promise of the README, on the real command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nearest import nearest_weights
from peak import needs_proc, planned_and_peak, run_and_measure
from upframe.media.image.files import write_pixels
from upframe.media.image.source import probe, read_pixels


@pytest.mark.slow
@needs_proc
def test_a_108_megapixel_output_fits_into_two_gigabytes(tmp_path: Path) -> None:
    """3,000 × 2,250 to 12,000 × 9,000, PNG to PNG, with the default tiles (held whole in float it would be 1.3 GB alone)."""
    y, x = np.mgrid[0:2250, 0:3000].astype(np.uint16)
    picture = np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)
    write_pixels(tmp_path / "in.png", picture)
    weights = nearest_weights(tmp_path / "x4.safetensors", scale=4)
    peak, _ = run_and_measure(tmp_path, tmp_path / "in.png", "-m", weights, "-o", tmp_path / "out.png", "--threads", "1")
    assert peak < 2_000_000_000
    assert probe(tmp_path / "out.png").size == (9000, 12000)
    made = read_pixels(tmp_path / "out.png")
    np.testing.assert_array_equal(made[::4, ::4], picture)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("size", "channels", "name", "options"),
    [
        ((150, 200), 3, "small.png", {}),
        ((400, 600), 3, "fits.png", {}),
        ((400, 600), 3, "wide.jpg", {"width": 5000}),
        ((300, 450), 3, "wide.png", {"width": 5000}),
        ((300, 450), 3, "wide.bmp", {"width": 5000}),
        ((200, 300), 3, "wide.tif", {"width": 4000}),
        ((400, 600), 1, "gray.jpg", {"width": 4000}),
        ((400, 600), 4, "alpha.webp", {"scale": 2}),
        ((300, 450), 3, "wide.webp", {"width": 2000}),
        ((300, 450), 3, "wide.avif", {"width": 1200}),
        ((300, 450), 3, "wide.gif", {"width": 2000}),
        ((1000, 1500), 3, "tiles.png", {}),
    ],
)
def test_peak_memory_of_a_picture_is_what_the_plan_says(
    tmp_path: Path, size: tuple[int, int], channels: int, name: str, options: dict[str, int]
) -> None:
    """Within 25 %, of the whole process. An output far larger than the network's is resampled in slices: held whole, 5,000
    pixels of width take 1.6 GB."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.uint16)
    picture = np.stack([x % 256, y % 256, (x + y) % 256, (3 * x + y) % 256][:channels], -1).astype(np.uint8)
    write_pixels(tmp_path / "in.png", picture)
    weights = nearest_weights(tmp_path / "x4.safetensors", scale=4)
    planned, peak = planned_and_peak(tmp_path / "in.png", tmp_path / name, model=weights, **options)
    assert peak == pytest.approx(planned, rel=0.25)
