"""Memory is bounded by a row of tiles, not by the picture: the promise of the README, on the real command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nearest import nearest_weights
from peak import needs_proc, run_and_measure
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
