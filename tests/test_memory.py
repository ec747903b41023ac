"""Memory is bounded by a row of tiles, not by the picture: the promise of the README, on the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nearest import nearest_weights
from upframe.media.images import probe, read_pixels, write_pixels


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="peak memory of a child process is only known on POSIX systems")
def test_a_108_megapixel_output_fits_into_two_gigabytes(tmp_path: Path) -> None:
    """3,000 × 2,250 to 12,000 × 9,000, PNG to PNG, with the default tiles (held whole in float it would be 1.3 GB alone)."""
    y, x = np.mgrid[0:2250, 0:3000].astype(np.uint16)
    picture = np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)
    write_pixels(tmp_path / "in.png", picture)
    weights = nearest_weights(tmp_path / "x4.safetensors", scale=4)
    process = subprocess.Popen(
        [sys.executable, "-m", "upframe", tmp_path / "in.png", "-m", weights, "-o", tmp_path / "out.png", "--threads", "1"],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    kilobyte = 1 if sys.platform == "darwin" else 1024
    assert usage.ru_maxrss * kilobyte < 2_000_000_000
    assert probe(tmp_path / "out.png").size == (9000, 12000)
    made = read_pixels(tmp_path / "out.png")
    np.testing.assert_array_equal(made[::4, ::4], picture)
