"""scripts/make_pattern_pairs.py: targets keep the mean of every cell, and the same seed makes the same pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from make_pattern_pairs import CELL_PX, CELLS, main, mosaic
from upframe.media.image.source import read_rgb8


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_targets_keep_the_mean_of_each_cell(tmp_path: Path, scale: int) -> None:
    main(["--out", str(tmp_path), "--scale", str(scale), "--count", "3", "--seed", "5"])
    files = sorted((tmp_path / "lq").iterdir())
    assert len(files) == 3
    for file in files:
        low, high = read_rgb8(file), read_rgb8(tmp_path / "gt" / file.name)
        assert high.shape == (low.shape[0] * scale, low.shape[1] * scale, 3)
        cells = [
            picture.astype(float).reshape(CELLS, len(picture) // CELLS, CELLS, -1, 3).mean((1, 3)) for picture in (low, high)
        ]
        # A pattern is cut at a cell's edge, where the filter spreads half a pixel of it beyond.
        assert np.abs(cells[0] - cells[1]).max() < 255 / CELL_PX / 2


def test_a_seed_makes_the_same_pairs() -> None:
    first, again, other = (mosaic(2, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
