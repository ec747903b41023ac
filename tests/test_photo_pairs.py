"""scripts/make_photo_pairs.py: the sharpest crop of each photo, and its exact reduction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import make_photo
from make_photo_pairs import main, sharpest
from upframe.pixels import imresize

pytestmark = pytest.mark.slow


def test_a_pair_is_a_sharp_crop_and_its_bicubic_reduction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(make_photo(200, 260)).save(photos / "large.png")
    Image.fromarray(make_photo(100, 260)).save(photos / "small.png")
    command = [str(photos), "--out", str(tmp_path / "pairs"), "--side", "64", "--scale", "4"]
    main(command)
    assert capsys.readouterr().out.splitlines() == ["1/2 large.png: written", "2/2 small.png: too small"]
    sharp = np.asarray(Image.open(tmp_path / "pairs" / "gt" / "large_s2.png"))
    small = np.asarray(Image.open(tmp_path / "pairs" / "lq" / "large_s2.png"))
    shrunk = np.asarray(Image.fromarray(make_photo(200, 260)).reduce(2))
    places = ((y, x) for y in range(100 - 64 + 1) for x in range(130 - 64 + 1))
    assert any(np.array_equal(shrunk[y : y + 64, x : x + 64], sharp) for y, x in places)
    expected = imresize(torch.from_numpy(sharp.copy()).permute(2, 0, 1).double(), 0.25).permute(1, 2, 0).clamp(0, 255).numpy()
    assert np.abs(small - expected).max() <= 0.501  # float32 may round a half to the other side
    main(command)
    assert "large.png: there already" in capsys.readouterr().out


def test_of_several_crops_the_most_detailed_is_taken(tmp_path: Path) -> None:
    photo = np.full((64, 256, 3), 128, np.uint8)
    photo[:, 192:] = np.where(np.indices((64, 64)).sum(0)[..., None] % 2, 255, 0)  # detail at the right end only
    Image.fromarray(photo).save(tmp_path / "a.png")

    def share(draws: int) -> float:
        crops = [sharpest(tmp_path / "a.png", shrink=1, side=64, draws=draws, rng=np.random.default_rng(i)) for i in range(40)]
        return sum(crop is not None and crop.std() > 40 for crop in crops) / len(crops)

    assert share(8) > share(1) + 0.3  # about 1 - (1 - p)^8 for p of one in five
