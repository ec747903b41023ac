"""scripts/make_pattern_pairs.py: targets keep the mean of every cell, and the same seed makes the same pairs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from upframe.media.image.source import read_rgb8

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "make_pattern_pairs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pattern_pairs", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_targets_keep_the_mean_of_each_cell(script: ModuleType, tmp_path: Path, scale: int) -> None:
    script.main(["--out", str(tmp_path), "--scale", str(scale), "--count", "3", "--seed", "5"])
    files = sorted((tmp_path / "lq").iterdir())
    assert len(files) == 3
    for file in files:
        low, high = read_rgb8(file), read_rgb8(tmp_path / "gt" / file.name)
        assert high.shape == (low.shape[0] * scale, low.shape[1] * scale, 3)
        cells = [
            picture.astype(float).reshape(script.CELLS, len(picture) // script.CELLS, script.CELLS, -1, 3).mean((1, 3))
            for picture in (low, high)
        ]
        # A pattern is cut at a cell's edge, where the filter spreads half a pixel of it beyond.
        assert np.abs(cells[0] - cells[1]).max() < 255 / script.CELL_PX / 2


def test_a_seed_makes_the_same_pairs(script: ModuleType) -> None:
    first, again, other = (script.mosaic(2, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
