"""scripts/measure_degraded.py: the same damage on every call, and figures that mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo
from measure_degraded import DAMAGES, centre, damaged, main, measured

pytestmark = pytest.mark.slow


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        Image.fromarray(make_photo(150, 133, seed=ord(name))).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_replayed_and_differs_from_photo_to_photo(photos: Path, damage: str) -> None:
    truth = centre(photos / "a.png", 128)
    assert truth.shape == (128, 128, 3)
    small = damaged(truth, damage, "a")
    assert small.shape == (32, 32, 3) and small.dtype == np.uint8
    assert np.array_equal(small, damaged(truth, damage, "a"))
    random = damage in ("noise-jpeg50", "scan")
    assert np.array_equal(small, damaged(truth, damage, "b")) is not random


def test_a_shift_of_colour_is_reported_in_code_values() -> None:
    truth = np.full((64, 64, 3), 100, np.uint8)
    result = truth + np.array([0, 7, 0], np.uint8)
    fidelity, score, consistency, shift = measured(result, truth, truth[::4, ::4], None)
    assert shift == 7 and np.isnan(score)
    # Green weighs 0.587 · 219/255 in the luma of BT.601; consistency sees the error of one channel in three.
    assert fidelity == pytest.approx(20 * np.log10(255 / (7 * 0.504)), abs=0.02)
    assert consistency == pytest.approx(20 * np.log10(255 * 3**0.5 / 7), abs=0.01)


def test_the_command_prints_a_line_for_each_damage_and_model_and_draws_a_sheet(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(photos), "--models", "bicubic", "--side", "128"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[damage, "bicubic"] for damage in DAMAGES]
    assert all(15 < float(line.split()[2]) < 60 for line in lines[1:])
    sheet = tmp_path / "sheet.png"
    crops = ["a:jpeg30:0:0", "b:scan:20:40"]
    main([str(photos), "--models", "bicubic", "--side", "128", "--sheet", str(sheet), "--crops", *crops, "--crop-side", "80"])
    picture = np.asarray(Image.open(sheet))
    assert picture.shape == (2 * 98, 2 * 84, 3)
    assert np.array_equal(picture[14:94, 84:164], centre(photos / "a.png", 128)[:80, :80])
