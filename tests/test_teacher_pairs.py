"""scripts/make_teacher_pairs.py, with a teacher whose result is known: one that repeats every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import make_teacher_pairs
from conftest import make_photo
from upframe.media.image.source import read_rgb8
from upframe.pixels import matlab_bicubic_8bit


def test_pairs_are_reduced_photos_and_their_enlargements(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(make_photo(140, 203)).save(tmp_path / "large.png")
    Image.fromarray(make_photo(40, 50)).save(tmp_path / "small.png")
    command = [
        str(tmp_path / "large.png"),
        str(tmp_path / "small.png"),
        "--teacher",
        str(weights),
        "--out",
        str(tmp_path / "pairs"),
    ]
    make_teacher_pairs.main([*command, "--reduce", "2", "--threads", "1"])
    assert "small.png: too small, needs 128 px" in capsys.readouterr().out
    low, high = (read_rgb8(tmp_path / "pairs" / kind / "large_r2.png") for kind in ("lq", "gt"))
    assert low.shape == (70, 101, 3)
    # The teacher is equivariant, so the mean over all eight poses is its result, and exact in 8 bits.
    np.testing.assert_array_equal(high, low.repeat(2, 0).repeat(2, 1))
    make_teacher_pairs.main([*command, "--reduce", "2", "--threads", "1"])
    assert "large.png: there already" in capsys.readouterr().out


def test_poses_are_turned_back() -> None:
    picture = np.random.default_rng(3).random((5, 7, 3), dtype=np.float32)
    for pose in range(8):
        np.testing.assert_allclose(make_teacher_pairs.enlarged(picture, lambda x: x, [pose]), picture, rtol=0, atol=0)


def test_targets_can_have_a_smaller_scale_than_the_teacher(tmp_path: Path, weights: Path) -> None:
    """A teacher of x2 that repeats pixels makes targets of x1: repeated pixels reduced as MATLAB does it."""
    Image.fromarray(make_photo(140, 203)).save(tmp_path / "large.png")
    command = [str(tmp_path / "large.png"), "--teacher", str(weights), "--out", str(tmp_path / "pairs"), "--reduce", "2"]
    make_teacher_pairs.main([*command, "--threads", "1", "--target-scale", "1"])
    low, high = (read_rgb8(tmp_path / "pairs" / kind / "large_r2.png") for kind in ("lq", "gt"))
    repeated = torch.from_numpy(low.repeat(2, 0).repeat(2, 1)).permute(2, 0, 1)
    expected = matlab_bicubic_8bit(repeated, 2).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(high.astype(int), expected, rtol=0, atol=1)  # which rounds between its two passes
